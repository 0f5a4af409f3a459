"""The sender of single requests: items wait in the limiter, go out, land, and are retried or settled.

One coroutine feeds items from the plan into the limiter's bounded look-ahead, one dispatches what the limiter
grants, and each request in flight is a task. The order of three steps is what the first promise rests on:
the intent is durable before the request leaves; the raw answer is durable before anything reads it; only then
is the slot free and the row counted. Those two waits for the disk are callbacks: what the journal makes durable
together departs and lands together, without a task or a future for each row. A row's trouble ends in its item; a
job's trouble stops the sender: no new request leaves, those in flight get a grace period, and everything that arrives
is kept.
"""

import asyncio
import logging
import math
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from batchllm.budget.early_stop import EarlyStop
from batchllm.budget.meter import BudgetMeter
from batchllm.counters import RunCounters
from batchllm.errors import BudgetStop, ExitStatus, Unavailable, UsageError
from batchllm.journal import Journal, State
from batchllm.limiter import Cost, Limiter
from batchllm.online.refusals import HeldRefusal, HeldRefusals
from batchllm.plan.work_item import ChatSender, Reask, Settled, WorkItem
from batchllm.records import Answer, Failure, FailureKind, Paid, Response
from batchllm.retry import (
    ENDPOINTS_OWN,
    Disposition,
    RetryPolicy,
    SameRejection,
    Verdict,
    classify,
    may_be_the_rows_own,
)

log = logging.getLogger("batchllm.runner")

OK = 200
_NOT_SENT = Failure(FailureKind.UNSENT, "not sent: the run was stopped", Paid.NO, 0.0)
OUTAGE_BACKOFF_S = 3.0
"""How long a row waits that met an outage, so that the probes of an outage are not all the same row's."""
LOOK_AHEAD = 512
"""Tickets that wait in the limiter; enough to hide the journal's latency, few enough to weigh nothing."""


