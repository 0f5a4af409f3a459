"""Agreement between two outputs, and which of them has more rows right."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from batchllm.evaluate.figures import percent
from batchllm.evaluate.formulas import cohen_kappa, mcnemar_exact

SIGNIFICANT = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How two outputs agree.

    Attributes:
        rows: Rows that are in both.
        both_answered: Rows that both answered; agreement and kappa are about these.
        agreed: Rows with the same answer.
        kappa: Cohen's kappa; ``None`` where everything is one answer, and of texts.
        only_first_correct, only_second_correct: Rows that exactly one of them has right; ``None`` without gold.
    """

    rows: int
    both_answered: int
    agreed: int
    kappa: float | None
    only_first_correct: int | None = None
    only_second_correct: int | None = None

    @property
    def agreement(self) -> float | None:
        """The share of the rows that both answered with the same answer; ``None`` where there is no such row."""
        return self.agreed / self.both_answered if self.both_answered else None

    @property
    def p_value(self) -> float | None:
        """The p-value of McNemar's exact test; ``None`` without gold."""
        if self.only_first_correct is None or self.only_second_correct is None:
            return None
        return mcnemar_exact(self.only_first_correct, self.only_second_correct)

    def to_json(self) -> dict[str, Any]:
        """Returns the figures by name; ``mcnemar`` is there with gold only."""
        found: dict[str, Any] = {
            "rows": self.rows,
            "both_answered": self.both_answered,
            "agreed": self.agreed,
            "agreement": self.agreement,
            "kappa": self.kappa,
        }
        if self.p_value is not None:
            found["mcnemar"] = {
                "only_first_correct": self.only_first_correct,
                "only_second_correct": self.only_second_correct,
                "p_value": self.p_value,
            }
        return found

    def verdict(self, first: str, second: str) -> str:
        """Returns a sentence or two that say what the figures allow to say, and what not.

        Args:
            first, second: What the outputs are called.
        """
        p, only_first, only_second = self.p_value, self.only_first_correct, self.only_second_correct
        if p is None or only_first is None or only_second is None:
            if self.agreement is None:
                return "No row has an answer in both, so the figures say nothing about their agreement."
            return (
                f"They agree on {percent(self.agreement)} of the rows that both answered. This does not say which "
                "of them is right, nor that an answer they share is: that needs known answers (--gold)."
            )
        better, worse = (first, second) if only_first > only_second else (second, first)
        more, fewer = max(only_first, only_second), min(only_first, only_second)
        counts = f"{more:,} rows right that {worse} has wrong, and {fewer:,} the other way round"
        if p < SIGNIFICANT:
            return (
                f"{better} is better on these rows: it has {counts} (McNemar's exact test, p {p_text(p)}). "
                "Whether it is better on other data depends on how much that data is like these rows."
            )
        if only_first == only_second:
            return (
                f"The figures do not show that either is better: each has {more:,} rows right that the other has "
                "wrong. They do not show that both are equally good either; more rows with a gold value could."
            )
        return (
            f"The figures do not show that either is better: {better} has {counts}, and a difference like this comes "
            f"about by chance with p {p_text(p)} (McNemar's exact test). They do not show that both are equally good "
            "either; more rows with a gold value could tell."
        )


def p_text(p: float) -> str:
    """Returns a p-value for people: ``= 0.031`` or ``< 0.001``."""
    return f"= {p:.3f}" if p >= 0.001 else "< 0.001"


class AgreementCounter:
    """Counts pairs of answers to the same row.

    Args:
        has_gold: ``add_correct`` is called too.
        has_kappa: Count the answers for kappa; of texts, which are all different, that would take much memory.
    """

    def __init__(self, *, has_gold: bool, has_kappa: bool = True) -> None:
        self._has_gold = has_gold
        self._has_kappa = has_kappa
        self._rows = self._both = self._agreed = self._only_first = self._only_second = 0
        self._counts: tuple[Counter[str], Counter[str]] = (Counter(), Counter())

    def add(self, first: str | None, second: str | None) -> bool:
        """Counts a row and returns whether the answers are the same; ``None`` is no answer."""
        self._rows += 1
        if first is None or second is None:
            return first is second
        self._both += 1
        self._agreed += first == second
        if self._has_kappa:
            self._counts[0][first] += 1
            self._counts[1][second] += 1
        return first == second

    def add_correct(self, first: bool, second: bool) -> None:
        """Counts which of the two has a row with a gold value right."""
        self._only_first += first and not second
        self._only_second += second and not first

    def agreement(self) -> Agreement:
        """Returns the agreement on the rows so far."""
        first, second = self._counts
        pairs = [(first[name], second[name]) for name in first]
        return Agreement(
            rows=self._rows,
            both_answered=self._both,
            agreed=self._agreed,
            kappa=cohen_kappa(self._agreed, self._both, pairs) if self._both and self._has_kappa else None,
            only_first_correct=self._only_first if self._has_gold else None,
            only_second_correct=self._only_second if self._has_gold else None,
        )
