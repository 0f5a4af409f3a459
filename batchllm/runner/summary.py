"""The summary of a run: its figures."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal

from batchllm.budget.costs import plus
from batchllm.counters import EndpointFigures, RunCounters
from batchllm.errors import ExitStatus
from batchllm.journal import RowCounts
from batchllm.runner.output import OutputCounts


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A run in numbers; ``None`` is unknown. These are also the figures in the JSON of ``--summary``.

    Attributes:
        rows: Rows of the job.
        answered, skipped, failed: Rows with an answer, with an empty text, with an ``error``.
        failed_by_reason: The failed rows by reason.
        finish_reasons: The answers, those of failed rows included, by what the endpoint said.
        labels: How often each label was given; with ``--multi-label`` a row counts for each of its labels.
        with_confidence: Answers whose label has a probability, from logprobs.
        requests: Requests that this run sent, each counted once.
        attempts: Requests that this run sent, each attempt counted.
        answers: Answers that this run received, usable or not: each is billed.
        answered_before: Answers that earlier runs, or other jobs (``--reuse``), had paid.
        possibly_billed_twice: Attempts that may be billed though no answer came: those of this run that timed out
            or lost the connection, and those in flight when an earlier run died.
        prompt_tokens, completion_tokens, total_tokens: What this run paid.
        cost: US dollars that the answers of this run cost.
        cached_tokens: Tokens of these prompts that came from the endpoint's cache.
        saved_by_cache: US dollars that this took off the cost.
        saved_by_journal: US dollars that answers of earlier runs cost.
        duplicate_rows: Rows whose request equals an earlier row's.
        duplicate_rows_cost: US dollars for the answers to those that were paid again.
        deduplicated_rows: Those of them that share its answer (``--dedupe``).
        saved_by_dedupe: US dollars that sharing saved.
        rate_limited: Attempts refused for a rate limit.
        retries: Attempts that were tried again, by reason.
        truncated: Texts that this run cut to ``--max-input-tokens``.
        bad_rows: Rows that were left out because they could not be read (``--bad-rows skip``).
        seconds: The duration of the run.
        requests_per_minute, tokens_per_minute: The rate of this run's single requests, each attempt counted, from
            the first that was sent to the last; ``None`` in batch mode, and if that took less than a second.
        endpoints: What each endpoint did in this run, where there are several.
        exit_status: The exit status of the process.
    """

    rows: int
    answered: int
    skipped: int
    failed: int
    failed_by_reason: Mapping[str, int] = field(default_factory=dict)
    finish_reasons: Mapping[str, int] = field(default_factory=dict)
    labels: Mapping[str, int] = field(default_factory=dict)
    with_confidence: int = 0
    requests: int = 0
    attempts: int = 0
    answers: int = 0
    answered_before: int = 0
    possibly_billed_twice: int = 0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    cost: Decimal | None = None
    cached_tokens: int | None = None
    saved_by_cache: Decimal | None = None
    saved_by_journal: Decimal | None = None
    duplicate_rows: int | None = None
    duplicate_rows_cost: Decimal | None = None
    deduplicated_rows: int | None = None
    saved_by_dedupe: Decimal | None = None
    rate_limited: int = 0
    retries: Mapping[str, int] = field(default_factory=dict)
    truncated: int = 0
    bad_rows: int = 0
    seconds: float = 0.0
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    endpoints: tuple[EndpointFigures, ...] = ()
    exit_status: int = 0


def exit_status_of(failed: int, sent: int, allow_failed: float, *, bad_rows: int = 0) -> ExitStatus:
    """Returns 0 if no row failed, or at most the share ``allow_failed`` of those that were sent.

    A row that was left out because it could not be read (``bad_rows``) is not excused by that share.
    """
    if bad_rows:
        return ExitStatus.SOME_FAILED
    if failed == 0 or (allow_failed and failed <= allow_failed * sent):
        return ExitStatus.OK
    return ExitStatus.SOME_FAILED


def summary_of(
    counters: RunCounters, *, orphans: int, seconds: float, status: int, bad_rows: int = 0
) -> Summary:
    """Returns the summary of a run by its counters alone: all there is if it is stopped.

    Args:
        counters: What the run counted.
        orphans: Attempts in flight when an earlier run died, found by this one.
        seconds: The duration of the run.
        status: The exit status of the process.
        bad_rows: Rows that were left out because they could not be read.
    """
    requests_per_minute, tokens_per_minute = counters.send_rate.per_minute() or (None, None)
    return Summary(
        rows=counters.rows,
        answered=counters.answered + counters.answered_before,
        skipped=counters.skipped,
        failed=counters.failed + counters.unanswered + counters.failed_before,
        failed_by_reason=dict(counters.failed_by_reason),
        finish_reasons=dict(counters.finish_reasons),
        labels=dict(counters.labels),
        requests=counters.requests,
        attempts=counters.attempts,
        answers=counters.answers,
        answered_before=counters.answered_before,
        possibly_billed_twice=counters.possibly_billed + orphans,
        prompt_tokens=None if counters.without_usage else counters.prompt_tokens,
        completion_tokens=None if counters.without_usage else counters.completion_tokens,
        total_tokens=counters.known_tokens,
        cost=counters.cost,
        cached_tokens=counters.cached_tokens,
        saved_by_cache=None if counters.cached_tokens is None else counters.saved_by_cache,
        rate_limited=counters.refusals,
        retries=dict(counters.retries),
        truncated=counters.truncated,
        bad_rows=bad_rows,
        seconds=round(seconds, 3),
        requests_per_minute=None if requests_per_minute is None else round(requests_per_minute, 2),
        tokens_per_minute=(
            None if tokens_per_minute is None or counters.without_usage else round(tokens_per_minute, 1)
        ),
        endpoints=counters.endpoints,
        exit_status=status,
    )


def with_rows(summary: Summary, counts: RowCounts) -> Summary:
    """Completes the summary of a run that was stopped with the states of its rows.

    Requests are counted as they end, and rows may share them, so the counters of a run that stops are no rows.

    Args:
        summary: The run by its counters.
        counts: The rows of its pass.
    """
    failed = counts.failed + counts.unanswered + counts.unsendable
    return replace(summary, answered=counts.answered, skipped=counts.skipped, failed=failed)


def with_output(summary: Summary, counts: OutputCounts) -> Summary:
    """Completes the summary of a finished run with what its output holds.

    Args:
        summary: The run by its counters.
        counts: The rows of the output.
    """
    return replace(
        summary,
        rows=counts.rows,
        answered=counts.answered,
        skipped=counts.skipped,
        failed=counts.failed,
        failed_by_reason=dict(counts.failed_by_reason),
        finish_reasons=dict(counts.finish_reasons),
        labels=dict(counts.labels),
        with_confidence=counts.with_confidence,
        saved_by_journal=plus(counts.costs.answers, None if summary.cost is None else -summary.cost),
        duplicate_rows=counts.costs.duplicate_rows,
        duplicate_rows_cost=counts.costs.equal,
        deduplicated_rows=counts.costs.deduplicated_rows,
        saved_by_dedupe=counts.costs.shared,
    )


def rate_text(summary: Summary) -> str:
    """Says the rate of the requests; empty if there is none."""
    rates = ((summary.requests_per_minute, "requests"), (summary.tokens_per_minute, "tokens"))
    return ", ".join(
        f"{rate:,.0f} {name}/min" if rate >= 10 else f"{rate:.1f} {name}/min"
        for rate, name in rates
        if rate is not None
    )
