"""The table of rows of a report, cut so that the page stays small."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from batchllm.evaluate.answered import AnsweredRows, Values
from batchllm.evaluate.files import asked_columns
from batchllm.evaluate.gold import Gold
from batchllm.evaluate.values import shown
from batchllm.report.exchanges import Exchange
from batchllm.report.reading import agreement_columns, row_state
from batchllm.report.texts import clean, cut_text, named, size_of

FAILED, CUT, SKIPPED, ANSWERED = "failed", "cut off", "skipped", "answered"
WRONG, DIFFERS, UNSURE = "wrong", "outputs differ", "samples differ"
STATES = (ANSWERED, FAILED, CUT, SKIPPED, WRONG, DIFFERS, UNSURE)
"""What a row of a report may be; it may be several of them."""

_SHORTEST_TEXT = 200
_FEWEST_ROWS = 50
_ROW_BYTES, _EXCHANGE_BYTES = 170, 130


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRow:
    """A row of a report, in texts.

    Attributes:
        number: The row, from 1.
        states: Some of ``STATES``.
        asked: The columns that prompts read.
        answer: The answers, or the error of a row that failed.
        gold: The known answers.
        others: The answers of the other outputs.
        agreement: The share of the samples that gave the answer; empty where it is unknown.
        exchanges: The requests and the raw answers.
    """

    number: int
    states: tuple[str, ...]
    asked: str
    answer: str
    gold: str = ""
    others: tuple[str, ...] = ()
    agreement: str = ""
    exchanges: tuple[Exchange, ...] = ()

    def texts(self) -> list[str]:
        """Returns the texts that may be cut."""
        sides = [text for it in self.exchanges for text in (it.prompt, it.reply)]
        return [self.asked, self.answer, self.gold, *self.others, *sides]

    def with_texts(self, change: Callable[[str], str]) -> "ReportRow":
        """Returns a copy whose texts are changed."""
        return replace(
            self,
            asked=change(self.asked),
            answer=change(self.answer),
            gold=change(self.gold),
            others=tuple(map(change, self.others)),
            exchanges=tuple(
                replace(it, prompt=change(it.prompt), reply=change(it.reply)) for it in self.exchanges
            ),
        )


class RowMaker:
    """Makes rows of a report.

    Args:
        rows: The output.
        gold: The known answers, if there are any.
    """

    def __init__(self, rows: AnsweredRows, gold: Gold | None) -> None:
        self._rows = rows
        self._gold = gold
        of_samples = agreement_columns(rows) or ()
        self._agreement = of_samples[0] if of_samples else None
        self._asked = tuple(name for name in asked_columns(rows, gold) if name not in of_samples)

    @property
    def headings(self) -> tuple[str, str, str | None]:
        """What the texts that were asked, the answers and the agreement are called; ``None`` without samples."""
        fields = self._rows.fields
        asked = self._asked[0] if len(self._asked) == 1 else "asked"
        answer = fields[0].name if len(fields) == 1 else "answer"
        return asked, answer, None if self._agreement is None else "samples agree"

    def make(self, index: int, row: Values, further: Sequence[str]) -> ReportRow:
        """Makes a row.

        Args:
            index: The row, from 0.
            row: Its values.
            further: States that its output alone does not say.
        """
        rows = self._rows
        state = row_state(rows, row)
        states = [ANSWERED, CUT] if state == CUT else [state]
        agreement = "" if self._agreement is None else clean(shown(row.get(self._agreement)))
        if agreement not in ("", "1", "1.0"):
            states.append(UNSURE)
        known = {} if self._gold is None else self._gold.values(index, row)
        if state == FAILED:
            answer = clean(shown(rows.cell(row, "error")))
        else:
            answer = named({it.name: row.get(it.name) for it in rows.fields})
        return ReportRow(
            number=index + 1,
            states=(*states, *further),
            asked=named({name: row.get(name) for name in self._asked}),
            answer=answer,
            gold=named(known),
            agreement=agreement,
        )


@dataclass(frozen=True, slots=True)
class FittedRows:
    """Rows that fit into a page.

    Attributes:
        rows: The rows, in order.
        left_out: Rows of the output that are not among them.
        text_bytes: The size at which texts were cut; ``None`` where none was.
    """

    rows: tuple[ReportRow, ...]
    left_out: int
    text_bytes: int | None


def fit_rows(rows: Sequence[ReportRow], all_rows: int, budget: int) -> FittedRows:
    """Cuts texts, and where that is not enough leaves out rows, ordinary ones first.

    Args:
        rows: The rows to show.
        all_rows: How many rows the output has.
        budget: How many bytes they may take.
    """
    kept = list(rows)
    while True:
        sizes = sorted(size_of(text) for row in kept for text in row.texts())
        fixed = sum(_ROW_BYTES + _EXCHANGE_BYTES * len(row.exchanges) for row in kept)
        limit = _text_limit(sizes, budget - fixed)
        if limit is None or limit >= _SHORTEST_TEXT or len(kept) <= _FEWEST_ROWS:
            break
        kept = _without_some(kept)
    if limit is not None:
        limit = max(limit, 0)
        kept = [row.with_texts(lambda text: cut_text(text, limit)) for row in kept]
    return FittedRows(tuple(kept), all_rows - len(kept), limit)


def _text_limit(sizes: Sequence[int], budget: int) -> int | None:
    """The greatest size at which all texts together fit when each is cut there; ``None`` if nothing has to be cut."""
    if sum(sizes) <= budget:
        return None
    sums = list(accumulate(sizes, initial=0))
    count = len(sizes)
    if budget <= 0:
        return 0
    fits = bisect_left(range(count), True, key=lambda k: sums[k] + sizes[k] * (count - k) > budget)
    return (budget - sums[fits]) // (count - fits)


def _without_some(rows: Sequence[ReportRow]) -> list[ReportRow]:
    """Leaves out a fifth of the rows: evenly, and first those that only say that they were answered."""

    def rank(row: ReportRow) -> tuple[bool, int]:
        return row.states == (ANSWERED,), row.number * 2654435761 % 2**32  # spreads neighbours (Knuth)

    spread = sorted(rows, key=rank)
    return sorted(spread[: len(rows) * 4 // 5], key=lambda row: row.number)
