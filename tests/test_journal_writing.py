"""What a run writes: durable when awaited, in groups, the same with and without a thread."""

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from batchllm.errors import JobError
from batchllm.journal import Journal, JournalReader, State, bulk, database
from batchllm.journal.store import Store
from batchllm.records import Failure, FailureKind, Paid, Response
from tests.journal_jobs import admit, answer_to, key_of, response, run, save, ticking


def dump(path: Path) -> list[str]:
    """All of a closed journal, as SQL."""
    with sqlite3.connect(path) as connection:
        lines = list(connection.iterdump())
    connection.close()
    return lines


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out.csv.journal"


NAMES = ["a", "b", "a", None, "c", "a", "b", "d", "e", "f", "a"]


@pytest.mark.parametrize("dedupe", [False, True])
def test_the_thread_and_the_inline_mode_write_the_same_database(tmp_path: Path, dedupe: bool) -> None:
    paths = {threaded: tmp_path / f"{threaded}.journal" for threaded in (True, False)}

    async def whole(threaded: bool) -> None:
        with Journal.open(
            paths[threaded], threaded=threaded, clock=ticking().__next__, version="1"
        ) as journal:
            journal.put("source", {"rows": 11})
            await run(journal, NAMES, dedupe=dedupe)
            again = await admit(journal, ["late"], 11)
            (attempt_id,) = await journal.intend([again[0].request_id or 0])
            await save(journal, attempt_id, Failure(FailureKind.TIMEOUT, "it hung", Paid.MAYBE, 9.0, b"{"))
            journal.record_outcome(again[0].request_id or 0, State.UNANSWERED, attempt_id, 1)
            journal.close(69)

    for threaded in paths:
        asyncio.run(whole(threaded))
    assert dump(paths[True]) == dump(paths[False])


def test_inline_futures_are_done_when_they_are_returned(path: Path) -> None:
    async def whole() -> None:
        with Journal.open(path, threaded=False) as journal:
            journal.begin_plan("job")
            admitting = journal.admit([(0, key_of("a"), None)])
            assert admitting.done()
            intending = journal.intend([admitting.result()[0].request_id or 0])
            assert intending.done()
            assert save(journal, intending.result()[0], response(b"x")).done()

    asyncio.run(whole())