class Online:
    """One run over the sender of single requests.

    Args:
        client: Sends a request, returns an outcome.
        limiter: Decides what may go when.
        journal: Makes intents and answers durable.
        retry: Decides whether and when a failed attempt is tried again.
        counters: Counts.
        grace_s: How long requests in flight may take to land once the run stops, whatever stops it.
        settled: Called with each item that has its end.
        reask: Makes the request that asks once more for an answer that did not validate, or ``None``.
        meter: Holds requests to the budget, and says what answers cost; without one nothing bounds them.
        early_stop: Stops a run whose first answers are of no use.
    """

    def __init__(
        self,
        *,
        client: ChatSender,
        limiter: Limiter[WorkItem],
        journal: Journal,
        retry: RetryPolicy,
        counters: RunCounters,
        grace_s: float = 30.0,
        settled: Settled = lambda item, answer, state: None,
        reask: Reask = lambda item, answer: None,
        meter: BudgetMeter | None = None,
        early_stop: EarlyStop | None = None,
    ) -> None:
        self._client = client
        self._limiter = limiter
        self._journal = journal
        self._retry = retry
        self._counters = counters
        self._grace_s = grace_s
        self._settled = settled
        self._reask = reask
        self._meter = meter or BudgetMeter()
        self._early_stop = early_stop or EarlyStop(released=True)
        self._held: deque[WorkItem] = deque()
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._flights: set[asyncio.Future[Any]] = set()
        self._saving = 0
        self._stopped_by: BaseException | None = None
        self._ends_at = math.inf
        self._aborted = False
        self._same_rejection = SameRejection()
        self._refusals = HeldRefusals()

    async def run(self, batches: AsyncIterator[Sequence[WorkItem]]) -> None:
        """Brings every item to its end.

        Raises:
            JobError: What stopped the job; everything received until then is in the journal.
        """
        feeder = asyncio.create_task(self._feed(batches))
        feeder.add_done_callback(self._watch)
        try:
            await self._dispatch(feeder)
        except BaseException as error:  # noqa: BLE001 - raised below, once what is in flight has landed
            self.stop(error)
        feeder.cancel()
        await asyncio.gather(feeder, return_exceptions=True)
        await self._land_all()
        if self._stopped_by is not None:
            raise self._stopped_by

    def stop(self, error: BaseException) -> None:
        """Ends the run in order: nothing new leaves, what is in flight may land.

        The first reason counts, for the exit status too, and the grace period begins with it.
        """
        if self._stopped_by is None:
            self._stopped_by = error
            self._ends_at = asyncio.get_running_loop().time() + self._grace_s
        self._wake.set()

    def abort(self) -> None:
        """Ends the grace period: what is in flight is given up, what was received is kept."""
        self._aborted = True
        self._give_up_flights()

    def _give_up_flights(self) -> None:
        """Cancels what was sent; intents on their way to the disk get there, or they would look sent."""
        for flight in self._flights:
            if isinstance(flight, asyncio.Task):
                flight.cancel()

    async def _feed(self, batches: AsyncIterator[Sequence[WorkItem]]) -> None:
        async for items in batches:
            for item in items:
                request = item.request
                self._limiter.offer(item, Cost(request.prompt_tokens, request.max_tokens), lane=request.model)
            self._wake.set()
            while self._limiter.waiting >= LOOK_AHEAD:
                self._room.clear()
                await self._room.wait()

    async def _dispatch(self, feeder: "asyncio.Task[None]") -> None:
        loop = asyncio.get_running_loop()
        while self._stopped_by is None:
            self._wake.clear()
            poll = self._limiter.poll(loop.time())
            for item, message in poll.too_large:
                self._never_sent(item, message)
            if poll.grants or self._held:
                self._launch(poll.grants)
            if self._limiter.waiting < LOOK_AHEAD:
                self._room.set()
            if feeder.done() and not (self._held or self._limiter.waiting or self._flights or self._saving):
                self._fail_refused()
                return
            timer = None if poll.wake_at is None else loop.call_at(poll.wake_at, self._wake.set)
            await self._wake.wait()
            if timer is not None:
                timer.cancel()

    async def _land_all(self) -> None:
        """Waits for what is in flight, for the grace period at most, gives up the rest, and lands what arrived."""
        loop = asyncio.get_running_loop()
        while self._flights and not self._aborted and (left_s := self._ends_at - loop.time()) > 0:
            await asyncio.wait(self._flights, timeout=None if left_s == math.inf else left_s)
        while self._flights:
            self._give_up_flights()
            await asyncio.wait(self._flights)
        if self._saving:
            await asyncio.gather(self._journal.flush(), return_exceptions=True)

    def _launch(self, granted: Sequence[WorkItem]) -> None:
        """Sends what the budget holds; the rest waits until what is in flight has cost less than it might have."""
        held = self._held
        held.extend(granted)
        ready: list[WorkItem] = []
        while held and (reserved := self._meter.reserve(held[0].request)) is not None:
            item = held.popleft()
            item.reserved = reserved
            ready.append(item)
        if not ready:
            if not self._flights and not self._saving:
                left = self._counters.rows - self._counters.ended
                rows = "one row" if left == 1 else f"{left:,} rows"
                self.stop(BudgetStop(f"{self._meter.shortage(held[0].request)} with the {rows} left"))
            return
        intents = [(t.request_id, t.request.body if t.reasked else None) for t in ready]
        departure = self._journal.intend(intents)
        self._flights.add(departure)
        departure.add_done_callback(partial(self._depart, ready))

    def _watch(self, task: "asyncio.Future[Any]") -> None:
        self._flights.discard(task)
        self._wake.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            self.stop(error)

    def _depart(self, items: Sequence[WorkItem], intended: "asyncio.Future[list[int]]") -> None:
        """The intents of a group are durable: its requests leave, each in a task."""
        self._watch(intended)
        if intended.cancelled() or intended.exception() is not None:
            return
        for item, attempt_id in zip(items, intended.result(), strict=True):
            if self._stopped_by is not None:
                self._save(item, attempt_id, _NOT_SENT)
                continue
            flight = asyncio.create_task(self._fly(item, attempt_id))
            self._flights.add(flight)
            flight.add_done_callback(self._watch)

    async def _fly(self, item: WorkItem, attempt_id: int) -> None:
        if self._stopped_by is not None:
            outcome: Response | Failure = _NOT_SENT
        else:
            if not item.sent:
                item.sent = True
                self._counters.requests += 1
            item.sent_at = asyncio.get_running_loop().time()
            self._counters.leaves(item.sent_at)
            outcome = await self._client.send(item.request)
        if isinstance(outcome, Response) and outcome.status == OK:
            # Whoever takes the slot is granted later, so its intent stands behind this answer in the journal's queue.
            self._limiter.landed(item)
            self._wake.set()
        self._save(item, attempt_id, outcome)

    def _save(self, item: WorkItem, attempt_id: int, outcome: Response | Failure) -> None:
        self._saving += 1
        self._journal.save(attempt_id, outcome, partial(self._saved, item, attempt_id, outcome))

    def _saved(
        self, item: WorkItem, attempt_id: int, outcome: Response | Failure, error: Exception | None
    ) -> None:
        """An outcome is durable, or will not be."""
        self._saving -= 1
        try:
            if error is not None:
                self.stop(error)
            elif outcome is _NOT_SENT:
                self._meter.settle(item.request, item.reserved, outcome)
            else:
                self._land(item, attempt_id, outcome)
        except Exception as trouble:  # noqa: BLE001 - it is the run's; the rest of the group has to land
            self.stop(trouble)

    def _land(self, item: WorkItem, attempt_id: int, outcome: Response | Failure) -> None:
        """Decides what a durable outcome means for its item."""
        now = asyncio.get_running_loop().time()
        verdict = classify(outcome)
        headers = outcome.headers if isinstance(outcome, Response) else {}
        if self._counters.before == 0 and self._same_rejection.stops(verdict):
            self.stop(UsageError(f"the first rows were all refused alike: {verdict.message}"))
        if verdict.disposition is Disposition.ANSWERED:
            self._answered(item, attempt_id, outcome, now)
            return
        self._meter.settle(item.request, item.reserved, outcome)
        match verdict.disposition:
            case Disposition.REFUSED:
                self._counters.refusals += 1
                self._counters.last_refusal = verdict
                self._limiter.refused(now, item, verdict, headers)
            case Disposition.REJECTED:
                self._limiter.failed(now, item, verdict, headers)
                self._limiter.released(now, item)
                item.attempts += 1
                answer = _rejection(item, outcome, verdict)
                self._give_up(item, answer, State.FAILED, attempt_id)
            case Disposition.FATAL:
                self._fatal(item, attempt_id, outcome, verdict, now)
            case _:
                self._limiter.failed(now, item, verdict, headers)
                self._limiter.released(now, item)
                if verdict.disposition is not Disposition.UNKNOWN and self._limiter.outage:
                    self._offer_again(item, now + OUTAGE_BACKOFF_S)
                else:
                    self._again(item, attempt_id, verdict, now)
        self._wake.set()

    def _answered(self, item: WorkItem, attempt_id: int, outcome: Response | Failure, now: float) -> None:
        assert isinstance(outcome, Response), "only a response can be an answer"
        answer = item.reader.read(outcome.status, outcome.body)
        item.attempts += 1
        self._fail_refused(item.sent_at)
        cost = self._meter.settle(item.request, item.reserved, outcome, answer.usage)
        self._counters.paid(answer.usage, cost)
        self._counters.held.tokens += (answer.usage.prompt_tokens or 0) + (
            answer.usage.completion_tokens or 0
        )
        self._counters.finish_reasons[answer.finish_reason or "none"] += 1
        self._limiter.answered(now, item, outcome.headers, answer.usage)
        self._limiter.released(now, item)
        self._wake.set()
        if answer.error is not None and (request := self._reask(item, answer)) is not None:
            item.request = request
            item.reasked += 1
            self._counters.retries[answer.reason or "invalid"] += 1
            self._offer_again(item, now)
            return
        self._counters.final(cost)
        if (sentence := self._early_stop.saw(item.request.row_index, answer)) is not None:
            self.stop(BudgetStop(sentence))
        self._give_up(item, answer, State.ANSWERED if answer.error is None else State.FAILED, attempt_id)

    def _again(self, item: WorkItem, attempt_id: int, verdict: Verdict, now: float) -> None:
        item.attempts += 1
        if verdict.disposition is Disposition.UNKNOWN:
            item.possibly_billed += 1
            self._counters.possibly_billed += 1
        delay_s = self._retry.delay_s(item.attempts, item.possibly_billed, verdict)
        log.debug("row %d: %s, retry in %s s", item.request.row_index, verdict.reason, delay_s)
        if delay_s is None:
            answer = Answer(error=verdict.message, reason=verdict.reason)
            self._give_up(item, answer, State.UNANSWERED, attempt_id)
        else:
            self._counters.retries[verdict.reason] += 1
            self._offer_again(item, now + delay_s)

    def _offer_again(self, item: WorkItem, not_before: float) -> None:
        request = item.request
        cost = Cost(request.prompt_tokens, request.max_tokens)
        self._limiter.offer(item, cost, lane=request.model, again=True, not_before=not_before)

    def _give_up(self, item: WorkItem, answer: Answer, state: State, attempt_id: int | None = None) -> None:
        """Settles a item, for good or until the next run."""
        self._close(item, answer, state, attempt_id)
        self._settled(item, answer, state)

    def _close(self, item: WorkItem, answer: Answer, state: State, attempt_id: int | None) -> None:
        self._journal.record_outcome(item.request_id, state, attempt_id, item.earlier + item.attempts)
        if state is State.UNANSWERED:
            self._counters.unanswered += 1
            self._counters.failed_by_reason[answer.reason or "unknown"] += 1
        else:
            self._counters.ended_with(answer)

    def _never_sent(self, item: WorkItem, message: str) -> None:
        """Ends a item that no limit will ever hold; the row keeps the reason, since there is no reply to read."""
        noted = self._journal.admit([(item.request.row_index, None, f"too_large\n{message}")])
        self._flights.add(noted)
        noted.add_done_callback(self._watch)
        self._give_up(item, Answer(error=message, reason="too_large"), State.FAILED)

    def _fatal(
        self, item: WorkItem, attempt_id: int, outcome: Response | Failure, verdict: Verdict, now: float
    ) -> None:
        """Before any success a refusal of key, model or URL is wrong use; after one it may be its row's alone."""
        headers = outcome.headers if isinstance(outcome, Response) else {}
        if self._counters.answers + self._counters.before == 0 or not may_be_the_rows_own(verdict):
            self._limiter.failed(now, item, verdict, headers)
            self._limiter.released(now, item)
            wrong_use = (
                verdict.exit_status is ExitStatus.USAGE and not self._counters.answers + self._counters.before
            )
            self.stop(UsageError(verdict.message) if wrong_use else Unavailable(verdict.message))
            return
        # An endpoint that refuses a row is not down, and its gate is open.
        taken = self._counters.answers or self._limiter.outage
        told = replace(verdict, disposition=Disposition.REJECTED) if taken else verdict
        self._limiter.failed(now, item, told, headers)
        self._limiter.released(now, item)
        item.attempts += 1
        refused = HeldRefusal(item, _rejection(item, outcome, verdict), attempt_id, now)
        if item.earlier and self._counters.answers and not self._refusals.endpoints_own:
            self._give_up(item, refused.answer, State.FAILED, attempt_id)  # it had its second chance
        elif self._refusals.hold(refused):
            self.stop(Unavailable(f"{ENDPOINTS_OWN} rows in a row were refused: {verdict.message}"))
        else:
            self._settled(item, refused.answer, State.UNANSWERED)

    def _fail_refused(self, sent_at: float = math.inf) -> None:
        """Refused rows fail: a request that left after them shows that key, model and URL are good, or the run ends."""
        for item, answer, attempt_id, _ in self._refusals.take(sent_at):
            self._close(item, answer, State.FAILED, attempt_id)


def _rejection(item: WorkItem, outcome: Response | Failure, verdict: Verdict) -> Answer:
    """What a row gets that the endpoint will not have."""
    if isinstance(outcome, Response):
        return item.reader.read(outcome.status, outcome.body)
    return Answer(error=verdict.message, reason=verdict.reason)
