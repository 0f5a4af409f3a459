"""Figures of one label a row: accuracy, F1, kappa and the confusion matrix.

Shares are those of scikit-learn with ``zero_division=0`` over the labels that occur; "no answer" is no label, so it
takes from recall and from accuracy and has no F1 of its own.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from batchllm.evaluate.figures import (
    AnswerCounter,
    Figures,
    LabelScore,
    aligned,
    label_score,
    percent,
    score_table,
    short,
)
from batchllm.evaluate.formulas import cohen_kappa, mean, ratio

NO_ANSWER = ""
"""Stands for "no answer" in a confusion matrix; no label is empty."""
_MATRIX_LABELS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelFigures(Figures):
    """How labels compare with gold labels.

    Attributes:
        labels: The figures of each label that occurs, in alphabetical order.
        pairs: Rows by gold label and answered label, ``NO_ANSWER`` where there is none.
        balanced_accuracy: The mean recall of the labels that occur in gold.
        macro_f1: The mean F1 of the labels.
        weighted_f1: Their mean F1 by support.
        kappa: Cohen's kappa; ``None`` where everything is one label.
    """

    kind = "label"
    compared = "labels"
    labels: Mapping[str, LabelScore]
    pairs: Mapping[tuple[str, str], int] = field(repr=False)
    balanced_accuracy: float
    macro_f1: float
    weighted_f1: float
    kappa: float | None

    def confusion(self) -> dict[str, dict[str, int]]:
        """Returns the rows by gold label, then by answered label; every pair of labels is there.

        Where rows have no answer, they are under ``NO_ANSWER``.
        """
        answers = [*self.labels, *([NO_ANSWER] if self.unanswered else [])]
        return {
            gold: {answer: self.pairs.get((gold, answer), 0) for answer in answers} for gold in self.labels
        }

    def confusions(self, most: int) -> list[tuple[tuple[str, str], int]]:
        """Returns the most frequent pairs of a gold label and a wrong answer, each with its rows."""
        wrong = {pair: count for pair, count in self.pairs.items() if pair[0] != pair[1]}
        return Counter(wrong).most_common(most)

    def to_json(self) -> dict[str, Any]:
        """Returns the figures by name."""
        return {
            **self._common("accuracy"),
            "balanced_accuracy": self.balanced_accuracy,
            "macro_f1": self.macro_f1,
            "weighted_f1": self.weighted_f1,
            "kappa": self.kappa,
            "labels": {name: score.to_json() for name, score in self.labels.items()},
            "confusion": self.confusion(),
        }

    def lines(self) -> Iterator[str]:
        """Yields the figures, a table of the labels and the confusion matrix."""
        yield self._share_line("Accuracy")
        kappa = "undefined (there is one label only)" if self.kappa is None else f"{self.kappa:.3f}"
        yield (
            f"Balanced accuracy {percent(self.balanced_accuracy)}, macro F1 {percent(self.macro_f1)}, "
            f"weighted F1 {percent(self.weighted_f1)}, kappa {kappa}"
        )
        yield ""
        yield from score_table(self.labels)
        yield ""
        yield from self._matrix()

    def _matrix(self) -> Iterator[str]:
        if len(self.labels) > _MATRIX_LABELS:
            yield "Most frequent confusions:"
            for (gold, answer), count in self.confusions(_MATRIX_LABELS):
                yield f"  {short(gold)} was answered {short(answer) or '(no answer)'}: {count:,}"
            return
        matrix = self.confusion()
        answers = list(next(iter(matrix.values())))
        head = ("gold \\ answer", *(short(answer) or "(no answer)" for answer in answers))
        yield from aligned(
            [head, *((short(g), *(f"{n:,}" for n in row.values())) for g, row in matrix.items())]
        )


class LabelCounter(AnswerCounter):
    """Counts pairs of a gold label and an answered label."""

    def __init__(self) -> None:
        super().__init__()
        self._pairs: Counter[tuple[str, str]] = Counter()

    def _count(self, gold: str, answer: str | None, correct: bool) -> None:
        self._pairs[gold, answer or NO_ANSWER] += 1

    def figures(self) -> LabelFigures:
        """Returns the figures of the rows so far."""
        given: Counter[str] = Counter()
        support: Counter[str] = Counter()
        for (gold, answer), count in self._pairs.items():
            support[gold] += count
            given[answer] += count
        names = sorted({*support, *given} - {NO_ANSWER})
        labels = {name: label_score(self._pairs[name, name], given[name], support[name]) for name in names}
        return LabelFigures(
            rows=self.rows,
            unanswered=self.unanswered,
            correct=self.correct,
            labels=labels,
            pairs=dict(self._pairs),
            balanced_accuracy=mean(score.recall for score in labels.values() if score.support),
            macro_f1=mean(score.f1 for score in labels.values()),
            weighted_f1=ratio(sum(score.f1 * score.support for score in labels.values()), self.rows),
            kappa=cohen_kappa(self.correct, self.rows, [(support[name], given[name]) for name in names]),
        )
