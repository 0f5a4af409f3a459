"""Evaluates answers against known ones, row by row in flat memory."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from html import escape
from typing import Any, NamedTuple

from batchllm.budget.costs import plus
from batchllm.errors import UsageError
from batchllm.evaluate.answered import AnsweredRows, Values
from batchllm.evaluate.figures import AnswerCounter, Figures, percent
from batchllm.evaluate.gold import Gold
from batchllm.evaluate.labels import LabelFigures
from batchllm.evaluate.values import NUMBER, GoldProfile, check_kind, counter_of, read_value
from batchllm.printable import counted, dollars, one_line


class JudgedAnswer(NamedTuple):
    """An answer beside the known one.

    Attributes:
        row_index: The row, from 0.
        row: Its values.
        field: The answer column.
        gold: The known answer.
        answer: The answer; ``None`` where there is none.
        correct: Whether both are the same.
    """

    row_index: int
    row: Values
    field: str
    gold: Any
    answer: Any
    correct: bool


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Evaluation:
    """How good the answers of an output are.

    Attributes:
        name: The output.
        gold: Where the known answers are.
        rows: Rows with a known answer; the figures are about these.
        without_gold: Rows without one, which do not count.
        unanswered: Rows with a known answer that have no answer; they count as wrong.
        correct: Rows with every answer right.
        figures: The figures by answer column.
        cost: US dollars that the answers of these rows cost; ``None`` is unknown.
        gold_left: Entries of a gold file that no row has; ``None`` where gold is in no file.
    """

    name: str
    gold: str
    rows: int
    without_gold: int
    unanswered: int
    correct: int
    figures: Mapping[str, Figures]
    cost: Decimal | None = None
    gold_left: int | None = None

    @property
    def accuracy(self) -> float:
        """The lowest accuracy of an answer column; there is often one column only."""
        return min(figures.accuracy for figures in self.figures.values())

    def __getattr__(self, name: str) -> Any:
        """Returns a figure by its name, such as ``macro_f1``, where there is one answer column."""
        if name in Evaluation.__slots__ or name.startswith("_") or len(self.figures) != 1:
            raise AttributeError(name)  # while a copy is made, or there are figures of several columns
        return getattr(next(iter(self.figures.values())), name)

    def to_json(self) -> dict[str, Any]:
        """Returns the figures by name: those of the only answer column beside the others, or ``fields`` of each."""
        found: dict[str, Any] = {"output": self.name, "gold": self.gold}
        if len(self.figures) == 1:
            ((answer, figures),) = self.figures.items()
            found |= {"answer": answer, **figures.to_json()}
        else:
            found |= {
                "rows": self.rows,
                "unanswered": self.unanswered,
                "unanswered_share": self.unanswered / self.rows,
                "all_correct": self.correct / self.rows,
                "fields": {answer: figures.to_json() for answer, figures in self.figures.items()},
            }
        per_row, per_correct = self._cost_per()
        return {
            **found,
            "without_gold": self.without_gold,
            "gold_without_row": self.gold_left,
            "cost": None if self.cost is None else float(self.cost),
            "cost_per_row": None if per_row is None else float(per_row),
            "cost_per_correct_row": None if per_correct is None else float(per_correct),
        }

    def _cost_per(self) -> tuple[Decimal | None, Decimal | None]:
        if self.cost is None:
            return None, None
        return self.cost / self.rows, self.cost / self.correct if self.correct else None

    def lines(self) -> Iterator[str]:
        """Yields the figures for people, line by line."""
        without = f"; {counted(self.without_gold, 'row')} without one left out" if self.without_gold else ""
        yield f"{one_line(self.name)}: {counted(self.rows, 'row')} with a known answer ({one_line(self.gold)}){without}"
        if self.gold_left:
            yield f"{counted(self.gold_left, 'entry', 'entries')} of {one_line(self.gold)} belong to no row"
        if self.unanswered:
            yield (
                f"No answer: {percent(self.unanswered / self.rows)} ({counted(self.unanswered, 'row')}), "
                "counted as wrong"
            )
        for answer, figures in self.figures.items():
            yield ""
            yield f"{one_line(answer)}, compared as {figures.compared}"
            yield from figures.lines()
            yield from _case_notes(figures)
        per_row, per_correct = self._cost_per()
        if per_row is not None:
            correct = "" if per_correct is None else f", {dollars(per_correct)} a correct row"
            yield ""
            yield f"Cost: {dollars(per_row)} a row{correct}"

    def __repr__(self) -> str:
        return "\n".join(self.lines())

    def _repr_html_(self) -> str:
        """Returns the figures for notebooks."""
        return f"<pre>{escape(repr(self))}</pre>"


def _case_notes(figures: Figures) -> Iterator[str]:
    """Names labels that gold and answers spell differently; they count as different labels."""
    if not isinstance(figures, LabelFigures):
        return
    answers = {answer for _, answer in figures.pairs if answer}
    gold = {label for label, _ in figures.pairs}
    folded = {answer.casefold(): answer for answer in answers - gold}
    for label in sorted(gold - answers):
        if label.casefold() in folded:
            other = folded[label.casefold()]
            yield (
                f"Note: gold says {one_line(label, 40)!r} where answers say {one_line(other, 40)!r}; "
                "these count as different labels"
            )


def evaluate_rows(
    rows: AnsweredRows,
    gold: Gold,
    *,
    kind: str | None = None,
    each: Callable[[JudgedAnswer], None] = lambda judged: None,
) -> Evaluation:
    """Compares the answers of an output with known answers.

    Args:
        rows: The output; it is read once, or twice where only gold says what kind of answers these are.
        gold: The known answers.
        kind: What to compare them as, one of ``KINDS``; by default what the job or gold says.
        each: Called with each answer to a row with a known answer.

    Raises:
        UsageError: No row has a known answer, or gold does not fit the kind.
    """
    check_kind(kind)
    kinds = _kinds(rows, gold, kind)
    counters = {answer.name: counter_of(kinds[answer.name]) for answer in gold.fields}
    with_gold = without_gold = unanswered = correct = 0
    cost: Decimal | None = Decimal(0)
    for index, row in enumerate(rows.read()):
        judged = list(_judged(rows, gold, index, row, kinds, counters))
        if not judged:
            without_gold += 1
            continue
        for one in judged:
            each(one)
        answered = any(one.answer is not None for one in judged)
        with_gold += 1
        correct += all(one.correct for one in judged)
        unanswered += not answered
        spent = rows.cost(row)
        if answered or spent is not None:
            cost = plus(cost, spent)
    if not with_gold:
        raise _nothing_known(rows, gold)
    return Evaluation(
        name=rows.name,
        gold=gold.name,
        rows=with_gold,
        without_gold=without_gold,
        unanswered=unanswered,
        correct=correct,
        figures={name: counter.figures() for name, counter in counters.items() if counter.rows},
        cost=cost,
        gold_left=None if gold.left is None else len(gold.left),
    )


def _judged(
    rows: AnsweredRows,
    gold: Gold,
    index: int,
    row: Values,
    kinds: Mapping[str, str],
    counters: Mapping[str, AnswerCounter],
) -> Iterator[JudgedAnswer]:
    """Counts the answers of a row that have a known answer, and yields them."""
    known = gold.values(index, row)
    failed = bool(known) and rows.cell(row, "error") is not None
    for answer in gold.fields:
        name = answer.name
        if name in known:
            value = gold.read(kinds[name], known[name], index, answer)
            said = None if failed else read_value(kinds[name], row.get(name), answer)
            yield JudgedAnswer(index, row, name, value, said, counters[name].add(value, said))


def _nothing_known(rows: AnsweredRows, gold: Gold) -> UsageError:
    return UsageError(f"{rows.name}: no row has a known answer in {gold.name}; nothing can be compared")


def check_gold(rows: AnsweredRows, gold: Gold, values: Iterable[tuple[int, Values]]) -> None:
    """Looks at known answers before there are answers.

    Args:
        rows: The output to be.
        gold: The known answers.
        values: The rows that will be answered, by their index.

    Raises:
        UsageError: No row has a known answer, or one is no number where a schema asks for numbers.
    """
    kinds = {answer.name: answer for answer in gold.fields}
    found = False
    for index, row in values:
        for name, value in gold.values(index, row).items():
            found = True
            if kinds[name].kind == NUMBER:
                gold.read(NUMBER, value, index, kinds[name])
    if not found:
        raise _nothing_known(rows, gold)


def _kinds(rows: AnsweredRows, gold: Gold, kind: str | None) -> dict[str, str]:
    """What each answer column is compared as."""
    found = {answer.name: kind or answer.kind for answer in gold.fields}
    profiles = {name: GoldProfile() for name, known in found.items() if known is None}
    if profiles:
        for index, row in enumerate(rows.read()):
            for name, value in gold.values(index, row).items():
                if name in profiles:
                    profiles[name].add(value)
    return {name: known or profiles[name].kind() for name, known in found.items()}
