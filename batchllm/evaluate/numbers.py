"""Figures of numbers: how far they are off, and whether they rank the rows alike."""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import StatisticsError, correlation, fmean
from typing import Any

from batchllm.evaluate.figures import AnswerCounter, Figures


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberFigures(Figures):
    """How numbers compare with gold numbers.

    Attributes:
        mae: The mean absolute error of the answered rows; ``None`` without one.
        spearman: Spearman's rank correlation of the answered rows; ``None`` where one side does not vary.
    """

    kind = "number"
    compared = "numbers"
    mae: float | None
    spearman: float | None

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


class NumberCounter(AnswerCounter):
    """Collects pairs of a gold number and an answered number, which are finite; 16 bytes a row."""

    def __init__(self) -> None:
        super().__init__()
        self._gold, self._answers = array("d"), array("d")

    def _count(self, gold: float, answer: float | None, correct: bool) -> None:
        if answer is not None:
            self._gold.append(gold)
            self._answers.append(answer)

    def figures(self) -> NumberFigures:
        """Returns the figures of the rows so far."""
        gold, answers = self._gold, self._answers
        return NumberFigures(
            rows=self.rows,
            unanswered=self.unanswered,
            correct=self.correct,
            mae=fmean(abs(g - a) for g, a in zip(gold, answers, strict=True)) if gold else None,
            spearman=spearman(gold, answers),
        )


def spearman(left: Sequence[float], right: Sequence[float]) -> float | None:
    """Returns Spearman's rank correlation, equal values at their mean rank; ``None`` where one side does not vary."""
    try:
        return correlation(_ranks(left), _ranks(right))
    except StatisticsError:
        return None


def _ranks(values: Sequence[float]) -> "array[float]":
    value_at = values.__getitem__
    ranks = array("d", bytes(8 * len(values)))
    before = 0
    for _, positions in groupby(sorted(range(len(values)), key=value_at), key=value_at):
        equal = list(positions)
        for position in equal:
            ranks[position] = before + (len(equal) + 1) / 2
        before += len(equal)
    return ranks
