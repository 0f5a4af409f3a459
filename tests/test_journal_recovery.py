"""What a dead run leaves is found once: answers without an end, requests without an answer."""

import asyncio
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from batchllm.errors import InputError
from batchllm.journal import Journal, JournalReader, Orphan, State, bulk, database, recovery, replies
from batchllm.records import Failure, FailureKind, Paid, Response
from tests.journal_jobs import admit, answer_to, key_of, response, save, ticking, unread


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out.csv.journal"


def killed(journal: Journal, to: Path) -> Path:
    """The files as a kill -9 at this instant would leave them."""
    to.mkdir()
    for suffix in ("", "-wal"):
        shutil.copy(f"{journal.path}{suffix}", to / f"{journal.path.name}{suffix}")
    return to / journal.path.name


def test_an_answer_without_a_recorded_outcome_is_handed_to_the_next_run(path: Path, tmp_path: Path) -> None:
    async def first() -> Path:
        with Journal.open(path) as journal:
            journal.begin_plan("job")
            rows = await admit(journal, "abcd")
            ids = await journal.intend([row.request_id or 0 for row in rows])
            await save(journal, ids[0], response(b"recorded"))
            journal.record_outcome(rows[0].request_id or 0, State.ANSWERED, ids[0], 1)
            await save(journal, ids[1], response(b"paid", x_request_id="r1"))
            await save(journal, ids[2], Failure(FailureKind.TIMEOUT, "hung", Paid.MAYBE, 1.0))
            await save(journal, ids[3], response(b"slow down", status=429))
            (again,) = await journal.intend([rows[3].request_id or 0])
            await save(journal, again, response(b"broken", status=500))
            return killed(journal, tmp_path / "killed")

    with Journal.open(asyncio.run(first())) as journal:
        assert journal.orphans == ()
        found = {record.request_id: record for record in unread(journal)}
        assert sorted(found) == [2, 4]
        assert (found[2].body, found[2].attempt_id, found[2].attempts) == (b"paid", 2, 1)
        assert (found[4].status, found[4].attempts) == (500, 1)  # the refusal does not count
        states = [(row.state, row.attempts) for row in journal.planned()]
        assert states == [(State.ANSWERED, 1), (State.OPEN, 1), (State.OPEN, 1), (State.OPEN, 1)]
        journal.record_outcome(2, State.ANSWERED, 2, 1)
    with Journal.open(journal.path) as journal:
        assert [found.request_id for found in unread(journal)] == [4]


def test_an_attempt_that_was_told_to_wait_counts_as_little_after_a_crash_as_in_the_run(
    path: Path, tmp_path: Path
) -> None:
    waits = [
        Response(429, {}, b"", 0.1),
        Response(529, {}, b"", 0.1),
        Response(503, {"retry-after": "2"}, b"", 0.1),
        Response(200, {}, b'{"error": {"code": 429, "message": "Rate limit exceeded"}}', 0.1),
    ]

    async def first() -> Path:
        with Journal.open(path) as journal:
            journal.begin_plan("job")
            (row,) = await admit(journal, "a")
            for reply in [*waits, Response(500, {}, b"", 0.1)]:
                (attempt,) = await journal.intend([row.request_id or 0])
                await save(journal, attempt, reply)
            return killed(journal, tmp_path / "killed")

    with Journal.open(asyncio.run(first())) as journal:
        assert [found.attempts for found in unread(journal)] == [1]


def test_an_answer_is_found_behind_a_later_attempt_that_died(path: Path, tmp_path: Path) -> None:
    """An answer that was asked for again, and the second asking killed: the first is paid and must be seen."""

    async def first() -> Path:
        with Journal.open(path) as journal:
            journal.begin_plan("job")
            (row,) = await admit(journal, "a")
            (one,) = await journal.intend([row.request_id or 0])
            await save(journal, one, response(b"not valid"))
            await journal.intend([row.request_id or 0])
            return killed(journal, tmp_path / "killed")

    with Journal.open(asyncio.run(first())) as journal:
        assert journal.orphans == (Orphan(attempt_id=2, request_id=1, row_index=0),)
        (found,) = unread(journal)
        assert (found.attempt_id, found.body, found.attempts) == (1, b"not valid", 2)


