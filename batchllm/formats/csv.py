"""CSV: read and written strictly, every cell as it stands.

A cell is ``str``, always. Rows end with what ends the first line; a lone CR inside quotes is data, and outside
quotes in a file of LF or CRLF an error. A blank line is skipped, except in a file of one column, where it is a
row whose cell is empty. Every row has as many cells as the header; empty ones beyond it are no data.

A row's ``origin`` is the text of its record, with the end of its line; ``None`` where the record is not written on
as it is.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from batchllm.errors import InputError
from batchllm.formats.columns import Columns
from batchllm.formats.csv_text import column_names, csv_header, csv_record, has_delimiter
from batchllm.formats.dialect import QUOTE, Dialect, DialectOptions, csv
from batchllm.formats.format import Format, Source, changed
from batchllm.formats.input_file import InputFile, InputPass
from batchllm.formats.json_text import cell_text
from batchllm.formats.layout import read_layout
from batchllm.formats.output_file import OutputTarget
from batchllm.formats.sniff import find_dialect
from batchllm.formats.text import BEGINNING, Block, RecordStart, TextSource, TextWriter
from batchllm.records import Row

CELL_LIMIT_BYTES = 64 << 20
csv.field_size_limit(CELL_LIMIT_BYTES)  # of this module's own copy

_QUOTED = re.compile(r'"[^"]*(?:"|\Z)')

_Record = list[Any]  # the cells, and at the end what is the row's origin


class CsvSource(TextSource):
    """A CSV file; its dialect is found and its header read when the object is made.

    Args:
        file: The file.
        suffix: ``.tsv`` means that the delimiter is a tab.
        delimiter: One character, or a name such as ``tab``; ``none`` where each line is one cell.
        quote: One character, or ``none``.
        escape: One character.
        skip_lines: Lines above the header.
        encoding: See ``read_layout``.
        bad_rows: See ``TextSource``.

    What is ``None`` is found in the file: see ``find_dialect``.
    """

    kind = "csv"
    has_kinds = False

    def __init__(
        self,
        file: InputFile,
        suffix: str,
        delimiter: str | None = None,
        quote: str | None = None,
        escape: str | None = None,
        skip_lines: int | None = None,
        encoding: str | None = None,
        bad_rows: str | None = None,
    ) -> None:
        options = DialectOptions.checked(delimiter, quote, escape, skip_lines)
        layout, text, is_complete = read_layout(file, encoding, _QUOTED)
        super().__init__(file, layout, bad_rows)
        self._is_tsv = suffix == ".tsv"
        newline = self._end.decode()
        found = find_dialect(
            self.name, text, options, newline=newline, is_tsv=self._is_tsv, is_complete=is_complete
        )
        self.dialect = found.dialect
        self.notes = found.notes
        self._has_merged_records = (
            self.dialect.delimiter == "\t" and quote is None and bool(self.dialect.quote)
        )
        self._header, self._header_text = self._read_header(found.width, is_given=skip_lines is not None)
        self.columns = column_names(self._header)

    @property
    def delimiter(self) -> str:
        """The delimiter of an output in the same dialect."""
        return self.dialect.delimiter or ","

    def _read_header(self, width: int, *, is_given: bool) -> tuple[list[str], str]:
        """Returns the names as they are written, and the text of the header."""
        parsed = self._parsed(InputPass(self.file), BEGINNING)
        found = next(parsed, None)
        if found is None:
            reason = "is empty; its first line must be a header with the names of the columns"
            raise InputError(self.name, reason)
        _, line, (*cells, text) = found
        if not any(cell.strip() for cell in cells) and len(cells) != 1:
            reason = (
                "is blank; the first line must be the header (or say with --skip-lines how many are above it)"
            )
            raise InputError(self.name, reason, line=line)
        header = cells[: max(width, 1)] if width else cells
        if not is_given and len(header) > 2 and header[0].strip() and not any(map(str.strip, header[1:])):
            reason = (
                "names only the first column, like a title; say --skip-lines with the number of lines above the"
                f" header ({line - 1} if it is the header)"
            )
            raise InputError(self.name, reason, line=line)
        return header, text if len(header) == len(cells) else ""

    def _records(
        self, opened: InputPass, start: RecordStart, starts: list[RecordStart]
    ) -> Iterator[tuple[int, int, _Record]]:
        parsed = self._parsed(opened, start)
        length = len(self._header) + 1
        if start.offset == 0 and (
            (header := next(parsed, None)) is None or header[2][: length - 1] != self._header
        ):
            raise changed(self.name, "its header ", line=1)
        index = start.index
        marked = None
        for block, line, record in parsed:
            if len(record) != length:
                fitted = self._fitted(line, record)
                if fitted is None:
                    continue
                record = fitted
            if block is not marked and line >= block.line:
                rest = block.data.split(self._end, line - block.line)[-1]
                before = block.data[: len(block.data) - len(rest)]
                starts.append(RecordStart(index, line, block.offset + self._size_in_file(before)))
                marked = block
            yield index, line, record
            index += 1

    def _fitted(self, line: int, record: _Record) -> _Record | None:
        """Fits a record that has not as many cells as the header to it; ``None`` if it is left out."""
        width = len(self._header)
        *cells, text = record
        if not cells:  # a blank line
            return ["", '""'] if width == 1 else None
        beyond = len(cells) - width
        if beyond > 0 and not any(map(str.strip, cells[width:])):
            bare, tail = text.rstrip("\r\n"), self.dialect.delimiter * beyond
            return [*cells[:width], bare.removesuffix(tail) if bare.endswith(tail) else None]
        if beyond < 0 and self._bad_rows == "pad":
            return [*cells, *[""] * -beyond, None]
        self._refuse(self._ragged(line, len(cells)), text.rstrip("\r\n").encode())
        return None

    def _row(self, index: int, line: int, record: _Record) -> Row:
        return Row(index, line, dict(zip(self.columns, record)), record[-1])  # noqa: B905 - the origin is no cell

    def _parsed(self, opened: InputPass, start: RecordStart) -> Iterator[tuple[Block, int, _Record]]:
        """Yields the block in which a record ends, its first line, and its cells (a blank line has none) and text."""
        block = Block(start.line, start.offset, b"")
        to_skip = 0 if start.offset else self.dialect.skip_lines
        line = first = before = start.line + to_skip  # of the record, of held[0], of the reader's first line
        held: list[str] = []  # the lines from the beginning of a record to the end of the block
        newline = self._end.decode()

        def lines() -> Iterator[list[str]]:
            nonlocal block, held, to_skip, first
            for block in self._blocks(opened, start):
                if (nul := block.data.find(0)) >= 0:
                    at = block.line + block.data.count(self._end, 0, nul)
                    reason = (
                        "a NUL character, which CSV cannot hold; remove it, or name the file's --encoding"
                    )
                    raise InputError(self.name, reason, line=at)
                try:
                    *ended, rest = block.data.decode().split(newline)
                except UnicodeDecodeError:
                    raise self._undecodable() from None
                more = [text + newline for text in ended]
                if rest:  # the last line of the file has no end
                    more.append(rest)
                skipped, to_skip = to_skip, max(0, to_skip - len(more))
                more = more[skipped:] if skipped else more
                held, first = held[line - first :] + more, line
                yield more

        reader = self.dialect.reader(chain.from_iterable(lines()))
        while True:
            try:
                for cells in reader:
                    after = reader.line_num + before
                    if after == line + 1:
                        cells.append(held[line - first])
                    else:
                        cells.append("".join(held[line - first : after - first]))
                        if self._has_merged_records:
                            self._refuse_merged(line, cells)
                    yield block, line, cells
                    line = after
            except csv.Error as error:
                after = reader.line_num + before
                unsure = self.dialect.delimiter == ""
                reason = _explained(error, after - 1, is_one_column=unsure)
                raw = "".join(held[line - first : after - first]).rstrip("\r\n").encode()
                failure = InputError(self.name, reason, line=line)
                if "unexpected end" in str(error):  # the rest of the file would be left out with it
                    raise failure from None
                self._refuse(failure, raw)
                line = after
            else:
                return

    def _refuse_merged(self, line: int, record: _Record) -> None:
        """Refuses a record of several lines each of which would be a record if quotes were text."""
        *cells, text = record
        lines = text.rstrip("\r\n").splitlines()
        if len(cells) > 1 and all(part.count(self.dialect.delimiter) == len(cells) - 1 for part in lines):
            reason = (
                "a quoted cell begins here and spans lines that read like rows of their own; say --quote none if quotes"
                " are text, or --quote '\"' if they enclose cells"
            )
            raise InputError(self.name, reason, line=line)

    def _ragged(self, line: int, cells: int) -> InputError:
        expected = len(self._header)
        if cells > expected:
            hint = "quote cells that contain the delimiter, or leave out such rows with --bad-rows skip"
        else:
            hint = "add the missing ones, or say --bad-rows pad or --bad-rows skip"
        if expected == 1 or line == self.dialect.skip_lines + 2:
            hint += "; is it another --delimiter (none for one column), or is the header below --skip-lines?"
        reason = f"the header has {expected} cells and this row has {cells}; {hint}"
        return InputError(self.name, reason, line=line)

    def header(self, names: Sequence[str]) -> list[str]:
        """Returns the names of columns as they are written."""
        return self._of_columns(self._header, names)

    def beginning(self) -> bytes | None:
        """Returns byte-order mark and header; see ``TextSource``."""
        if not self._header_text or self.dialect.skip_lines:
            return None
        return self.layout.bom + self._header_text.encode(self.layout.encoding)

    def header_text(self) -> str | None:
        """Returns the text of the header, if it shows no delimiter but its own."""
        return None if any(map(has_delimiter, self._header)) else self._header_text.rstrip("\r\n") or None

    def cells(self, row: Row, names: Sequence[str]) -> list[str]:
        """Returns cells as they stand in the file."""
        values = row.values
        return list(values.values()) if names == self.columns else [values[name] for name in names]

    def size_of(self, row: Row) -> int | None:
        """Returns about how many bytes a row takes; see ``Source``."""
        if self.layout.encoding != "utf-8":
            return None
        return len((row.origin or csv_record(self.cells(row, self.columns), self.delimiter)).encode())

    def reading(self) -> str:
        """Returns what rows depend on beside the bytes of the file; see ``Source``."""
        return f"{self.dialect} {super().reading()}"

    def skipped_head(self) -> bytes:
        """Returns the header; see ``TextSource``."""
        return (self._header_text.rstrip("\r\n") or csv_header(self._header, self.delimiter)).encode()

    def kept_options(self, suffix: str) -> dict[str, str]:
        """Returns encoding and delimiter; an output's suffix ``.tsv`` means tab, and ``.csv`` of a TSV comma."""
        delimiter = self.delimiter
        if suffix == ".tsv":
            delimiter = "\t"
        elif suffix == ".csv" and self._is_tsv:
            delimiter = ","
        return {**super().kept_options(suffix), "delimiter": delimiter, "quote": QUOTE}


