"""Figures of several labels a row: exact match, and F1 over all labels and by label."""

from collections import Counter
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any

from batchllm.evaluate.figures import AnswerCounter, Figures, LabelScore, label_score, percent, score_table
from batchllm.evaluate.formulas import mean


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSetFigures(Figures):
    """How sets of labels compare with gold sets; shares are those of scikit-learn with ``zero_division=0``.

    Attributes:
        labels: The figures of each label that occurs, in alphabetical order.
        micro_f1: F1 over every label of every row.
        macro_f1: The mean F1 of the labels.
    """

    kind = "labels"
    compared = "sets of labels"
    labels: Mapping[str, LabelScore]
    micro_f1: float
    macro_f1: float

    def to_json(self) -> dict[str, Any]:
        """Returns the figures by name."""
        return {
            **self._common("exact_match"),
            "micro_f1": self.micro_f1,
            "macro_f1": self.macro_f1,
            "labels": {name: score.to_json() for name, score in self.labels.items()},
        }

    def lines(self) -> Iterator[str]:
        """Yields the figures and a table of the labels."""
        yield self._share_line("Exact match")
        yield f"Micro F1 {percent(self.micro_f1)}, macro F1 {percent(self.macro_f1)}"
        yield ""
        yield from score_table(self.labels)


class LabelSetCounter(AnswerCounter):
    """Counts pairs of a gold set and an answered set of labels; an empty set is an answer."""

    def __init__(self) -> None:
        super().__init__()
        self._hits: Counter[str] = Counter()
        self._given: Counter[str] = Counter()
        self._support: Counter[str] = Counter()

    def _count(self, gold: Set[str], answer: Set[str] | None, correct: bool) -> None:
        self._support.update(gold)
        if answer is not None:
            self._given.update(answer)
            self._hits.update(gold & answer)

    def figures(self) -> LabelSetFigures:
        """Returns the figures of the rows so far."""
        hits, given, support = self._hits, self._given, self._support
        names = sorted({*support, *given})
        labels = {name: label_score(hits[name], given[name], support[name]) for name in names}
        return LabelSetFigures(
            rows=self.rows,
            unanswered=self.unanswered,
            correct=self.correct,
            labels=labels,
            micro_f1=label_score(hits.total(), given.total(), support.total()).f1,
            macro_f1=mean(score.f1 for score in labels.values()),
        )
