"""What the commands say on standard error: the line before a run, the question, the summary, the samples.

Text that a model or a file wrote goes through ``visible`` before a terminal sees it.
"""

import sys
from collections.abc import Mapping, Sequence
from decimal import Decimal

from batchllm.errors import UsageError
from batchllm.job import Job
from batchllm.progress import Progress, compact, progress_for, visible
from batchllm.runner import Forecast, Result, Summary

NAMED_ROWS = 100
"""Rows that are named at most, where a dead run may have paid them."""

ASK_ABOVE = Decimal(5)
"""A terminal is asked before a run that may cost more than this many dollars."""


def say(line: str = "") -> None:
    """Writes a line to standard error; a closed standard error is nobody's failure."""
    try:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
    except OSError:
        return


def progress(job: Job, *, quiet: bool) -> Progress:
    """The display for a job."""
    return progress_for(job.template.name if job.template else job.task, quiet=quiet)


class Confirm:
    """Says what a run is about to do; on a terminal asks first when it may be expensive."""

    def __init__(self, job: Job, *, quiet: bool, yes: bool) -> None:
        self._job = job
        self._quiet = quiet
        self._yes = yes

    def __call__(self, forecast: Forecast) -> None:
        """Shows the line and, where it must, asks.

        Raises:
            UsageError: The answer was no.
        """
        if not self._quiet:
            say(line_before(self._job, forecast))
            if forecast.possibly_billed_rows:
                say(possibly_billed_words(forecast.possibly_billed_rows))
        high = forecast.cost_high
        if self._yes or high is None or high <= ASK_ABOVE or not (sys.stdin.isatty() and sys.stderr.isatty()):
            return
        sys.stderr.write(f"This may cost up to {dollars(high)}. Go on? [y/N] ")
        sys.stderr.flush()
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise UsageError("nothing was sent")


def line_before(job: Job, forecast: Forecast) -> str:
    """Rows, model, endpoint, tokens and price, in one line."""
    endpoint = job.endpoint
    parts = [counted(forecast.rows or 0, "row")]
    if forecast.answered:
        parts.append(f"{forecast.answered:,} answered already")
    parts.append(
        f"{endpoint.model or 'no model'} at {endpoint.preset} ({endpoint.base_url or 'on this machine'})"
    )
    if forecast.prompt_tokens is not None:
        about = "" if forecast.exact else "about "
        answer = forecast.completion_tokens_upper_bound
        bound = f" + at most {compact(answer)}" if answer is not None else " + answers"
        parts.append(f"{about}{compact(forecast.prompt_tokens)}{bound} tokens")
    return f"{', '.join(parts)}, {road_words(job, forecast)}"


def possibly_billed_words(rows: Sequence[int]) -> str:
    """How many requests of a dead run may be on the bill without an answer, and of which rows."""
    named = ", ".join(map(str, rows[:NAMED_ROWS])) + (", …" if len(rows) > NAMED_ROWS else "")
    return f"A run that died may have paid {counted(len(rows), 'row')} without an answer: {named}"


def road_words(job: Job, forecast: Forecast) -> str:
    """Price and time of the road that is asked for, and of the other where there is one."""
    from batchllm.budget.estimate import compare_modes

    offer = compare_modes(job, forecast)
    time = "" if forecast.seconds is None else f", {duration(forecast.seconds)} at the limits known"
    if offer is None:
        return f"{price_words(forecast)}{time}"
    batch = price_words(offer.batch)
    if offer.batch.cost_low is None and job.via != "batch":
        batch = f"{offer.batch_share:.0%} of that"
    batch = f"{batch} by batch within {offer.window}"
    online = price_words(offer.online)
    return (
        f"{batch}; online {online}{time}" if job.via == "batch" else f"{online}{time}; {batch} (--via batch)"
    )


