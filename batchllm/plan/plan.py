"""The pass over the input that runs the flow of each unfinished row, and makes a work item of each request it needs.

A row finds its first request in the journal by the hash of what would be sent, never by its number, so rows may be
inserted, shuffled or deleted between runs. If input and job are the same as in the journal's last pass, the rows of
that pass are known and are not rendered again, so resuming is quick. What a flow asks is looked up before it is sent,
so a flow that has begun is replayed up to where it stopped.

Requests of flows that have begun go before new rows. In batch mode a pass is a wave: flows run until they miss an
answer, are dropped, and are replayed in the next pass.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from itertools import islice

from batchllm.counters import RunCounters
from batchllm.flows import JobFlow
from batchllm.journal import AdmittedRow, FinishedRows, Journal, State, is_better
from batchllm.plan.chosen import wanted
from batchllm.plan.conversations import MOST_WAITING, Conversations
from batchllm.plan.lifecycle import FlowLifecycle
from batchllm.plan.lookup import Lookup
from batchllm.plan.replay import Replayer
from batchllm.plan.reuse import Reuse
from batchllm.plan.row_counts import count_before, count_end
from batchllm.plan.row_flow import KnownRows, RowFlow
from batchllm.plan.work_item import RowEnd, WorkItem
from batchllm.records import Answer, Chosen, Row

FIRST_BATCH = 16
BATCH = 256
"""Rows that go to the journal together; the first batch is small so that the first request leaves early."""

AHEAD_S = 0.1
"""Seconds for which rows that take long, such as texts of files, are begun before those that are ready go out."""

MOST_DEFERRED_BYTES = 64_000_000
"""Requests that an earlier run tried are sent last, as long as they fit into this many bytes."""


class Plan:
    """One pass over the rows.

    Args:
        rows: The rows of the input.
        flow: What is done with a row.
        journal: Knows which requests are finished.
        known: The rows that an earlier run admitted in this same pass, in input order.
        counters: Counts the rows that need no request.
        chosen: The only rows wanted (``-n``, ``--sample``), or ``None`` for all.
        retry_failed: Rows that failed are asked again.
        accept_change: A flow may ask something else than what it was answered.
        reuse: Answers of other jobs.
        passed: The rows before the first of ``rows``, which an earlier run finished.
        dedupe: Equal rows may share their requests.
        since: In batch mode, the session's first attempt; see ``is_finished``.
        collected: In batch mode, counts the rows that this run finished.
    """

    def __init__(
        self,
        rows: Iterable[Row],
        flow: JobFlow,
        journal: Journal,
        *,
        known: Iterator[AdmittedRow],
        counters: RunCounters,
        chosen: Chosen = None,
        retry_failed: bool = False,
        accept_change: bool = False,
        reuse: Reuse | None = None,
        passed: Iterable[FinishedRows] = (),
        dedupe: bool = True,
        since: int | None = None,
        collected: RunCounters | None = None,
    ) -> None:
        self._rows = rows
        self._flow = flow
        self._journal = journal
        self._known = KnownRows(known)
        self._counters = counters
        self._collected = collected
        self._chosen = chosen
        self._since = since
        self._lookup = Lookup(flow, journal, since=since, accept_change=accept_change)
        self._reuse = reuse
        self._conversations = Conversations(
            flow.conversation,
            flow.turns,
            flow.builder,
            lambda row: Replayer(flow, journal.reader()).answer_of(row),
        )
        self._lifecycle = FlowLifecycle(
            flow,
            journal,
            self._lookup,
            self._conversations,
            self._known,
            counters,
            retry_failed=retry_failed,
            accept_change=accept_change,
            dedupe=dedupe,
            since=since,
        )
        self._waits = not flow.single or flow.conversation is not None
        self._due: deque[RowFlow] = deque()
        self._changed = asyncio.Event()
        self._deferred: list[WorkItem] = []
        self._deferred_bytes = 0
        for ended in passed:
            count_before(counters, ended)

    async def batches(self) -> AsyncIterator[Sequence[WorkItem]]:
        """Yields work items: begun flows before new rows, and last what an earlier run tried."""
        rows = wanted(self._rows, self._chosen)
        size, more = FIRST_BATCH, True
        while True:
            self._changed.clear()
            flows = await self._next_due()
            if not flows and more and self._conversations.waiting < MOST_WAITING:
                flows, more = await self._begin(rows, size)
                size = BATCH
            elif not flows and self._deferred:
                yield self._take_deferred()
                continue
            elif not flows and not self._conversations.due:
                if self._lookup.unsent:
                    await self._lookup.admit(())
                    continue  # meanwhile an answer may have made a turn due
                if not (self._lifecycle.open and self._waits):
                    return
                await self._changed.wait()
                continue
            items = self._defer_tried(await self._items(flows))
            if items:
                yield items

    async def _begin(self, rows: Iterator[Row], size: int) -> tuple[list[RowFlow], bool]:
        """Begins the flows of so many rows, or of fewer that take long or ask much; returns whether there are more."""
        flows: list[RowFlow] = []
        asked = 0
        loop = asyncio.get_running_loop()
        until = loop.time() + AHEAD_S
        for row in islice(rows, size):
            size -= 1
            flow = RowFlow(row, self._known.of(row.index))
            if self._flow.slow is not None and self._lifecycle.starts(flow):
                await self._lookup.compute(self._flow.slow(row))  # so that answers are received meanwhile
            if self._flow.conversation is not None and not self._conversations.join(flow):
                continue  # it waits for the turn before it
            if self._lifecycle.begin(flow):
                flows.append(flow)
                asked += len(flow.asks)
            if asked >= BATCH or (self._flow.slow is not None and loop.time() >= until):
                return flows, True
        return flows, not size

    def settled(self, item: WorkItem, answer: Answer, state: State) -> RowEnd | None:
        """Called with each request that is finished: its flow goes on.

        Returns:
            How its row ended, if it has; whoever calls counts that.
        """
        flow = item.flow
        if item.before is not None and not is_better(state, item.before[1]):
            answer, state = item.before
        if flow is None or not flow.take(item.number, answer, given_up=state is State.UNANSWERED):
            return None
        self._changed.set()
        if flow.ended and not self._lifecycle.begins_again(flow):
            return self._lifecycle.end(flow)
        self._due.append(flow)
        return None

    async def _next_due(self) -> list[RowFlow]:
        """Takes begun flows that ask something, and turns whose time has come."""
        due = [self._due.popleft() for _ in range(min(len(self._due), BATCH))]
        flows = []
        for flow in due:
            waited = flow.waits_for is not None
            await self._lookup.provide_beside(flow)
            if not waited or self._goes_on(flow):
                flows.append(flow)
        turns = self._conversations.due
        for _ in range(min(len(turns), BATCH)):
            flow = turns.popleft()
            if self._lifecycle.begin(flow):
                flows.append(flow)
        return flows

    async def _items(self, flows: list[RowFlow]) -> list[WorkItem]:
        """Runs flows up to where they miss an answer, and returns the requests that they miss."""
        items: list[WorkItem] = []
        while True:
            new = [flow for flow in flows if flow.root is None]
            if new or self._lookup.unsent:
                await self._lookup.admit(new)
                flows = [flow for flow in flows if flow.known_root or not self._lifecycle.needs_nothing(flow)]
            if not flows:
                return items
            missed, moved = await self._lookup.answer(flows)
            if self._reuse is not None and missed:
                missed = await self._adopt(self._reuse, missed, moved)
            for item in missed:
                if item.flow is not None:
                    item.flow.sent = True
                    if self._since is not None or item.flow.held:
                        item.flow = None
            items += missed
            going_on = set(map(id, moved))
            for flow in flows:
                if (self._since is not None or flow.held) and id(flow) not in going_on:
                    self._lifecycle.drop(flow)
            flows = [flow for flow in moved if self._goes_on(flow)]

    async def _adopt(self, reuse: Reuse, missed: list[WorkItem], moved: list[RowFlow]) -> list[WorkItem]:
        """Answers requests with the answers of other jobs; returns the others."""
        left, adopted = await reuse.adopt(missed)
        for item, answer in adopted:
            flow = item.flow
            assert flow is not None, "an item is its flow's until it is sent"
            flow.adopted = True
            if flow.take(item.number, answer):
                await self._lookup.provide_beside(flow)
                moved.append(flow)
        return left

    def _goes_on(self, flow: RowFlow) -> bool:
        """Whether a flow that has gone on asks something; counts its row if it has ended."""
        if not flow.ended or self._lifecycle.begins_again(flow):
            return True
        end = self._lifecycle.end(flow)
        if end is None:
            return False
        if flow.sent:
            count_end(self._counters, *end)
        elif flow.adopted:
            self._counters.reused += 1
        else:
            self._counters.finished_before += 1
            self._counters.failed_before += end[1] is not State.ANSWERED
            if self._collected is not None and flow.known is not None:
                count_end(self._collected, *end)
        return False

    def _defer_tried(self, items: list[WorkItem]) -> list[WorkItem]:
        """Keeps back the items that an earlier run tried, so that rows which stop a run come last."""
        now = []
        for item in items:
            size = len(item.request.body)
            if self._since is None and item.earlier and self._deferred_bytes + size <= MOST_DEFERRED_BYTES:
                self._deferred.append(item)
                self._deferred_bytes += size
            else:
                now.append(item)
        return now

    def _take_deferred(self) -> list[WorkItem]:
        items, self._deferred, self._deferred_bytes = self._deferred, [], 0
        return items
