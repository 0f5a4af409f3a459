"""The pass over the input that turns rows into items and leaves out what already has its end.

Each row is bound to a request by the hash of what would be sent, never by its number, so rows may be inserted,
shuffled or deleted between runs. Where the file's bytes and the job are those of the journal's last pass, the
rows that pass had reached are known and need no rendering: that is what makes resuming quick.
"""

import random
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from itertools import islice

from batchllm.counters import RunCounters
from batchllm.journal import SKIPPED, AdmittedRow, FinishedRows, Journal, State
from batchllm.plan.reask import Final, ReaskPolicy
from batchllm.plan.reuse import Reuse
from batchllm.plan.work_item import WorkItem
from batchllm.records import Answer, ChatRequest, Row
from batchllm.request import RequestBuilder, Skipped, Unsendable

FIRST_BATCH = 16
BATCH = 256
"""Rows that go to the journal together; the first batch is small so that the first request leaves early."""

MOST_DEFERRED_BYTES = 64_000_000
"""Requests of rows that an earlier run tried wait for the other rows as far as they fit in here."""

FINAL = (State.ANSWERED, State.FAILED, State.PENDING)


def final_states(retry_failed: bool) -> tuple[State, ...]:
    """The states of requests that this run does not send again."""
    return (State.ANSWERED, State.PENDING) if retry_failed else FINAL


class Plan:
    """One pass over the rows.

    Args:
        rows: The rows of the input.
        builder: Makes a row's request.
        journal: Knows which requests have their end.
        known: The rows that an earlier run admitted in this very pass, in input order.
        counters: Counts rows that end here.
        chosen: The only rows wanted (``-n``, ``--sample``), or ``None`` for all.
        retry_failed: Rows whose answer was a failure are sent again.
        reuse: Answers of other jobs.
        reask: Goes on with rows whose answer, of an earlier run, is to be asked for once more.
        passed: The rows before the first of ``rows``, which an earlier run ended.
    """

    _defers = True

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
        self._reuse = reuse
        self._reask = reask
        self._over: dict[int, Final] = {}
        self._on_the_way: set[int] = set()
        self._deferred: list[WorkItem] = []
        self._deferred_bytes = 0
        for ended in passed:
            self._count(ended)

    async def batches(self) -> AsyncIterator[Sequence[WorkItem]]:
        """Tickets in batches; rows that need no request are counted on the way.

        They come in input order, those that an earlier run tried behind the others.
        """
        rows = iter(self._wanted())
        size = FIRST_BATCH
        while batch := list(islice(rows, size)):
            size = BATCH
            items = self._tried_later(await self._unpaid(await self._items(batch)))
            if items:
                yield items
        if items := self._tried():
            yield items

    def _tried_later(self, items: list[WorkItem]) -> list[WorkItem]:
        """Keeps back the items that an earlier run tried, so that rows which spoil a run come last."""
        now = []
        for item in items:
            size = len(item.request.body)
            if self._defers and item.earlier and self._deferred_bytes + size <= MOST_DEFERRED_BYTES:
                self._deferred.append(item)
                self._deferred_bytes += size
            else:
                now.append(item)
        return now

    def _tried(self) -> list[WorkItem]:
        """Takes out what was kept back."""
        items, self._deferred, self._deferred_bytes = self._deferred, [], 0
        return items

    async def _unpaid(self, items: list[WorkItem]) -> list[WorkItem]:
        """Ends the items that need no sending: for their last answer, or for another job's."""
        if self._over:
            items = [item for item in items if not self._is_over(item)]
        if self._reuse is None or not items:
            return items
        left, adopted = await self._reuse.left(items)
        self._counters.reused += len(adopted)
        for item, answer in adopted:
            self.settled(item, answer, State.ANSWERED)
        return left

    def _is_over(self, item: WorkItem) -> bool:
        final = self._over.pop(item.request_id, None)
        if final is None:
            return False
        state = State.ANSWERED if final.answer.error is None else State.FAILED
        self._journal.record_outcome(item.request_id, state, final.attempt_id, item.earlier)
        self._counters.ended_with(final.answer)
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
                if self._has_end(known):
                    self._count_known(known)
                    self._ended(row.index, _usable(known.state, known.unsent_reason))
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
                    self._ended(row.index, None)
                case Unsendable(error=error, reason=reason):
                    new.append((row.index, None, f"{reason}\n{error}"))
                    self._counters.failed += 1
                    self._counters.failed_by_reason[reason] += 1
                    self._ended(row.index, False)
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

    def _has_end(self, known: AdmittedRow) -> bool:
        if known.request_id is None:
            return known.unsent_reason == SKIPPED or not self._retry_failed
        return known.state in self._final

    def _ended(self, row_index: int, usable: bool | None) -> None:
        """A row has its end without a item: with an answer, without one, or, ``None``, with nothing to ask."""

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
            if self._has_end(entry):
                self._count_found(entry)
                self._ended(entry.row_index, _usable(entry.state, None))
            elif not self._is_shared(entry.request_id):
                yield self._item(*requests[entry.row_index], entry)

    def _item(self, row: Row, request: ChatRequest, entry: AdmittedRow) -> WorkItem:
        assert entry.request_id is not None, "a row with a request has its id"
        reader = self._builder.reader(row)
        item = WorkItem(request, entry.request_id, reader, entry.attempts, ordinal=entry.ordinal or 0)
        if self._reask is not None and entry.attempts and entry.state is not State.FAILED:
            final = self._reask.take_up(item, self._journal)
            if final is not None:
                self._over[item.request_id] = final
        return item

    def _is_shared(self, request_id: int) -> bool:
        """Whether another row's item brings the answer (``--dedupe``); if not, this row's will."""
        if request_id in self._on_the_way:
            self._counters.duplicates += 1
            return True
        self._on_the_way.add(request_id)
        return False

    def settled(self, item: WorkItem, answer: Answer, state: State) -> None:
        """Forgets a item that has its end.

        One that is no end to this run stays known, so that no equal row repeats it. And as long as rows of the
        last pass come, nothing is forgotten: what the journal said of them may be older than this end.
        """
        if state in self._final and self._next_known is None:
            self._on_the_way.discard(item.request_id)

    def _count_found(self, entry: AdmittedRow) -> None:
        self._count(FinishedRows(entry.state, None, entry.shares_request, 1))

    def _count_known(self, known: AdmittedRow) -> None:
        reason = None if known.unsent_reason is None else known.unsent_reason.partition("\n")[0]
        self._count(FinishedRows(known.state, reason, known.shares_request, 1))

    def _count(self, ended: FinishedRows) -> None:
        """Counts rows that an earlier run ended."""
        counters = self._counters
        if ended.state is State.PENDING:
            counters.pending += ended.rows
        elif ended.state is not None and ended.shares_request:
            counters.duplicates += ended.rows
        elif ended.state is not None:
            counters.before += ended.rows
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
    """The rows that ``-n`` and ``--sample`` leave, or ``None`` for all of them."""
    if sample is not None:
        among = min(rows, limit) if limit is not None else rows
        return frozenset(random.Random(seed).sample(range(among), min(sample, among)))
    return None if limit is None or limit >= rows else range(limit)
