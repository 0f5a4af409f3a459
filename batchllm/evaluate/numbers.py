"""Figures of numbers: how far they are off, and whether they rank the rows alike."""

import math
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from batchllm.evaluate.figures import Figures
from batchllm.evaluate.formulas import mean


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberFigures(Figures):
    """How numbers compare with gold numbers.

    Attributes:
        mae: The mean absolute error of the answered rows; ``None`` without one.
        spearman: Spearman's rank correlation of the answered rows; ``None`` where one side does not vary.
    """

    mae: float | None
    spearman: float | None

    @property
    def kind(self) -> str:
        """``number``."""
        return "number"

    def to_json(self) -> dict[str, Any]:
        """Returns the figures by name."""
        return {**self._common("exact_match"), "mae": self.mae, "spearman": self.spearman}

    def lines(self) -> Iterator[str]:
        """Yields the figures."""
        yield self._share_line("Exact match")
        mae = "undefined" if self.mae is None else f"{self.mae:.4g}"
        spearman = "undefined" if self.spearman is None else f"{self.spearman:.3f}"
        left_out = ", rows without a number left out" if self.unanswered else ""
        yield f"Mean absolute error {mae}, Spearman {spearman}{left_out}"


class NumberCounter:
    """Collects pairs of a gold number and an answered number, 16 bytes a row."""

    def __init__(self) -> None:
        self._unanswered = self._correct = 0
        self._gold, self._answers = array("d"), array("d")

    @property
    def rows(self) -> int:
        """The rows so far."""
        return len(self._gold) + self._unanswered

    def add(self, gold: float, answer: float | None) -> bool:
        """Takes a row and returns whether it is correct; ``None`` is no number. Numbers are finite."""
        if answer is None:
            self._unanswered += 1
            return False
        self._gold.append(gold)
        self._answers.append(answer)
        self._correct += gold == answer
        return gold == answer

    def figures(self) -> NumberFigures:
        """Returns the figures of the rows so far, of which there is at least one."""
        gold, answers = self._gold, self._answers
        return NumberFigures(
            rows=self.rows,
            unanswered=self._unanswered,
            correct=self._correct,
            mae=mean(abs(g - a) for g, a in zip(gold, answers, strict=True)) if gold else None,
            spearman=spearman(gold, answers),
        )


def spearman(left: Sequence[float], right: Sequence[float]) -> float | None:
    """Returns Spearman's rank correlation, equal values at their mean rank; ``None`` where one side does not vary."""
    if len(left) < 2:
        return None
    x, y = _ranks(left), _ranks(right)
    middle = (len(x) + 1) / 2
    spread_x = math.fsum((rank - middle) ** 2 for rank in x)
    spread_y = math.fsum((rank - middle) ** 2 for rank in y)
    if not spread_x or not spread_y:
        return None
    both = math.fsum((a - middle) * (b - middle) for a, b in zip(x, y, strict=True))
    return both / math.sqrt(spread_x * spread_y)


def _ranks(values: Sequence[float]) -> "array[float]":
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = array("d", bytes(8 * len(values)))
    start = 0
    while start < len(order):
        end = start
        while end < len(order) and values[order[end]] == values[order[start]]:
            end += 1
        for position in order[start:end]:
            ranks[position] = (start + 1 + end) / 2
        start = end
    return ranks
