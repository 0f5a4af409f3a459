"""What readers see, also while a run writes: rows in order, every attempt, counts, answers to reuse."""

import asyncio
import gc
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from batchllm.errors import InputError, NotNow
from batchllm.journal import Journal, JournalReader, RowCounts, State
from batchllm.records import Failure, FailureKind, Paid
from tests.journal_jobs import admit, answer_to, finished_job, key_of, response, run, save, ticking


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out.csv.journal"


async def mixed(journal: Journal) -> None:
    """A row of each kind: answered, failed, unanswered, open, skipped, unsendable, failed without being sent."""
    journal.begin_plan("job")
    rows = await admit(journal, ["a", "b", "c", "d", None])
    await journal.admit([(5, None, "image not found"), (6, key_of("g"), None)])
    ids = await journal.intend([row.request_id or 0 for row in rows[:3]])
    await save(journal, ids[0], response(b"A"))
    await save(journal, ids[1], response(b"bad request", status=400))
    await save(journal, ids[2], Failure(FailureKind.TIMEOUT, "no answer in 600 s", Paid.MAYBE, 600.0, b"par"))
    journal.record_outcome(rows[0].request_id or 0, State.ANSWERED, ids[0], 1)
    journal.record_outcome(rows[1].request_id or 0, State.FAILED, ids[1], 1)
    journal.record_outcome(rows[2].request_id or 0, State.UNANSWERED, ids[2], 3)
    journal.record_outcome(5, State.FAILED, None, 0)


def test_every_kind_of_row_is_told_apart(path: Path) -> None:
    async def whole() -> None:
        with Journal.open(path, clock=ticking().__next__) as journal:
            await mixed(journal)
            journal.close(69)

    asyncio.run(whole())
    with JournalReader.open(path) as reader:
        entries = list(reader.outcomes())
        assert [(e.row_index, e.unsent_reason, e.state, e.attempts, e.status, e.body) for e in entries] == [
            (0, None, State.ANSWERED, 1, 200, b"A"),
            (1, None, State.FAILED, 1, 400, b"bad request"),
            (2, None, State.UNANSWERED, 3, None, b"par"),
            (3, None, State.OPEN, 0, None, b""),
            (4, "skipped", None, 0, None, b""),
            (5, "image not found", None, 0, None, b""),
            (6, None, State.FAILED, 0, None, b""),
        ]
        assert (entries[2].failure, entries[2].message, entries[2].possibly_billed) == (
            "timeout",
            "no answer in 600 s",
            True,
        )
        assert (entries[2].latency_s, entries[2].attempt_id) == (600.0, 3)
        assert entries[0].received_at == 1_700_000_002
        assert list(reader.outcomes(start=5)) == entries[5:]
        assert reader.counts() == RowCounts(
            rows=7, answered=1, failed=2, unanswered=1, open=1, skipped=1, unsendable=1
        )
        assert reader.count_answered() == 1
        assert reader.count_attempts() == (3, 1)
        assert not reader.finished
        assert [attempt.outcome for attempt in reader.attempts_of(2)] == [
            response(b"bad request", status=400)
        ]
        assert reader.attempts_of(4) == []
        assert reader.row(6).key == key_of("g")
        with pytest.raises(InputError, match="row 8 is not in the journal"):
            reader.row(7)


def test_all_attempts_of_a_row_are_kept_over_runs(path: Path) -> None:
    async def try_once(status: int) -> None:
        with Journal.open(path) as journal:
            plan = journal.begin_plan("job")
            (row,) = list(journal.planned()) if plan.rows else await admit(journal, "a")
            (attempt_id,) = await journal.intend([row.request_id or 0])
            await save(journal, attempt_id, response(b"%d" % status, status=status, retry_after="2"))
            state = State.ANSWERED if status == 200 else State.UNANSWERED
            journal.record_outcome(row.request_id or 0, state, attempt_id, row.attempts + 1)

    for status in (500, 503, 200):
        asyncio.run(try_once(status))
    with JournalReader.open(path) as reader:
        attempts = reader.attempts_of(1)
        assert [attempt.run_id for attempt in attempts] == [1, 2, 3]
        assert attempts[0].outcome == response(b"500", status=500, retry_after="2")
        assert reader.response_of(3) == response(b"200", retry_after="2")
        assert next(reader.outcomes()).attempts == 3
        with pytest.raises(InputError, match="attempt 9 is missing"):
            reader.response_of(9)


