"""CSV: the standard library's strict reader over large pieces of text, and a faster first look.

Rules. A cell is ``str``, always, and comes out as it stands in the file. Rows end with what ends the first
line; a lone CR inside quotes is data, and outside quotes in a file of LF or CRLF an error. A blank line is
skipped, except in a file of one column, where it is a row whose cell is empty. Every row has as many cells
as the header.

``check`` has to parse every byte, and the reader takes 4 µs for a row of 120 words. A regular expression
that accepts a record exactly as the strict reader does, without building cells, takes half of that. Records
that it finds one after the other, without a gap, from the start of a text are its records, because the
grammar leaves only one reading from the left. Whatever it does not accept (a blank line, an error, a record
larger than its window) is left to the reader, which then reads the file from the start and has the last
word.
"""

import csv
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from batchllm.errors import InputError
from batchllm.records import Row
from batchllm.source.format import Format
from batchllm.source.reading import RECORD_LIMIT_BYTES, Reading, RecordMark, Source
from batchllm.source.statistics import InputStatistics, Reservoir

csv.field_size_limit(RECORD_LIMIT_BYTES)

_WINDOW_CHARACTERS = 4 << 20


class CsvSource(Source):
    """A CSV file; the header is read, and must be right, when the object is made."""

    def __init__(self, path: Path, form: Format, name: str) -> None:
        super().__init__(path, form, name)
        header = next(self._records(Reading(path, name)), None)
        if header is None:
            raise InputError(name, "is empty; its first line must be a header with the names of the columns")
        self.columns = self._checked_header(header[1])

    def check(self) -> InputStatistics:
        """Read the whole file once; see ``Source``."""
        self._marks = []
        return self._quick_look() or self._careful_look()

    def rows(self, start: int = 0) -> Iterator[Row]:
        """The rows, streamed; see ``Source``."""
        self._digest = None
        mark = self._mark_before(start)
        reading = Reading(self.path, self.name, mark.offset if mark else 0)
        records = self._records(reading, mark.line if mark else 1)
        if mark is None and ((header := next(records, None)) is None or tuple(header[1]) != self.columns):
            raise InputError(
                self.name, "its header changed while the job ran; run the same command again", line=1
            )
        columns = self.columns
        width = len(columns)
        index = mark.index if mark else 0
        for line, cells in records:
            if len(cells) != width:
                if cells:
                    raise self._ragged(line, len(cells))
                if width > 1:
                    continue
                cells = [""]  # a blank line
            if index >= start:
                yield Row(index, line, dict(zip(columns, cells)), cells)  # noqa: B905 - as long as each other
            index += 1
        if start == 0:
            self._digest = reading.sha256()

    def _records(self, reading: Reading, first: int = 1) -> Iterator[tuple[int, list[str]]]:
        """Every record with the line it begins on, the header first; blank lines are empty lists.

        Args:
            reading: The bytes.
            first: The line that they begin with.
        """
        line = first
        reader = csv.reader(
            chain.from_iterable(self._lines(reading, first)), strict=True, delimiter=self.format.delimiter
        )
        try:
            for cells in reader:
                yield line, cells
                line = reader.line_num + first
        except csv.Error as error:
            last = reader.line_num + first - 1
            raise InputError(self.name, self._explained(error, line, last), line=line) from None

    def _lines(self, reading: Reading, first: int) -> Iterator[list[str]]:
        """The lines with their ends, many at a time; only what ends the first line ends a line."""
        end = "\r" if self.format.newline == "\r" else "\n"
        count = first - 1
        rest = ""
        for text in reading.texts(self.format):
            lines = (rest + text).split(end)
            if "\0" in text:
                before = next(index for index, line in enumerate(lines) if "\0" in line)
                raise self._nul(count + before + 1)
            rest = lines.pop()
            count += len(lines)
            yield [line + end for line in lines]
            if len(rest) > 2 * RECORD_LIMIT_BYTES:
                raise InputError(self.name, "this line has more than 128 MiB; is it CSV?", line=count + 1)
        if rest:
            yield [rest]

    def _careful_look(self) -> InputStatistics:
        reservoir: Reservoir[Row] = Reservoir()
        row = None
        for row in self.rows():
            if row.index == reservoir.wanted:
                reservoir.take(row)
        sample = sorted(reservoir.items(), key=lambda kept: kept.index)
        rows = 0 if row is None else row.index + 1
        return InputStatistics(rows, self.path.stat().st_size, self.digest(), self.columns, tuple(sample))

    def _quick_look(self) -> InputStatistics | None:
        """The statistics of a file without oddities; ``None`` says that the reader has to look itself."""
        if self.format.newline == "\r":
            return None
        reading = Reading(self.path, self.name)
        record, pieces = _patterns(len(self.columns), self.format.delimiter)
        reservoir: Reservoir[tuple[int, int, str]] = Reservoir()
        count, line, rest = -1, 1, ""  # the header is record -1
        read_bytes = len(self.format.bom)
        marks: list[RecordMark] = []
        for text in chain(reading.texts(self.format), ("",)):
            if "\0" in text or len(rest) > _WINDOW_CHARACTERS:
                return None
            window = rest + text
            if not text and rest and not rest.endswith("\n"):
                window += "\n"
            records = pieces.findall(window)
            rest = records.pop() if records and not record.fullmatch(records[-1]) else ""
            passed, at = 0, line
            while reservoir.wanted < count + len(records):
                position = reservoir.wanted - count
                at += "".join(records[passed:position]).count("\n")
                passed = position
                reservoir.take((reservoir.wanted, at, records[position]))
            line += window.count("\n") - rest.count("\n")
            count += len(records)
            if text and self.format.encoding == "utf-8":
                read_bytes += _utf8_size(text)
                if count > 0:
                    marks.append(RecordMark(count, line, read_bytes - _utf8_size(rest)))
        if rest:
            return None
        self._marks = marks
        sample = tuple(self._sampled(*kept) for kept in sorted(reservoir.items()))
        return InputStatistics(count, reading.size_bytes, reading.sha256(), self.columns, sample)

    def _sampled(self, index: int, line: int, record: str) -> Row:
        lines = [piece + "\n" for piece in record.split("\n")[:-1]]
        cells = next(csv.reader(lines, strict=True, delimiter=self.format.delimiter)) or [""]
        return Row(index, line, dict(zip(self.columns, cells, strict=True)), cells)

    def _checked_header(self, header: list[str]) -> tuple[str, ...]:
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
        return tuple(header)

    def _ragged(self, line: int, cells: int) -> InputError:
        expected = len(self.columns)
        hint = "quote cells that contain the delimiter" if cells > expected else "add the missing ones"
        if expected == 1:
            hint += ", or name the delimiter with --delimiter"
        reason = f"the header has {expected} cells and this row has {cells}; {hint}"
        return InputError(self.name, reason, line=line)

    def _nul(self, line: int) -> InputError:
        reason = "a NUL character, which CSV cannot hold; remove it, or name the file's --encoding"
        return InputError(self.name, reason, line=line)

    def _explained(self, error: csv.Error, line: int, last: int) -> str:
        message = str(error)
        if "unexpected end of data" in message:
            return "a quote opened in the record that begins here is never closed; close it"
        if "field larger than" in message:
            return "a cell of the record that begins here exceeds 64 MiB; is a quote not closed?"
        if "expected after" in message:
            return (
                f"in the record that begins here, text follows a closing quote on line {last};"
                ' write a quote inside a quoted cell twice ("")'
            )
        if "new-line character" in message:
            return (
                f"a carriage return outside quotes on line {last}; quote that cell, or use one newline style"
            )
        return f"not CSV: {message}"


def _utf8_size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _patterns(columns: int, delimiter: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """A record as the strict reader takes it, and the same or else all that is left of the text.

    A cell is quoted whole, or has no quote at its start. Taking all that is left keeps ``findall`` from
    trying every later position, which would be quadratic in the size of a cell.
    """
    mark = re.escape(delimiter)
    cell = rf'(?:"[^"]*+(?:""[^"]*+)*+"|[^"{mark}\r\n][^{mark}\r\n]*+|)'
    record = rf"{cell}(?:{mark}{cell}){{{columns - 1}}}\r?\n"
    return re.compile(record), re.compile(rf"{record}|(?s:.+)")
