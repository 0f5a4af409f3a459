"""CSV: read and written strictly, every cell as it stands.

A cell is ``str``, always. Rows end with what ends the first line; a lone CR inside quotes is data, and outside
quotes in a file of LF or CRLF an error. A blank line is skipped, except in a file of one column, where it is a
row whose cell is empty. Every row has as many cells as the header.

A row's ``origin`` is the list of its cells.
"""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from batchllm.errors import InputError, UsageError
from batchllm.formats.columns import Columns
from batchllm.formats.csv_module import csv
from batchllm.formats.format import Format, Source
from batchllm.formats.input_file import InputFile, InputPass
from batchllm.formats.json_text import cell_text
from batchllm.formats.layout import read_layout
from batchllm.formats.output_file import OutputTarget
from batchllm.formats.text import BEGINNING, Block, RecordStart, TextSource, TextWriter
from batchllm.records import Row

DELIMITERS = ",;\t|"
CELL_LIMIT_BYTES = 64 << 20
csv.field_size_limit(CELL_LIMIT_BYTES)  # of this module's own copy

_QUOTED = re.compile(r'"[^"]*(?:"|\Z)')


class CsvSource(TextSource):
    """A CSV file; the header is read, and must be right, when the object is made.

    Args:
        file: The file.
        suffix: ``.tsv`` means that the delimiter is a tab.
        delimiter: One character, or ``tab``; by default the one of ``DELIMITERS`` that the header has most of.
        encoding: See ``read_layout``.
    """

    kind = "csv"

    def __init__(
        self, file: InputFile, suffix: str, delimiter: str | None = None, encoding: str | None = None
    ) -> None:
        layout, header = read_layout(file, encoding, _QUOTED)
        super().__init__(file, layout)
        self._is_tsv = suffix == ".tsv"
        if delimiter is None:
            delimiter = "\t" if self._is_tsv else max(DELIMITERS, key=header.count)
        self.delimiter = _checked_delimiter(delimiter)
        first = next(self._parsed(InputPass(file), BEGINNING), None)
        if first is None:
            reason = "is empty; its first line must be a header with the names of the columns"
            raise InputError(self.name, reason)
        self._check_header(first[2])
        self.columns = tuple(first[2])

    def _records(
        self, opened: InputPass, start: RecordStart, starts: list[RecordStart]
    ) -> Iterator[tuple[int, int, list[str]]]:
        parsed = self._parsed(opened, start)
        if start.offset == 0 and ((header := next(parsed, None)) is None or tuple(header[2]) != self.columns):
            reason = "its header changed while the job ran; run the same command again"
            raise InputError(self.name, reason, line=1)
        width = len(self.columns)
        index = start.index
        marked = None
        for block, line, cells in parsed:
            if len(cells) != width:
                if cells:
                    raise self._ragged(line, len(cells))
                if width > 1:
                    continue
                cells = [""]  # a blank line
            if block is not marked and line >= block.line:
                rest = block.data.split(self._end, line - block.line)[-1]
                starts.append(RecordStart(index, line, block.offset + len(block.data) - len(rest)))
                marked = block
            yield index, line, cells
            index += 1

    def _row(self, index: int, line: int, record: list[str]) -> Row:
        return Row(index, line, dict(zip(self.columns, record)), record)  # noqa: B905 - as long as each other

    def _parsed(self, opened: InputPass, start: RecordStart) -> Iterator[tuple[Block, int, list[str]]]:
        """Yields the block in which a record ends, its first line, and its cells (none for a blank line)."""
        block = Block(start.line, start.offset, b"")

        def lines() -> Iterator[io.StringIO]:
            nonlocal block
            for block in self._blocks(opened, start):
                if (nul := block.data.find(0)) >= 0:
                    at = block.line + block.data.count(self._end, 0, nul)
                    reason = (
                        "a NUL character, which CSV cannot hold; remove it, or name the file's --encoding"
                    )
                    raise InputError(self.name, reason, line=at)
                try:
                    yield io.StringIO(block.data.decode(), newline=self._end.decode())
                except UnicodeDecodeError:
                    raise self._undecodable() from None

        line = start.line
        reader = csv.reader(chain.from_iterable(lines()), strict=True, delimiter=self.delimiter)
        try:
            for cells in reader:
                yield block, line, cells
                line = reader.line_num + start.line
        except csv.Error as error:
            reason = _explained(error, reader.line_num + start.line - 1)
            raise InputError(self.name, reason, line=line) from None

    def _check_header(self, header: list[str]) -> None:
        if not header:
            raise InputError(self.name, "is blank; the first line must be the header", line=1)
        seen: set[str] = set()
        for position, column in enumerate(header, 1):
            if not column.strip():
                reason = f"column {position} of the header has no name; give it one"
                raise InputError(self.name, reason, line=1)
            if column in seen:
                reason = f"the header has the name {column!r} twice; rename one of the two columns"
                raise InputError(self.name, reason, line=1)
            seen.add(column)

    def _ragged(self, line: int, cells: int) -> InputError:
        expected = len(self.columns)
        hint = "quote cells that contain the delimiter" if cells > expected else "add the missing ones"
        if expected == 1:
            hint += ", or name the delimiter with --delimiter"
        reason = f"the header has {expected} cells and this row has {cells}; {hint}"
        return InputError(self.name, reason, line=line)

    def cells(self, row: Row, names: Sequence[str]) -> list[str]:
        """Returns the cells as they stand in the file."""
        return list(row.origin)

    def size_of(self, row: Row) -> int | None:
        """Returns about how many bytes a row takes; see ``Source``."""
        if self.layout.encoding != "utf-8":
            return None
        return sum(len(cell.encode()) + 1 for cell in row.origin)

    def kept_options(self, suffix: str) -> dict[str, str]:
        """Returns encoding and delimiter; an output's suffix ``.tsv`` means tab, and ``.csv`` of a TSV comma."""
        delimiter = self.delimiter
        if suffix == ".tsv":
            delimiter = "\t"
        elif suffix == ".csv" and self._is_tsv:
            delimiter = ","
        return {**super().kept_options(suffix), "delimiter": delimiter}


