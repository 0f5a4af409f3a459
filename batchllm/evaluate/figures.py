"""What the figures of every kind of answer have in common."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from batchllm.evaluate.formulas import ratio, wilson_interval
from batchllm.printable import one_line

_TABLE_LABELS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures(ABC):
    """How answers compare with gold values.

    Attributes:
        kind: What is compared: ``label``, ``labels``, ``number`` or ``text``.
        compared: The same in words.
        rows: Rows with a gold value, at least one.
        unanswered: Those of them without an answer; they count as wrong.
        correct: Those whose answer is the gold value.
    """

    kind: ClassVar[str]
    compared: ClassVar[str]
    rows: int
    unanswered: int
    correct: int

    @property
    def accuracy(self) -> float:
        """The share of the rows whose answer is the gold value; for texts, sets and numbers, the exact match."""
        return self.correct / self.rows

    @property
    def accuracy_interval(self) -> tuple[float, float]:
        """The 95 % interval of the accuracy, by Wilson."""
        return wilson_interval(self.correct, self.rows)

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Returns the figures by name; shares are between 0 and 1, ``None`` is undefined."""

    @abstractmethod
    def lines(self) -> Iterator[str]:
        """Yields the figures for people, line by line."""

    def _common(self, share: str) -> dict[str, Any]:
        low, high = self.accuracy_interval
        return {
            "kind": self.kind,
            "rows": self.rows,
            "correct": self.correct,
            "unanswered": self.unanswered,
            "unanswered_share": self.unanswered / self.rows,
            share: self.accuracy,
            f"{share}_low": low,
            f"{share}_high": high,
        }

    def _share_line(self, name: str) -> str:
        low, high = self.accuracy_interval
        return (
            f"{name}: {percent(self.accuracy)} (95 % interval {percent(low)} to {percent(high)}; "
            f"{self.correct:,} of {self.rows:,})"
        )


class AnswerCounter(ABC):
    """Counts pairs of a gold value and an answer.

    Attributes:
        rows, unanswered, correct: See ``Figures``.
    """

    def __init__(self) -> None:
        self.rows = self.unanswered = self.correct = 0

    def add(self, gold: Any, answer: Any) -> bool:
        """Counts a row and returns whether it is correct; ``None`` is no answer."""
        correct = bool(gold == answer)
        self.rows += 1
        self.unanswered += answer is None
        self.correct += correct
        self._count(gold, answer, correct)
        return correct

    @abstractmethod
    def _count(self, gold: Any, answer: Any, correct: bool) -> None:
        """Counts what these figures need beside."""

    @abstractmethod
    def figures(self) -> Figures:
        """Returns the figures of the rows so far, of which there is at least one."""


@dataclass(frozen=True, slots=True)
class LabelScore:
    """The figures of one label.

    Attributes:
        precision: Of the rows that got the label, the share that has it in gold; 0 where no row got it.
        recall: Of the rows that have it in gold, the share that got it; 0 where no row has it.
        f1: The harmonic mean of both.
        support: Rows that have it in gold.
    """

    precision: float
    recall: float
    f1: float
    support: int

    def to_json(self) -> dict[str, Any]:
        """Returns the figures by name."""
        return asdict(self)


def label_score(hits: int, given: int, support: int) -> LabelScore:
    """Returns the figures of a label.

    Args:
        hits: Rows that got the label and have it in gold.
        given: Rows that got it.
        support: Rows that have it in gold.
    """
    return LabelScore(ratio(hits, given), ratio(hits, support), ratio(2 * hits, given + support), support)


def score_table(labels: Mapping[str, LabelScore]) -> Iterator[str]:
    """Yields the figures of the labels as lines of a table; of many labels, those with the most support."""
    shown, more = list(labels.items()), len(labels) - _TABLE_LABELS
    if more > 0:
        shown = sorted(shown, key=lambda item: -item[1].support)[:_TABLE_LABELS]
    rows: list[tuple[str, ...]] = [("label", "precision", "recall", "F1", "support")]
    for name, score in shown:
        shares = (score.precision, score.recall, score.f1)
        rows.append((short(name), *map(percent, shares), f"{score.support:,}"))
    yield from aligned(rows)
    if more > 0:
        yield f"({more:,} more labels; --json has all)"


def aligned(rows: list[tuple[str, ...]]) -> Iterator[str]:
    """Yields the rows of a table as text, the first column to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        cells = [first.ljust(widths[0]), *(c.rjust(w) for c, w in zip(others, widths[1:], strict=True))]
        yield "  ".join(cells).rstrip()


def short(name: str) -> str:
    """Returns a name for a column of a table, on one line."""
    return one_line(name, 30)


def percent(share: float) -> str:
    """Returns a share for people: ``93.4 %``."""
    return f"{share:.1%}".replace("%", " %")
