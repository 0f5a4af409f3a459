"""What an output cost: dollars, tokens, seconds, answers that were cut off."""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from statistics import quantiles
from typing import Any

from batchllm.budget.costs import plus
from batchllm.evaluate.answered import AnsweredRows, Values
from batchllm.printable import known_count

CUT_OFF = "length"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputUsage:
    """An output in numbers; ``None`` is unknown.

    Attributes:
        rows: Its rows that were compared.
        answered: Those with an answer.
        cut_off: Answers that ended at their limit of tokens.
        cost: US dollars.
        prompt_tokens, completion_tokens: Tokens as the endpoint counted them.
        latency_median_s, latency_p95_s: Seconds of a request, where the output has the column ``latency_s``.
    """

    rows: int
    answered: int
    cut_off: int | None
    cost: Decimal | None
    prompt_tokens: int | None
    completion_tokens: int | None
    latency_median_s: float | None
    latency_p95_s: float | None

    def to_json(self) -> dict[str, Any]:
        """Returns the numbers by name."""
        return {**asdict(self), "cost": None if self.cost is None else float(self.cost)}


class UsageCounter:
    """Adds up what the rows of an output say."""

    def __init__(self, output: AnsweredRows) -> None:
        self._output = output
        self._rows = self._answered = self._cut_off = 0
        self._cost: Decimal | None = Decimal(0)
        self._tokens: dict[str, float | None] = {"prompt_tokens": None, "completion_tokens": None}
        self._latencies = array("d")

    def add(self, row: Values, *, answered: bool) -> None:
        """Counts a row."""
        output = self._output
        self._rows += 1
        self._answered += answered
        self._cut_off += output.cell(row, "finish_reason") == CUT_OFF
        spent = output.cost(row)
        if answered or spent is not None:
            self._cost = plus(self._cost, spent)
        for name, known in self._tokens.items():
            count = output.number(row, name)
            if count is not None:
                self._tokens[name] = count + (known or 0)
        latency = output.number(row, "latency_s")
        if latency is not None:
            self._latencies.append(latency)

    def usage(self) -> OutputUsage:
        """Returns the numbers so far."""
        median_s, p95_s = median_and_p95(self._latencies)
        tokens = {name: None if count is None else int(count) for name, count in self._tokens.items()}
        return OutputUsage(
            rows=self._rows,
            answered=self._answered,
            cut_off=self._cut_off if "finish_reason" in self._output.beside else None,
            cost=self._cost,
            prompt_tokens=tokens["prompt_tokens"],
            completion_tokens=tokens["completion_tokens"],
            latency_median_s=median_s,
            latency_p95_s=p95_s,
        )


def median_and_p95(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Returns two percentiles, linear between two values, as NumPy has them; ``None`` of nothing."""
    if len(values) < 2:
        only = values[0] if values else None
        return only, only
    cuts = quantiles(values, n=20, method="inclusive")
    return cuts[9], cuts[18]


def usage_rows(names: list[str], usages: list[OutputUsage]) -> Iterator[tuple[str, ...]]:
    """Yields the numbers of outputs side by side, as rows of a table; what no output knows is left out."""
    yield ("", *names)
    for title, values in (
        ("answered", [f"{u.answered:,} of {u.rows:,}" for u in usages]),
        ("cut off", [known_count(u.cut_off) for u in usages]),
        ("cost", ["unknown" if u.cost is None else f"${u.cost:.4f}" for u in usages]),
        ("prompt tokens", [known_count(u.prompt_tokens) for u in usages]),
        ("answer tokens", [known_count(u.completion_tokens) for u in usages]),
        ("latency, median", [_seconds(u.latency_median_s) for u in usages]),
        ("latency, 95 % below", [_seconds(u.latency_p95_s) for u in usages]),
    ):
        if any(value != "unknown" for value in values):
            yield (title, *values)


def _seconds(seconds: float | None) -> str:
    return "unknown" if seconds is None else f"{seconds:.2f} s"
