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
import math
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from batchllm.budget.early_stop import EarlyStop
from batchllm.budget.meter import BudgetMeter
from batchllm.counters import RunCounters
from batchllm.errors import BudgetStop
from batchllm.journal import Journal, State
from batchllm.limiter import Limiter
from batchllm.online.outcome import OutcomeHandler
from batchllm.plan.work_item import ChatSender, Reask, Settled, WorkItem
from batchllm.records import Answer, Failure, FailureKind, Paid, Response
from batchllm.retry import RetryPolicy

OK = 200
_NOT_SENT = Failure(FailureKind.UNSENT, "not sent: the run was stopped", Paid.NO, 0.0)
LOOK_AHEAD = 512
"""Tickets that wait in the limiter; enough to hide the journal's latency, few enough to weigh nothing."""


@dataclass(eq=False, kw_only=True)
class OnlineLoop:
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

    client: ChatSender
    limiter: Limiter[WorkItem]
    journal: Journal
    retry: RetryPolicy
    counters: RunCounters
    grace_s: float = 30.0
    settled: Settled = lambda item, answer, state: None
    reask: Reask = lambda item, answer: None
    meter: BudgetMeter = field(default_factory=BudgetMeter)
    early_stop: EarlyStop = field(default_factory=partial(EarlyStop, released=True))

    def __post_init__(self) -> None:
        self._outcomes = OutcomeHandler(
            self.limiter, self.journal, self.retry, self.counters, self.settled, self.reask,
            self.meter, self.early_stop, self.stop,
        )  # fmt: skip
        self._held: deque[WorkItem] = deque()
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._flights: set[asyncio.Future[Any]] = set()
        self._saving = 0
        self._stopped_by: BaseException | None = None
        self._ends_at = math.inf
        self._aborted = False

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
            self._ends_at = asyncio.get_running_loop().time() + self.grace_s
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
                self.limiter.offer(item, item.cost, lane=item.request.model)
            self._wake.set()
            while self.limiter.waiting >= LOOK_AHEAD:
                self._room.clear()
                await self._room.wait()

    async def _dispatch(self, feeder: "asyncio.Task[None]") -> None:
        loop = asyncio.get_running_loop()
        while self._stopped_by is None:
            self._wake.clear()
            poll = self.limiter.poll(loop.time())
            for item, message in poll.too_large:
                self._never_sent(item, message)
            if poll.grants or self._held:
                self._launch(poll.grants)
            if self.limiter.waiting < LOOK_AHEAD:
                self._room.set()
            if feeder.done() and not (self._held or self.limiter.waiting or self._flights or self._saving):
                self._outcomes.fail_refused()
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
            await asyncio.gather(self.journal.flush(), return_exceptions=True)

    def _launch(self, granted: Sequence[WorkItem]) -> None:
        """Sends what the budget holds; the rest waits until what is in flight has cost less than it might have."""
        held = self._held
        held.extend(granted)
        ready: list[WorkItem] = []
        while held and (reserved := self.meter.reserve(held[0].request)) is not None:
            item = held.popleft()
            item.reserved = reserved
            ready.append(item)
        if not ready:
            if not self._flights and not self._saving:
                left = self.counters.rows - self.counters.ended
                rows = "one row" if left == 1 else f"{left:,} rows"
                self.stop(BudgetStop(f"{self.meter.shortage(held[0].request)} with the {rows} left"))
            return
        intents = [(t.request_id, t.request.body if t.reasked else None) for t in ready]
        departure = self.journal.intend(intents)
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
                self.counters.requests += 1
            item.sent_at = asyncio.get_running_loop().time()
            self.counters.leaves(item.sent_at)
            outcome = await self.client.send(item.request)
        if isinstance(outcome, Response) and outcome.status == OK:
            # Whoever takes the slot is granted later, so its intent stands behind this answer in the journal's queue.
            self.limiter.landed(item)
            self._wake.set()
        self._save(item, attempt_id, outcome)

    def _save(self, item: WorkItem, attempt_id: int, outcome: Response | Failure) -> None:
        self._saving += 1
        self.journal.save(attempt_id, outcome, partial(self._saved, item, attempt_id, outcome))

    def _saved(
        self, item: WorkItem, attempt_id: int, outcome: Response | Failure, error: Exception | None
    ) -> None:
        """An outcome is durable, or will not be."""
        self._saving -= 1
        try:
            if error is not None:
                self.stop(error)
            elif outcome is _NOT_SENT:
                self.meter.settle(item.request, item.reserved, outcome)
            else:
                self._outcomes.handle(item, attempt_id, outcome)
        except Exception as trouble:  # noqa: BLE001 - it is the run's; the rest of the group has to land
            self.stop(trouble)
        self._wake.set()

    def _never_sent(self, item: WorkItem, message: str) -> None:
        """Ends a item that no limit will ever hold; the row keeps the reason, since there is no reply to read."""
        noted = self.journal.admit([(item.request.row_index, None, f"too_large\n{message}")])
        self._flights.add(noted)
        noted.add_done_callback(self._watch)
        self._outcomes.give_up(item, Answer(error=message, reason="too_large"), State.FAILED)
