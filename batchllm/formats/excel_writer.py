"""Writes ``.xlsx`` with XlsxWriter: typed cells, the header frozen, columns as wide as readable, text wrapped.

Text is text, also where it looks like a formula, a number or a URL. Numbers that a cell cannot hold exactly are text
too. The same rows make the same bytes.
"""

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import TYPE_CHECKING, Any

from batchllm.errors import UsageError
from batchllm.formats.columns import Columns
from batchllm.formats.excel_cells import cut_at, exact_number, serial, utf16_length
from batchllm.formats.format import Source, Writer
from batchllm.formats.input_file import CHUNK_BYTES
from batchllm.formats.json_text import cell_text
from batchllm.formats.output_file import OutputTarget, storage_error
from batchllm.records import Row
from batchllm.screen import width_of

if TYPE_CHECKING:
    from xlsxwriter.format import Format
    from xlsxwriter.worksheet import Worksheet

MOST_ROWS, MOST_COLUMNS, LONGEST_TEXT = 1_048_576, 16_384, 32_767
"""Excel's own limits: rows with the header, columns, characters of a cell (UTF-16 units)."""

CUT = " … [cut: an Excel cell holds 32,767 characters; batchllm export OUTPUT -o FILE.csv has all]"

_SHEET_NAME = re.compile(r"(?!')[^\[\]:*?/\\\0-\x1f]{1,31}(?<!')")
_ESCAPE = re.compile("_(?=x[0-9a-fA-F]{4}_)")
_HARD = re.compile(r"\r|\A<r>.*</r>\Z|_x[0-9a-fA-F]{4}_x[0-9a-fA-F]{4}_", re.DOTALL)
_WIDTH_ROWS = 1000
_NARROWEST, _WIDEST = 8, 60
_CREATED = datetime(2000, 1, 1)