def test_all_that_was_lost_is_found_in_one_pass_over_the_rows(path: Path, tmp_path: Path) -> None:
    rows, lost = 2_000, 100

    async def first() -> Path:
        with Journal.open(path) as journal:
            journal.begin_plan("job")
            admitted = await admit(journal, range(rows))
            await journal.intend([row.request_id or 0 for row in admitted[-lost:]])
            return killed(journal, tmp_path / "killed")

    steps = 0

    def step() -> int:
        nonlocal steps
        steps += 100
        return 0

    with closing(database.connect(asyncio.run(first()))) as connection:
        bulk.prepare(connection)
        connection.execute("BEGIN IMMEDIATE")
        connection.set_progress_handler(step, 100)
        orphans = recovery.recover(connection, path, 0.0)
    assert [orphan.row_index for orphan in orphans] == list(range(rows - lost, rows))
    assert steps < 50 * rows


def test_requests_of_a_dead_run_are_counted_once_with_their_rows(path: Path, tmp_path: Path) -> None:
    async def first() -> Path:
        with Journal.open(path) as journal:
            journal.begin_plan("job")
            rows = await admit(journal, ["a", None, "b", "c"])
            ids = await journal.intend([rows[i].request_id or 0 for i in (0, 2, 3)])
            await save(journal, ids[1], response(b"x"))
            return killed(journal, tmp_path / "killed")

    path = asyncio.run(first())
    with Journal.open(path) as journal:
        assert [(orphan.attempt_id, orphan.row_index) for orphan in journal.orphans] == [(1, 0), (3, 3)]
        attempt = journal.reader().attempts_of(1)[0]
        assert isinstance(attempt.outcome, Failure)
        assert (attempt.outcome.message, attempt.possibly_billed) == (replies.LOST, True)
        assert journal.reader().count_attempts() == (3, 2)
    with Journal.open(path) as journal:
        assert journal.orphans == ()
        assert journal.reader().count_attempts() == (3, 2)


def test_a_kill_during_recovery_loses_and_counts_nothing_twice(path: Path, tmp_path: Path) -> None:
    async def first() -> Path:
        with Journal.open(path) as journal:
            journal.begin_plan("job")
            (row,) = await admit(journal, "a")
            await journal.intend([row.request_id or 0])
            return killed(journal, tmp_path / "killed")

    once = asyncio.run(first())
    with Journal.open(once) as journal:
        assert len(journal.orphans) == 1
        twice = killed(journal, tmp_path / "killed again")  # the run begun by the recovery dies at once
    with Journal.open(twice) as journal:
        assert journal.orphans == ()
        assert journal.reader().count_attempts() == (1, 1)
        assert [run["exit_status"] for run in journal.reader().runs()] == [None, None, None]


