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
from batchllm.journal import SKIPPED, AdmittedRow, FinishedRows, Journal, State
from batchllm.plan.chosen import Chosen, wanted
from batchllm.plan.conversations import MOST_WAITING, Conversations
from batchllm.plan.finished import final_states, is_finished
from batchllm.plan.lookup import Lookup, changed
from batchllm.plan.replay import Replayer
from batchllm.plan.reuse import Reuse
from batchllm.plan.row_counts import (
    count_before,
    count_end,
    count_known,
    count_unsent,
    is_usable,
    row_state_of,
)
from batchllm.plan.row_flow import KnownRows, RowFlow
from batchllm.plan.sharing import Sharing
from batchllm.plan.work_item import RowEnd, WorkItem
from batchllm.records import Answer, Row
from batchllm.request import Skipped

FIRST_BATCH = 16
BATCH = 256
"""Rows that go to the journal together; the first batch is small so that the first request leaves early."""

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
        self._retry_failed = retry_failed
        self._final = final_states(retry_failed)
        self._since = since
        self._lookup = Lookup(flow, journal, since=since, accept_change=accept_change)
        self._accept_change = accept_change
        self._reuse = reuse
        self._conversations = Conversations(
            flow.conversation,
            flow.turns,
            flow.builder,
            lambda row: Replayer(flow, journal.reader()).answer_of(row),
        )
        self._dedupe = dedupe
        self._sharing = Sharing(journal, counters, single=flow.single, dedupe=dedupe)
        self._open = 0
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
            flows = self._next_due()
            if not flows and more and self._conversations.waiting < MOST_WAITING:
                page = list(islice(rows, size))
                size, more = BATCH, bool(page)
                flows = [flow for flow in map(self._joined, page) if flow is not None and self._begin(flow)]
            elif not flows and self._deferred:
                yield self._take_deferred()
                continue
            elif not flows and not self._conversations.due:
                if self._lookup.unsent:
                    await self._lookup.admit(())
                if not (self._open and self._waits):
                    return
                self._changed.clear()
                await self._changed.wait()
                continue
            items = self._defer_tried(await self._items(flows))
            if items:
                yield items

    def settled(self, item: WorkItem, answer: Answer, state: State) -> RowEnd | None:
        """Called with each request that is finished: its flow goes on.

        Returns:
            How its row ended, if it has; whoever calls counts that.
        """
        flow = item.flow
        if flow is None or not flow.take(item.number, answer, given_up=state is State.UNANSWERED):
            return None
        if flow.waits_for is not None:
            self._lookup.provide(flow)
        if flow.ended:
            return self._end(flow)
        self._due.append(flow)
        self._changed.set()
        return None

    def _next_due(self) -> list[RowFlow]:
        """Takes begun flows that ask something, and turns whose time has come."""
        flows = [self._due.popleft() for _ in range(min(len(self._due), BATCH))]
        turns = self._conversations.due
        for _ in range(min(len(turns), BATCH)):
            flow = turns.popleft()
            if self._begin(flow):
                flows.append(flow)
        return flows

    def _joined(self, row: Row) -> RowFlow | None:
        """Returns the flow of a row that may begin now; ``None`` if it waits for the turn before it."""
        flow = RowFlow(row, self._known.of(row.index))
        return flow if self._flow.conversation is None or self._conversations.join(flow) else None

    def _begin(self, flow: RowFlow) -> bool:
        """Begins the flow of a row; returns whether it asks something."""
        known = flow.known
        if known is not None:
            flow.key = known.key or b""
            if self._is_finished(known):
                self._pass(flow, known)
                return False
            if known.request_id is not None and self._sharing.shares(flow, known.request_id):
                return False
        self._open += 1
        if not self._start(flow):
            self._end(flow)
            return False
        if known is not None and known.request_id is not None:
            self._take_root(flow, known)
            if not self._flow.single and known.row_state is None:
                self._journal.end_row(known.row_index, State.OPEN)  # the last run asked for one request only
        flow.key = flow.asks[0].identity
        return True

    def _start(self, flow: RowFlow) -> bool:
        builder = self._flow.builder
        cut = builder.truncated
        flow.begin(self._flow.start(flow.row))
        if flow.waits_for is not None:
            self._lookup.provide(flow, self._conversations.history)
        self._counters.truncated += builder.truncated - cut
        return not flow.ended

    def _take_root(self, flow: RowFlow, known: AdmittedRow) -> None:
        """Takes the first request of the last pass, unless that was answered and the row asks something else."""
        if known.key == flow.asks[0].identity or known.state not in (State.ANSWERED, State.PENDING):
            flow.root = known
        elif not self._accept_change:
            raise changed([flow.row.index], "")

    def _is_finished(self, known: AdmittedRow) -> bool:
        return is_finished(known, retry_failed=self._retry_failed, since=self._since)

    def _pass(self, flow: RowFlow, known: AdmittedRow) -> None:
        """Counts a finished row."""
        count_known(self._counters, known)
        if row_state_of(known) is State.PENDING:
            self._conversations.hold(flow)
        else:
            self._conversations.finished(flow, is_usable(known))

    async def _items(self, flows: list[RowFlow]) -> list[WorkItem]:
        """Runs flows up to where they miss an answer, and returns the requests that they miss."""
        items: list[WorkItem] = []
        while True:
            new = [flow for flow in flows if flow.root is None]
            if new or self._lookup.unsent:
                await self._lookup.admit(new)
                flows = [flow for flow in flows if flow.known_root or not self._needs_nothing(flow)]
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
                    self._drop(flow)
            flows = [flow for flow in moved if self._goes_on(flow)]

    def _needs_nothing(self, flow: RowFlow) -> bool:
        """Decides whether a row that was just admitted is finished, or shares another row's requests."""
        root = flow.root
        assert root is not None and root.request_id is not None, "it was just admitted"
        flow.known_root = True
        finished = root.state is not State.OPEN and self._is_finished(root)
        if finished:
            self._pass(flow, root)
        if finished or (self._dedupe and self._sharing.shares(flow, root.request_id)):
            self._open -= 1
            return True
        return False

    async def _adopt(self, reuse: Reuse, missed: list[WorkItem], moved: list[RowFlow]) -> list[WorkItem]:
        """Answers requests with the answers of other jobs; returns the others."""
        left, adopted = await reuse.adopt(missed)
        for item, answer in adopted:
            flow = item.flow
            assert flow is not None, "an item is its flow's until it is sent"
            flow.adopted = True
            if flow.take(item.number, answer):
                self._lookup.provide(flow)
                moved.append(flow)
        return left

    def _goes_on(self, flow: RowFlow) -> bool:
        """Whether a flow that has gone on asks something; counts its row if it has ended."""
        if not flow.ended or self._begins_again(flow):
            return True
        end = self._end(flow)
        if end is None:
            return False
        if flow.sent:
            count_end(self._counters, *end)
        elif flow.adopted:
            self._counters.reused += 1
        else:
            self._counters.finished_before += 1
            if self._collected is not None and flow.known is not None:
                count_end(self._collected, *end)
        return False

    def _begins_again(self, flow: RowFlow) -> bool:
        """Begins a flow again whose failed requests are to be asked again (``--retry-failed``)."""
        root, answer = flow.root, flow.result
        if not self._retry_failed or flow.sent or flow.reopened or flow.unsent is not None:
            return False
        if root is None or root.request_id is None or answer is None or answer.error is None or flow.given_up:
            return False
        if self._since is not None and flow.newest >= self._since:
            return False
        flow.reopened = True
        self._journal.reopen(root.request_id)
        if not self._flow.single:
            self._journal.end_row(flow.row.index, State.OPEN)
        flow.root = root._replace(state=State.OPEN, attempt_id=None) if root.state is State.FAILED else root
        return self._start(flow)

    def _drop(self, flow: RowFlow) -> None:
        """Leaves a flow to a later pass, which replays it."""
        self._open -= 1
        if flow.held:
            self._counters.pending += 1
        self._conversations.hold(flow)
        self._sharing.end(flow, State.OPEN, forget=False)

    def _end(self, flow: RowFlow) -> RowEnd | None:
        """Records how a flow ended; returns ``None`` for a row of which nothing is sent, which is counted here."""
        self._open -= 1
        self._changed.set()
        if flow.unsent is not None and not flow.answered:
            unsent = flow.unsent
            reason = SKIPPED if isinstance(unsent, Skipped) else f"{unsent.reason}\n{unsent.error}"
            self._lookup.unsent.append((flow.row.index, reason))
            count_unsent(self._counters, unsent, flow.row.index)
            self._conversations.finished(flow, None if isinstance(unsent, Skipped) else False)
            return None
        answer = flow.result or Answer()
        state = State.ANSWERED if answer.error is None else State.FAILED
        if flow.given_up:
            state = State.UNANSWERED
        if not self._flow.single or (flow.known is not None and flow.known.row_state is not None):
            row_state = None if flow.requests == 1 and flow.unsent is None else state
            for row_index in (flow.row.index, *(flow.followers or ())):
                self._journal.end_row(row_index, row_state)
        # What was given up stays known; and everything, as long as the last pass's rows come: they may be older.
        if self._dedupe:
            self._sharing.end(flow, state, forget=state in self._final and not self._known.more)
        if flow.conversation is not None:
            self._conversations.finished(flow, state is State.ANSWERED, answer)
        return answer, state

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
