"""Finds the dialect of a CSV file in its first lines.

Each usual delimiter is tried on the header and a sample of rows together. A reading is right if every sampled row has
as many cells as the header, at least two. Where no usual delimiter gives that, CleverCSV (van den Burg, Nazábal and
Sutton, "Wrangling messy CSV files by detecting row and type patterns", 2019) proposes another dialect, which must
pass the same test. Where two readings pass it, or the table seems to begin further down, the user decides. A file
in which nothing separates cells has one column.
"""

import io
import re
from collections import Counter
from dataclasses import dataclass, replace

from batchllm.errors import InputError
from batchllm.formats.dialect import DELIMITERS, QUOTE, Dialect, DialectOptions, csv, delimiter_name
from batchllm.printable import counted

SAMPLE_LINES = 200
SAMPLE_CHARACTERS = 1 << 16
_PROPOSAL_LINES, _PROPOSAL_LINE_CHARACTERS = 50, 400  # CleverCSV takes quadratic time for a long cell
_PROPOSAL_MARKS = 12  # and time for each character that may be the delimiter

_TITLE_SHARE = 0.9
_PROSE_ROWS = 5
_SEP_LINE = re.compile(r'"?sep=(.)"?[ \r]*\n?', re.IGNORECASE)
_QUOTED_CELLS = re.compile(r'" *[,;|\t] *"')
_NO_DELIMITERS = " \0\r\n.'\"-_/!?()[]{}\\@%$&+=<>`€£°"
_TIME = re.compile(r"\b\d\d?:\d\d\b")


@dataclass(frozen=True, slots=True)
class FoundDialect:
    """The dialect of a file.

    Attributes:
        dialect: The dialect.
        width: Columns that hold a name or, in the sample, data.
        notes: What a reader of the file would not expect, in words.
    """

    dialect: Dialect
    width: int
    notes: tuple[str, ...]


def find_dialect(
    name: str, text: str, options: DialectOptions, *, newline: str, is_tsv: bool, is_complete: bool
) -> FoundDialect:
    """Finds how a CSV file is written.

    Args:
        name: What messages call the file.
        text: The beginning of the file.
        options: What the user says.
        newline: What ends a line: ``"\\n"`` or ``"\\r"``.
        is_tsv: The delimiter is a tab, unless the user says otherwise.
        is_complete: ``text`` is the whole file.

    Raises:
        InputError: There are several readings, so the user has to say how the file is written.
    """
    lines = io.StringIO(text, newline=newline).readlines()
    if not is_complete and len(lines) > 1:
        del lines[-1]
    skipped = options.skip_lines
    if skipped is None:
        skipped, sep = _above_header(lines)
        options = replace(options, delimiter=sep if options.delimiter is None else options.delimiter)
    sample = _sample(lines[skipped:])
    is_cut = not is_complete or len(sample) < len(lines) - skipped
    search = _Search(name, sample, options, skipped, is_cut=is_cut)
    best = search.decide("\t" if is_tsv and options.delimiter is None else options.delimiter, is_tsv=is_tsv)
    notes = _notes(best, options, is_tsv=is_tsv, text="".join(sample))
    if skipped and options.skip_lines is None:
        notes = (*notes, f"the header is in line {skipped + 1}")
    return FoundDialect(best.dialect, best.used_width, notes)


def _above_header(lines: list[str]) -> tuple[int, str | None]:
    """Counts blank lines and a line ``sep=;`` above the header, and returns the delimiter that it names."""
    sep = None
    for skipped, line in enumerate(lines):
        found = _SEP_LINE.fullmatch(line) if sep is None else None
        if not found and line.strip(" \r\n"):
            return skipped, sep
        sep = found[1] if found else sep
    return 0, None  # nothing but blank lines


def _sample(lines: list[str]) -> list[str]:
    size = 0
    for count, line in enumerate(lines[:SAMPLE_LINES]):
        size += len(line)
        if size > SAMPLE_CHARACTERS and count:
            return lines[:count]
    return lines[:SAMPLE_LINES]