_NAMED_DELIMITERS = {"comma": ",", "semicolon": ";", "bar": "|", "tab": "\t", "\\t": "\t"}


def _checked_delimiter(delimiter: str) -> str:
    delimiter = _NAMED_DELIMITERS.get(delimiter, delimiter)
    if len(delimiter) != 1 or delimiter in '"\r\n\0':
        raise UsageError(
            f"{delimiter!r} cannot be a --delimiter; give one character, or comma, semicolon, bar or tab"
        )
    return delimiter


def _explained(error: csv.Error, last_line: int) -> str:
    message = str(error)
    if "unexpected end of data" in message:
        return "a quote opened in the record that begins here is never closed; close it"
    if "field larger than" in message:
        return "a cell of the record that begins here exceeds 64 MiB; is a quote not closed?"
    if "expected after" in message:
        return (
            f"in the record that begins here, text follows a closing quote on line {last_line};"
            ' write a quote inside a quoted cell twice ("")'
        )
    if "new-line character" in message:
        return (
            f"a carriage return outside quotes on line {last_line}; quote that cell, or use one newline style"
        )
    return f"not CSV: {message}"


class CsvWriter(TextWriter):
    """Writes CSV; cells that a strict reader needs quoted are quoted."""

    kind = "csv"

    def __init__(self, target: OutputTarget, source: Source, columns: Columns, suffix: str) -> None:
        super().__init__(target, source)
        usual = {"delimiter": "\t" if suffix == ".tsv" else ","}
        kept = source.kept_options(suffix) if source.kind == self.kind else usual
        self._delimiter = kept["delimiter"]
        self._cells = source.cells
        self._names = columns.input
        self._put(csv_header((*columns.input, *columns.order), self._delimiter))

    def add(self, row: Row, values: Mapping[str, Any]) -> None:
        """Writes a record; see ``Writer``."""
        cells = self._cells(row, self._names)
        for value in values.values():
            cells.append(value if type(value) is str else cell_text(value))
        self._put(csv_record(cells, self._delimiter))

    def _joined(self, records: list[str]) -> bytes:
        text = self.layout.newline.join(records)
        if "\0" in text:  # readers of CSV refuse it, this one too
            text = text.replace("\0", "\\u0000")
        return text.encode(self.layout.encoding, "backslashreplace")


def csv_header(names: Sequence[str], delimiter: str) -> str:
    """Returns the header. Names with any usual delimiter are quoted, so that it shows only the real one."""
    cells = [
        _quoted(name) if _is_special(name, delimiter) or any(mark in name for mark in DELIMITERS) else name
        for name in names
    ]
    if cells and cells[0].startswith("\ufeff"):
        cells[0] = _quoted(cells[0])  # or it would be read as a byte-order mark
    return delimiter.join(cells)


def csv_record(cells: Sequence[str], delimiter: str) -> str:
    """Returns one record, quoted where strict reading needs it (a lone CR too)."""
    line = delimiter.join(cells)
    if '"' in line or "\n" in line or "\r" in line or line.count(delimiter) >= len(cells):
        return delimiter.join([_quoted(cell) if _is_special(cell, delimiter) else cell for cell in cells])
    return line or ('""' if len(cells) == 1 else "")


def _is_special(cell: str, delimiter: str) -> bool:
    return delimiter in cell or '"' in cell or "\n" in cell or "\r" in cell


def _quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"'


FORMAT = Format(
    suffixes=(".csv", ".tsv"), source=CsvSource, writer=CsvWriter, options=("delimiter", "encoding")
)
