"""The sender of single requests in virtual time: a fake client, the real limiter, retry policy and journal."""

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from batchllm.answer import Reader
from batchllm.counters import RunCounters, SendRate
from batchllm.errors import CannotWrite, Interrupted, JobError, Unavailable, UsageError
from batchllm.journal import Journal, State
from batchllm.journal.writer import Done
from batchllm.limiter import Limiter
from batchllm.online.loop import OnlineLoop
from batchllm.plan.work_item import RowEnd, Settled, WorkItem
from batchllm.records import Answer, ChatRequest, Failure, FailureKind, Pace, Paid, Response
from batchllm.retry import RetryPolicy
from batchllm.stopping import RunStop
from batchllm.template import AnswerSpec
from tests.fakes import FakeClient, answered, in_turn, lost, rows_with, status
from tests.virtual_time import run_virtual

PACE = Pace(concurrency=8)


class Trip:
    """One run of the sender over ``rows`` items; keeps what the tests look at."""

    def __init__(
        self, folder: Path, client: FakeClient, *, rows: int = 20, pace: Pace = PACE, grace_s: float = 30.0
    ) -> None:
        self.folder = folder
        self.client = client
        self.rows = rows
        self.pace = pace
        self.grace_s = grace_s
        self.counters = RunCounters(rows=rows)
        self.states: dict[int, State] = {}
        self.notes: dict[int, str] = {}
        self.ended_at = 0.0
        self.sender: OnlineLoop | None = None
        self.settled: Settled = lambda item, answer, state: (answer, state)
        self.limit: Callable[[float], JobError | None] = lambda elapsed_s: None
        self.plain: Callable[[str], ChatRequest] | None = None

    def run(self, stop_at: float | None = None, second_at: float | None = None) -> "Trip":
        run_virtual(self._run(stop_at, second_at))
        return self

    async def _run(self, stop_at: float | None, second_at: float | None) -> None:
        loop = asyncio.get_running_loop()
        journal = Journal.open(self.folder / "out.journal", threaded=False)
        journal.begin_plan("plan")

        async def batches() -> AsyncIterator[Sequence[WorkItem]]:
            requests = [ChatRequest(i, i.to_bytes(16), b"{}", "m", 10, 20) for i in range(self.rows)]
            admitted = await journal.admit([(request.row_index, request.key, None) for request in requests])
            yield [
                WorkItem(request, entry.request_id or 0, Reader(AnswerSpec("response")))
                for request, entry in zip(requests, admitted, strict=True)
            ]

        self.sender = OnlineLoop(
            client=self.client,
            limiter=Limiter(self.pace, charge="max_tokens", now=loop.time()),
            journal=journal,
            retry=RetryPolicy(self.pace.max_attempts, random.Random(1)),
            counters=self.counters,
            run_stop=RunStop(self.grace_s, lambda elapsed_s: self.limit(elapsed_s)),
            settled=lambda item, answer, state: self.settled(item, answer, state),
            plain=self.plain,
        )
        if stop_at is not None:
            loop.call_at(stop_at, self.sender.run_stop.stop, Interrupted(15))
        if second_at is not None:
            loop.call_at(second_at, self.sender.run_stop.abort)
        try:
            await self.sender.run(batches())
        finally:
            self.ended_at = loop.time()
            await journal.flush()
            self.states = {
                entry.row_index: entry.state for entry in journal.planned() if entry.state is not None
            }
            self.notes = {
                entry.row_index: entry.unsent_reason
                for entry in journal.planned()
                if entry.unsent_reason is not None
            }
            journal.close()


def test_every_row_is_answered_once(tmp_path: Path) -> None:
    client = FakeClient()
    trip = Trip(tmp_path, client).run()
    assert set(trip.states.values()) == {State.ANSWERED}
    assert sorted(row for _, row in client.sent) == list(range(20))
    assert trip.counters.answered == trip.counters.attempts == 20
    assert trip.counters.prompt_tokens == 20 * 5


def test_the_first_row_goes_alone_until_it_is_answered(tmp_path: Path) -> None:
    client = FakeClient(latency_s=2.0)
    Trip(tmp_path, client).run()
    assert [at for at, _ in client.sent[:2]] == pytest.approx([0.0, 2.0], abs=0.2)
    assert client.most_in_flight == 8


