"""Reads each row's outcome from the journal."""

from collections.abc import Callable, Iterable, Iterator

from batchllm.budget.costs import PaidAnswer, RowCosts
from batchllm.flows import JobFlow
from batchllm.formats import Outcome
from batchllm.journal import JournalReader, RowRecord, State
from batchllm.plan.replay import Replayer, read_outcome, unsent_answer
from batchllm.prepare.prepared_job import PreparedJob
from batchllm.records import Row


def outcomes(
    prepared: PreparedJob,
    journal: JournalReader,
    entries: Iterable[RowRecord],
    chosen: "range | frozenset[int] | None" = None,
    costs: RowCosts | None = None,
) -> Iterator[Outcome]:
    """Yields the outcome of each row that is finished or given up.

    Args:
        prepared: The job and its input.
        journal: Its journal.
        entries: What the journal has of the rows, in input order.
        chosen: The only rows wanted, ``None`` for all.
        costs: Computes what each row cost.
    """
    read = _OutcomeReader(prepared.flow, journal, prepared.source.rows, per_row=prepared.job.per_row)
    for entry in entries:
        if entry.state in (State.OPEN, State.PENDING) or (
            chosen is not None and entry.row_index not in chosen
        ):
            continue
        yield read.outcome(entry, costs)


class _OutcomeReader:
    """Reads outcomes of rows, which come in input order."""

    def __init__(
        self,
        flow: JobFlow,
        journal: JournalReader,
        rows: Callable[[], Iterator[Row]],
        *,
        per_row: bool,
    ) -> None:
        self._flow = flow
        self._replayer = Replayer(flow, journal)
        self._rows_of = rows
        self._rows: Iterator[Row] | None = None
        self._reader = None if per_row else flow.builder.reader(Row(0, 0, {}))

    def outcome(self, entry: RowRecord, costs: RowCosts | None) -> Outcome:
        if entry.unsent_reason is not None:
            answer = unsent_answer(entry.unsent_reason)
            cost = None if costs is None else costs.cost_of(entry.row_index, ())
            return Outcome(entry.row_index, answer, entry.attempts, entry.latency_s, cost)
        if entry.flow_of is not None:
            return self._replayed(entry, entry.flow_of, costs)
        reader = self._reader or self._flow.builder.reader(self._row(entry.row_index))
        answer = read_outcome(entry, reader)
        paid: tuple[PaidAnswer, ...] = ()
        if entry.status is not None and 200 <= entry.status < 300:
            paid = (PaidAnswer(answer.usage, answer.model, "", entry.attempt_id),)
        cost = None if costs is None else costs.cost_of(entry.row_index, paid)
        return Outcome(entry.row_index, answer, entry.attempts, entry.latency_s, cost)

    def _replayed(self, entry: RowRecord, root_id: int, costs: RowCosts | None) -> Outcome:
        replay = self._replayer.replay(self._row(entry.row_index), root_id)
        paid = [
            PaidAnswer(each.answer.usage, each.answer.model, each.ask.model, each.record.attempt_id)
            for each in replay.requests
            if each.answer is not None
            and each.record is not None
            and each.record.status is not None
            and 200 <= each.record.status < 300
        ]
        cost = None if costs is None else costs.cost_of(entry.row_index, paid)
        return Outcome(entry.row_index, replay.summed(), replay.attempts, replay.latency_s, cost)

    def _row(self, row_index: int) -> Row:
        if self._rows is None:
            self._rows = self._rows_of()
        return next(row for row in self._rows if row.index == row_index)
