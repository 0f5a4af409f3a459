"""What each row got, read from the journal's entries."""

from collections.abc import Callable, Iterable, Iterator

from batchllm.answer import Reader
from batchllm.budget.costs import Costs
from batchllm.journal import RowRecord, State
from batchllm.prepare.prepared_job import PreparedJob
from batchllm.records import Answer
from batchllm.sink import Outcome


def readers(prepared: PreparedJob) -> Callable[[int], Reader]:
    """What reads a row's answer, by the row's index; asked in growing order only."""
    if not prepared.job.per_row:
        return lambda row_index: prepared.reader
    rows = prepared.source.rows()
    return lambda row_index: prepared.builder.reader(next(row for row in rows if row.index == row_index))


def outcomes(
    entries: Iterable[RowRecord],
    reader_of: Callable[[int], Reader],
    chosen: "range | frozenset[int] | None" = None,
    costs: Costs | None = None,
) -> Iterator[Outcome]:
    """What each row that has its end got; rows that are still on their way are left out."""
    for entry in entries:
        if entry.state is State.OPEN or (chosen is not None and entry.row_index not in chosen):
            continue
        answer = answer_of(entry, reader_of(entry.row_index))
        cost = (
            None
            if costs is None
            else costs.of(entry.row_index, answer, entry.state, entry.status, entry.attempt_id)
        )
        yield Outcome(entry.row_index, answer, entry.attempts, entry.latency_s, cost)


def answer_of(entry: RowRecord, reader: Reader) -> Answer | None:
    """What a row got, or ``None`` where its text was empty."""
    if entry.unsent_reason == "skipped":
        return None
    if entry.unsent_reason is not None:
        reason, _, error = entry.unsent_reason.partition("\n")
        return Answer(error=error, reason=reason)
    if entry.status is not None:
        return reader.read(entry.status, entry.body)
    return Answer(error=entry.message or "never sent", reason=entry.failure or "too_large")