def test_a_wrong_key_costs_one_request_and_is_wrong_use(tmp_path: Path) -> None:
    client = FakeClient(in_turn(status(401, "Incorrect API key provided", "invalid_api_key")))
    with pytest.raises(UsageError, match="Incorrect API key"):
        Trip(tmp_path, client).run()
    assert len(client.sent) == 1


def test_a_key_refused_after_a_success_is_the_endpoints_trouble(tmp_path: Path) -> None:
    client = FakeClient(rows_with(range(5, 20), status(401, "revoked")))
    with pytest.raises(Unavailable, match="revoked"):
        Trip(tmp_path, client).run()


def test_an_exhausted_quota_stops_the_job_with_what_is_in_flight(tmp_path: Path) -> None:
    client = FakeClient(rows_with(range(10, 1000), status(429, "out of credit", "insufficient_quota")))
    with pytest.raises(Unavailable, match="out of credit"):
        Trip(tmp_path, client, rows=1000).run()
    assert len(client.sent) <= 10 + 2 * 8


def test_an_error_that_was_not_paid_is_tried_again(tmp_path: Path) -> None:
    client = FakeClient(in_turn(status(500), status(502), answered()))
    trip = Trip(tmp_path, client, rows=3).run()
    assert set(trip.states.values()) == {State.ANSWERED}
    assert len(client.sent) == 9
    assert sum(trip.counters.retries.values()) == 6


def test_a_row_that_never_gets_an_answer_ends_unanswered_after_its_attempts(tmp_path: Path) -> None:
    client = FakeClient(rows_with([3], status(500)))
    trip = Trip(tmp_path, client, pace=replace(PACE, max_attempts=4)).run()
    assert trip.states[3] is State.UNANSWERED
    assert client.seen[3] == 4
    assert trip.counters.unanswered == 1
    assert trip.counters.answered == 19


def test_a_timeout_is_tried_at_most_twice_more_and_counted_as_possibly_billed(tmp_path: Path) -> None:
    client = FakeClient(rows_with([3], lost()))
    trip = Trip(tmp_path, client, pace=replace(PACE, max_attempts=10)).run()
    assert client.seen[3] == 3
    assert trip.counters.possibly_billed == 3
    assert trip.states[3] is State.UNANSWERED


def test_a_rejected_row_fails_alone_and_is_never_tried_again(tmp_path: Path) -> None:
    client = FakeClient(rows_with([3], status(400, "bad image")))
    trip = Trip(tmp_path, client).run()
    assert client.seen[3] == 1
    assert trip.states[3] is State.FAILED
    assert trip.counters.failed_by_reason == {"http_400": 1}


def test_the_first_ten_rows_refused_alike_stop_the_job(tmp_path: Path) -> None:
    client = FakeClient(in_turn(status(400, "temperature is not supported")))
    with pytest.raises(UsageError, match="temperature is not supported"):
        Trip(tmp_path, client, rows=500).run()
    assert len(client.sent) < 40


def test_a_paid_answer_is_never_asked_for_again_whatever_it_says(tmp_path: Path) -> None:
    client = FakeClient(in_turn(answered(None, finish_reason="content_filter")))
    trip = Trip(tmp_path, client, rows=5).run()
    assert len(client.sent) == 5
    assert set(trip.states.values()) == {State.FAILED}


def test_a_row_that_waits_to_be_tried_again_holds_no_slot(tmp_path: Path) -> None:
    client = FakeClient(rows_with([1], lost(FailureKind.CONNECT, Paid.NO)), latency_s=1.0)
    Trip(tmp_path, client, rows=12, pace=replace(PACE, concurrency=2)).run()
    others = [at for at, row in client.sent if row != 1]
    assert max(others) < 12


def test_refusals_do_not_use_up_attempts(tmp_path: Path) -> None:
    refused = status(429, "slow", "rate_limit_exceeded", retry_after="5")
    client = FakeClient(in_turn(*[refused] * 12, answered()))
    trip = Trip(tmp_path, client, rows=1, pace=replace(PACE, max_attempts=2)).run()
    assert trip.states[0] is State.ANSWERED
    assert trip.counters.refusals == 12
    assert trip.ended_at >= 12 * 5


def test_the_pace_of_a_run_is_that_from_its_first_request_to_its_last() -> None:
    held = SendRate()
    for at in [0.2 * i for i in range(31)] + [9.0]:
        held.count(100.0 + at)
    rate = held.per_minute()
    assert rate is not None
    assert rate[0] == pytest.approx(31 * 60.0 / 9.0)
    assert rate[1] is None