def test_an_answer_taken_from_another_job_is_never_an_orphan(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.journal"

    async def first() -> None:
        with Journal.open(other) as journal:
            journal.begin_plan("other")
            (row,) = await admit(journal, "a")
            (attempt_id,) = await journal.intend([row.request_id or 0])
            await save(journal, attempt_id, response(b"reused", x_request_id="r"))
            journal.record_outcome(row.request_id or 0, State.ANSWERED, attempt_id, 1)
        with JournalReader.open(other) as reader, Journal.open(path) as journal:
            journal.begin_plan("job")
            rows = await admit(journal, "ab")
            found = reader.answers_for([(key_of("a"), 0), (key_of("a"), 1), (key_of("b"), 0)])
            assert list(found) == [(key_of("a"), 0)]
            ids = await journal.adopt([(rows[0].request_id or 0, found[key_of("a"), 0])])
            journal.record_outcome(rows[0].request_id or 0, State.ANSWERED, ids[0], 0)

    asyncio.run(first())
    with Journal.open(path) as journal:
        assert journal.orphans == ()
        first_row, second_row = journal.reader().outcomes()
        assert (first_row.state, first_row.body, first_row.attempts) == (State.ANSWERED, b"reused", 0)
        assert second_row.state is State.OPEN
        (attempt,) = journal.reader().attempts_of(1)
        assert attempt.sent_at is None
        assert attempt.outcome == response(b"reused", x_request_id="r")
        assert journal.reader().count_attempts() == (0, 0)


def test_the_structure_is_checked_after_the_machine_died_but_not_after_a_kill(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[Path] = []
    monkeypatch.setattr(recovery, "quick_check", lambda connection, path: checked.append(path))

    def end_without_a_word() -> None:
        journal = Journal.open(path, threaded=False)
        journal._store.connection.close()

    Journal.open(path).close(0)
    end_without_a_word()
    assert checked == []
    Journal.open(path).close(0)
    assert checked == []
    end_without_a_word()
    monkeypatch.setattr(recovery, "boot_id", lambda: "another start of the machine")
    Journal.open(path).close(0)
    assert checked == [path]
    Journal.open(path).close(0)
    assert checked == [path]


def test_a_broken_structure_is_exit_65(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def execute(self, query: str) -> "Broken":
            return self

        def fetchone(self) -> Sequence[str]:
            return ("*** in database main ***\nPage 7 is never used",)

    with pytest.raises(InputError, match="Page 7 is never used") as caught:
        database.quick_check(Broken(), path)  # type: ignore[arg-type]
    assert caught.value.exit_status == 65


WRITER = """
import asyncio, os, random, sys
from pathlib import Path
from batchllm.journal import Journal, State
from tests.journal_jobs import admit, answer_to, response, save, unread

async def whole(path, seed, rows):
    rng = random.Random(seed)
    journal = Journal.open(path)
    said = sys.stdout.fileno()
    plan = journal.begin_plan("job")
    for found in unread(journal):
        journal.record_outcome(found.request_id, State.ANSWERED, found.attempt_id, found.attempts)
    known = list(journal.planned())
    names = [f"row {i % (rows // 2)}" for i in range(rows)]
    known += await admit(journal, names[plan.rows:], plan.rows)
    left = [row for row in known if row.state is State.OPEN]
    rng.shuffle(left)
    slots = asyncio.Semaphore(32)

    async def fly(row):
        async with slots:
            (attempt_id,) = await journal.intend([row.request_id])
            os.write(said, b"sent %d\\n" % row.row_index)
            await asyncio.sleep(rng.random() * 0.002)
            await save(journal, attempt_id, response(answer_to(names[row.row_index], row.ordinal)))
            os.write(said, b"kept %d\\n" % row.row_index)
            journal.record_outcome(row.request_id, State.ANSWERED, attempt_id, row.attempts + 1)

    await asyncio.gather(*map(fly, left))
    journal.close(0)
    os.write(said, b"done\\n")

asyncio.run(whole(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
"""


def test_no_acknowledged_answer_is_lost_in_twenty_kills(path: Path) -> None:
    """A child says aloud what it sent and what it was told is kept; the journal must know all of it."""
    rows, rng = 2400, random.Random(3)
    kept: set[int] = set()
    sent = kills = 0
    for turn in range(200):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(turn), str(rows)],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parent.parent,
        )
        assert process.stdout is not None
        patience = rng.randrange(0, 250) if kills < 20 else rows * 3
        said = []
        for line in process.stdout:
            said.append(line)
            if len(said) > patience:
                process.send_signal(signal.SIGKILL)
        process.stdout.close()
        process.wait()
        before = set(kept)
        for line in said:
            word, _, number = line.partition(b" ")
            if word == b"kept":
                assert int(number) not in before, "an answer that was kept is paid again"
                kept.add(int(number))
            sent += word == b"sent"
        if said and said[-1] == b"done\n":
            break
        kills += 1
    assert kills >= 20
    with JournalReader.open(path) as reader:
        entries = list(reader.outcomes())
        assert [entry.row_index for entry in entries] == list(range(rows))
        for entry in entries:
            name, ordinal = f"row {entry.row_index % (rows // 2)}", entry.row_index // (rows // 2)
            assert entry.body == answer_to(name, ordinal)
        attempts, possibly_billed = reader.count_attempts()
    assert attempts >= sent >= rows
    assert attempts - rows <= possibly_billed <= 32 * kills


def test_recovery_writes_what_the_clock_says(path: Path, tmp_path: Path) -> None:
    async def first() -> Path:
        with Journal.open(path, clock=ticking().__next__) as journal:
            journal.begin_plan("job")
            (row,) = await admit(journal, "a")
            await journal.intend([row.request_id or 0])
            return killed(journal, tmp_path / "killed")

    with Journal.open(asyncio.run(first()), clock=lambda: 5.0) as journal:
        (attempt,) = journal.reader().attempts_of(1)
        assert (attempt.sent_at, attempt.received_at) == (1_700_000_001, 5.0)
