"""The pass over the input that makes a work item of each unfinished row.

A row finds its request in the journal by the hash of what would be sent, never by its number, so rows may be inserted,
shuffled or deleted between runs. If input and job are the same as in the journal's last pass, the rows of that pass
are known and are not rendered again, so resuming is quick.
"""

import random
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from itertools import islice

from batchllm.counters import RunCounters
from batchllm.journal import SKIPPED, AdmittedRow, FinishedRows, Journal, State
from batchllm.plan.finished import final_states, is_finished
from batchllm.plan.reask import Final, ReaskPolicy
from batchllm.plan.reuse import Reuse
from batchllm.plan.work_item import WorkItem
from batchllm.records import Answer, ChatRequest, Row
from batchllm.request import RequestBuilder, Skipped, Unsendable

FIRST_BATCH = 16
BATCH = 256
"""Rows that go to the journal together; the first batch is small so that the first request leaves early."""

MOST_DEFERRED_BYTES = 64_000_000
"""Rows that an earlier run tried are sent last, as long as their requests fit into this many bytes."""


class Plan:
    """One pass over the rows.

    Args:
        rows: The rows of the input.
        builder: Makes a row's request.
        journal: Knows which requests are finished.
        known: The rows that an earlier run admitted in this same pass, in input order.
        counters: Counts the rows that need no request.
        chosen: The only rows wanted (``-n``, ``--sample``), or ``None`` for all.
        retry_failed: Rows whose answer was a failure are sent again.
        reuse: Answers of other jobs.
        reask: Resumes rows whose answer, of an earlier run, is to be re-asked.
        passed: The rows before the first of ``rows``, which an earlier run finished.
        dedupe: Equal rows may share a request.
        since: In batch mode, the session's first attempt; see ``is_finished``.
    """

    def __init__(
        self,
        rows: Iterable[Row],
        builder: RequestBuilder,
        journal: Journal,
        *,
        known: Iterator[AdmittedRow],
        counters: RunCounters,
        chosen: "range | frozenset[int] | None" = None,
        retry_failed: bool = False,
        reuse: Reuse | None = None,
        reask: ReaskPolicy | None = None,
        passed: Iterable[FinishedRows] = (),
        dedupe: bool = True,
        since: int | None = None,
    ) -> None:
        self._rows = rows
        self._builder = builder
        self._journal = journal
        self._known = known
        self._next_known = next(known, None)
        self._counters = counters
        self._chosen = chosen
        self._retry_failed = retry_failed
        self._final = final_states(retry_failed)
        self._dedupe = dedupe
        self._since = since
        self._reuse = reuse
        self._reask = reask
        self._finals: dict[int, Final] = {}
        self._under_way: set[int] = set()
        self._deferred: list[WorkItem] = []
        self._deferred_bytes = 0
        for ended in passed:
            self._count(ended)

    async def batches(self) -> AsyncIterator[Sequence[WorkItem]]:
        """Yields work items in input order, those that an earlier run tried last; counts the other rows."""
        rows = iter(self._wanted())
        size = FIRST_BATCH
        while batch := list(islice(rows, size)):
            size = BATCH
            items = self._defer_tried(await self._unpaid(await self._items(batch)))
            if items:
                yield items
        if items := self._take_deferred():
            yield items

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

    async def _unpaid(self, items: list[WorkItem]) -> list[WorkItem]:
        """Finishes the items that have an answer, of this job or of another one; returns the others."""
        if self._finals:
            items = [item for item in items if not self._finish_with_final(item)]
        if self._reuse is None or not items:
            return items
        left, adopted = await self._reuse.adopt(items)
        self._counters.reused += len(adopted)
        for item, answer in adopted:
            self.settled(item, answer, State.ANSWERED)
        return left

    def _finish_with_final(self, item: WorkItem) -> bool:
        final = self._finals.pop(item.request_id, None)
        if final is None:
            return False
        state = State.ANSWERED if final.answer.error is None else State.FAILED
        self._journal.record_outcome(item.request_id, state, final.attempt_id, item.earlier)
        self._counters.count_finished(final.answer)
        self.settled(item, final.answer, state)
        return True

    def _wanted(self) -> Iterator[Row]:
        if self._chosen is None:
            yield from self._rows
            return
        last = max(self._chosen, default=-1)
        for row in self._rows:
            if row.index in self._chosen:
                yield row
            if row.index >= last:
                return

    async def _items(self, rows: Sequence[Row]) -> list[WorkItem]:
        items: list[WorkItem] = []
        new: list[tuple[int, bytes | None, str | None]] = []
        requests: dict[int, tuple[Row, ChatRequest]] = {}
        for row in rows:
            known = self._look_up(row.index)
            if known is not None:
                if self._is_finished(known):
                    self._count_known(known)
                    self._finished(row.index, _usable(known.state, known.unsent_reason))
                    continue
                if known.request_id is not None and self._is_shared(known.request_id):
                    continue
            match built := self._build(row):
                case ChatRequest():
                    if known is not None and known.request_id is not None:
                        items.append(self._item(row, built, known))
                    else:
                        new.append((row.index, built.key, None))
                        requests[row.index] = (row, built)
                case Skipped():
                    new.append((row.index, None, "skipped"))
                    self._counters.skipped += 1
                    self._finished(row.index, None)
                case Unsendable(error=error, reason=reason):
                    new.append((row.index, None, f"{reason}\n{error}"))
                    self._counters.failed += 1
                    self._counters.failed_by_reason[reason] += 1
                    self._counters.log.write(
                        "failed", row=row.index + 1, attempts=0, reason=reason, message=error, final=True
                    )
                    self._finished(row.index, False)
        if new:
            items += self._admitted(await self._journal.admit(new), requests)
        return items

    def _build(self, row: Row) -> ChatRequest | Skipped | Unsendable:
        cut = self._builder.truncated
        built = self._request(row)
        self._counters.truncated += self._builder.truncated - cut
        return built

    def _request(self, row: Row) -> ChatRequest | Skipped | Unsendable:
        return self._builder.build(row)

    def _is_finished(self, known: AdmittedRow) -> bool:
        return is_finished(known, retry_failed=self._retry_failed, since=self._since)

    def _finished(self, row_index: int, usable: bool | None) -> None:
        """Called for a row that needs no item; ``usable`` is ``None`` if its text was empty."""

    def _look_up(self, row_index: int) -> AdmittedRow | None:
        while self._next_known is not None and self._next_known.row_index < row_index:
            self._next_known = next(self._known, None)
        if self._next_known is not None and self._next_known.row_index == row_index:
            return self._next_known
        return None

    def _admitted(
        self, admitted: Iterable[AdmittedRow], requests: dict[int, tuple[Row, ChatRequest]]
    ) -> Iterator[WorkItem]:
        for entry in admitted:
            if entry.request_id is None:
                continue
            if self._is_finished(entry):
                self._count_known(entry)
                self._finished(entry.row_index, _usable(entry.state, None))
            elif not self._is_shared(entry.request_id):
                yield self._item(*requests[entry.row_index], entry)

    def _item(self, row: Row, request: ChatRequest, entry: AdmittedRow) -> WorkItem:
        assert entry.request_id is not None, "a row with a request has its id"
        reader = self._builder.reader(row)
        item = WorkItem(request, entry.request_id, reader, entry.attempts, ordinal=entry.ordinal or 0)
        if self._reask is not None and entry.attempts and entry.state is not State.FAILED:
            final = self._reask.resume(item, self._journal)
            if final is not None:
                self._finals[item.request_id] = final
        return item

    def _is_shared(self, request_id: int) -> bool:
        """Whether an earlier row's item brings the answer (``--dedupe``)."""
        if not self._dedupe:
            return False
        if request_id in self._under_way:
            self._counters.duplicates += 1
            return True
        self._under_way.add(request_id)
        return False

    def settled(self, item: WorkItem, answer: Answer, state: State) -> None:
        """Called with each item that is finished.

        A request that was given up stays known, so that no equal row repeats it in this run. As long as rows of the
        last pass come, all requests stay known: the journal's entries of those rows may be older.
        """
        if state in self._final and self._next_known is None:
            self._under_way.discard(item.request_id)

    def _count_known(self, known: AdmittedRow) -> None:
        reason = None if known.unsent_reason is None else known.unsent_reason.partition("\n")[0]
        self._count(FinishedRows(known.state, reason, known.shares_request, 1))

    def _count(self, ended: FinishedRows) -> None:
        """Counts rows that an earlier run finished."""
        counters = self._counters
        if ended.state is State.PENDING:
            counters.pending += ended.rows
        elif ended.state is not None and ended.shares_request:
            counters.duplicates += ended.rows
        elif ended.state is not None:
            counters.finished_before += ended.rows
        elif ended.reason == SKIPPED:
            counters.skipped += ended.rows
        else:
            counters.failed += ended.rows
            counters.failed_by_reason[ended.reason or "unknown"] += ended.rows


def _usable(state: State | None, note: str | None) -> bool | None:
    return None if note == "skipped" else state is State.ANSWERED


def chosen_rows(
    rows: int, *, limit: int | None, sample: int | None, seed: int
) -> "range | frozenset[int] | None":
    """Returns the rows that ``-n`` and ``--sample`` choose; ``None`` for all of them."""
    if sample is not None:
        among = min(rows, limit) if limit is not None else rows
        return frozenset(random.Random(seed).sample(range(among), min(sample, among)))
    return None if limit is None or limit >= rows else range(limit)