def test_other_processes_read_while_a_run_writes(path: Path) -> None:
    """Also with the sqlite3 program, for which the standard library's is a stand-in here."""
    program = (
        "import sqlite3, sys; c = sqlite3.connect(f'file:{sys.argv[1]}?mode=ro', uri=True);"
        "print(c.execute('SELECT count(*) FROM reply').fetchone()[0])"
    )

    async def whole() -> None:
        with Journal.open(path) as journal:
            journal.begin_plan("job")
            rows = await admit(journal, range(30))
            ids = await journal.intend([row.request_id or 0 for row in rows])
            for done, (row, attempt_id) in enumerate(zip(rows, ids, strict=True), 1):
                await save(journal, attempt_id, response(b"%d" % done))
                journal.record_outcome(row.request_id or 0, State.ANSWERED, attempt_id, 1)
                if done % 10 == 0:
                    await journal.flush()
                    with JournalReader.open(path) as reader:
                        assert reader.counts().answered == done
                        assert len([e for e in reader.outcomes() if e.state is State.ANSWERED]) == done
                        assert not reader.finished
                    seen = subprocess.run(
                        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True
                    )
                    assert int(seen.stdout) == done

    asyncio.run(whole())


def test_a_view_that_is_half_read_keeps_its_instant(path: Path) -> None:
    """An export of a running job is of one moment, whatever is written meanwhile."""

    async def whole() -> None:
        with Journal.open(path) as journal:
            journal.begin_plan("job")
            await admit(journal, range(100))
            with JournalReader.open(path) as reader:
                rows = reader.outcomes()
                next(rows)
                await admit(journal, range(100, 200), 100)
                assert sum(1 for _ in rows) == 99
                assert sum(1 for _ in reader.outcomes()) == 200

    asyncio.run(whole())


def test_reading_a_finished_job_leaves_no_files(path: Path) -> None:
    finished_job(path, "abc")
    with JournalReader.open(path) as reader:
        assert len(list(reader.outcomes())) == 3
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_run_that_begins_while_a_finished_job_is_read_is_noticed(path: Path) -> None:
    finished_job(path, "abc")
    with (
        JournalReader.open(path) as reader,
        Journal.open(path),
        pytest.raises(NotNow, match="same command again"),
    ):
        reader.counts()


def test_a_reader_cannot_write(path: Path) -> None:
    finished_job(path, "abc")
    with Journal.open(path), JournalReader.open(path) as reader, pytest.raises(Exception, match="readonly"):
        reader.select("DELETE FROM reply")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_journal_in_a_folder_without_permission_can_be_read(path: Path) -> None:
    finished_job(path, "abc")
    path.parent.chmod(0o500)
    with JournalReader.open(path) as reader:
        assert len(list(reader.outcomes())) == 3
    path.parent.chmod(0o700)


def test_known_rows_can_be_read_in_step_with_new_ones(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runner admits the rows between the known ones while it reads on."""
    monkeypatch.setattr("batchllm.journal.reader._PAGE", 3)

    async def whole() -> None:
        with Journal.open(path, threaded=False) as journal:
            journal.begin_plan("job")
            sampled = [2, 3, 7, 11, 12, 13, 19]
            for row_index in sampled:
                await admit(journal, [row_index], row_index)
            known = journal.planned()
            ahead = next(known, None)
            seen = []
            for row_index in range(20):
                if ahead is not None and ahead.row_index == row_index:
                    seen.append(row_index)
                    ahead = next(known, None)
                else:
                    await admit(journal, [row_index], row_index)
            assert seen == sampled
            assert journal.reader().counts().rows == 20

    asyncio.run(whole())


def test_answers_are_found_for_other_jobs_by_key_and_ordinal(path: Path) -> None:
    finished_job(path, ["a", "b", "a"])
    with JournalReader.open(path) as reader:
        wanted = [(key_of(name), ordinal) for name in "abc" for ordinal in (0, 1, 2)] * 20
        found = reader.answers_for(wanted)
        assert {place: stored.response.body for place, stored in found.items()} == {
            (key_of("a"), 0): answer_to("a", 0),
            (key_of("a"), 1): answer_to("a", 1),
            (key_of("b"), 0): answer_to("b", 0),
        }
        assert reader.answers_for([]) == {}


def test_values_stored_under_names_come_back(path: Path) -> None:
    value = {"rpm": 600, "lanes": {"gpt-5": [1.5, None, True, "grün \ud800"]}}
    with Journal.open(path) as journal:
        assert journal.get("learned") is None
        journal.put("learned", value)
        assert journal.get("learned") == value
    with Journal.open(path) as journal:
        assert journal.get("learned") == value
        journal.put("learned", 2)
    with JournalReader.open(path) as reader:
        assert reader.get("learned") == 2
        assert reader.get("other") is None


def test_nothing_of_a_row_stays_in_memory(path: Path) -> None:
    async def whole() -> int:
        with Journal.open(path, threaded=False) as journal:
            journal._store.connection.execute("PRAGMA synchronous=OFF")  # quick; nothing crashes here
            await run(journal, range(200), identity="warm up")
            names = [f"row {row}" for row in range(2500)]
            tracemalloc.start()
            try:
                await run(journal, names, identity="job")
                for _ in journal.planned():
                    pass
                for _ in journal.reader().outcomes():
                    pass
                gc.collect()
                return tracemalloc.get_traced_memory()[0]
            finally:
                tracemalloc.stop()

    assert asyncio.run(whole()) < 2500 * 20
