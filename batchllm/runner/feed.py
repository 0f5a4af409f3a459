"""Hands out the rows of a run as they finish, those found from earlier runs included.

The rows are read from the journal, which is the truth about them in either mode, and never before their answers are
durable. A look at it begins at the first row that has not been handed out, so it costs little.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from typing import Any

from batchllm.budget.costs import RowCosts
from batchllm.counters import RunCounters
from batchllm.errors import JobError
from batchllm.formats.columns import Columns, column_readers
from batchllm.journal import AdmittedRow, Journal, JournalReader, RowRecord, State
from batchllm.plan.finished import is_finished
from batchllm.plan.outcomes import outcome_reader, outcomes
from batchllm.plan.row_counts import row_state_of
from batchllm.prepare.prepared_job import PreparedJob
from batchllm.records import Answer, Chosen, Row

LOOK_EVERY_S = 0.05
LOOKS_SHARE = 0.1
"""The most of the run's time that looking at the journal may take."""

_NO_ANSWER = Answer()


@dataclass(frozen=True, slots=True)
class FinishedRow:
    """A row that is finished: it has its answer, or the reason why it has none.

    Attributes:
        index: Its position in the input, from 0.
        values: Its own columns.
        answers: The answer columns: ``label``, ``finish_reason``, …, ``error``.
        fields: What was read from the answer: ``label``, or the fields of the schema.
        earlier: An earlier run brought its answer, and this one pays nothing for it.
        error: Why the row failed; ``None`` means that it did not.
    """

    index: int
    values: Mapping[str, Any]
    answers: Mapping[str, Any]
    fields: Mapping[str, Any] = field(default_factory=dict)
    earlier: bool = False
    error: str | None = None

    def __getitem__(self, column: str) -> Any:
        """Returns an answer column, or else a column of the row's own."""
        return self.answers[column] if column in self.answers else self.values[column]


