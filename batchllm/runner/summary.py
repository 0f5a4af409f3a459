"""What a run hands back: where the output lies and the figures of the summary."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchllm.budget.costs import Totals
from batchllm.budget.pricing import plus
from batchllm.counters import RunCounters
from batchllm.errors import CannotWrite, ExitStatus
from batchllm.formats import open_source

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A run in figures; ``None`` is unknown. This is also the JSON of ``--summary``.

    Attributes:
        rows: Rows of the job.
        answered, skipped, failed: How many of them have an answer, an empty text, an ``error``.
        failed_by_reason: The failed ones, by reason.
        finish_reasons: The answers, those of failed rows too, by what the endpoint said.
        requests: Requests that this run sent, each counted once.
        attempts: Attempts that this run made.
        found: Answers that earlier runs had paid.
        possibly_billed_twice: Attempts that may be on the bill without an answer: of this run by a timeout or a
            broken connection, of runs that died by what was in flight.
        prompt_tokens, completion_tokens, total_tokens: What this run paid.
        cost: US dollars that the answers of this run cost.
        saved_by_journal: What the answers cost that earlier runs, or other jobs (``--reuse``), had paid.
        equal_rows: Rows whose request equals an earlier row's.
        equal_rows_cost: What the answers to those cost, each being paid for itself.
        shared_rows: Those of them that share its answer (``--dedupe``).
        saved_by_equal_rows: What they would have cost.
        refusals: Attempts refused for a limit.
        retries: Attempts that were tried again, by reason.
        truncated: Texts that this run cut to ``--max-input-tokens``.
        seconds: How long the run took.
        requests_per_minute, tokens_per_minute: The pace of this run's single requests, each try counted, from the
            first that left to the last; ``None`` in batch mode, and where that took less than a second.
        exit_status: What the process ends with.
    """

    rows: int
    answered: int
    skipped: int
    failed: int
    failed_by_reason: Mapping[str, int] = field(default_factory=dict)
    finish_reasons: Mapping[str, int] = field(default_factory=dict)
    requests: int = 0
    attempts: int = 0
    found: int = 0
    possibly_billed_twice: int = 0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    cost: Decimal | None = None
    saved_by_journal: Decimal | None = None
    equal_rows: int | None = None
    equal_rows_cost: Decimal | None = None
    shared_rows: int | None = None
    saved_by_equal_rows: Decimal | None = None
    refusals: int = 0
    retries: Mapping[str, int] = field(default_factory=dict)
    truncated: int = 0
    seconds: float = 0.0
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    exit_status: int = 0

    def write(self, path: Path) -> None:
        """Writes the figures as one JSON object; where ``path`` ends in ``.jsonl``, appends a line.

        Raises:
            CannotWrite: The file cannot be written.
        """
        lines = path.suffix == ".jsonl"
        text = json.dumps(asdict(self), ensure_ascii=False, indent=None if lines else 2, default=float)
        try:
            with path.open("a" if lines else "w", encoding="utf-8") as file:
                file.write(text + "\n")
        except OSError as error:
            reason = f"the summary cannot be written ({error.strerror})"
            raise CannotWrite(
                f"{path}: {reason}; all answers are kept, correct that and run again"
            ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A finished run.

    Attributes:
        output: The file that was written; ``None`` where it went to standard output.
        summary: The figures.
        possibly_billed_rows: Rows (from 1) whose requests a dead run may have paid without an answer.
        samples: Up to three answers, for a look with ``-n`` and ``--sample``.
        pace: The pace that was held, in words; empty where there is none.
        read_options: Options of ``open_source`` that the output is read with.
    """

    output: Path | None
    summary: Summary
    possibly_billed_rows: tuple[int, ...] = ()
    samples: tuple[Mapping[str, Any], ...] = ()
    pace: str = ""
    read_options: Mapping[str, str] = field(default_factory=dict)

    @property
    def exit_status(self) -> int:
        """0 where every row that was sent has an answer, 1 where some have not."""
        return self.summary.exit_status

    def frame(self) -> "pd.DataFrame":
        """The output as a DataFrame: cells as they stand in the file, nothing guessed but the figures' types.

        Raises:
            ValueError: The output went to standard output.
        """
        import pandas as pd

        if self.output is None:
            raise ValueError("the output went to standard output; name a file to get it as a frame")
        source = open_source(self.output, **self.read_options)
        columns = source.scan().columns
        return pd.DataFrame([row.values for row in source.rows()], columns=columns)


def exit_status_of(failed: int, sent: int, allow_failed: float) -> ExitStatus:
    """0 where no row failed, or a smaller share than ``allow_failed`` of those that were sent."""
    if failed == 0 or (allow_failed and failed <= allow_failed * sent):
        return ExitStatus.OK
    return ExitStatus.SOME_FAILED


def summary_of(counters: RunCounters, *, orphans: int, seconds: float, status: int) -> Summary:
    """The figures of a run as its counters has them: all there is where it is stopped on the way.

    Args:
        counters: What the run counted.
        orphans: Attempts of dead runs that may be on the bill, found by this one.
        seconds: How long it took.
        status: What the process ends with.
    """
    requests_per_minute, tokens_per_minute = counters.held.per_minute() or (None, None)
    return Summary(
        rows=counters.rows,
        answered=counters.answered + counters.before + counters.reused,
        skipped=counters.skipped,
        failed=counters.failed + counters.unanswered,
        failed_by_reason=dict(counters.failed_by_reason),
        finish_reasons=dict(counters.finish_reasons),
        requests=counters.requests,
        attempts=counters.attempts,
        found=counters.before + counters.reused,
        possibly_billed_twice=counters.possibly_billed + orphans,
        prompt_tokens=counters.prompt_tokens,
        completion_tokens=counters.completion_tokens,
        total_tokens=counters.tokens,
        cost=counters.cost,
        refusals=counters.refusals,
        retries=dict(counters.retries),
        truncated=counters.truncated,
        seconds=round(seconds, 3),
        requests_per_minute=None if requests_per_minute is None else round(requests_per_minute, 2),
        tokens_per_minute=None if tokens_per_minute is None else round(tokens_per_minute, 1),
        exit_status=status,
    )


def pace_words(summary: Summary) -> str:
    """The pace that was held, for the summary; empty where there is none."""
    paces = ((summary.requests_per_minute, "requests"), (summary.tokens_per_minute, "tokens"))
    return ", ".join(
        f"{pace:,.0f} {name}/min" if pace >= 10 else f"{pace:.1f} {name}/min"
        for pace, name in paces
        if pace is not None
    )


def money_of(totals: Totals, counters: RunCounters) -> dict[str, Any]:
    """What a summary says about money that was not spent in this run, and about equal rows.

    Args:
        totals: Sums over the rows of the output.
        counters: What this run counted.
    """
    paid = None if counters.final_cost is None else -counters.final_cost
    return {
        "saved_by_journal": plus(totals.answers, paid),
        "equal_rows": totals.equal_rows,
        "equal_rows_cost": totals.equal,
        "shared_rows": totals.shared_rows,
        "saved_by_equal_rows": totals.shared,
    }
