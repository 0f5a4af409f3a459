"""Batches in the journal: intents with their batch, pending requests, results once, damage loud."""

import asyncio
from array import array
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from batchllm.errors import InputError
from batchllm.journal import BatchRecord, BatchState, Journal, JournalReader, State, new_name
from batchllm.records import Failure, FailureKind, Paid, Response
from tests.fakes import answered
from tests.journal_jobs import damage_cells


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


async def admitted(journal: Journal, rows: int) -> list[int]:
    journal.begin_plan("plan")
    found = await journal.admit([(row, row.to_bytes(16), None) for row in range(rows)])
    return [entry.request_id or 0 for entry in found]


def prepared(journal: Journal, requests: list[int], model: str = "m") -> BatchRecord:
    return journal.batches.prepare(
        new_name(), array("q", requests), model=model, size=100, tokens=10, sha256="00"
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out.journal"


def test_a_prepared_batch_and_its_intents_are_durable_together(path: Path) -> None:
    async def work() -> None:
        journal = Journal.open(path)
        ids = await admitted(journal, 5)
        batch = prepared(journal, ids[1:4])
        with JournalReader.open(path) as reader:  # another connection sees only what is committed
            assert reader.batches() == [batch]
            assert [entry.state for entry in reader.planned()] == [
                State.OPEN, State.PENDING, State.PENDING, State.PENDING, State.OPEN,
            ]  # fmt: skip
            assert reader.counts().pending == 3
            assert [attempt.attempt_id for attempt in reader.attempts_of(3)] == [batch.first_attempt + 1]
        journal.close()

    run(work())


def test_a_pending_request_cannot_go_into_a_second_batch(path: Path) -> None:
    async def work() -> None:
        journal = Journal.open(path)
        ids = await admitted(journal, 3)
        prepared(journal, ids[:2])
        with pytest.raises(InputError, match="in a batch already"):
            prepared(journal, ids[1:])
        journal.close()
        with JournalReader.open(path) as reader:
            assert len(reader.batches()) == 1

    run(work())


def test_attempts_in_a_batch_are_not_orphans_of_a_dead_run(path: Path) -> None:
    async def work() -> None:
        journal = Journal.open(path)
        ids = await admitted(journal, 3)
        await journal.intend([ids[0]])
        batch = prepared(journal, ids[1:])
        journal.close()
        with Journal.open(path) as again:
            assert [orphan.request_id for orphan in again.orphans] == [ids[0]]
            assert again.batches.live() == [batch]
            assert again.next_attempt > batch.last_attempt

    run(work())


def test_results_are_what_is_pending_with_what_came_for_it(path: Path) -> None:
    async def work() -> None:
        journal = Journal.open(path)
        ids = await admitted(journal, 4)
        batch = prepared(journal, ids)
        await journal.save_all([(batch.first_attempt + 2, answered("yes"))])
        assert list(journal.reader().replied(batch)) == [0, 0, 1, 0]
        journal.record_outcome(ids[3], State.UNANSWERED, batch.last_attempt, 1)
        await journal.flush()
        for by_row in (False, True):
            found = list(journal.reader().results(batch, by_row=by_row))
            assert [result.request_id for result in found] == ids[:3]
            assert [isinstance(result.outcome, Response) for result in found] == [False, False, True]
            assert [result.row_index for result in found] == ([0, 1, 2] if by_row else [None] * 3)
        journal.close()

    run(work())


def test_many_results_come_in_pages_while_their_outcomes_are_recorded(path: Path) -> None:
    async def work() -> None:
        journal = Journal.open(path)
        ids = await admitted(journal, 700)
        batch = prepared(journal, ids)
        seen = []
        for result in journal.reader().results(batch, by_row=True):
            seen.append(result.row_index)
            journal.record_outcome(result.request_id, State.OPEN, None, 0)
            await journal.flush()
        assert seen == list(range(700))
        assert list(journal.reader().results(batch)) == []
        journal.close()

    run(work())


def test_what_a_batch_never_came_to_uses_no_attempt_up(path: Path) -> None:
    async def work() -> None:
        journal = Journal.open(path)
        ids = await admitted(journal, 2)
        batch = prepared(journal, ids)
        await journal.save_all(
            [
                (batch.first_attempt, Failure(FailureKind.UNSENT, "expired", Paid.NO, 0.0)),
                (batch.last_attempt, Response(500, {}, b"{}", 0.0)),
            ]
        )
        for request_id, attempts in zip(ids, (0, 1), strict=True):
            journal.record_outcome(request_id, State.OPEN, None, attempts)
        await journal.flush()
        journal.close()
        with Journal.open(path) as again:
            assert [entry.attempts for entry in again.planned()] == [0, 1]

    run(work())


def test_a_batch_keeps_what_the_endpoint_said_across_runs(path: Path) -> None:
    async def work() -> None:
        journal = Journal.open(path, clock=lambda: 5.0)
        batch = prepared(journal, await admitted(journal, 2))
        errors = ({"code": "x", "line": 1},)
        after = journal.batches.update(batch, state=BatchState.ENDED, status="failed", errors=errors, total=2)
        assert (after.state, after.status, after.errors, after.state_changed_at) == (
            BatchState.ENDED,
            "failed",
            errors,
            5.0,
        )
        journal.close()
        with Journal.open(path) as again:
            assert again.batches.all() == [after]
            again.batches.update(after, state=BatchState.DONE)
            assert again.batches.live() == []

    run(work())


@pytest.mark.parametrize("column", ["first_attempt", "requests"])
def test_a_batch_that_points_elsewhere_is_loud(path: Path, column: str) -> None:
    async def work() -> None:
        with Journal.open(path) as journal:
            prepared(journal, await admitted(journal, 2))

    run(work())
    damage_cells(path, f"UPDATE batch SET {column} = {column} + 1")
    with JournalReader.open(path) as reader, pytest.raises(InputError, match="a batch does not match"):
        reader.batches()