class ExcelWriter(Writer):
    """Writes a workbook with one sheet.

    Args:
        target: See ``Writer``.
        source: See ``Writer``.
        columns: See ``Writer``.
        suffix: Of no meaning here.

    Raises:
        UsageError: There are more columns than Excel has, or a row has a text that no cell can hold.
    """

    def __init__(self, target: OutputTarget, source: Source, columns: Columns, suffix: str) -> None:
        from xlsxwriter import Workbook

        self._target = target
        self._source = source
        self._names = columns.input
        try:
            self._folder = TemporaryDirectory(prefix="batchllm-xlsx-", ignore_cleanup_errors=True)
        except OSError as error:
            raise storage_error(error, Path(gettempdir()), "the workbook cannot be built here") from error
        self._path = Path(self._folder.name) / "output.xlsx"
        self._book = Workbook(str(self._path), {"constant_memory": True, "tmpdir": self._folder.name})
        self._book.set_properties({"created": _CREATED})
        sheet = getattr(source, "sheet", "")
        self._sheet = self._book.add_worksheet(
            sheet if _SHEET_NAME.fullmatch(sheet) else None, worksheet_class=_worksheet_class()
        )
        self._sheet.freeze_panes(1, 0)
        self._sheet.ignore_errors({"number_stored_as_text": "A1:XFD1048576"})
        self._formats: dict[str, Format] = {}
        self._plain = self._book.add_format({"valign": "top"})
        self._wrapped = self._book.add_format({"valign": "top", "text_wrap": True})
        self._bold = self._book.add_format({"valign": "top", "text_wrap": True, "bold": True, "bottom": 1})
        self._row = 0
        header = [*source.typed_header(columns.input), *columns.order]
        check_extent(1, len(header))
        self._widths = [_NARROWEST] * len(header)
        for column, name in enumerate(header):
            self._put(column, typed(name, partial(cell_text, name)), self._bold)
        self._row = 1

    def add(self, row: Row, values: Mapping[str, Any]) -> None:
        """Writes a row; see ``Writer``."""
        if self._row >= MOST_ROWS:
            check_extent(self._row + 1, 1)
        names = self._names
        cells = self._source.typed_cells(row, names)
        for column, value in enumerate(cells):
            value = typed(value, partial(self._written, row, column))
            if type(value) is str and len(value) > LONGEST_TEXT // 2:
                check_text(value, row, names[column])
            self._put(column, value)
        for column, value in enumerate(values.values(), len(cells)):
            self._put(column, _short(typed(value, partial(cell_text, value))))
        self._row += 1

    def _written(self, row: Row, column: int) -> str:
        return self._source.cells(row, self._names)[column]

    def _put(self, column: int, value: Any, style: "Format | None" = None) -> None:
        """Writes a cell; what a worksheet cannot hold has been refused or cut before."""
        if value is None:
            return
        try:
            if type(value) is str:
                value = value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()
                self._sheet.write_string(self._row, column, value, style or self._wrapped)
            elif type(value) is bool:
                self._sheet.write_boolean(self._row, column, value, style or self._plain)
            elif isinstance(value, int | float):
                self._sheet.write_number(self._row, column, value, style or self._plain)
            else:
                number, number_format = serial(value) or (0.0, "")
                self._sheet.write_number(self._row, column, number, self._dated(number_format))
        except OSError as error:
            raise storage_error(error, self._path.parent, "the workbook cannot be built here") from error
        if self._row < _WIDTH_ROWS and self._widths[column] < _WIDEST:
            self._widths[column] = max(self._widths[column], _width(value))

    def _dated(self, number_format: str) -> "Format":
        if number_format not in self._formats:
            self._formats[number_format] = self._book.add_format(
                {"valign": "top", "num_format": number_format}
            )
        return self._formats[number_format]

    def finish(self) -> None:
        """Completes the workbook and hands it over; see ``Writer``."""
        from xlsxwriter.exceptions import XlsxWriterException

        for column, width in enumerate(self._widths):
            self._sheet.set_column(column, column, min(width, _WIDEST) + 2)
        try:
            self._sheet.flush()
            self._book.close()
            with self._path.open("rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    self._target.write(chunk)
        except (OSError, XlsxWriterException) as error:
            # XlsxWriter raises its own error of the system's one.
            found = (each for each in (error, *error.args) if isinstance(each, OSError))
            cause = next(found, OSError(None, str(error)))
            raise storage_error(cause, self._path.parent, "the workbook cannot be built here") from error
        finally:
            self._sheet._opt_close()  # which XlsxWriter leaves out after a failure
            self._folder.cleanup()


def check_rows(source: Source, rows: int, columns: Columns) -> None:
    """Refuses an input whose rows a workbook cannot hold, before anything is paid for them.

    Args:
        source: The input, which is read.
        rows: How many rows are written.
        columns: The columns of the output.

    Raises:
        UsageError: There are too many rows or columns, or a text is too long.
        InputError: The input cannot be read.
    """
    check_extent(rows + 1, len(columns.input) + len(columns.order))
    for row in source.rows():
        for name, value in zip(columns.input, source.typed_cells(row, columns.input), strict=True):
            if type(value) is not str or len(value) > LONGEST_TEXT // 2:
                text = typed(value, partial(cell_text, value))
                if type(text) is str:
                    check_text(text, row, name)


def check_extent(rows: int, columns: int) -> None:
    """Refuses more rows, the header included, or columns than a sheet has; raises ``UsageError``."""
    if rows > MOST_ROWS:
        raise UsageError(f"a sheet of Excel has {MOST_ROWS:,} rows, and the output has more; {_ELSEWHERE}")
    if columns > MOST_COLUMNS:
        raise UsageError(
            f"a sheet of Excel has {MOST_COLUMNS:,} columns, and the output has {columns:,}; {_ELSEWHERE}"
        )


def check_text(text: str, row: Row, column: str) -> None:
    """Refuses a text that is longer than a cell; raises ``UsageError``."""
    length = utf16_length(text)
    if length > LONGEST_TEXT:
        raise UsageError(
            f"row {row.index + 1}, column {column!r}: a cell of Excel holds {LONGEST_TEXT:,} characters, and this text "
            f"has {length:,}; {_ELSEWHERE}"
        )


_ELSEWHERE = "name an output of another format, such as -o OUTPUT.csv"


def typed(value: Any, written: Callable[[], str]) -> Any:
    """Returns a value as a cell holds it: text, number, boolean, date, time or duration; else it is text.

    Args:
        value: The value.
        written: Returns it as text.
    """
    if value is None or type(value) in (str, bool) or serial(value) is not None:
        return value
    number = exact_number(value)
    return written() if number is None else number


def _short(value: Any) -> Any:
    """Returns a value of an answer; a text that is too long for a cell ends in a note that says so."""
    if type(value) is not str or len(value) <= LONGEST_TEXT // 2 or utf16_length(value) <= LONGEST_TEXT:
        return value
    return cut_at(value, LONGEST_TEXT - len(CUT)) + CUT


def _width(value: Any) -> int:
    if type(value) is str:
        return max((width_of(line[: _WIDEST + 1]) for line in value[:4096].splitlines()), default=0)
    if isinstance(value, int | float):
        return len(str(value))
    return len("2026-01-01 00:00:00")


def _shared(text: str) -> str:
    """Returns what XlsxWriter is given for a text so that every reader gets it back exactly.

    XlsxWriter escapes ``_x0041_`` and control characters as Excel does, but not where two escapes overlap; a carriage
    return is read by more programs where it is written as XML has it; and a text that looks like XlsxWriter's own rich
    text is taken for that. Such texts are written as rich text of one run, which XlsxWriter leaves as it is.
    """
    if not _HARD.search(text):
        return text
    inner = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\r", "&#13;")
    return f'<r><t xml:space="preserve">{_ESCAPE.sub("&#95;x005F&#95;", inner)}</t></r>'


@cache
def _worksheet_class() -> "type[Worksheet]":
    """The class of worksheets that write every text and every number exactly, a row at a time.

    Texts are in the workbook's table of shared strings, as Excel has them. XlsxWriter would write them into the rows,
    and 16 digits of a number.
    """
    from xlsxwriter.worksheet import Worksheet

    class ExactWorksheet(Worksheet):  # type: ignore[misc]  # the library has no types
        @staticmethod
        def _escape_control_characters(data: Any) -> Any:
            return data  # the table of shared strings does it

        def flush(self) -> None:
            """Writes the last row, whose texts belong to the table too."""
            self._write_single_row(self.previous_row + 1)

        def _xml_inline_string(self, string: str, preserve: bool, attributes: Any = ()) -> None:
            self._xml_string_element(self.str_table._get_shared_string_index(_shared(string)), attributes)

        def _xml_rich_inline_string(self, string: str, attributes: Any = ()) -> None:
            self._xml_inline_string(string, True, attributes)

        def _xml_number_element(self, number: float, attributes: Any = ()) -> None:
            written = "".join(f' {key}="{value}"' for key, value in attributes)
            self.fh.write(f"<c{written}><v>{number!r}</v></c>")

    return ExactWorksheet
