"""``jobs`` and ``clean``: what runs left in the state folder and beside files."""

import json
import os
import time
from pathlib import Path

import pytest

from batchllm import InputError, UsageError, clean, jobs, run
from batchllm.errors import JobError
from batchllm.inspect.jobs import age_text
from batchllm.prepare.job_paths import rows_path
from tests.command import Command

ROWS = [{"text": "one"}, {"text": "two"}]


def aged(folder: Path, days: float) -> None:
    """Makes the files of a folder older."""
    then = time.time() - days * 86_400
    for path in folder.iterdir():
        os.utime(path, (then, then))


@pytest.fixture
def state(clean_environment: Path) -> Path:
    return clean_environment / ".local/state/batchllm"


def test_jobs_of_tables_and_of_folders_are_listed(state: Path, tmp_path: Path, batchllm: Command) -> None:
    run(ROWS, "classify", provider="simulator")
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n')
    run(tmp_path / "rows.jsonl", prompt="{{ text }}", provider="simulator")
    assert [(entry.task, entry.state, entry.rows, entry.answered) for entry in jobs()] == [
        ("classify", "finished", 2, 2)
    ]
    assert {entry.path.name for entry in jobs(tmp_path)} >= {"rows.run.simulated.jsonl"}
    said = batchllm("jobs", str(tmp_path))
    assert len(said.out.splitlines()) == 2
    assert "finished, 2 of 2 rows answered" in said.out
    as_json = [json.loads(line) for line in batchllm("jobs", "--json").out.splitlines()]
    assert as_json[0]["rows"] == 2
    assert as_json[0]["size_bytes"] > 0


def test_a_folder_of_outputs_below_is_listed_and_its_files_are_reused(
    tmp_path: Path, batchllm: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("text\nIt is good.\n")
    batchllm("classify", "a.csv", "b.csv", "-o", "out/", "--provider", "simulator")
    assert "out: finished, 2 of 2 rows answered" in batchllm("jobs", ".").out
    said = batchllm("classify", "a.csv", "-o", "c.csv", "--provider", "simulator", "--reuse", "out/a.csv")
    assert said.status == 0 and "Paid in this run" not in said.err, said.err


def test_clean_removes_old_finished_jobs_with_their_copies(state: Path, batchllm: Command) -> None:
    run(ROWS, "classify", provider="simulator")
    assert clean(older_than="1d") == []
    aged(state, 2)
    run(ROWS, prompt="{{ text }}", provider="simulator")
    said = batchllm("clean", "--older-than", "1d")
    assert "1 job removed" in said.err
    assert [entry.task for entry in jobs()] == ["run"]
    assert len(clean()) == 1
    assert list(state.iterdir()) == []


def test_clean_leaves_an_output_that_is_not_in_the_state_folder(tmp_path: Path) -> None:
    run(ROWS, "classify", provider="simulator", output=tmp_path / "out.csv")
    assert {path.name for path in tmp_path.iterdir()} == {"out.csv", "out.csv.journal", "out.csv.rows.jsonl"}
    assert len(clean(tmp_path)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


def test_an_unfinished_job_is_removed_only_by_force(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="max_requests="):
        run(ROWS, "classify", provider="simulator", output=tmp_path / "out.csv", max_requests=1)
    assert [entry.state for entry in jobs(tmp_path)] == ["unfinished"]
    assert clean(tmp_path) == []
    assert len(clean(tmp_path, force=True)) == 1


def test_a_journal_that_cannot_be_read_is_listed_and_left(tmp_path: Path) -> None:
    (tmp_path / "x.journal").write_bytes(b"something else")
    (entry,) = jobs(tmp_path)
    assert entry.task is None
    assert clean(tmp_path) == []
    with pytest.raises(InputError, match="no such folder"):
        jobs(tmp_path / "gone")
    with pytest.raises(UsageError, match="older_than must be a time"):
        clean(older_than="soon")


def test_the_command_asks_which_jobs(batchllm: Command) -> None:
    assert "--older-than 30d" in batchllm("clean").err
    said = batchllm("jobs").err
    assert "there are no jobs in " in said and "state" in said and "`batchllm jobs .`" in said


def test_ages_have_one_unit() -> None:
    assert [age_text(seconds) for seconds in (5, 60, 7200, 90_000, 200_000)] == [
        "5 s", "1 minute", "2 hours", "1 day", "2 days",
    ]  # fmt: skip


def test_rows_lie_beside_the_journal() -> None:
    assert rows_path(Path("a/out.csv.journal")) == Path("a/out.csv.rows.jsonl")
    assert rows_path(Path("a/mine.db")) == Path("a/mine.db.rows.jsonl")