def test_a_signal_lets_what_is_in_flight_land_and_sends_nothing_new(tmp_path: Path) -> None:
    client = FakeClient(latency_s=10.0)
    trip = Trip(tmp_path, client, rows=100)
    with pytest.raises(Interrupted):
        trip.run(stop_at=25.0)
    assert max(at for at, _ in client.sent) < 25
    assert trip.ended_at == pytest.approx(max(at for at, _ in client.sent) + 10.0, abs=0.1)
    assert list(trip.states.values()).count(State.ANSWERED) == len(client.sent)


def test_the_grace_period_ends_what_does_not_land(tmp_path: Path) -> None:
    client = FakeClient(latency_s=500.0)
    trip = Trip(tmp_path, client, rows=100, grace_s=7.0)
    with pytest.raises(Interrupted):
        trip.run(stop_at=100.0)
    assert trip.ended_at == pytest.approx(107, abs=0.1)


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    client = FakeClient(latency_s=500.0)
    trip = Trip(tmp_path, client, rows=100)
    with pytest.raises(Interrupted):
        trip.run(stop_at=100.0, second_at=101.0)
    assert trip.ended_at == pytest.approx(101, abs=0.1)


def test_a_bug_in_the_client_stops_the_run_loudly_and_keeps_what_was_received(tmp_path: Path) -> None:
    def broken(request: ChatRequest, attempt: int) -> object:
        if request.row_index == 7:
            raise ZeroDivisionError("a bug")
        return answered()

    trip = Trip(tmp_path, FakeClient(broken))  # type: ignore[arg-type]
    with pytest.raises(ZeroDivisionError):
        trip.run()
    assert State.ANSWERED in trip.states.values()


def test_a_journal_that_fails_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = Journal.save
    seen: list[int] = []

    def full(
        self: Journal,
        attempt_id: int,
        outcome: Response | Failure,
        saved: Done,
    ) -> None:
        seen.append(attempt_id)
        if len(seen) == 6:
            saved(None, CannotWrite("the disk is full"))
        else:
            save(self, attempt_id, outcome, saved)

    monkeypatch.setattr(Journal, "save", full)
    client = FakeClient()
    with pytest.raises(JobError, match="the disk is full"):
        Trip(tmp_path, client, rows=500).run()
    assert len(client.sent) < 30


def test_what_departs_while_a_run_is_being_stopped_is_kept_as_not_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its intent is durable: without an outcome the next run would have to call it possibly billed."""
    client = FakeClient()
    trip = Trip(tmp_path, client, rows=40)
    intend = Journal.intend
    groups: list[int] = []

    def stopped(self: Journal, intents: Sequence[int]) -> "asyncio.Future[list[int]]":
        groups.append(len(intents))
        if len(groups) == 3:
            assert trip.sender is not None
            trip.sender.run_stop.stop(Interrupted(15))
        return intend(self, intents)

    monkeypatch.setattr(Journal, "intend", stopped)
    with pytest.raises(Interrupted):
        trip.run()
    assert len(client.sent) == sum(groups[:2])
    with sqlite3.connect(tmp_path / "out.journal") as connection:
        rows = connection.execute(
            "SELECT reply.possibly_billed, count(*) FROM attempt"
            " LEFT JOIN reply ON reply.attempt_id = attempt.attempt_id GROUP BY 1"
        ).fetchall()
    connection.close()
    assert dict(rows) == {None: sum(groups[:2]), 0: groups[2]}
    assert trip.counters.answered == sum(groups[:2])


def test_trouble_in_landing_one_row_stops_the_run_and_lands_the_rest(tmp_path: Path) -> None:
    client = FakeClient()
    trip = Trip(tmp_path, client, rows=40)
    settled: list[int] = []

    def landing(item: WorkItem, answer: Answer, state: State) -> RowEnd:
        settled.append(item.request.row_index)
        if len(settled) == 5:
            raise ZeroDivisionError
        return answer, state

    trip.settled = landing
    with pytest.raises(ZeroDivisionError):
        trip.run()
    assert sorted(settled) == sorted(row for _, row in client.sent)


def test_a_request_that_no_limit_holds_fails_its_row_and_says_so(tmp_path: Path) -> None:
    client = FakeClient()
    trip = Trip(tmp_path, client, rows=3, pace=replace(PACE, tokens_per_minute=15.0)).run()
    assert client.sent == []
    assert trip.counters.failed_by_reason == {"too_large": 3}
    assert all(note.startswith("too_large\n") for note in trip.notes.values())