def _explained(error: csv.Error, last_line: int, *, is_one_column: bool) -> str:
    message = str(error)
    as_text = "; if quotes are text, say --quote none"
    if "unexpected end of data" in message:
        return f"a quote opened in the record that begins here is never closed; close it{as_text}"
    if "field larger than" in message:
        return f"a cell of the record that begins here exceeds 64 MiB; is a quote not closed?{as_text}"
    if "expected after" in message:
        return (
            f"in the record that begins here, text follows a closing quote on line {last_line};"
            f' write a quote inside a quoted cell twice (""){as_text}; if a backslash stands before it,'
            f" say --escape '\\'{', or name the delimiter with --delimiter' if is_one_column else ''}"
        )
    if "new-line character" in message:
        return (
            f"a newline of another style outside quotes on line {last_line};"
            " quote that cell, or use one newline style"
        )
    return f"not CSV: {message}"


class CsvWriter(TextWriter):
    """Writes CSV with standard quoting; a record of the same dialect is kept as it is written."""

    kind = "csv"

    def __init__(self, target: OutputTarget, source: Source, columns: Columns, suffix: str) -> None:
        super().__init__(target, source)
        usual = {"delimiter": "\t" if suffix == ".tsv" else ","}
        kept = source.kept_options(suffix) if source.kind == self.kind else usual
        self._delimiter = kept["delimiter"]
        self._cells = source.cells
        self._names = columns.input
        header = None
        self._keeps_text = False
        if isinstance(source, CsvSource) and self._names == source.columns:
            own = replace(Dialect(self._delimiter), skip_lines=source.dialect.skip_lines)
            self._keeps_text = source.dialect == own
            header = source.header_text() if self._keeps_text else None
        if header is None or not columns.order:
            self._put(csv_header((*source.header(columns.input), *columns.order), self._delimiter))
        else:
            self._put(header + csv_header(["", *columns.order], self._delimiter))

    def add(self, row: Row, values: Mapping[str, Any]) -> None:
        """Writes a record; see ``Writer``."""
        added = [value if type(value) is str else cell_text(value) for value in values.values()]
        if self._keeps_text and row.origin is not None and added:
            self._put(row.origin.rstrip("\r\n") + csv_record(["", *added], self._delimiter))
        else:
            self._put(csv_record([*self._cells(row, self._names), *added], self._delimiter))

    def _joined(self, records: list[str]) -> bytes:
        text = self.layout.newline.join(records)
        if "\0" in text:  # readers of CSV refuse it, this one too
            text = text.replace("\0", "\\u0000")
        return text.encode(self.layout.encoding, "backslashreplace")


FORMAT = Format(
    suffixes=(".csv", ".tsv"),
    source=CsvSource,
    writer=CsvWriter,
    options=("delimiter", "quote", "escape", "skip_lines", "encoding", "bad_rows"),
)
