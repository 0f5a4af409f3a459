"""Workbooks by other hands, and tables of what a cell can hold."""

from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import openpyxl
import xlsxwriter
from hypothesis import strategies as st

from batchllm.formats import Outcome, open_source, plan_columns, write_output
from batchllm.records import Answer

Table = Sequence[Sequence[Any]]

HARD = [
    "=1+1",
    "+49 1",
    "@x",
    "007",
    "1e5",
    "TRUE",
    "http://a.b/?c=1&d",
    "two\nlines",
    "a\r\nb",
    " x ",
    "\ttab",
]
HARD += [
    "<r>x</r>",
    "<b>&amp;</b>",
    "_x",
    "😀é中",
    "{=A1}",
    "2024-01-01",
    "'quoted",
    "x" * 255,
    "#N/A",
    "]]>",
]
TEXT = st.one_of(
    st.sampled_from(HARD),
    st.text(
        st.characters(min_codepoint=32, exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff"),
        min_size=1,
        max_size=12,
    ).filter(lambda text: "_x" not in text),
)
NUMBER = st.one_of(
    st.integers(-(1 << 53), 1 << 53),
    st.floats(-1e15, 1e15, allow_nan=False).map(lambda number: float(f"{number:.15g}")),
    st.sampled_from([0, -1, 0.1, 1e300, 1e-300, 1 << 53, 123456789012345, 0.5, -2.25]),
)
MILLISECONDS = st.integers(0, 999).map(lambda number: 1000 * number)
MOMENT = st.builds(
    lambda day, of_day, fraction: datetime.combine(day, of_day.replace(microsecond=fraction)),
    st.dates(date(1900, 3, 1), date(9999, 12, 30)),
    st.times(),
    MILLISECONDS,
)
DAY = st.dates(date(1900, 3, 1), date(9999, 12, 31)).map(lambda day: datetime.combine(day, time()))
OF_DAY = st.builds(lambda of_day, fraction: of_day.replace(microsecond=fraction), st.times(), MILLISECONDS)
DURATION = st.integers(0, 10_000_000).map(lambda seconds: timedelta(seconds=seconds))
CELL = st.one_of(st.none(), TEXT, NUMBER, st.booleans(), MOMENT, DAY, OF_DAY, DURATION)


@st.composite
def tables(draw: st.DrawFn) -> list[list[Any]]:
    """A header and rows, none of them empty."""
    width = draw(st.integers(1, 5))
    names = draw(st.lists(TEXT.filter(str.strip), min_size=width, max_size=width, unique=True))
    row = st.lists(CELL, min_size=width, max_size=width).filter(any)
    return [names, *draw(st.lists(row, min_size=1, max_size=5))]


def by_openpyxl(table: Table, path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    for row, cells in enumerate(table, 1):
        for column, value in enumerate(cells, 1):
            if value is None:
                continue
            cell = sheet.cell(row, column, value)
            if isinstance(value, str):
                cell.data_type = "s"
            elif isinstance(value, timedelta):
                cell.number_format = "[h]:mm:ss"
    book.save(path)


def by_xlsxwriter(table: Table, path: Path) -> None:
    with xlsxwriter.Workbook(str(path)) as book:
        sheet = book.add_worksheet()
        for row, cells in enumerate(table):
            for column, value in enumerate(cells):
                put_by_xlsxwriter(book, sheet, row, column, value)


def put_by_xlsxwriter(book: Any, sheet: Any, row: int, column: int, value: Any) -> None:
    if isinstance(value, bool):
        sheet.write_boolean(row, column, value)
    elif isinstance(value, str):
        if value.startswith("<r>"):
            value = f" {value}"  # XlsxWriter takes it for rich text
        sheet.write_string(row, column, value)
    elif isinstance(value, int | float):
        sheet.write_number(row, column, value)
    elif value is not None:
        kind = {timedelta: "[h]:mm:ss", time: "hh:mm:ss.000"}.get(type(value), "yyyy-mm-dd hh:mm:ss.000")
        sheet.write_datetime(row, column, value, book.add_format({"num_format": kind}))


WRITERS: list[Callable[[Table, Path], None]] = [by_openpyxl, by_xlsxwriter]


def cells_of(path: Path) -> list[list[Any]]:
    """What openpyxl reads; it leaves the escape of a carriage return as it is."""
    rows = openpyxl.load_workbook(path).worksheets[0].iter_rows(values_only=True)
    return [
        [cell.replace("_x000D_", "\r") if isinstance(cell, str) else cell for cell in row] for row in rows
    ]


def answered(source: Path, out: Path, **options: Any) -> None:
    """Writes the rows of a file with an answer beside each."""
    opened = open_source(source, **options)
    columns = plan_columns(opened.scan().columns, ["llm"], columns=["llm"])
    outcomes: Iterator[Outcome] = (
        Outcome(row.index, Answer(columns={"llm": "good"})) for row in opened.rows()
    )
    write_output(opened, outcomes, path=out, columns=columns, output_format=out.suffix[1:])


def same(one: Any, other: Any) -> bool:
    """Whether two cells are equal to 15 digits, times to the millisecond."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, int | float) and isinstance(other, int | float):
        return abs(one - other) <= 1e-15 * max(abs(one), abs(other))
    if isinstance(one, datetime) and isinstance(other, datetime):
        return abs(one - other) <= timedelta(milliseconds=1)
    return bool(one == other)
