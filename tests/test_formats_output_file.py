"""A file appears whole or not at all, and an error of the disk says what to do."""

import errno
import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from batchllm.errors import CannotWrite, StorageFailure
from batchllm.formats.output_file import AtomicFile, remove_leftovers


def written(path: Path, data: bytes = b"new") -> AtomicFile:
    with AtomicFile(path) as file:
        file.write(data)
        file.commit()
    return file


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_file_is_in_place_after_commit_only(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_bytes(b"old")
    with AtomicFile(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
        (temporary,) = (entry for entry in tmp_path.iterdir() if entry != path)
        assert mode(temporary) == 0o600
        file.commit()
        assert path.read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.csv"]
    assert file.sha256() == hashlib.sha256(b"new").hexdigest()


def test_an_exception_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), AtomicFile(path) as file:
        file.write(b"new")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.csv"]


def test_the_mode_is_that_of_the_file_before_or_private(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        written(tmp_path / "new")
        (tmp_path / "old").write_bytes(b"")
        (tmp_path / "old").chmod(0o640)
        written(tmp_path / "old")
    finally:
        os.umask(umask)
    assert mode(tmp_path / "new") == 0o600
    assert mode(tmp_path / "old") == 0o640


def test_a_symbolic_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    link = tmp_path / "out.csv"
    link.symlink_to(tmp_path / "data" / "real.csv")
    written(link)
    assert link.is_symlink()
    assert (tmp_path / "data" / "real.csv").read_bytes() == b"new"


def test_leftovers_of_this_output_go_and_others_stay(tmp_path: Path) -> None:
    ours = tmp_path / ".out.csv.0123456789abcdef.tmp"
    others = [
        tmp_path / name for name in (".out.csv.tmp", ".out2csv.0123456789abcdef.tmp", "out.csv.journal")
    ]
    for path in (ours, *others):
        path.write_bytes(b"")
    written(tmp_path / "out.csv")
    assert not ours.exists()
    assert all(path.exists() for path in others)
    remove_leftovers(tmp_path / "no folder" / "out.csv")


def failing(code: int, call: int = 1) -> Callable[..., int]:
    count = 0

    def fail(*arguments: object) -> int:
        nonlocal count
        count += 1
        if count >= call:
            raise OSError(code, os.strerror(code))
        return 0

    return fail


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.ENOSPC, CannotWrite),
        (errno.EDQUOT, CannotWrite),
        (errno.EROFS, CannotWrite),
        (errno.EACCES, CannotWrite),
        (errno.EIO, StorageFailure),
    ],
)
@pytest.mark.parametrize("call", ["open", "write"])
def test_an_error_of_the_disk_is_told_apart_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int, kind: type[Exception]
) -> None:
    monkeypatch.setattr(f"batchllm.formats.output_file.os.{call}", failing(code))
    with pytest.raises(kind, match=f"out.csv: cannot be .*{os.strerror(code)}"):
        written(tmp_path / "out.csv")
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("call", "names"), [(1, []), (2, ["out.csv"])])
def test_a_failing_fsync_of_file_or_folder_is_a_failing_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int, names: list[str]
) -> None:
    monkeypatch.setattr("batchllm.formats.output_file.os.fsync", failing(errno.ENOSPC, call))
    with pytest.raises(StorageFailure, match="fsync"):
        written(tmp_path / "out.csv")
    assert [path.name for path in tmp_path.iterdir()] == names


def test_a_failing_rename_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "out.csv").mkdir()
    with pytest.raises(CannotWrite, match="put in place"):
        written(tmp_path / "out.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


def test_a_folder_that_is_not_there_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(CannotWrite, match="No such file"):
        written(tmp_path / "none" / "out.csv")


def test_a_short_write_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.write
    monkeypatch.setattr(
        "batchllm.formats.output_file.os.write", lambda file, data: whole(file, bytes(data[:7]))
    )
    written(tmp_path / "out.csv", b"0123456789" * 10)
    assert (tmp_path / "out.csv").read_bytes() == b"0123456789" * 10


def test_file_and_folder_are_synced_around_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, bool]] = []
    path = tmp_path / "out.csv"

    def sync(descriptor: int) -> None:
        seen.append((stat.S_ISDIR(os.fstat(descriptor).st_mode), path.exists()))

    monkeypatch.setattr("batchllm.formats.output_file.os.fsync", sync)
    written(path)
    assert seen == [(False, False), (True, True)]
