"""The result of a run, and its summary."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from html import escape
from os import PathLike
from pathlib import Path
from typing import Any

from batchllm.budget.costs import plus
from batchllm.counters import EndpointFigures, RunCounters
from batchllm.errors import ExitStatus, UsageError
from batchllm.evaluate.answered import AnsweredRows, open_output
from batchllm.evaluate.evaluation import Evaluation
from batchllm.evaluate.gold import GoldWords
from batchllm.evaluate.output_source import output_source
from batchllm.formats.several import SeveralSource
from batchllm.job import Job
from batchllm.journal import RowCounts
from batchllm.printable import counted, dollars, printable
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


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Result:
    """A finished run.

    Attributes:
        output: The file or folder that was written; ``None`` is standard output.
        summary: The run in numbers.
        instead_of: The finished output that a trial left as it is.
        possibly_billed_rows: Rows, from 1, that a dead run possibly paid without an answer.
        samples: Up to three answers, with ``-n`` and ``--sample``.
        asked: The texts of their rows.
        failures: The first failed row of each reason, from 0, and its error.
        pace: The rate of the requests as text; empty if there is none.
        read_options: Options of ``open_source`` that the output is read with.
        models: What ``parsed`` returns, where the schema was a pydantic model.
        evaluation: The figures against known answers, where the job says where these are (``gold``).
        job: The job that ran.
        skipped: The files with the records that were left out because they cannot be read.
    """

    output: Path | None
    summary: Summary
    instead_of: Path | None = None
    possibly_billed_rows: tuple[int, ...] = ()
    samples: tuple[Mapping[str, Any], ...] = ()
    asked: tuple[str, ...] = ()
    failures: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    pace: str = ""
    read_options: Mapping[str, str] = field(default_factory=dict)
    models: tuple[Any, ...] | None = None
    evaluation: Evaluation | None = None
    job: Job | None = field(default=None, compare=False)
    skipped: tuple[Path, ...] = ()

    def evaluate(self, gold: GoldWords, *, on: str | None = None, kind: str | None = None) -> Evaluation:
        """Compares the answers with known answers.

        Args:
            gold: A column of the rows, a path to a file with the known answers, a mapping of answer columns to columns,
                or the known answers themselves, in the order of the rows.
            on: With a file: the column that both have.
            kind: What to compare answers as: ``label``, ``labels``, ``number`` or ``text``; by default what the job
                and the known answers say.

        Raises:
            UsageError: It is not clear what to compare, or no row has a known answer.
            InputError: A file cannot be read.
        """
        from batchllm.evaluate.files import evaluate_answered

        return evaluate_answered(self._answered("evaluate"), gold, on=on, kind=kind)

    def report(
        self, path: str | PathLike[str], *, gold: GoldWords | None = None, on: str | None = None
    ) -> Path:
        """Writes one HTML page to look at: what was asked, what came, whether it is any good, cost, time, and the rows.

        Args:
            path: The page; it replaces an older report.
            gold: The known answers, see ``evaluate``; by default those that the run was given.
            on: With a file of known answers: the column that both have.

        Returns:
            The path of the page.

        Raises:
            UsageError: The output went to standard output, or there is another file at ``path``.
            CannotWrite: The page cannot be written.
        """
        from batchllm.prepare.job_paths import job_paths
        from batchllm.report import check_page, report_on, write_page

        rows, path = self._answered("report"), Path(path)
        check_page(path)
        if gold is None and self.job is not None and self.job.gold:
            gold, on = self.job.gold, self.job.on
        journal = None if self.job is None else job_paths(self.job).journal
        found = journal if journal is not None and journal.exists() else None
        write_page(report_on([rows], found, self.output, gold=gold, on=on), path)
        return path

    def _answered(self, purpose: str) -> AnsweredRows:
        if self.output is None:
            raise UsageError(f"the output went to standard output; name a file to {purpose} it")
        return open_output(self.output, job=self.job, options=self.read_options)

    @property
    def parsed(self) -> tuple[Any, ...]:
        """Instances of the pydantic model that was given as ``schema``, one a row.

        ``None`` stands for a row without an answer, and for an answer that validators of the model's own refuse.

        Raises:
            UsageError: The schema was no pydantic model.
        """
        if self.models is None:
            raise UsageError("there is nothing parsed: schema= was no pydantic model")
        return self.models

    def __repr__(self) -> str:
        return "\n".join(f"{name}: {text}" for name, text in self._lines())

    def _repr_html_(self) -> str:
        """Returns a small table, for notebooks."""
        cells = (f"<tr><th>{name}</th><td>{escape(text)}</td></tr>" for name, text in self._lines())
        return f"<table>{''.join(cells)}</table>"

    def _lines(self) -> tuple[tuple[str, str], ...]:
        """The result in three lines."""
        summary = self.summary
        reasons = ", ".join(f"{name}: {count:,}" for name, count in summary.failed_by_reason.items())
        failed = f"{summary.failed:,} failed" + (f" ({reasons})" if reasons else "")
        cost = "at an unknown price" if summary.cost is None else dollars(summary.cost)
        tokens = "unknown tokens" if summary.total_tokens is None else counted(summary.total_tokens, "token")
        before = f", {summary.answered_before:,} answered before" if summary.answered_before else ""
        return (
            (
                "rows",
                f"{summary.answered:,} of {summary.rows:,} answered, {failed}, {summary.skipped:,} empty{before}",
            ),
            ("paid", f"{counted(summary.answers, 'answer')}, {tokens}, {cost}, in {summary.seconds:.1f} s"),
            ("output", printable(str(self.output)) if self.output else "none"),
        )

    @property
    def exit_status(self) -> int:
        """0 if every row that was sent has an answer, 1 if some failed."""
        return self.summary.exit_status

    def frame(self) -> Any:
        """Returns the output as a pandas DataFrame; cells of a CSV file stay text, columns of Parquet keep their types.

        Raises:
            ValueError: The output went to standard output.
        """
        import pandas as pd

        if self.output is None:
            raise ValueError("the output went to standard output; name a file to get it as a frame")
        source = output_source(self.output, lambda path: self.read_options)
        if not isinstance(source, SeveralSource) and source.arrow_schema() is not None:
            return pd.read_parquet(source.file.local_path())
        columns = source.scan().columns
        return pd.DataFrame([row.values for row in source.rows()], columns=columns)


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
        answered=counters.answered + counters.finished_before + counters.reused,
        skipped=counters.skipped,
        failed=counters.failed + counters.unanswered,
        failed_by_reason=dict(counters.failed_by_reason),
        finish_reasons=dict(counters.finish_reasons),
        labels=dict(counters.labels),
        requests=counters.requests,
        attempts=counters.attempts,
        answers=counters.answers,
        answered_before=counters.finished_before + counters.reused,
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
