"""Sends rows one request at a time: wait for the rate limit, send, store, then retry or finish.

One coroutine feeds work items from the plan into the limiter's bounded look-ahead, one sends what the limiter
grants, and each request in flight is a task. The first promise rests on the order of three steps: the intent is
durable before the request leaves; the raw reply is durable before anything reads it; only then is the slot free and
the row counted. Waiting for the disk is done by callbacks: what the journal makes durable together is sent and
handled together, without a task or a future for each row.

A row's failure stays with its work item. A job's failure stops the run (``RunStop``): no new request leaves, those in
flight get a grace period, and everything that arrives is kept.
"""

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from batchllm.budget.budget import BudgetMeter
from batchllm.budget.early_stop import EarlyStop
from batchllm.counters import RunCounters
from batchllm.errors import BudgetStop
from batchllm.journal import Journal, State
from batchllm.limiter import EndpointRouter, Limiter, Poll
from batchllm.online.outcome import OutcomeHandler
from batchllm.plan.work_item import ChatSender, Settled, WorkItem
from batchllm.printable import counted
from batchllm.records import Answer, ChatRequest, Failure, FailureKind, Paid, Response
from batchllm.retry import RetryPolicy, Verdict
from batchllm.stopping import RunStop

OK = 200
_NONE: Poll[WorkItem] = Poll([], None, [])
_NOT_SENT = Failure(FailureKind.UNSENT, "not sent: the run was stopped", Paid.NO, 0.0)
PLAIN_EVERY_S = 10.0
LOOK_AHEAD = 512
"""Work items that wait in the limiter: enough to hide the journal's latency, few enough to need no memory."""


