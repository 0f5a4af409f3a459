"""What is left of a job, in numbers."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from batchllm.prices import Price
from batchllm.printable import counted
from batchllm.request import AnswerSettings

_PART = re.compile(r"part/(?P<part>\d+)|combine/(?P<level>\d+)/\d+")
_JSON_KEYS = (
    "rows", "answered", "failed", "cut_off", "pending", "duplicate_rows", "skipped", "prompt_tokens",
    "completion_tokens_expected", "completion_tokens_upper_bound", "cost_low", "cost_high", "seconds",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class PartCounts:
    """The parts of the long texts of a job that are still to be sent.

    Attributes:
        rows: Rows whose text is split.
        parts: Their parts.
        levels: The most levels of requests in which the answers of a row are combined.
        levels_upper_bound: The same with the longest answers.
    """

    rows: int
    parts: int
    levels: int
    levels_upper_bound: int

    def to_text(self, requests: int | None = None, *, sampled: bool = False) -> str:
        """Says it in words.

        Args:
            requests: The upper bound of all requests, if it is to be said.
            sampled: The numbers come from some of the rows, so they bound nothing.
        """
        about, most = ("about ", "about") if sampled else ("", "at most")
        levels = counted(self.levels_upper_bound, "level")
        combined = f", combined in {most} {levels}" if self.levels_upper_bound else ""
        in_all = "" if requests is None else f", {most} {counted(requests, 'request')} in all"
        return f"{about}{counted(self.rows, 'long text')} in {counted(self.parts, 'part')}{combined}{in_all}"


@dataclass(slots=True)
class PartSums:
    """Adds up the parts of long texts.

    Attributes:
        rows, parts: Rows, and parts of their texts.
        levels: The most levels of combining requests.
    """

    rows: float = 0.0
    parts: float = 0.0
    levels: int = 0

    def add(self, path: str, times: float) -> None:
        """Counts a request by its path: ``part/3``, ``combine/2/1``."""
        found = _PART.fullmatch(path)
        if found and found["part"]:
            self.parts += times
            self.rows += times if found["part"] == "1" else 0.0
        elif found:
            self.levels = max(self.levels, int(found["level"]))

    def counts(self, longest: "PartSums") -> PartCounts | None:
        """Returns the counts; ``None`` if there are no parts."""
        if not self.parts:
            return None
        return PartCounts(round(self.rows), round(self.parts), self.levels, max(self.levels, longest.levels))


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What is left of a job.

    Attributes:
        rows: Rows of the job, after ``-n`` and ``--sample``; ``None`` if no run has counted them.
        answered: Rows that have an answer.
        failed: Rows that failed before and are not asked again.
        cut_off: Rows whose answer was cut off and that are asked again (``--retry-cut-off``).
        pending: Rows whose request is in a batch.
        duplicate_rows: Rows whose request equals an earlier row's.
        skipped: Rows with nothing to ask.
        unsendable: Rows that will fail before they are sent.
        requests: Requests still to be sent: each row takes every step, and no answer is re-asked.
        requests_upper_bound: Requests to be sent if every answer is re-asked as often as it may be.
        prompt_tokens: Tokens of their prompts.
        completion_tokens_expected: Tokens of their answers, by a high percentile of the known answers; without any,
            half of the upper bound.
        completion_tokens_upper_bound: Tokens of their answers if each reaches ``max_tokens``; ``None`` without one.
        cost_low, cost_high: US dollars, with the shortest and the longest answers.
        cost_expected: US dollars with the expected answers.
        seconds: The time it takes under the limits that are given or were met.
        exact: All prompts were counted; otherwise their tokens are an estimate.
        sampled: How many requests there are comes from some of the rows, so the upper bounds are estimates.
        price: The price of the job's model, and its source; ``None`` if it is unknown.
        waves: How many batches one after the other a row may need at most; ``None`` where they are not counted.
        begun: A batch of this job has been made already.
        possibly_billed_rows: Rows, from 1, that a dead run possibly paid without an answer.
        input_notes: What a reader of the input would not expect of it, in words.
        settings: What shapes the answers.
        at_once, output_limit: Requests that fit into a budget at once, if the model alone bounds answers; the bound.
        models: Model to its requests to be sent; estimated where the rows are.
        parts: The parts of long texts; ``None`` if no text is split.
    """

    rows: int | None
    answered: int | None = 0
    failed: int | None = 0
    cut_off: int = 0
    pending: int | None = 0
    duplicate_rows: int | None = None
    skipped: int | None = None
    unsendable: int | None = None
    requests: int | None = None
    requests_upper_bound: int | None = None
    prompt_tokens: int | None = None
    completion_tokens_expected: int | None = None
    completion_tokens_upper_bound: int | None = None
    cost_low: Decimal | None = None
    cost_high: Decimal | None = None
    cost_expected: Decimal | None = None
    seconds: float | None = None
    exact: bool = False
    sampled: bool = False
    price: Price | None = None
    waves: int | None = None
    begun: bool = False
    possibly_billed_rows: tuple[int, ...] = ()
    input_notes: tuple[str, ...] = ()
    settings: AnswerSettings = field(default_factory=AnswerSettings)
    at_once: int | None = None
    output_limit: int | None = None
    parts: "PartCounts | None" = None
    models: Mapping[str, int] = field(default_factory=dict)

    def known_rows(self) -> list[str]:
        """Says how many rows earlier runs have dealt with, and how: ``3 answered already``."""
        known = (
            (self.answered, "answered already"),
            (self.failed, "failed before (--retry-failed asks again)"),
            (self.cut_off, "cut off and asked again"),
            (self.pending, "in batches"),
        )
        return [f"{count:,} {what}" for count, what in known if count]

    def to_json(self) -> dict[str, Any]:
        """Returns the numbers for ``--json``; unknown ones are null."""
        return {name: _plain(getattr(self, name)) for name in _JSON_KEYS}

    def at_price(self, factor: Decimal) -> "Forecast":
        """Returns the same forecast with all costs multiplied."""
        low, high, expected = (
            None if cost is None else cost * factor
            for cost in (self.cost_low, self.cost_high, self.cost_expected)
        )
        return replace(self, cost_low=low, cost_high=high, cost_expected=expected)


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return float(value)
    return round(value, 3) if isinstance(value, float) else value