def price_words(forecast: Forecast) -> str:
    """The price as a range, or that it is unknown."""
    if forecast.cost_low is None:
        return "price unknown"
    if forecast.cost_high is None:
        return f"{dollars(forecast.cost_low)} or more (nothing bounds the answers; --max-tokens does)"
    if forecast.cost_low == forecast.cost_high:
        return dollars(forecast.cost_high)
    return f"{dollars(forecast.cost_low)} to {dollars(forecast.cost_high)}"


def show_result(job: Job, result: Result) -> None:
    """The summary of a finished run."""
    for sample in result.samples if sys.stderr.isatty() else ():
        say("  " + " · ".join(f"{name}: {visible(str(value))}" for name, value in sample.items()))
    for line in summary_lines(result.summary, result.pace):
        say(line)
    if result.output is not None:
        say(f"Written: {result.output}")


def summary_lines(summary: Summary, pace: str = "") -> list[str]:
    """The figures in a few plain lines."""
    head = f"{summary.answered:,} of {summary.rows:,} rows answered"
    if summary.skipped:
        head += f", {summary.skipped:,} empty"
    if summary.answered_before:
        head += f", {summary.answered_before:,} of them found in the journal"
    lines = [f"{head}, in {duration(summary.seconds)}"]
    if summary.failed:
        lines.append(f"Failed: {summary.failed:,} ({counts(summary.failed_by_reason)})")
    if summary.finish_reasons:
        lines.append(f"Finish reasons: {counts(summary.finish_reasons)}")
    if summary.attempts:
        tokens = summary.total_tokens
        said = (
            "unknown"
            if tokens is None
            else f"{summary.prompt_tokens or 0:,} + {summary.completion_tokens or 0:,}"
        )
        lines.append(
            f"Paid in this run: {counted(summary.attempts, 'request')}, {said} tokens, {paid(summary.cost)}"
        )
    lines += money_lines(summary)
    if summary.rate_limited or summary.retries:
        retried = f"; tried again: {counts(summary.retries)}" if summary.retries else ""
        lines.append(f"Refused for a limit: {summary.rate_limited:,}{retried}")
    if summary.truncated:
        lines.append(f"Cut to --max-input-tokens: {summary.truncated:,} texts")
    if summary.possibly_billed_twice:
        lines.append(f"Possibly billed without an answer: {summary.possibly_billed_twice:,} requests")
    if pace:
        lines.append(f"Pace: {pace}")
    return lines


def money_lines(summary: Summary) -> list[str]:
    """What was not paid in this run, and what equal rows cost; nothing where there is nothing to say."""
    lines = []
    if summary.answered_before:
        lines.append(
            f"Saved by the journal: {summary.answered_before:,} answers, {paid(summary.saved_by_journal)}"
        )
    if summary.duplicate_rows and summary.deduplicated_rows:
        lines.append(
            f"Saved by equal rows: {summary.deduplicated_rows:,} requests, {paid(summary.saved_by_dedupe)}"
        )
    elif summary.duplicate_rows:
        lines.append(
            f"Equal to an earlier row: {summary.duplicate_rows:,} rows, {paid(summary.duplicate_rows_cost)}; "
            "--dedupe sends equal requests once"
        )
    return lines


def paid(cost: Decimal | None) -> str:
    """A sum, or that it is not known."""
    return "price unknown" if cost is None else dollars(cost)


def compact_or_unknown(number: int | None) -> str:
    """A count, or that it is not known."""
    return "unknown" if number is None else f"{number:,}"


def counted(number: int, noun: str) -> str:
    """``1 row``, ``12 rows``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def counts(values: Mapping[str, int]) -> str:
    """``stop 98, length 2``, the most frequent first."""
    return ", ".join(f"{visible(name)} {count:,}" for name, count in sorted(values.items(), key=_most_first))


def _most_first(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]


def dollars(amount: Decimal) -> str:
    """A sum of money, with cents, or with as many digits as a small sum needs."""
    if amount == 0:
        return "$0"
    return (
        f"${amount:,.2f}"
        if amount >= Decimal("0.1")
        else f"${amount:.2g}"
        if amount > Decimal("0.0001")
        else "<$0.0001"
    )


def duration(seconds: float) -> str:
    """``0.8 s``, ``12 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
