"""Decides what the sections of a page show: which charts there are, and the confusion matrix with its shades."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from batchllm.evaluate.evaluation import Evaluation
from batchllm.evaluate.labels import NO_ANSWER, LabelFigures
from batchllm.evaluate.values import LABEL, LABELS, NUMBER
from batchllm.printable import one_line
from batchllm.report.charts import Picture, bar_chart, can_draw, histogram, time_chart
from batchllm.report.distribution import Distribution
from batchllm.report.report import Report
from batchllm.report.words import MOST_BARS, distribution_words, history_words, share

_SHADES = 9
_MATRIX_LABELS = 25
_MOST_FIELDS = 20
_LONGEST_NAME = 80


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart with its figures in words.

    Attributes:
        section: Where it stands: ``answers``, ``cost``, ``time``, ``samples``.
        title: What it shows.
        words: Its figures.
        picture: The chart; ``None`` where nothing draws it.
    """

    section: str
    title: str
    words: str
    picture: Picture | None


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a confusion matrix: how many rows, how dark from 0 to 9, and whether these are right."""

    count: int
    shade: int
    right: bool


@dataclass(frozen=True, slots=True)
class Confusion:
    """The confusion matrix of an answer column, or where it is large its most frequent confusions.

    Attributes:
        field: The answer column.
        answers: What the columns are called.
        rows: Each known label with its cells.
        most_frequent: Known label, answered label, rows; only where the matrix is too large.
    """

    field: str
    answers: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    most_frequent: tuple[tuple[str, str, int], ...]


def charts_of(report: Report) -> list[Chart]:
    """Returns the charts of a report, in order."""
    return list(_charts(report))


def _chart(section: str, title: str, words: str, draw: Callable[[], Picture]) -> Chart:
    return Chart(section, title, words, draw() if can_draw() else None)


def _histogram(
    section: str,
    title: str,
    found: Distribution,
    unit: str,
    *,
    of_money: bool = False,
    counted: str = "rows",
) -> Chart:
    bins, left_out = found.bins()
    said = distribution_words(found, unit, of_money=of_money)
    if len(bins) == 1:
        return Chart(section, title, said, None)
    if left_out:
        said += f" The chart leaves out the {left_out:,} greatest values."
    below = "US dollars" if of_money else unit
    return _chart(section, title, said, lambda: histogram(bins, below, counted))


def _charts(report: Report) -> Iterator[Chart]:
    figures, facts = report.figures, report.facts
    for field in figures.fields[:_MOST_FIELDS]:
        name = one_line(field.name, _LONGEST_NAME)
        if field.kind in (LABEL, LABELS) and field.counts:
            shown = dict(list(field.counts.items())[:MOST_BARS])
            said = ", ".join(f"{one_line(it)} {n:,} ({share(n, field.rows)})" for it, n in shown.items())
            more = len(field.counts) - len(shown)
            said += f"; {more:,} more labels" if more else ""
            yield _chart("answers", name, f"{said}.", lambda shown=shown: bar_chart(shown))  # type: ignore[misc]
        elif field.numbers is not None and field.numbers.count:
            is_number = field.kind == NUMBER
            title = name if is_number else f"Length of {name}"
            yield _histogram("answers", title, field.numbers, name if is_number else "characters")
    if figures.agreement is not None:
        yield _agreement(figures.agreement)
    titles = {"prompt_tokens": "Prompt tokens of a row", "completion_tokens": "Answer tokens of a row"}
    for column, title in titles.items():
        if column in figures.tokens:
            yield _histogram("cost", title, figures.tokens[column], "tokens")
    if figures.cost is not None and figures.cost.greatest > 0:
        yield _histogram("cost", "Cost of a row", figures.cost, "", of_money=True)
    if facts is not None and facts.latency is not None:
        yield _histogram("time", "Latency of an answer", facts.latency, "seconds", counted="answers")
    if facts is not None and facts.history is not None:
        history, runs = facts.history, facts.job.runs
        yield _chart("time", "Requests over time", history_words(history, runs), lambda: time_chart(history))


def _agreement(found: Distribution) -> Chart:
    all_agree = found.count_of(1)
    words = (
        f"All samples of {all_agree:,} of {found.count:,} rows agree ({share(all_agree, found.count)}). "
        f"On average, {share(found.mean, 1)} of the samples of a row gave its answer; the least share is "
        f"{share(found.least, 1)}."
    )
    bins, _ = found.bins()
    unit = "share of the samples that gave the answer"
    if len(bins) == 1:
        return Chart("samples", "", words, None)
    return _chart("samples", "", words, lambda: histogram(bins, unit))


def confusion_of(evaluation: Evaluation | None) -> list[Confusion]:
    """Returns the confusion matrices of an evaluation."""
    found = {} if evaluation is None else evaluation.figures
    return [_confusion(name, figures) for name, figures in found.items() if isinstance(figures, LabelFigures)]


def _confusion(name: str, figures: LabelFigures) -> Confusion:
    if len(figures.labels) > _MATRIX_LABELS:
        wrong = figures.confusions(_MATRIX_LABELS)
        most = tuple((_name(gold), _name(answer), count) for (gold, answer), count in wrong)
        return Confusion(one_line(name), (), (), most)
    matrix = figures.confusion()
    answers = list(next(iter(matrix.values())))
    rows = []
    for gold, counts in matrix.items():
        whole = sum(counts.values()) or 1
        cells = [
            Cell(counts[answer], round(_SHADES * counts[answer] / whole), answer == gold)
            for answer in answers
        ]
        rows.append((_name(gold), tuple(cells)))
    return Confusion(one_line(name), tuple(map(_name, answers)), tuple(rows), ())


def _name(label: str) -> str:
    return "no answer" if label == NO_ANSWER else one_line(label, _LONGEST_NAME)
