"""Reads each row's outcome from the journal."""

from collections.abc import Callable, Iterable, Iterator

from batchllm.answer import Reader
from batchllm.budget.costs import RowCosts
from batchllm.formats import Outcome
from batchllm.journal import RowRecord, State
from batchllm.prepare.prepared_job import PreparedJob
from batchllm.records import Answer


def readers(prepared: PreparedJob) -> Callable[[int], Reader]:
    """Returns a function from a row's index to the reader of its answer; indexes have to increase."""
    if not prepared.job.per_row:
        return lambda row_index: prepared.reader
    rows = prepared.source.rows()
    return lambda row_index: prepared.builder.reader(next(row for row in rows if row.index == row_index))


def outcomes(
    entries: Iterable[RowRecord],
    reader_of: Callable[[int], Reader],
    chosen: "range | frozenset[int] | None" = None,
    costs: RowCosts | None = None,
) -> Iterator[Outcome]:
    """Yields the outcome of each row that is finished or given up."""
    for entry in entries:
        if entry.state in (State.OPEN, State.PENDING) or (
            chosen is not None and entry.row_index not in chosen
        ):
            continue
        answer = answer_of(entry, reader_of(entry.row_index))
        cost = (
            None
            if costs is None
            else costs.cost_of(entry.row_index, answer, entry.state, entry.status, entry.attempt_id)
        )
        yield Outcome(entry.row_index, answer, entry.attempts, entry.latency_s, cost)


def answer_of(entry: RowRecord, reader: Reader) -> Answer | None:
    """Returns a row's answer, or ``None`` if its text was empty."""
    if entry.unsent_reason == "skipped":
        return None
    if entry.unsent_reason is not None:
        reason, _, error = entry.unsent_reason.partition("\n")
        return Answer(error=error, reason=reason)
    if entry.status is not None:
        return reader.read(entry.status, entry.body)
    return Answer(error=entry.message or "never sent", reason=entry.failure or "too_large")