def test_many_saves_share_one_commit(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits while the disk is busy goes down together."""
    groups: list[int] = []
    busy, gathered = threading.Event(), threading.Event()
    write = Store.write

    def slow(self: Store, rows: Sequence[bulk.BulkRow], calls: Sequence[Any] = ()) -> list[Any]:
        if rows:
            groups.append(sum(row[0] == bulk.REPLY for row in rows))
            busy.set()
            assert gathered.wait(10)
        return write(self, rows, calls)

    async def whole() -> None:
        with Journal.open(path) as journal:
            journal.begin_plan("job")
            rows = await admit(journal, range(100))
            attempt_ids = await journal.intend([row.request_id or 0 for row in rows])
            monkeypatch.setattr(Store, "write", slow)
            first = save(journal, attempt_ids[0], response(b"first"))
            await asyncio.to_thread(busy.wait, 10)
            rest = [save(journal, attempt_id, response(b"x")) for attempt_id in attempt_ids[1:]]
            gathered.set()
            await asyncio.gather(first, *rest)

    asyncio.run(whole())
    assert groups == [1, 99]


class Counted:
    """A connection that counts what it is asked for."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.statements: list[str] = []

    def execute(self, statement: str, cells: Sequence[Any] = ()) -> sqlite3.Cursor:
        self.statements.append(statement)
        return self.connection.execute(statement, cells)


@pytest.mark.parametrize("size", [1, 5, 64, 170])
def test_a_group_without_new_rows_is_one_statement(path: Path, size: int) -> None:
    """Each statement is a hand-over of the interpreter's lock; intents, replies and ends of all rows share one."""

    async def whole() -> None:
        with Journal.open(path, threaded=False) as journal:
            journal.begin_plan("job")
            rows = await admit(journal, range(2 * size))
            first, second = rows[:size], rows[size:]
            ids = await journal.intend([row.request_id or 0 for row in first])
            await journal.save_all([(attempt_id, response(b"x" * 500)) for attempt_id in ids])
            for row, attempt_id in zip(first, ids, strict=True):
                journal.record_outcome(row.request_id or 0, State.ANSWERED, attempt_id, 1)
            counted = Counted(journal._store.connection)
            journal._store.connection = counted  # type: ignore[assignment]
            await journal.intend([row.request_id or 0 for row in second])
            journal._store.connection = counted.connection
            assert len(counted.statements) == 1
            assert journal.reader().counts().answered == size

    asyncio.run(whole())


def test_a_group_larger_than_a_statement_is_written_whole_or_not_at_all(path: Path) -> None:
    async def whole() -> None:
        with Journal.open(path, threaded=False) as journal:
            journal.begin_plan("job")
            rows = await admit(journal, range(2 * bulk.MAX_ROWS))
            ids = await journal.intend([row.request_id or 0 for row in rows])
            with pytest.raises(JobError):
                await journal.save_all([(attempt_id, response(b"x")) for attempt_id in [*ids, ids[0]]])

    asyncio.run(whole())
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM reply").fetchone() == (0,)
    connection.close()


@pytest.mark.parametrize("number", [0, 1, 5, bulk.MAX_ROWS, bulk.MAX_ROWS + 1, 2 * bulk.MAX_ROWS + 7])
def test_any_number_of_rows_is_written_and_found_again(number: int) -> None:
    query = bulk.BulkQuery("key", "SELECT meta.key, value FROM wanted JOIN meta ON meta.key = wanted.key")
    with sqlite3.connect(":memory:") as connection:
        connection.executescript(database.SCHEMA)
        bulk.prepare(connection)
        rows = [bulk.meta_row(f"key {i}", str(i)) for i in range(number)]
        bulk.RUN_ROWS.insert(connection, rows)
        assert connection.execute("SELECT count(*) FROM meta").fetchone() == (number,)
        assert query.fetch(connection, [(row[1],) for row in rows]) == [row[1:3] for row in rows]
    connection.close()


def test_what_is_missing_in_a_row_is_null(path: Path) -> None:
    """Every kind of row has its own statement, and each has to turn the sign for it back."""

    async def whole() -> None:
        with Journal.open(path) as journal:
            journal.begin_plan("job")
            first, second, _ = await admit(journal, ["a", "b", None])
            (attempt_id,) = await journal.intend([first.request_id or 0])
            await save(journal, attempt_id, response(b"x"))
            journal.record_outcome(second.request_id or 0, State.FAILED, None, 0)

    asyncio.run(whole())
    found: dict[str, list[list[str]]] = {}
    with sqlite3.connect(path) as connection:
        connection.row_factory = sqlite3.Row
        for table in ("row", "request", "attempt", "reply"):
            found[table] = [
                [name for name in row.keys() if row[name] is None]  # noqa: SIM118 - a Row iterates over values
                for row in connection.execute(f"SELECT * FROM {table}")
            ]
            assert -1 not in [cell for row in connection.execute(f"SELECT * FROM {table}") for cell in row]
    connection.close()
    assert found == {
        "row": [["unsent_reason", "state"], ["unsent_reason", "state"], ["request_id", "state"]],
        "request": [["attempt_id", "root_id", "path", "body_key"]] * 2,
        "attempt": [["endpoint"]],
        "reply": [["failure", "message", "possibly_billed", "headers"]],
    }


def test_a_save_is_on_the_disk_when_it_returns(path: Path) -> None:
    """Every awaited save is visible to another process's connection, and was committed with FULL."""

    async def whole() -> None:
        with Journal.open(path) as journal:
            assert journal._store.connection.execute("PRAGMA synchronous").fetchone() == (2,)
            journal.begin_plan("job")
            rows = await admit(journal, range(5))
            attempt_ids = await journal.intend([row.request_id or 0 for row in rows])
            for attempt_id in attempt_ids:
                await save(journal, attempt_id, response(b"%d" % attempt_id))
                other = sqlite3.connect(path)
                query = "SELECT body FROM reply WHERE attempt_id = ?"
                assert other.execute(query, (attempt_id,)).fetchone() == (b"%d" % attempt_id,)
                other.close()

    asyncio.run(whole())


def test_the_database_is_set_up_to_lose_nothing(path: Path) -> None:
    journal = Journal.open(path, threaded=False)
    found = {
        name: journal._store.connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("journal_mode", "synchronous", "fullfsync", "temp_store", "mmap_size", "busy_timeout")
    }
    journal.close()
    assert found == {
        "journal_mode": "wal", "synchronous": 2, "fullfsync": 1, "temp_store": 2, "mmap_size": 0,
        "busy_timeout": 5000,
    }  # fmt: skip


def test_attempt_ids_are_never_used_twice_whatever_the_run(path: Path) -> None:
    seen: list[int] = []

    async def whole() -> None:
        with Journal.open(path) as journal:
            journal.begin_plan("job")
            (row,) = await admit(journal, ["a"])
            for _ in range(3):
                seen.extend(await journal.intend([row.request_id or 0] * 2))

    for _ in range(3):
        asyncio.run(whole())
    assert seen == list(range(1, 19))


def test_an_outcome_is_written_with_the_next_commit_and_a_reader_shows_it_at_once(path: Path) -> None:
    async def whole() -> None:
        with Journal.open(path) as journal:
            journal.begin_plan("job")
            (row,) = await admit(journal, ["a"])
            (attempt_id,) = await journal.intend([row.request_id or 0])
            await save(journal, attempt_id, response(b"x"))
            journal.record_outcome(row.request_id or 0, State.FAILED, attempt_id, 1)
            journal.record_outcome(row.request_id or 0, State.ANSWERED, attempt_id, 2)
            (known,) = journal.planned()
            assert (known.state, known.attempts, known.attempt_id) == (State.ANSWERED, 2, attempt_id)

    asyncio.run(whole())


def test_a_row_admitted_after_the_outcome_of_its_twin_sees_it(path: Path) -> None:
    """With deduplication, the twin of a row that has just ended must not be sent."""

    async def whole() -> None:
        with Journal.open(path) as journal:
            journal.begin_plan("job", dedupe=True)
            (row,) = await admit(journal, ["a"])
            (attempt_id,) = await journal.intend([row.request_id or 0])
            await save(journal, attempt_id, response(b"x"))
            journal.record_outcome(row.request_id or 0, State.ANSWERED, attempt_id, 1)
            (twin,) = await admit(journal, ["a"], 1)
            assert (twin.request_id, twin.state, twin.shares_request) == (
                row.request_id,
                State.ANSWERED,
                True,
            )

    asyncio.run(whole())


def test_a_request_that_is_sent_again_is_open_again(path: Path) -> None:
    """A crash during a second try must not leave the first one's end as if it were the last word."""

    async def first() -> int:
        with Journal.open(path) as journal:
            journal.begin_plan("job")
            (row,) = await admit(journal, ["a"])
            (attempt_id,) = await journal.intend([row.request_id or 0])
            await save(journal, attempt_id, response(b"no label"))
            journal.record_outcome(row.request_id or 0, State.FAILED, attempt_id, 1)
            return row.request_id or 0

    async def second(request_id: int) -> None:
        with Journal.open(path) as journal:
            journal.begin_plan("job")
            (known,) = journal.planned()
            assert known.state is State.FAILED
            await journal.intend([request_id])

    asyncio.run(second(asyncio.run(first())))
    with Journal.open(path) as journal:
        assert len(journal.orphans) == 1
        (known,) = journal.planned()
        assert (known.state, known.attempts) == (State.OPEN, 2)


@pytest.mark.parametrize(
    "headers",
    [
        {"x-request-id": "r\udcff1", "set-cookie": "secret"},
        {"x-request-id": "\x00\x1b[2J", "authorization": "secret"},
        {"retry-after": "1", "x-ratelimit-remaining-requests": "7", "x-api-key": "secret"},
    ],
)
def test_any_header_can_be_saved_and_only_listed_ones_are(path: Path, headers: dict[str, str]) -> None:
    async def whole() -> None:
        with Journal.open(path) as journal:
            journal.begin_plan("job")
            (row,) = await admit(journal, ["a"])
            (attempt_id,) = await journal.intend([row.request_id or 0])
            await save(journal, attempt_id, Response(200, headers, b"x", float("nan")))

    asyncio.run(whole())
    kept = {name: value for name, value in headers.items() if value != "secret"}
    with JournalReader.open(path) as reader:
        (attempt,) = reader.attempts_of(1)
        assert attempt.outcome == Response(200, kept, b"x", 0.0)
    assert b"secret" not in path.read_bytes()


def test_a_failure_with_any_text_and_bytes_comes_back(path: Path) -> None:
    async def whole() -> None:
        with Journal.open(path) as journal:
            journal.begin_plan("job")
            (row,) = await admit(journal, ["a"])
            (attempt_id,) = await journal.intend([row.request_id or 0])
            await save(
                journal, attempt_id, Failure(FailureKind.CUT, "cut \udcff", Paid.MAYBE, 1.5, b"\x00\xff{")
            )

    asyncio.run(whole())
    with JournalReader.open(path) as reader:
        (attempt,) = reader.attempts_of(1)
    assert attempt.outcome == Failure(FailureKind.CUT, "cut \\udcff", Paid.MAYBE, 1.5, b"\x00\xff{")
    assert attempt.possibly_billed is True


def test_an_abandoned_wait_does_not_lose_the_answer(path: Path) -> None:
    async def whole() -> None:
        with Journal.open(path) as journal:
            journal.begin_plan("job")
            rows = await admit(journal, range(20))
            attempt_ids = await journal.intend([row.request_id or 0 for row in rows])
            waits = [save(journal, attempt_id, response(b"%d" % attempt_id)) for attempt_id in attempt_ids]
            for wait in waits[::2]:
                wait.cancel()
            await asyncio.gather(*waits[1::2])

    asyncio.run(whole())
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM reply").fetchone() == (20,)
    connection.close()


def test_what_was_not_awaited_is_written_at_the_close(path: Path) -> None:
    async def whole() -> None:
        with Journal.open(path) as journal:
            journal.begin_plan("job")
            (row,) = await admit(journal, ["a"])
            (attempt_id,) = await journal.intend([row.request_id or 0])
            save(journal, attempt_id, response(b"x"))
            journal.record_outcome(row.request_id or 0, State.ANSWERED, attempt_id, 1)
            journal.put("learned", {"rpm": 600.5})
            journal.close(0)

    asyncio.run(whole())
    with JournalReader.open(path) as reader:
        assert [entry.body for entry in reader.outcomes()] == [b"x"]
        assert reader.get("learned") == {"rpm": 600.5}
        assert reader.runs()[-1]["exit_status"] == 0
        (last,) = reader.runs()
        assert last["exit_status"] == 0
        assert last["pid"] == os.getpid()


def test_the_log_is_gone_after_a_clean_close(path: Path) -> None:
    with Journal.open(path):
        assert Path(f"{path}-wal").exists()
    assert sorted(entry.name for entry in path.parent.iterdir()) == [path.name]


def test_a_closed_journal_says_so(path: Path) -> None:
    async def whole() -> None:
        journal = Journal.open(path)
        journal.close()
        journal.close()
        with pytest.raises(RuntimeError, match="closed"):
            journal.admit([])

    asyncio.run(whole())


def test_the_rate_is_bounded_by_the_disk_not_by_the_rows(path: Path) -> None:
    """A hundred rows a commit: the number of commits stays far below the number of answers."""
    commits = 0

    async def whole() -> None:
        nonlocal commits
        write = Store.write

        def counted(self: Store, rows: Sequence[bulk.BulkRow], calls: Sequence[Any] = ()) -> list[Any]:
            nonlocal commits
            commits += 1
            time.sleep(0.002)  # the disk; in the journal's own thread
            return write(self, rows, calls)

        with pytest.MonkeyPatch.context() as patch, Journal.open(path) as journal:
            journal.begin_plan("job")
            rows = await admit(journal, range(512))
            attempt_ids = await journal.intend([row.request_id or 0 for row in rows])
            patch.setattr(Store, "write", counted)

            async def land(attempt_id: int) -> None:
                await save(journal, attempt_id, response(answer_to(attempt_id, 0)))

            await asyncio.gather(*map(land, attempt_ids))

    asyncio.run(whole())
    assert commits <= 16