class _Reading:
    """The sample, read in one dialect.

    Attributes:
        records: Header and rows without blank lines, up to the first error.
        failed: The dialect cannot be that of the sample.
    """

    def __init__(self, dialect: Dialect, sample: list[str], *, is_cut: bool) -> None:
        self.dialect = dialect
        self.records: list[list[str]] = []
        self.starts: list[int] = []
        self.failed = False
        reader = dialect.reader(iter(sample))
        start = 0
        try:
            for cells in reader:
                if cells:
                    self.records.append(cells)
                    self.starts.append(start)
                start = reader.line_num
        except csv.Error as error:
            self.failed = not (is_cut and "unexpected end" in str(error))
        header = self.records[0] if self.records else []
        self.width = len(header)
        self.named_width = _data_width(header)
        self.rows = self.records[1:]

    @property
    def used_width(self) -> int:
        """Columns that hold a name or data."""
        return max([self.named_width, *(min(_data_width(row), self.width) for row in self.rows)])

    def share(self) -> float:
        """The share of rows that have as many cells as the header; empty cells beyond it do not count."""
        fitting = [self.named_width <= len(row) and _data_width(row) <= self.width for row in self.rows]
        return sum(fitting) / len(fitting) if fitting else 1.0

    def is_table(self) -> bool:
        if self.failed or self.width < 2 or self.share() < 1.0:
            return False
        return self.used_width > 1 or all(len(row) == self.width for row in self.rows)

    def quotes_in_cells(self) -> int:
        """Counts the quotes that are text; a wrong delimiter makes text of those that enclose cells."""
        quote = self.dialect.quote
        return sum(cell.count(quote) for row in self.records for cell in row) if quote else 0

    def table_start(self) -> tuple[int, int] | None:
        """Record and width from which on nearly all records are equally wide, if that is not the header."""
        widths = [len(row) for row in self.records]
        common = [width for width, _ in Counter(widths[1:]).most_common(1)]
        if self.failed or not common or common[0] < 2 or common[0] <= widths[0]:
            return None
        start = widths.index(common[0])
        below = widths[start:]
        if len(below) < 2 or below.count(common[0]) < _TITLE_SHARE * len(below):
            return None
        return start, common[0]


def _data_width(cells: list[str]) -> int:
    """The number of cells up to the last one that is not blank."""
    return next((position for position in range(len(cells), 0, -1) if cells[position - 1].strip()), 0)


