"""Refuses to pay again for rows that have an answer, unless ``--accept-change`` agrees."""

from batchllm.budget.estimate import forecast_job
from batchllm.budget.forecast import Forecast
from batchllm.errors import JobChanged
from batchllm.job.changes import change_text, changes_between
from batchllm.journal import JournalReader, State
from batchllm.plan.chosen import wanted
from batchllm.plan.finished import pages
from batchllm.plan.preview import Preview
from batchllm.prepare.prepared_job import PreparedJob
from batchllm.printable import counted, dollars
from batchllm.records import Chosen

FINGERPRINT = "fingerprint"
"""The journal's key for what shapes the requests of the job (``Job.fingerprint``), trials of a changed job aside."""

GIVEN_UP = "given_up_answers"
"""The journal's key for the number of answers that ``--accept-change`` gave up so far."""

LIMITS = ("max_tokens", "param.max_completion_tokens")
"""The options that limit an answer, as ``Change`` names them."""

_PAGE = 256


def rows_paid_again(prepared: PreparedJob, reader: JournalReader, *, chosen: Chosen) -> int:
    """Counts the rows that have an answer and would be paid again, because the job was changed.

    Args:
        prepared: The job and its input.
        reader: The job's journal.
        chosen: The only rows wanted, ``None`` for all.
    """
    before, now = reader.get(FINGERPRINT), prepared.job.fingerprint()
    if before is None or before == now:
        return 0
    answered = reader.count_answered() - (reader.get(GIVEN_UP) or 0)
    if answered <= 0:
        return 0
    preview = Preview(
        prepared.flow, reader, final=(State.ANSWERED, State.PENDING), dedupe=prepared.job.dedupe
    )
    kept = kept_answers = unanswered = changed = 0
    for page in pages(wanted(prepared.source.rows(), chosen), _PAGE):
        for row in preview.look(page):
            kept += row.state is not None
            kept_answers += row.state is State.ANSWERED
            unanswered += bool(row.requests)
            changed += row.paid_again
    # A row of several requests keeps those that are asked alike; what it asks beside them is not paid again.
    return max(
        0, min(answered - kept, unanswered) if prepared.flow.single else min(answered - kept_answers, changed)
    )


def check_unchanged(prepared: PreparedJob, reader: JournalReader, *, chosen: Chosen) -> int:
    """Refuses a job that was changed after answers were paid, unless ``--accept-change`` agrees.

    Returns:
        The rows that will be paid again, with that consent.

    Raises:
        JobChanged: Rows that have an answer would be paid again.
    """
    again = rows_paid_again(prepared, reader, chosen=chosen)
    if not again or prepared.job.accept_change:
        return again
    changes = changes_between(reader.get(FINGERPRINT), prepared.job.fingerprint())
    rows = len(chosen) if chosen is not None else prepared.statistics.rows
    cost = forecast_job(prepared, rows=rows, left=again, reader=reader)
    limit_alone = all(change.option in LIMITS for change in changes)
    some = "pay for those alone that were cut off with --retry-cut-off, " if limit_alone else ""
    raise JobChanged(
        f"{'; '.join(map(change_text, changes))}: {counted(again, 'row')} that "
        f"{'has' if again == 1 else 'have'} an answer would be paid again, for {_price(cost)}; agree with "
        f"--accept-change, {some}or write to another output with -o",
        changes=tuple(changes),
        rows=again,
        cost_low=cost.cost_low,
        cost_high=cost.cost_high,
    )


def _price(forecast: Forecast) -> str:
    low, high = forecast.cost_low, forecast.cost_high
    if low is None:
        return "an unknown price"
    if high is None:
        return f"{dollars(low)} or more"
    return dollars(high) if low == high else f"{dollars(low)} to {dollars(high)}"
