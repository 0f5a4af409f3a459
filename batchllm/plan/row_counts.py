"""Counts the rows of a pass: those that this run finishes, and those that were finished before."""

from batchllm.counters import RunCounters
from batchllm.journal import SKIPPED, AdmittedRow, FinishedRows, State
from batchllm.records import Answer
from batchllm.request import Skipped, Unsendable


def count_end(counters: RunCounters, answer: Answer, state: State) -> None:
    """Counts a row that this run finished, or gave up."""
    if state is State.UNANSWERED:
        counters.unanswered += 1
        counters.failed_by_reason[answer.reason or "unknown"] += 1
    else:
        counters.count_finished(answer)


def count_unsent(counters: RunCounters, unsent: Skipped | Unsendable, row_index: int) -> None:
    """Counts a row that is not sent; one that cannot be is an event of the run."""
    if isinstance(unsent, Skipped):
        counters.skipped += 1
    else:
        counters.failed += 1
        counters.failed_by_reason[unsent.reason] += 1
        counters.log.write(
            "failed", row=row_index + 1, attempts=0, reason=unsent.reason, message=unsent.error, final=True
        )


def count_known(counters: RunCounters, known: AdmittedRow) -> None:
    """Counts a row that an earlier pass finished."""
    reason = None if known.unsent_reason is None else known.unsent_reason.partition("\n")[0]
    count_before(counters, FinishedRows(row_state_of(known), reason, known.shares_request, 1))


def count_before(counters: RunCounters, ended: FinishedRows) -> None:
    """Counts rows that an earlier pass finished."""
    if ended.state is State.PENDING:
        counters.pending += ended.rows
    elif ended.state is not None and ended.shares_request:
        counters.duplicates += ended.rows
    elif ended.state is not None:
        counters.finished_before += ended.rows
        counters.failed_before += ended.rows if ended.state is not State.ANSWERED else 0
    elif ended.reason == SKIPPED:
        counters.skipped += ended.rows
    else:
        counters.failed += ended.rows
        counters.failed_by_reason[ended.reason or "unknown"] += ended.rows


def row_state_of(known: AdmittedRow) -> State | None:
    """Returns how far a row is; ``None`` for one that is never sent."""
    return known.state if known.row_state is None else known.row_state


def is_usable(known: AdmittedRow) -> bool | None:
    """Whether a finished row has an answer; ``None`` if its text was empty."""
    if known.request_id is None:
        return None if known.unsent_reason == SKIPPED else False
    return row_state_of(known) is State.ANSWERED
