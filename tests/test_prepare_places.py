"""Files that cannot be written are found before anything is read, locked or sent, and a refusal leaves nothing."""

import errno
import gzip
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from batchllm.errors import CannotWrite
from batchllm.formats import AtomicFile
from batchllm.journal import JobLock, Journal
from batchllm.prepare.existing_output import check_output, existing_digest, exported_note
from tests.bench import Bench
from tests.command import Command

SIMULATOR = ("--provider", "simulator")
OLD_JOURNAL = gzip.decompress(Path(__file__).with_name("journal_of_0.1.gz").read_bytes())


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "in.csv"
    path.write_text("text\nhello\nworld\n")
    return path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("length", [234, 240, 250, 255, 300])
def test_a_name_too_long_for_the_files_beside_it_is_refused_before_the_first_request(
    bench: Bench, length: int
) -> None:
    bench.file("in.csv", "text\nhello\n")
    output = bench.folder / ("é" * ((length - 4) // 2) + "a" * ((length - 4) % 2) + ".csv")
    said = bench.run("classify", bench.folder / "in.csv", "-o", output, status=73)
    assert "too long" in said.err
    assert bench.bodies == []
    assert names(bench.folder) == {"in.csv"}


def test_the_longest_name_that_fits_is_written(bench: Bench) -> None:
    bench.file("in.csv", "text\nhello\n")
    bench.dictate("positive")
    bench.run("classify", bench.folder / "in.csv", "-o", bench.folder / ("a" * 229 + ".csv"))


def test_an_output_behind_a_link_is_checked_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "link.csv").symlink_to(tmp_path / ("a" * 240 + ".csv"))
    with pytest.raises(CannotWrite, match="too long"):
        AtomicFile(tmp_path / "link.csv").check()


@pytest.mark.parametrize("place", ["missing/out.csv", "in.csv/out.csv", "folder.csv"])
def test_a_place_where_no_output_can_be_is_73_and_leaves_nothing(
    batchllm: Command, table: Path, place: str
) -> None:
    (table.parent / "folder.csv").mkdir()
    said = batchllm("classify", table, *SIMULATOR, "-o", table.parent / place)
    assert said.status == 73
    assert names(table.parent) == {"in.csv", "folder.csv"}


def test_a_check_of_an_output_leaves_the_temporary_file_of_a_run_alone(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    with AtomicFile(path) as running:
        AtomicFile(path).check()
        running.write(b"a\n")
        running.commit()
    assert path.read_bytes() == b"a\n"
    assert names(tmp_path) == {"out.csv"}


@pytest.mark.parametrize("place", [".", "..", "/", "/dev/null", "/dev", "é" * 200])
def test_a_journal_that_is_no_file_is_wrong_use(batchllm: Command, table: Path, place: str) -> None:
    said = batchllm("classify", table, *SIMULATOR, "--journal", place)
    assert said.status in (2, 73), said.err
    assert "internal" not in said.err
    assert names(table.parent) == {"in.csv"}


@pytest.mark.parametrize("place", [".", "..", "/", ""])
@pytest.mark.parametrize(
    "words", [("status",), ("show", 1), ("export",), ("clean",), ("batches",), ("batches", "cancel")]
)
def test_a_folder_in_the_place_of_an_output_is_wrong_use(
    batchllm: Command, words: tuple[object, ...], place: str
) -> None:
    words = ("show", place, 1) if words[0] == "show" else (*words, place)
    said = batchllm(*words)
    assert said.status == 2
    assert "is a folder; name the OUTPUT of a job" in said.err


def test_reuse_of_a_folder_is_wrong_use(batchllm: Command, table: Path) -> None:
    said = batchllm("classify", table, *SIMULATOR, "--reuse", ".")
    assert (said.status, "is a folder" in said.err) == (2, True)


def test_a_summary_that_cannot_be_written_is_found_before_the_run(batchllm: Command, table: Path) -> None:
    said = batchllm("classify", table, *SIMULATOR, "--summary", table.parent / ("s" * 300))
    assert said.status == 73
    assert names(table.parent) == {"in.csv"}


@pytest.mark.parametrize("more", [(), ("--restart",)])
def test_a_refused_run_leaves_neither_lock_nor_journal(
    batchllm: Command, table: Path, more: tuple[str, ...]
) -> None:
    (table.parent / "out.csv").write_text("mine\n")
    said = batchllm("classify", table, *SIMULATOR, "-o", table.parent / "out.csv", *more)
    assert said.status == 2
    assert names(table.parent) == {"in.csv", "out.csv"}
    table.write_text("<html><body></body></html>")
    assert batchllm("classify", table, *SIMULATOR, "-o", table.parent / "new.csv").status == 65
    assert names(table.parent) == {"in.csv", "out.csv"}


def test_a_finished_run_leaves_output_and_journal(batchllm: Command, table: Path) -> None:
    assert batchllm("classify", table, *SIMULATOR, "-o", table.parent / "out.csv").status == 0
    assert names(table.parent) == {"in.csv", "out.csv", "out.csv.journal"}


def test_an_export_over_the_output_of_a_running_job_is_known_to_the_next_run(
    batchllm: Command, table: Path
) -> None:
    output = table.parent / "out.csv"
    words = ("classify", table, *SIMULATOR, "-o", output)
    assert batchllm(*words).status == 0
    output.unlink()
    with JobLock(table.parent / "out.csv.lock"):  # as a run has it
        assert batchllm("export", output, "-o", output).status == 0
        assert batchllm("export", output).status == 0
    (table.parent / "out.csv.journal").exists()
    table.write_text("text\nhello\nworld\nagain\n")
    assert batchllm(*words).status == 0
    assert len(output.read_text().splitlines()) == 4
    assert not exported_note(table.parent / "out.csv.journal").exists()
    output.write_text("edited\n")
    assert batchllm(*words).status == 2


def test_batches_passes_over_journals_that_it_cannot_read(
    batchllm: Command, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(table.parent)
    (table.parent / "a.csv.journal").write_bytes(OLD_JOURNAL)
    (table.parent / "b.csv.journal").write_bytes(b"no database at all")
    said = batchllm("batches")
    assert said.status == 0
    assert "a.csv.journal: this journal was written by batchllm 0.1" in said.err
    assert "b.csv.journal: not a journal of batchllm" in said.err
    assert batchllm("batches", "a.csv").status == 65


def damaged() -> bytes:
    return OLD_JOURNAL[:5000] + os.urandom(len(OLD_JOURNAL) - 5000)


@pytest.mark.parametrize(
    "content", [OLD_JOURNAL, damaged(), OLD_JOURNAL[:3000], b"\0" * 8192, b"torn"],
    ids=["old", "damaged", "cut", "zeros", "torn"],
)  # fmt: skip
@pytest.mark.parametrize("name", ["out.csv", "out.csv.journal"])
def test_clean_removes_a_journal_that_cannot_be_read_with_the_users_word(
    batchllm: Command, tmp_path: Path, content: bytes, name: str
) -> None:
    journal = tmp_path / "out.csv.journal"
    journal.write_bytes(content)
    said = batchllm("clean", tmp_path / name)
    assert said.status == 2
    assert "cannot be read" in said.err and "--force" in said.err and "--restart" not in said.err
    assert journal.exists()
    assert batchllm("clean", tmp_path / name, "--force").status == 0
    assert names(tmp_path) == set()


def test_clean_never_removes_the_database_of_another_program(batchllm: Command, tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "mine.journal")
    connection.execute("CREATE TABLE a(b)")
    connection.close()
    assert batchllm("clean", tmp_path / "mine.journal", "--force").status == 65
    assert (tmp_path / "mine.journal").exists()


def test_clean_removes_a_journal_in_which_nothing_was_sent(batchllm: Command, tmp_path: Path) -> None:
    Journal.open(tmp_path / "out.csv.journal").close()
    assert batchllm("clean", tmp_path / "out.csv").status == 0
    assert names(tmp_path) == set()


def test_an_output_that_cannot_be_read_is_refused_before_anything_is_paid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, opened = tmp_path / "out.csv", Path.open
    output.write_text("text\n")

    def refusing(path: Path, *mode: Any, **named: Any) -> Any:  # root may read everything
        if path == output:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, *mode, **named)

    monkeypatch.setattr(Path, "open", refusing)
    with pytest.raises(
        CannotWrite, match="out.csv cannot be read, which tells whose it is: Permission denied"
    ):
        check_output(output, written=None, force=False)
    check_output(output, written=None, force=True)
    assert existing_digest(output) is None
