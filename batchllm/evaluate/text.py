"""Figures of texts: exact match, match but for case and punctuation, and chrF.

chrF is that of sacrebleu with its defaults (character n-grams of 1 to 6 without white space, beta 2): Popović,
"chrF: character n-gram F-score for automatic MT evaluation" (2015). It is computed here, since sacrebleu would bring
five packages for these lines; the tests hold both equal.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from batchllm.evaluate.figures import AnswerCounter, Figures, percent

_ORDERS = range(1, 7)
_BETA_SQUARED = 4
_IN_NUMBERS = ".,:/-"


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFigures(Figures):
    """How texts compare with gold texts.

    Attributes:
        normalised_match: The share of rows equal to gold but for case, width, punctuation and white space.
        chrf: chrF of all rows together, 0 to 100; a row without an answer counts as an empty text.
    """

    kind = "text"
    compared = "texts"
    normalised_match: float
    chrf: float

    def to_json(self) -> dict[str, Any]:
        """Returns the figures by name."""
        return {
            **self._common("exact_match"),
            "normalised_match": self.normalised_match,
            "chrf": self.chrf,
        }

    def lines(self) -> Iterator[str]:
        """Yields the figures."""
        yield self._share_line("Exact match")
        yield f"Normalised match {percent(self.normalised_match)}, chrF {self.chrf:.1f}"


class TextCounter(AnswerCounter):
    """Counts pairs of a gold text and an answered text."""

    def __init__(self) -> None:
        super().__init__()
        self._normalised = 0
        self._chrf = ChrF()

    def _count(self, gold: str, answer: str | None, correct: bool) -> None:
        self._chrf.add(gold, answer or "")
        self._normalised += correct or (answer is not None and normalised(gold) == normalised(answer))

    def figures(self) -> TextFigures:
        """Returns the figures of the rows so far."""
        return TextFigures(
            rows=self.rows,
            unanswered=self.unanswered,
            correct=self.correct,
            normalised_match=self._normalised / self.rows,
            chrf=self._chrf.score(),
        )


def normalised(text: str) -> str:
    """Returns a text without case, width and punctuation, and with single spaces.

    What stands before a digit stays (``-3.5``), and a text of punctuation alone is as it was.
    """
    plain = unicodedata.normalize("NFKC", text).casefold()
    kept = (
        character
        for place, character in enumerate(plain, 1)
        if unicodedata.category(character)[0] != "P"
        or (character in _IN_NUMBERS and plain[place : place + 1].isdigit())
    )
    return " ".join("".join(kept).split()) or plain


class ChrF:
    """Adds up the n-grams of pairs of texts."""

    def __init__(self) -> None:
        self._counts = [[0, 0, 0] for _ in _ORDERS]

    def add(self, gold: str, answer: str) -> None:
        """Counts the n-grams of a pair."""
        gold, answer = "".join(gold.split()), "".join(answer.split())
        for size, counts in zip(_ORDERS, self._counts, strict=True):
            in_gold, in_answer = _grams(gold, size), _grams(answer, size)
            if in_gold:  # n-grams of an answer do not count where gold is too short to have any
                counts[0] += max(0, len(answer) - size + 1)
            counts[1] += max(0, len(gold) - size + 1)
            counts[2] += sum(min(n, in_gold[gram]) for gram, n in in_answer.items() if gram in in_gold)

    def score(self) -> float:
        """Returns chrF, 0 to 100."""
        precisions, recalls = [], []
        for answered, gold, matched in self._counts:
            if answered and gold:
                precisions.append(matched / answered)
                recalls.append(matched / gold)
        if not precisions:
            return 0.0
        precision, recall = sum(precisions) / len(precisions), sum(recalls) / len(recalls)
        if not precision + recall:
            return 0.0
        return 100 * (1 + _BETA_SQUARED) * precision * recall / (_BETA_SQUARED * precision + recall)


def _grams(text: str, size: int) -> Counter[str]:
    return Counter([text[start : start + size] for start in range(len(text) - size + 1)])
