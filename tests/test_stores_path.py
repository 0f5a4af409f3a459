"""A URL where a path is expected: it has the names of a path, and finds the objects that it means."""

import copy
import glob
import pickle
from pathlib import Path

import pytest

from batchllm import stores
from batchllm.errors import UsageError
from batchllm.stores import ObjectPath, beside_on_disk, located, object_url
from tests.object_store import ObjectStore


def test_what_looks_like_a_url_is_one_and_everything_else_is_a_path() -> None:
    assert type(located("data/a.csv")) is type(Path())
    assert isinstance(located("s3://bucket/a.csv"), ObjectPath)
    assert located(Path("s3://bucket/a.csv")) == located("s3://bucket/a.csv")
    with pytest.raises(UsageError, match="unknown kind of URL"):
        located("ftp://host/a.csv")


def test_it_has_the_names_of_a_path_and_the_text_of_the_url() -> None:
    path = located("s3://bucket/in/a.csv.gz")
    assert (str(path), path.name, path.stem, path.suffix) == (
        "s3://bucket/in/a.csv.gz",
        "a.csv.gz",
        "a.csv",
        ".gz",
    )
    assert (str(path.parent), str(path.with_suffix(""))) == ("s3://bucket/in/", "s3://bucket/in/a.csv")
    assert str(path.parent / "b.csv") == str(path.with_name("b.csv")) == "s3://bucket/in/b.csv"
    assert path.absolute() is path.resolve() is path.expanduser() is path and path.is_absolute()
    assert sorted([path, located("s3://bucket/a")])[0].name == "a"
    assert beside_on_disk(path, "x.html") == Path("x.html")


def test_copies_keep_the_signature_and_nothing_shows_it() -> None:
    path = located("https://host/a.csv?sig=hunter2")
    assert isinstance(path, ObjectPath)
    for each in (copy.copy(path), copy.deepcopy(path), pickle.loads(pickle.dumps(path))):
        assert each == path and hash(each) == hash(path) and each.url.query == "sig=hunter2"
    shown = f"{path} {path!r} {path.__fspath__()} {path.as_posix()} {path.parent} {path.with_name('b')}"
    assert "hunter2" not in shown


def test_nothing_on_disk_is_found_under_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError):
        located("s3://bucket/a.csv").open("wb")
    assert list(tmp_path.iterdir()) == []


def test_folders_and_patterns_mean_what_they_mean_on_disk(
    object_store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bucket = object_store.new_bucket()
    names = [
        "a.csv",
        "b.csv",
        "B.csv",
        "c.jsonl",
        "sub/d.csv",
        "sub/deep/e.csv",
        ".hidden.csv",
        "sub/.h/f.csv",
        "a1.csv",
    ]
    for name in names:
        stores.put(object_url(f"s3://{bucket}/in/{name}"), b"text\nx\n")
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).touch()
    folder = located(f"s3://{bucket}/in/")
    assert folder.is_dir() and not (folder / "a.csv").is_dir()
    assert [path.name for path in sorted(folder.iterdir())] == sorted(
        path.name for path in Path("in").iterdir() if path.is_file()
    )
    for pattern in (
        "*.csv",
        "a*",
        "[ab].csv",
        "?.csv",
        "*/*.csv",
        "**/*.csv",
        "s*/**/*.csv",
        "**/e.csv",
        "none*",
        ".*",
    ):
        found = located(f"s3://{bucket}/in/{pattern}")
        assert isinstance(found, ObjectPath) and found.is_pattern
        matched = sorted(f"in/{each}" for each in glob.glob(pattern, root_dir="in", recursive=True))
        files = [each for each in matched if Path(each).is_file()]
        assert [path.url.key for path in found.matches()] == files, pattern
    stores.put(object_url(f"s3://{bucket}/in/[ab].csv"), b"text\nx\n")
    assert [path.name for path in ObjectPath(f"s3://{bucket}/in/[ab].csv").matches()] == ["[ab].csv"]
    assert not ObjectPath(f"s3://{bucket}/in/a.csv").is_pattern
    assert not ObjectPath("https://host/a*.csv").is_pattern