class RowFeed:
    """Hands out rows in the thread of the run.

    Args:
        deliver: Called with each finished row, once; ``None`` hands out nothing.
        live: Hand out rows while the run goes on, and not only at its end.
        values: Hand them out with their own columns.
        has_room: Says whether the receiver takes more; where it does not, rows stay in the journal until it does.
    """

    def __init__(
        self,
        deliver: Callable[[FinishedRow], None] | None = None,
        *,
        live: bool = False,
        values: bool = True,
        has_room: Callable[[], bool] = lambda: True,
    ) -> None:
        self._deliver = deliver
        self._live = live and deliver is not None
        self._values = values
        self._has_room = has_room
        self._delivered: set[int] = set()
        self._next = 0

    @property
    def hands_out(self) -> bool:
        """Whether anybody takes the rows."""
        return self._deliver is not None

    @asynccontextmanager
    async def following(
        self,
        prepared: PreparedJob,
        journal: Journal,
        counters: RunCounters,
        *,
        continued: bool,
        chosen: Chosen,
    ) -> AsyncIterator[None]:
        """Hands out rows inside the ``with`` block; after it, everything is durable.

        Args:
            prepared: The job and its input.
            journal: Its journal.
            counters: Counts the rows.
            continued: The journal's rows are those of this run's plan already.
            chosen: The only rows of the run, ``None`` for all.
        """
        self._prepared, self._journal, self._counters, self._chosen = prepared, journal, counters, chosen
        self._first_attempt = journal.next_attempt
        self._columns = column_readers(prepared.columns)
        if not self._live:
            yield
            await journal.flush()
            return
        self._reader = journal.reader()
        self._window = _Window(prepared.source.rows())
        if continued:
            self._look(at_start=True)
        follower = asyncio.create_task(self._follow())
        try:
            yield
        except BaseException:
            with suppress(JobError):  # what stopped the run is the error to report
                await self._end(follower)
            raise
        await self._end(follower)

    @property
    def columns(self) -> Columns:
        """The columns of the output; known once the run has begun."""
        return self._prepared.columns

    async def finish(self) -> None:
        """Hands out every row of the output that was not handed out before, in input order."""
        if self._deliver is None:
            return
        self._reader = self._journal.reader()
        window = _Window(self._prepared.source.rows())
        costs = self._costs(self._reader)
        with closing(self._reader.outcomes()) as entries:
            for entry in entries:
                if entry.row_index in self._delivered:
                    continue
                while not self._has_room():  # noqa: ASYNC110 - the receiver is in another thread
                    await asyncio.sleep(LOOK_EVERY_S)
                self._hand_out(entry, window, costs)

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        seen: object = None
        while True:
            started_s = loop.time()
            state = (self._counters.finished, self._counters.answers, self._journal.next_attempt)
            if state != seen:
                seen = None if self._look() else state
            await asyncio.sleep(max(LOOK_EVERY_S, (loop.time() - started_s) / LOOKS_SHARE))

    async def _end(self, follower: "asyncio.Task[None]") -> None:
        follower.cancel()
        await asyncio.gather(follower, return_exceptions=True)
        await self._journal.flush()
        while self._look():  # noqa: ASYNC110 - the receiver is in another thread
            await asyncio.sleep(LOOK_EVERY_S)

    def _look(self, *, at_start: bool = False) -> bool:
        """Hands out what has finished since the last look; returns whether some of it is left for later."""
        finished: list[AdmittedRow] = []
        leading = True
        for known in self._reader.planned(self._next):
            done = known.row_index in self._delivered or not self._is_chosen(known.row_index)
            if leading and done:
                self._next = known.row_index + 1
            leading = leading and done
            if not done and self._is_finished(known):
                finished.append(known)
        costs = self._costs(self._reader) if finished else None
        for known in finished:
            if not self._has_room():
                return True
            with closing(self._reader.outcomes(known.row_index)) as entries:
                entry = next(entries, None)
            if entry is not None and entry.row_index == known.row_index:
                self._delivered.add(entry.row_index)
                self._hand_out(entry, self._window, costs, at_start=at_start)
        return False

    def _is_chosen(self, row_index: int) -> bool:
        return self._chosen is None or row_index in self._chosen

    def _is_finished(self, known: AdmittedRow) -> bool:
        """Whether this run does nothing more for a row."""
        retry_failed = self._prepared.job.retry_failed
        if known.request_id is None:
            return is_finished(known, retry_failed=retry_failed)
        state = row_state_of(known)
        of_this_run = known.attempt_id is not None and known.attempt_id >= self._first_attempt
        return (
            state is State.ANSWERED
            or (state is State.FAILED and (of_this_run or not retry_failed))
            or (state is State.UNANSWERED and of_this_run)
        )

    def _costs(self, reader: JournalReader) -> RowCosts | None:
        wanted = any(name == "cost" for _, name in self._prepared.columns.fields)
        return RowCosts(self._prepared, reader) if wanted else None

    def _hand_out(
        self, entry: RowRecord, window: "_Window", costs: RowCosts | None, *, at_start: bool = False
    ) -> None:
        assert self._deliver is not None, "nobody is there"
        earlier = at_start or (entry.attempt_id is not None and entry.attempt_id < self._first_attempt)
        read = outcome_reader(self._prepared, self._reader, window.take)
        for outcome in outcomes([entry], read, self._chosen, costs):
            answer = outcome.answer or _NO_ANSWER
            if self.columns.names_file:
                row = window.take(outcome.row_index)
                outcome = outcome._replace(source_file=self._prepared.source.file_of(row))
            values = window.take(outcome.row_index).values if self._values else {}
            answers = {name: read(outcome, answer) for name, read in self._columns}
            self._deliver(
                FinishedRow(outcome.row_index, values, answers, answer.columns, earlier, answer.error)
            )


class _Window:
    """Rows of an input by their index: it reads on to the one that is asked for, and keeps those it passes."""

    def __init__(self, rows: Iterator[Row]) -> None:
        self._rows = rows
        self._kept: dict[int, Row] = {}
        self._last: Row | None = None

    def take(self, row_index: int) -> Row:
        """Returns a row, which only the next call may ask for again."""
        if self._last is not None and self._last.index == row_index:
            return self._last
        row = self._kept.pop(row_index, None)
        while row is None:
            found = next(self._rows)
            if found.index == row_index:
                row = found
            else:
                self._kept[found.index] = found
        self._last = row
        return row
