"""Where a journal may lie, what is refused, and who may read it."""

import gzip
import os
import sqlite3
import stat
from pathlib import Path

import pytest

import batchllm
from batchllm.errors import CannotWrite, InputError
from batchllm.journal import (
    JobLock,
    Journal,
    JournalReader,
    check_folder,
    check_space,
    remove,
    set_aside,
    state_path,
)
from batchllm.journal.database import APPLICATION_ID, VERSION
from batchllm.journal.files import filesystem_of
from batchllm.prepare.existing_output import known_files
from tests.journal_jobs import finished_job

as_a_user = pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out.csv.journal"


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_every_file_is_private_from_its_first_instant_whatever_the_umask(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The modes are asked for at creation; no chmod comes after."""
    asked: list[tuple[str, int]] = []
    real = os.open

    def noting(name: "str | Path", flags: int, mode: int = 0o777, **more: int) -> int:
        if flags & os.O_CREAT:
            asked.append((Path(name).name, mode))
        return real(name, flags, mode, **more)

    monkeypatch.setattr(os, "open", noting)
    before = os.umask(0)
    try:
        lock = JobLock(path.with_suffix(".lock"))
        with lock, Journal.open(path) as journal:
            journal.begin_plan("job")
            modes = {entry.name: mode_of(entry) for entry in path.parent.iterdir()}
    finally:
        os.umask(before)
    assert modes == dict.fromkeys((path.name, f"{path.name}-wal", f"{path.name}-shm", "out.csv.lock"), 0o600)
    assert {mode for _, mode in asked} == {0o600}


def test_a_new_journal_has_its_schema_and_its_name(path: Path) -> None:
    with Journal.open(path) as journal:
        assert journal.new
        assert journal.run_id == 1
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
    assert connection.execute("PRAGMA user_version").fetchone() == (VERSION,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    names = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY 1").fetchall()
    assert [name for (name,) in names] == [
        "attempt", "batch", "kept", "meta", "reply", "request", "row", "run",
    ]  # fmt: skip
    connection.close()
    with Journal.open(path) as journal:
        assert not journal.new
        assert journal.run_id == 2


def test_what_a_crash_left_of_a_half_made_journal_does_not_matter(path: Path) -> None:
    new_path = path.with_name(path.name + ".new")
    new_path.write_bytes(b"half a schema")
    for suffix in ("-wal", "-shm", "-journal"):
        Path(f"{new_path}{suffix}").write_bytes(b"rubbish")
    Path(f"{path}-wal").write_bytes(b"of a journal that is no more")
    with Journal.open(path) as journal:
        assert journal.new
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_link_planted_at_the_new_path_is_not_followed(path: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    path.with_name(path.name + ".new").symlink_to(victim)
    Journal.open(path).close()
    assert victim.read_text() == "precious"
    assert not path.is_symlink()


@pytest.mark.parametrize("opened", [Journal.open, JournalReader.open], ids=["writer", "reader"])
def test_what_is_no_journal_is_refused_and_left_alone(path: Path, opened: type) -> None:
    def refused(match: str) -> None:
        with pytest.raises(InputError, match=match):
            opened(path)

    path.write_text("name,text\n1,hello\n" * 100)
    before = path.read_bytes()
    refused("not a journal")
    assert path.read_bytes() == before
    path.write_bytes(b"")
    refused("empty")
    path.unlink()
    path.mkdir()
    refused("not an ordinary file")
    path.rmdir()
    target = path.with_name("target")
    Journal.open(target).close()
    path.symlink_to(target)
    refused("symbolic link")
    path.unlink()
    os.mkfifo(path)
    refused("not an ordinary file")


@pytest.mark.parametrize("opened", [Journal.open, JournalReader.open], ids=["writer", "reader"])
def test_a_journal_of_the_first_version_is_refused_with_the_version_that_can_export_it(
    path: Path, opened: type
) -> None:
    """The file was written by batchllm 0.1.0."""
    written = gzip.decompress(Path(__file__).with_name("journal_of_0.1.gz").read_bytes())
    path.write_bytes(written)
    with pytest.raises(InputError) as caught:
        opened(path)
    assert str(caught.value) == (
        f"{path}: this journal was written by batchllm 0.1; export it with that version "
        "(pip install 'batchllm-cli==0.1.*'), or run the job with --restart, which keeps it aside"
    )
    assert not batchllm.__version__.startswith("0.1.")
    assert path.read_bytes() == written
    with known_files(path) as known:
        assert known("output") == {"sha256": "00", "replaces": False}
    aside = set_aside(path)
    assert aside is not None
    assert aside.read_bytes() == written


@pytest.mark.parametrize("opened", [Journal.open, JournalReader.open], ids=["writer", "reader"])
@pytest.mark.parametrize(
    ("pragma", "match"),
    [("user_version = 3", "version 3"), ("application_id = 7", "not a journal of batchllm")],
)
def test_another_version_or_program_is_refused_in_one_sentence(
    path: Path, opened: type, pragma: str, match: str
) -> None:
    finished_job(path, "ab")
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA {pragma}")
    connection.close()
    with pytest.raises(InputError, match=match) as caught:
        opened(path)
    assert "\n" not in str(caught.value)


def test_there_is_nothing_to_read_where_no_job_ran(path: Path) -> None:
    with pytest.raises(InputError, match="no journal"):
        JournalReader.open(path)
    assert not path.exists()


def test_room_is_checked_in_bytes(tmp_path: Path) -> None:
    check_space(tmp_path, 1)
    with pytest.raises(CannotWrite, match="MB free"):
        check_space(tmp_path, 1 << 60)
    with pytest.raises(CannotWrite):
        check_space(tmp_path / "missing", 1)


def test_a_missing_folder_is_found_before_anything_is_paid(tmp_path: Path) -> None:
    check_folder(tmp_path / "out.journal")
    with pytest.raises(CannotWrite, match="not a folder"):
        check_folder(tmp_path / "missing" / "out.journal")
    (tmp_path / "file").touch()
    with pytest.raises(CannotWrite, match="not a folder"):
        check_folder(tmp_path / "file" / "out.journal")
    with pytest.raises(CannotWrite):
        Journal.open(tmp_path / "missing" / "out.journal")


@as_a_user
def test_a_folder_without_permission_is_found_before_anything_is_paid(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(CannotWrite, match="cannot be written"):
        check_folder(tmp_path / "out.journal")
    with pytest.raises(CannotWrite):
        Journal.open(tmp_path / "out.journal")
    tmp_path.chmod(0o700)


@pytest.mark.parametrize(
    "kind", ["nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "fuse.s3fs", "ext4", "fuse.fuse-overlayfs"]
)
def test_network_filesystems_are_refused_with_the_way_out(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "share with space" / "deep"
    folder.mkdir(parents=True)
    mounts = tmp_path / "mountinfo"
    point = str(folder.parent).replace(" ", "\\040")
    mounts.write_text(
        "22 27 0:21 / / rw,relatime - ext4 /dev/vda rw\n"
        f"30 22 0:28 / {point} rw,relatime shared:1 - {kind} host:/export rw\n"
        f"31 22 0:29 / {point}-other rw - nfs host:/other rw\n"
    )
    assert filesystem_of(folder, mounts) == kind
    if kind in ("ext4", "fuse.fuse-overlayfs"):
        check_folder(folder / "j", mounts=mounts)
    else:
        with pytest.raises(CannotWrite, match="--journal PATH"):
            check_folder(folder / "j", mounts=mounts)


def test_where_the_kernel_lists_no_mounts_nothing_is_refused(tmp_path: Path) -> None:
    check_folder(tmp_path / "j", mounts=tmp_path / "no such file")


def test_the_state_folder_is_the_users(
    clean_environment: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert state_path("a.journal") == clean_environment / ".local/state/batchllm/a.journal"
    assert mode_of(clean_environment / ".local/state/batchllm") == 0o700
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert state_path("a.journal") == tmp_path / "state/batchllm/a.journal"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert state_path("a.journal") == clean_environment / ".local/state/batchllm/a.journal"
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with pytest.raises(CannotWrite, match="--journal PATH"):
        state_path("a.journal")


def test_starting_over_keeps_every_old_journal_aside(path: Path) -> None:
    assert set_aside(path) is None
    for number in (1, 2, 3):
        finished_job(path, "a" * number)
        assert set_aside(path) == path.with_name(f"{path.name}.{number}")
        assert not path.exists()
        with JournalReader.open(path.with_name(f"{path.name}.{number}")) as reader:
            assert reader.count_answered() == number


def test_what_a_dead_run_wrote_goes_aside_with_its_journal(path: Path) -> None:
    finished_job(path, "ab")
    journal = Journal.open(path, threaded=False)
    journal.put("left", "in the log")
    journal.reader()
    wal = Path(f"{path}-wal").read_bytes()
    journal.close()
    Path(f"{path}-wal").write_bytes(wal)  # as a kill would have left it
    aside = set_aside(path)
    assert aside is not None
    with JournalReader.open(aside) as reader:
        assert reader.get("left") == "in the log"
    assert [entry.name for entry in path.parent.iterdir()] == [aside.name]


def test_even_a_wreck_can_be_set_aside_and_its_log_is_not_replayed(path: Path) -> None:
    path.write_bytes(b"wreck" * 1000)
    Path(f"{path}-wal").write_bytes(b"log of the wreck")
    aside = set_aside(path)
    assert aside is not None
    assert aside.read_bytes().startswith(b"wreck")
    with Journal.open(path) as journal:
        assert journal.new


def test_removing_leaves_nothing(path: Path) -> None:
    finished_job(path, "a")
    Path(f"{path}-wal").touch()
    Path(f"{path}-shm").touch()
    remove(path)
    assert list(path.parent.iterdir()) == []
    remove(path)