class _Search:
    def __init__(
        self, name: str, sample: list[str], options: DialectOptions, skipped: int, *, is_cut: bool
    ) -> None:
        self._name = name
        self._sample = sample
        self._text = "".join(sample)
        self._options = options
        self._skipped = skipped
        self._is_cut = is_cut

    def decide(self, delimiter: str | None, *, is_tsv: bool) -> _Reading:
        """Returns the reading that is right, or the one whose errors say what is wrong."""
        if delimiter == "":
            return self._one_column()
        if delimiter is not None:
            reading = self._read(delimiter)
            if reading.named_width < 2 and self._options.delimiter is None and is_tsv:
                self._refuse_other_tables([self._read(mark) for mark in DELIMITERS if mark in self._text])
            self._refuse_title([reading])
            return reading
        readings = [self._read(mark) for mark in DELIMITERS if mark in self._text]
        tables = self._only_clean([reading for reading in readings if reading.is_table()])
        if len(tables) > 1:
            if any(reading.rows for reading in tables):
                self._refuse_ambiguous(tables)
            return max(tables, key=lambda reading: reading.width)
        if tables:
            return tables[0]
        if proposed := self._proposed():
            return proposed
        self._refuse_title(readings)
        several = [reading for reading in readings if reading.width > 1 or not reading.records]
        partial = [reading for reading in several if reading.share() >= 0.5 or not self._is_prose(reading)]
        if partial:
            return max(partial, key=lambda reading: (reading.share(), reading.width))
        return self._one_column()

    def _read(self, delimiter: str, quote: str | None = None) -> _Reading:
        options = self._options
        wanted = options.quote if options.quote is not None else QUOTE if quote is None else quote
        dialect = Dialect(delimiter, wanted, options.escape or "", self._skipped)
        reading = _Reading(dialect, self._sample, is_cut=self._is_cut)
        if (
            delimiter
            and wanted
            and options.quote is None
            and re.search(f"{re.escape(delimiter)} +{re.escape(wanted)}", self._text)
        ):
            spaced = _Reading(replace(dialect, initial_space=True), self._sample, is_cut=self._is_cut)
            if spaced.is_table() and spaced.quotes_in_cells() < reading.quotes_in_cells():
                return spaced
        return reading

    def _one_column(self) -> _Reading:
        reading = self._read("")
        quoted = QUOTE in self._sample[0] or _QUOTED_CELLS.search(self._text) if self._sample else True
        if reading.failed and self._options.quote is None and not quoted:
            return self._read("", quote="")  # a line of prose begins with a quote
        return reading

    def _only_clean(self, tables: list[_Reading]) -> list[_Reading]:
        """Drops readings that look wrong beside another: quotes inside of cells, or a delimiter used as in prose."""
        fewest = min((reading.quotes_in_cells() for reading in tables), default=0)
        tables = [reading for reading in tables if reading.quotes_in_cells() == fewest]
        return [reading for reading in tables if not self._is_prose(reading)] or tables

    def _is_prose(self, reading: _Reading) -> bool:
        """Whether a blank or the end of the line follows each delimiter, as in a sentence."""
        mark = reading.dialect.delimiter
        return mark in ",;:" and not re.search(rf"{re.escape(mark)}[^ \r\n]", self._text)

    def _proposed(self) -> _Reading | None:
        """CleverCSV's reading, if all rows fit it."""
        header = self._sample[0] if self._sample else ""
        marks = {mark for mark in header if not mark.isalnum() and mark not in _NO_DELIMITERS}
        if _TIME.search(self._text):
            marks.discard(":")
        lines = [line for line in self._sample if len(line) <= _PROPOSAL_LINE_CHARACTERS and "\0" not in line]
        if not marks or len(marks) > _PROPOSAL_MARKS or not lines:
            return None
        from clevercsv.detect import Detector

        proposal = Detector().detect("".join(lines[:_PROPOSAL_LINES]), delimiters=sorted(marks))
        delimiter = proposal and proposal.delimiter
        if proposal is None or not delimiter or (QUOTE in self._text and not proposal.quotechar):
            return None
        reading = self._read(delimiter, proposal.quotechar or QUOTE)
        is_sure = reading.is_table() and reading.used_width > 1
        return reading if is_sure and reading.rows and not self._is_prose(reading) else None

    def _refuse_ambiguous(self, tables: list[_Reading]) -> None:
        named = " and ".join(delimiter_name(reading.dialect.delimiter) for reading in tables)
        raise self._unclear(
            f"{named} each split all rows into as many columns as the header; say which it is with --delimiter"
        )

    def _unclear(self, reason: str) -> InputError:
        return InputError(self._name, reason, line=self._skipped + 1)

    def _refuse_other_tables(self, readings: list[_Reading]) -> None:
        for reading in readings:
            if reading.is_table() and reading.rows and not self._is_prose(reading):
                name = delimiter_name(reading.dialect.delimiter)
                raise self._unclear(
                    f"has no tab, but {reading.width} columns by {name}; say --delimiter {name}, or --delimiter none"
                    " for one column"
                )

    def _refuse_title(self, readings: list[_Reading]) -> None:
        """Refuses a file whose table seems to begin below its first line."""
        if self._options.skip_lines is not None:
            return
        for reading in sorted(readings, key=lambda reading: -reading.share()):
            if not (found := reading.table_start()):
                continue
            start, width = found
            if self._is_prose(reading) and len(reading.records) - start < _PROSE_ROWS:
                continue
            line = self._skipped + reading.starts[start] + 1
            is_named = reading.width > 1 or reading.records[1][0] == "1"
            if start == 1 and reading.width == width - 1 and self._sample[0].startswith(QUOTE) and is_named:
                raise self._unclear(
                    f"names {reading.width} of {width} columns, like R's write.table() with names of rows; write the"
                    " file with write.csv() or col.names = NA, or put a name and a delimiter before the first one"
                )
            cells = counted(reading.width, "cell")
            name = delimiter_name(reading.dialect.delimiter)
            raise self._unclear(
                f"has {cells} where line {line} and the lines below it have {width} ({name}); say --skip-lines"
                f" {line - 1} if line {line} is the header, --delimiter none if each line is one cell, or quote"
                " cells that contain the delimiter"
            )


def _notes(reading: _Reading, options: DialectOptions, *, is_tsv: bool, text: str) -> tuple[str, ...]:
    dialect = reading.dialect
    notes = []
    if not dialect.delimiter and options.delimiter is None and any(mark in text for mark in DELIMITERS):
        notes.append("one column")
    elif dialect.delimiter and options.delimiter is None and dialect.delimiter != ("\t" if is_tsv else ","):
        notes.append(f"the delimiter is {delimiter_name(dialect.delimiter)}")
    if options.quote is None and dialect.quote != QUOTE:
        notes.append(f"cells are quoted with {dialect.quote}" if dialect.quote else "quotes are text")
    if dialect.initial_space:
        notes.append("blanks before cells do not count")
    return tuple(notes)
