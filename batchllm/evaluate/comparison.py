"""What a comparison of outputs found: where they agree, which has more rows right, and what each cost."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

from batchllm.errors import listed
from batchllm.evaluate.agreement import Agreement
from batchllm.evaluate.figures import Figures, aligned, percent
from batchllm.evaluate.formulas import mean
from batchllm.evaluate.usage import OutputUsage, usage_rows
from batchllm.printable import counted, one_line


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Comparison:
    """How outputs of the same rows compare.

    Attributes:
        names: What the outputs are called.
        matched_by: The columns that rows were matched by; empty where it was their order.
        rows: Rows that are in all outputs; the figures are about these.
        unmatched: For each output, its rows that another one lacks.
        differences: Rows on which not all have the same answer, those that one of them did not answer included.
        all_same: Of the rows that all answered, those with one and the same answer.
        all_answered: Rows that all outputs answered.
        pairs: The agreement of each pair, by their positions.
        fields: Where answers have several fields, the agreement of each field on rows that all answered.
        usages: What each output cost.
        figures: For each output, its figures against gold by answer column; empty without gold.
        gold_rows: Rows with a known answer.
    """

    names: tuple[str, ...]
    matched_by: tuple[str, ...]
    rows: int
    unmatched: tuple[int, ...]
    differences: int
    all_same: int
    all_answered: int
    pairs: Mapping[tuple[int, int], Agreement]
    fields: Mapping[str, float]
    usages: tuple[OutputUsage, ...]
    figures: tuple[Mapping[str, Figures], ...]
    gold_rows: int

    @property
    def agreement(self) -> float | None:
        """The share of the rows that all answered on which all have the same answer; ``None`` without such rows."""
        return self.all_same / self.all_answered if self.all_answered else None

    @property
    def kappa(self) -> float | None:
        """Cohen's kappa; of more than two outputs the mean of all pairs (Light's kappa). ``None`` is undefined."""
        kappas = [pair.kappa for pair in self.pairs.values()]
        known = [kappa for kappa in kappas if kappa is not None]
        return mean(known) if known and len(known) == len(kappas) else None

    def to_json(self) -> dict[str, Any]:
        """Returns the figures by name."""
        pairs = []
        for (first, second), pair in self.pairs.items():
            names = {"first": self.names[first], "second": self.names[second]}
            pairs.append({**names, **pair.to_json(), "verdict": self.verdict(first, second)})
        outputs = []
        for place, (name, usage) in enumerate(zip(self.names, self.usages, strict=True)):
            entry = {"name": name, "unmatched": self.unmatched[place], **usage.to_json()}
            if self.figures:
                figures = self.figures[place]
                entry["accuracy"] = min(each.accuracy for each in figures.values())
                entry["fields"] = {answer: each.to_json() for answer, each in figures.items()}
            outputs.append(entry)
        found: dict[str, Any] = {
            "rows": self.rows,
            "matched_by": list(self.matched_by) or "order",
            "both_answered" if len(self.names) == 2 else "all_answered": self.all_answered,
            "agreement": self.agreement,
            "kappa": self.kappa,
            "differences": self.differences,
            "outputs": outputs,
            "pairs": pairs,
        }
        if len(pairs) == 1:
            found |= {name: pairs[0][name] for name in ("verdict", "mcnemar") if name in pairs[0]}
        if self.fields:
            found["fields"] = dict(self.fields)
        if self.figures:
            found["gold_rows"] = self.gold_rows
        return found

    def verdict(self, first: int, second: int) -> str:
        """Returns what the figures allow to say about two outputs, by their positions, and what not."""
        return self.pairs[first, second].verdict(self.names[first], self.names[second])

    def lines(self) -> Iterator[str]:
        """Yields the figures for people, line by line."""
        by = f"matched by {listed(self.matched_by)}" if self.matched_by else "matched by their order"
        yield f"{counted(self.rows, 'row')} in {' and '.join(map(one_line, self.names))}, {by}"
        for name, count in zip(self.names, self.unmatched, strict=True):
            if count:
                yield f"{counted(count, 'row')} of {one_line(name)} left out: another output lacks them"
        if self.agreement is not None:
            kappa = "undefined" if self.kappa is None else f"{self.kappa:.3f}"
            yield (
                f"Agreement: {percent(self.agreement)} of the {counted(self.all_answered, 'row')} that all answered, "
                f"kappa {kappa}"
            )
        for name, share in self.fields.items():
            yield f"  {one_line(name)}: {percent(share)}"
        yield ""
        yield from aligned(
            [*usage_rows([one_line(name, 30) for name in self.names], list(self.usages)), *self._right()]
        )
        yield ""
        for first, second in self.pairs:
            lead = (
                f"{one_line(self.names[first])}, {one_line(self.names[second])}: "
                if len(self.pairs) > 1
                else ""
            )
            yield lead + one_line(self.verdict(first, second), 600)

    def _right(self) -> Iterator[tuple[str, ...]]:
        for answer in self.figures[0] if self.figures else ():
            shares = []
            for found in self.figures:
                low, high = found[answer].accuracy_interval
                shares.append(
                    f"{percent(found[answer].accuracy)} ({low:.1%} to {high:.1%})".replace("%)", " %)")
                )
            yield (f"accuracy of {one_line(answer, 20)}", *shares)

    def __repr__(self) -> str:
        return "\n".join(self.lines())

    def _repr_html_(self) -> str:
        """Returns the figures for notebooks."""
        return f"<pre>{escape(repr(self))}</pre>"