@dataclass(eq=False, kw_only=True)
class OnlineLoop:
    """One run in online mode.

    Args:
        client: Sends a request, returns an outcome.
        limiter: Decides what may go when; with several endpoints also where.
        journal: Makes intents and answers durable.
        retry: Decides whether and when a failed attempt is tried again.
        counters: Counts.
        settled: Called with each finished request; returns how its row ended, if it has.
        meter: Holds requests to the budget and prices answers; by default there is no budget.
        early_stop: Stops a run whose first answers are all unusable.
        run_stop: Says when the run has to end, and how long requests in flight may still take.
        others: The clients of the second endpoint, the third, and so on.
        endpoint_numbers: The numbers of all endpoints in the journal; empty does not record where a request went.
        all_sent: Called when every row was sent; retries and later requests of rows may follow.
        plain: Makes the plainest request to a model, which tells an outage from requests that the endpoint does not
            take; ``None`` sends none.
    """

    client: ChatSender
    limiter: Limiter[WorkItem] | EndpointRouter[WorkItem]
    journal: Journal
    retry: RetryPolicy
    counters: RunCounters
    settled: Settled = lambda item, answer, state: (answer, state)
    meter: BudgetMeter = field(default_factory=BudgetMeter)
    early_stop: EarlyStop = field(default_factory=partial(EarlyStop, inactive=True))
    run_stop: RunStop = field(default_factory=RunStop)
    plain: Callable[[str], ChatRequest] | None = None
    others: Sequence[ChatSender] = ()
    endpoint_numbers: Sequence[int] = ()
    all_sent: Callable[[], object] = lambda: None

    def __post_init__(self) -> None:
        self._clients = (self.client, *self.others)
        self._outcomes = OutcomeHandler(
            self.limiter, self.journal, self.retry, self.counters, self.settled,
            self.meter, self.early_stop, self.run_stop.stop, self._ask_plainly,
        )  # fmt: skip
        self._held: deque[WorkItem] = deque()
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._in_flight: set[asyncio.Future[Any]] = set()
        self._saving = 0
        self._plain_after = -math.inf
        self.run_stop.subscribe(self._wake.set, self._cancel_in_flight)

    async def run(self, batches: AsyncIterator[Sequence[WorkItem]]) -> None:
        """Finishes every item.

        Raises:
            JobError: What stopped the job; everything received until then is in the journal.
        """
        feeder = asyncio.create_task(self._feed(batches))
        feeder.add_done_callback(self._watch)
        try:
            await self._dispatch(feeder)
        except BaseException as error:  # noqa: BLE001 - raised below, once what is in flight has been handled
            self.run_stop.stop(error)
        feeder.cancel()
        await asyncio.gather(feeder, return_exceptions=True)
        await self._finish_in_flight()
        self.run_stop.raise_reason()

    def wake(self) -> None:
        """Looks again at what may be sent: a lease has come."""
        self._wake.set()

    def _cancel_in_flight(self) -> None:
        """Cancels what was sent. Intents on their way to the disk are left alone, or they would look sent."""
        for task in self._in_flight:
            if isinstance(task, asyncio.Task):
                task.cancel()

    async def _feed(self, batches: AsyncIterator[Sequence[WorkItem]]) -> None:
        async for items in batches:
            for item in items:
                self.limiter.offer(item, item.cost, lane=item.request.model, again=item.begun)
            self._wake.set()
            while self.limiter.waiting >= LOOK_AHEAD:
                self._room.clear()
                await self._room.wait()

    async def _dispatch(self, feeder: "asyncio.Task[None]") -> None:
        loop = asyncio.get_running_loop()
        while self.run_stop.check() is None:
            self._wake.clear()
            # What waits for a budget that may still rise goes first; so nothing piles up and leaves at once then.
            is_short = self._held and not self.meter.budget.final
            if isinstance(self.limiter, EndpointRouter):
                self.limiter.left = self.counters.requests_left
            poll = _NONE if is_short else self.limiter.poll(loop.time())
            for item, message in poll.too_large:
                self._never_sent(item, message)
            if poll.grants or self._held:
                self._send_granted(poll.grants)
            if self.limiter.waiting < LOOK_AHEAD:
                self._room.set()
            if feeder.done() and not (self._held or self.limiter.waiting):
                if not (self._in_flight or self._saving):
                    self._outcomes.end()
                    return
                self.all_sent()
            timer = None if poll.wake_at is None else loop.call_at(poll.wake_at, self._wake.set)
            await self._wake.wait()
            if timer is not None:
                timer.cancel()

    async def _finish_in_flight(self) -> None:
        """Waits for requests in flight, at most for the grace period; cancels the rest; handles what arrived."""
        while self._in_flight:
            if self.run_stop.aborted:
                self._cancel_in_flight()
            ended, _ = await asyncio.wait(self._in_flight)
            self._in_flight -= ended  # a task that is cancelled before it begins does not do so itself
        if self._saving:
            await asyncio.gather(self.journal.flush(), return_exceptions=True)

    def _send_granted(self, granted: Sequence[WorkItem]) -> None:
        """Sends what the budget allows; the rest waits until requests in flight release what they reserved."""
        held = self._held
        held.extend(granted)
        ready: list[WorkItem] = []
        while held and (reserved := self.meter.reserve(held[0].request)) is not None:
            item = held.popleft()
            item.reserved = reserved
            ready.append(item)
            if self.endpoint_numbers:
                self.journal.goes_to(item.request_id, self.endpoint_numbers[item.endpoint])
        if not ready:
            if not self._in_flight and not self._saving and self.meter.budget.final:
                rows = counted(self.counters.rows - self.counters.finished, "row")
                left = "" if self.meter.budget.is_shared else f" with the {rows} left"
                self.run_stop.stop(BudgetStop(f"{self.meter.shortage(held[0].request)}{left}"))
            return
        intended = self.journal.intend([item.request_id for item in ready])
        self._in_flight.add(intended)
        intended.add_done_callback(partial(self._send_group, ready))

    def _watch(self, task: "asyncio.Future[Any]") -> None:
        self._in_flight.discard(task)
        self._wake.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            self.run_stop.stop(error)

    def _send_group(self, items: Sequence[WorkItem], intended: "asyncio.Future[list[int]]") -> None:
        """Sends the requests of a group whose intents are durable, each in a task."""
        self._watch(intended)
        if intended.cancelled() or intended.exception() is not None:
            return
        loop = asyncio.get_running_loop()
        for item, attempt_id in zip(items, intended.result(), strict=True):
            if self.run_stop.reason is not None:
                self._save(item, attempt_id, _NOT_SENT)
            else:
                self._in_flight.add(loop.create_task(self._send(item, attempt_id, loop)))

    async def _send(self, item: WorkItem, attempt_id: int, loop: asyncio.AbstractEventLoop) -> None:
        """Sends a request, and has its outcome saved; a callback at its end would take another turn of the loop."""
        counters = self.counters
        try:
            if self.run_stop.reason is not None:
                self._save(item, attempt_id, _NOT_SENT)
                return
            if not item.sent:
                item.sent = True
                counters.requests += 1
            item.sent_at = loop.time()
            counters.count_attempt(item.sent_at)
            counters.in_flight += 1
            try:
                outcome = await self._clients[item.endpoint].send(item.request)
            finally:
                counters.in_flight -= 1
            if isinstance(outcome, Response) and outcome.status == OK:
                # The slot's next request is granted later, so its intent is behind this reply in the journal's queue.
                self.limiter.received(item)
            self._save(item, attempt_id, outcome)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - stops the run
            self.run_stop.stop(error)
        finally:
            self._in_flight.discard(asyncio.current_task())
            self._wake.set()

    def _ask_plainly(self, item: WorkItem, refused: Verdict) -> None:
        """Sends a plain request, once in ``PLAIN_EVERY_S``, to tell whether the endpoint or the request is to blame."""
        now = asyncio.get_running_loop().time()
        if self.plain is None or now < self._plain_after or self.run_stop.reason is not None:
            return
        self._plain_after = now + PLAIN_EVERY_S
        request, client = self.plain(item.request.model), self._clients[item.endpoint]

        async def ask() -> None:
            self._outcomes.answered_plainly(await client.send(request), item, refused)

        task = asyncio.create_task(ask())
        self._in_flight.add(task)
        task.add_done_callback(self._watch)

    def _save(self, item: WorkItem, attempt_id: int, outcome: Response | Failure) -> None:
        self._saving += 1
        self.journal.save(attempt_id, outcome, partial(self._saved, item, attempt_id, outcome))

    def _saved(
        self, item: WorkItem, attempt_id: int, outcome: Response | Failure, _: None, error: Exception | None
    ) -> None:
        """Handles an outcome that is durable, or that could not be saved."""
        self._saving -= 1
        try:
            if error is not None:
                self.run_stop.stop(error)
            elif outcome is _NOT_SENT:
                self.meter.release(item.request, item.reserved, outcome)
            else:
                self._outcomes.handle(item, attempt_id, outcome)
        except Exception as trouble:  # noqa: BLE001 - stops the run; the rest of the group is still handled
            self.run_stop.stop(trouble)
        self._wake.set()

    def _never_sent(self, item: WorkItem, message: str) -> None:
        """Fails an item that is larger than any limit; its row keeps the reason, since there is no reply."""
        is_asked_again = self.journal.is_asked_again(item.request_id)
        end = self._outcomes.finish(item, Answer(error=message, reason="too_large"), State.FAILED)
        if end is not None and not is_asked_again:
            noted = self.journal.admit([(item.request.row_index, None, f"too_large\n{message}")])
            self._in_flight.add(noted)
            noted.add_done_callback(self._watch)
