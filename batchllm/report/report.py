"""Makes a report: reads the output, its journal, the known answers and other outputs, each in flat memory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from batchllm.evaluate.answered import AnsweredRows, open_output
from batchllm.evaluate.compare import ComparedRow, compare_outputs
from batchllm.evaluate.comparison import Comparison
from batchllm.evaluate.evaluation import Evaluation, JudgedAnswer, evaluate_rows
from batchllm.evaluate.files import gold_of_any
from batchllm.evaluate.gold import Gold, GoldWords
from batchllm.evaluate.output_source import journal_there
from batchllm.printable import one_line
from batchllm.report.exchanges import Exchange, read_exchanges
from batchllm.report.facts import JournalFacts, left_out, read_facts
from batchllm.report.picks import MOST_ROWS, RowPicks
from batchllm.report.reading import OutputFigures, read_output
from batchllm.report.rows import DIFFERS, WRONG, ReportRow, RowMaker
from batchllm.report.texts import named


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Report:
    """Everything that a report says.

    Attributes:
        name: The output.
        figures: What came.
        facts: What the journal says; ``None`` without one.
        evaluation: The figures against known answers, if there are any.
        comparison: The comparison with other outputs, if there are any.
        notes: What the report lacks, and why, in sentences.
        rows: The rows to show.
        row_headings: What the columns of these rows are called.
    """

    name: str
    figures: OutputFigures
    facts: JournalFacts | None
    evaluation: Evaluation | None
    comparison: Comparison | None
    notes: tuple[str, ...]
    rows: tuple[ReportRow, ...]
    row_headings: "RowHeadings"

    def to_json(self) -> dict[str, Any]:
        """Returns the figures by name; ``None`` is unknown."""
        unknown = dict.fromkeys(("asked", "requests", "latency_s", "requests_over_time"))
        return {
            "output": self.name,
            **self.figures.to_json(),
            **(unknown if self.facts is None else self.facts.to_json()),
            "evaluation": None if self.evaluation is None else self.evaluation.to_json(),
            "comparison": None if self.comparison is None else self.comparison.to_json(),
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True)
class RowHeadings:
    """What the columns of a report's rows are called; ``None`` where there is no such column.

    Attributes:
        asked, answer, gold: The columns that every output has.
        others: The names of the other outputs.
        agreement: How much the samples agree.
        exchanges: The prompts and raw answers.
    """

    asked: str
    answer: str
    gold: str | None
    others: tuple[str, ...]
    agreement: str | None
    exchanges: str | None


def make_report(
    output: Path,
    others: Sequence[Path] = (),
    *,
    gold: GoldWords | None = None,
    on: str | None = None,
    journal: Path | None = None,
    with_rows: bool = True,
) -> Report:
    """Makes the report of an output.

    Args:
        output: The output of a job.
        others: Further outputs of the same rows, to compare with.
        gold: Where the known answers are; see ``evaluate.gold``.
        on: The column that a gold file and the output have in common.
        journal: The journal of the output; by default the one beside it.
        with_rows: Also choose rows to show, with prompts and raw answers.

    Raises:
        InputError: A file cannot be read.
        UsageError: There is no such column, or the outputs have no row in common.
    """
    outputs = [open_output(output, journal), *map(open_output, others)]
    path = journal_there(output) if journal is None else journal
    return report_on(outputs, path, output, gold=gold, on=on, with_rows=with_rows)


def report_on(
    outputs: Sequence[AnsweredRows],
    journal: Path | None,
    output: Path | None,
    *,
    gold: GoldWords | None = None,
    on: str | None = None,
    with_rows: bool = True,
) -> Report:
    """Makes the report of rows that are open already; see ``make_report``.

    Args:
        outputs: The output, and those to compare it with.
        journal: The journal of the output; ``None`` where there is none.
        output: The file; ``None`` for rows in memory.
        gold, on, with_rows: See ``make_report``.
    """
    known = None if gold is None else gold_of_any(gold, outputs, on)
    return _Maker(outputs, journal, output, known).make(with_rows=with_rows)


class _Maker:
    def __init__(
        self, outputs: Sequence[AnsweredRows], journal: Path | None, output: Path | None, gold: Gold | None
    ) -> None:
        self._journal = journal
        self._output = output
        self._rows = outputs[0]
        self._outputs = outputs
        self._gold = gold
        self._maker = RowMaker(outputs[0], gold)
        self._picks = RowPicks()
        self._wrong = self._differs = bytearray()  # a flag for each row
        self._others: dict[int, tuple[str, ...]] = {}

    def make(self, *, with_rows: bool) -> Report:
        facts = None if self._journal is None else read_facts(self._journal, self._output)
        figures = read_output(self._rows, self._picks)
        self._wrong, self._differs = bytearray(figures.rows), bytearray(figures.rows)
        evaluation = None if self._gold is None else evaluate_rows(self._rows, self._gold, each=self._judge)
        comparison = None
        if len(self._outputs) > 1:
            comparison = compare_outputs(self._outputs, self._gold, each=self._compare)
        notes = [note for note in [left_out(facts, self._rows)] if note is not None]
        rows: tuple[ReportRow, ...] = ()
        if with_rows:
            exchanges: dict[int, tuple[Exchange, ...]] = {}
            chosen = self._picks.chosen()
            if self._journal is not None and facts is not None and not notes:
                exchanges, note = read_exchanges(self._journal, chosen, figures.rows)
                notes += [note] if note is not None else []
            rows = tuple(
                replace(row, exchanges=exchanges.get(row.number - 1, ())) for row in self._chosen_rows(chosen)
            )
        return Report(
            name=self._rows.name.rpartition("/")[2],
            figures=figures,
            facts=facts,
            evaluation=evaluation,
            comparison=comparison,
            notes=tuple(notes),
            rows=rows,
            row_headings=self._headings(comparison, any(row.exchanges for row in rows)),
        )

    def _judge(self, judged: JudgedAnswer) -> None:
        if not judged.correct and not self._wrong[judged.row_index]:
            self._wrong[judged.row_index] = True
            self._picks.wrong.offer(judged.row_index)

    def _compare(self, row: ComparedRow) -> None:
        if not row.same:
            self._differs[row.row_index] = True
            self._picks.differing.offer(row.row_index)
        # Any of the rows so far may be shown in the end; those that have lost their place are dropped now and then.
        self._others[row.row_index] = tuple(named(answers) for answers in row.answers[1:])
        if len(self._others) > 2 * MOST_ROWS:
            kept = self._picks.chosen()
            self._others = {index: texts for index, texts in self._others.items() if index in kept}

    def _chosen_rows(self, chosen: frozenset[int]) -> Iterator[ReportRow]:
        for index, row in enumerate(self._rows.read()):
            if index in chosen:
                further = [WRONG] if self._wrong[index] else []
                further += [DIFFERS] if self._differs[index] else []
                made = self._maker.make(index, row, further)
                yield replace(made, others=self._others.get(index, ("",) * (len(self._outputs) - 1)))

    def _headings(self, comparison: Comparison | None, has_exchanges: bool) -> RowHeadings:
        asked, answer, agreement = self._maker.headings
        return RowHeadings(
            asked=one_line(asked, 60),
            answer=one_line(answer, 60),
            gold=None if self._gold is None else "known answer",
            others=() if comparison is None else comparison.names[1:],
            agreement=agreement,
            exchanges="prompt and raw answer" if has_exchanges else None,
        )
