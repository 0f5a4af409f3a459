"""Excel: typed cells, read by python-calamine and written by XlsxWriter (extra ``[excel]``).

A row of the sheet that has any value is a row. Whole numbers are integers; dates, times and durations are text in
prompts and in other formats, and stay what they are in Excel. A formula is its value, an error value is its text, as
Excel itself saves both to CSV; an empty text is an empty cell. A sheet is held in memory, of
several files one at a time.

A row's ``origin`` is its cells, by the position of their columns.
"""

from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from io import BytesIO
from typing import TYPE_CHECKING, Any

from batchllm.errors import InputError, UsageError, did_you_mean, listed
from batchllm.extras import install_command
from batchllm.formats.csv_text import column_names
from batchllm.formats.excel_cells import ods_duration, shown, whole
from batchllm.formats.excel_writer import ExcelWriter, check_rows
from batchllm.formats.format import Format, Source, changed
from batchllm.formats.input_file import InputFile, InputPass
from batchllm.formats.scan import InputStatistics, counted_sample
from batchllm.formats.workbook_parts import (
    BINARY_MAGIC,
    SheetFacts,
    reference,
    sheet_facts,
    with_characters,
    with_known_errors,
)
from batchllm.printable import counted
from batchllm.records import Row

if TYPE_CHECKING:
    from python_calamine import CalamineSheet, CalamineWorkbook

MANY_ROWS = 200_000
# What the reader takes; programs write others (#SPILL!, #ERROR!).
_KNOWN_ERRORS = frozenset(
    {"#NULL!", "#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "#N/A", "#GETTING_DATA"}
)
_MOST_CELLS = 100_000_000  # of 32 bytes each, which the reader allocates from A1 to the last one
_SPARSE = 1_000
_OPEN_DOCUMENT, _MIMETYPE_BYTES = b"vnd.oasis.opendocument", 128  # the archive begins with its type


class ExcelSource(Source):
    """A sheet of a workbook.

    Args:
        file: The file.
        suffix: Its suffix, of no meaning here.
        sheet: Name of the sheet, or its number from 1; ``None`` is the first visible one with rows.
        skip_lines: Rows above the header; ``None``: blank ones.
    """

    kind = "xlsx"

    def __init__(
        self, file: InputFile, suffix: str, sheet: str | None = None, skip_lines: int | None = None
    ) -> None:
        super().__init__(file)
        self._wanted = sheet
        self._skip_lines = skip_lines
        self._sha256 = ""
        self._size_bytes = 0
        self._table: _Table | None = None
        self._load()
        self.columns = column_names(self.header(()))

    def release(self) -> None:
        """Frees the sheet; see ``Source``."""
        self._table = None

    def _load(self) -> "_Table":
        """Reads the file, and its sheet unless that is in memory; returns the sheet."""
        opened = InputPass(self.file)
        content = b"".join(opened.chunks())
        if opened.sha256() == self._sha256 and self._table is not None:
            return self._table
        if content.startswith(BINARY_MAGIC) and find_spec("xlrd") is None:
            raise UsageError(f"{self.name}: .xls needs xlrd; install with: {install_command('excel')}")
        is_ods = _OPEN_DOCUMENT in content[:_MIMETYPE_BYTES]
        workbook = self._opened(with_characters(content) if is_ods else content)
        name, self.notes = self._chosen(workbook, content)
        facts = sheet_facts(content, name)
        if facts is not None:
            self._check_extent(facts)
            if not _KNOWN_ERRORS.issuperset(facts.errors.values()) and not is_ods:
                workbook = self._opened(with_known_errors(content, name))
        try:
            sheet = workbook.get_sheet_by_name(name)
        except Exception as error:  # the reader's own, of any kind
            raise InputError(self.name, f"the sheet {name!r} cannot be read: {error}") from error
        self.sheet = name
        table = _Table(sheet, facts or SheetFacts(), ods_duration if is_ods else None)
        self._find_header(table)
        self._sha256, self._size_bytes = opened.sha256(), opened.size_bytes
        self.notes = (*self.notes, *table.notes())
        self._table, self._header_row = table, table.header
        return table

    def _opened(self, content: bytes) -> "CalamineWorkbook":
        from python_calamine import CalamineError, CalamineWorkbook, PasswordError

        try:
            return CalamineWorkbook.from_filelike(BytesIO(content))
        except PasswordError as error:
            reason = "is protected by a password; save it without one, and name that file"
            raise InputError(self.name, reason) from error
        except (CalamineError, OSError, ValueError) as error:
            reason = (
                f"cannot be read as a workbook: {error}; copy or download it again, or open it in Excel or LibreOffice"
                " and save it again"
            )
            raise InputError(self.name, reason) from error

    def _chosen(self, workbook: "CalamineWorkbook", content: bytes) -> tuple[str, tuple[str, ...]]:
        """The name of the sheet that is read, and what to say about the choice."""
        from python_calamine import SheetTypeEnum, SheetVisibleEnum

        sheets = [sheet for sheet in workbook.sheets_metadata if sheet.typ == SheetTypeEnum.WorkSheet]
        names = [sheet.name for sheet in sheets]
        if not names:
            raise InputError(self.name, "has no sheet with cells")
        if self._wanted is not None:
            return self._named(self._wanted, names), ()
        visible = [sheet.name for sheet in sheets if sheet.visible == SheetVisibleEnum.Visible]
        candidates = visible or names
        if len(candidates) > 1:
            with_rows = [name for name in candidates if self._has_rows(workbook, content, name)]
            candidates = with_rows or candidates
        if len(names) == 1:
            return names[0], ()
        others = [name for name in names if name != candidates[0]]
        return candidates[0], (
            f"the sheet {candidates[0]!r} is read, and not {listed(map(repr, others))} (--sheet)",
        )

    def _named(self, wanted: str, names: Sequence[str]) -> str:
        if wanted in names:
            return wanted
        if wanted.isdecimal() and 1 <= int(wanted) <= len(names):
            return names[int(wanted) - 1]
        known = ", ".join(f"{number} {name!r}" for number, name in enumerate(names, 1))
        raise UsageError(
            f"{self.name} has no sheet {wanted!r}{did_you_mean(wanted, names)}; its sheets are {known}"
        )

    @staticmethod
    def _has_rows(workbook: "CalamineWorkbook", content: bytes, name: str) -> bool:
        """Whether a sheet has a row below its first one, or cannot be read, which is said if it is chosen."""
        facts = sheet_facts(content, name)
        if facts is not None and _is_too_large(facts):
            return True
        try:
            return workbook.get_sheet_by_name(name).height > 1
        except Exception:  # noqa: BLE001 - the reader's own, of any kind
            return True

    def _check_extent(self, facts: SheetFacts) -> None:
        if _is_too_large(facts):
            last = reference(facts.rows - 1, facts.columns - 1)
            reason = f"its {counted(facts.cells, 'cell')} reach to {last}; delete the cells far outside of the table"
            raise InputError(self.name, reason)

    def _find_header(self, table: "_Table") -> None:
        """Finds the row with the names of the columns."""
        skipped = self._skip_lines
        found = next((row for row in table.rows() if skipped is None or row[0] >= skipped), None)
        if found is None:
            reason = f"the sheet {self.sheet!r} has no rows{' below --skip-lines' if skipped else ''}"
            raise InputError(self.name, f"{reason}; its first row must be a header")
        number, cells = found
        if skipped is not None and number > skipped:
            reason = (
                "is blank; the row below --skip-lines must be the header, and the next row with cells is below"
                f" --skip-lines {number}"
            )
            raise InputError(self.name, reason, line=skipped + 1)
        names = ["" if value is None else str(shown(value)) for value in cells]
        first, last = table.used_columns(number)
        self._header = names[first : last + 1]
        table.first, table.width, table.header = first, last + 1 - first, number
        self._header_cells = tuple(table.fitted(cells))
        if skipped is None and len(self._header) > 2 and not any(map(str.strip, self._header[1:])):
            reason = (
                "names only the first column, like a title; say --skip-lines with the number of rows above the header"
                f" ({number} if it is the header)"
            )
            raise InputError(self.name, reason, line=number + 1)

    def scan(self) -> InputStatistics:
        """Reads the sheet; see ``Source``."""
        count, sample = counted_sample(self.rows())
        note = f"{counted(count, 'row')} of Excel are held in memory, those of CSV are not"
        if count > MANY_ROWS and note not in self.notes:
            self.notes = (*self.notes, note)
        return InputStatistics(count, self._size_bytes, self._sha256, self.columns, sample)

    def rows(self, start: int = 0) -> Iterator[Row]:
        """Streams the rows; see ``Source``."""
        self._digest = None
        before = self._header
        table, columns, sha256 = self._load(), self.columns, self._sha256
        if self._header != before:
            raise changed(self.name, "its header ")
        for index, (number, cells) in enumerate(table.rows(table.header + 1)):
            if index >= start:
                origin = table.fitted(cells)
                yield Row(index, number + 1, dict(zip(columns, map(shown, origin), strict=True)), origin)
        if start == 0:
            self._digest = sha256

    def header(self, names: Sequence[str]) -> list[str]:
        """Returns the names of columns as they are written."""
        return self._of_columns(self._header, names)

    def typed_header(self, names: Sequence[str]) -> Sequence[Any]:
        """Returns the names of columns as they are in the sheet: text, numbers, dates."""
        return self._of_columns(self._header_cells, names)

    def typed_cells(self, row: Row, names: Sequence[str]) -> Sequence[Any]:
        """Returns cells as they are in the sheet."""
        return self._of_columns(row.origin, names)

    def reading(self) -> str:
        """Returns what rows depend on beside the bytes of the file; see ``Source``."""
        return f"sheet {self.sheet!r} from row {self._header_row + 1}"

    def describe(self) -> str:
        """Returns format and sheet, and the notes."""
        return ", ".join((self.kind, f"sheet {self.sheet!r}", *self.notes))


class _Table:
    """The cells of a sheet, from A1 on.

    Attributes:
        header: The row with the names, from 0.
        first, width: The first column, from 0, and how many there are.
    """

    def __init__(
        self, sheet: "CalamineSheet", facts: SheetFacts, convert: Callable[[Any], Any] | None = None
    ) -> None:
        self._sheet = sheet
        self._facts = facts
        self._left = sheet.start[1] if sheet.start else 0
        self._errors: dict[int, list[tuple[int, str]]] = {}
        for (row, column), text in facts.errors.items():
            self._errors.setdefault(row, []).append((column, text))
        self._convert = convert
        self.header = self.first = self.width = 0

    def rows(self, start: int = 0) -> Iterator[tuple[int, list[Any]]]:
        """Yields number and cells of each row from one on that has a value."""
        if self._sheet.start is None:
            return
        for number, read in enumerate(self._sheet.iter_rows()):
            if number < start:
                continue
            cells = [None] * self._left + [whole(value) for value in read]
            if self._convert is not None:
                cells = [*map(self._convert, cells)]
            for column, text in self._errors.get(number, ()):
                cells += [None] * (column + 1 - len(cells))
                cells[column] = text
            if any(value is not None for value in cells):
                yield number, cells

    def used_columns(self, header: int) -> tuple[int, int]:
        """Returns the first and the last column with a value, in the header or below it."""
        first, last = 1 << 30, 0
        for _, cells in self.rows(header):
            used = [column for column, value in enumerate(cells) if value is not None]
            first, last = min(first, used[0]), max(last, used[-1])
        return first, last

    def fitted(self, cells: list[Any]) -> list[Any]:
        """Returns the cells of the table's columns."""
        found = cells[self.first : self.first + self.width]
        return found + [None] * (self.width - len(found))

    def notes(self) -> tuple[str, ...]:
        """Returns what a reader of the sheet would not expect of it."""
        facts = self._facts
        found = []
        if facts.errors:
            at, text = min(facts.errors.items())
            found.append(
                f"{counted(len(facts.errors), 'cell')} with an error value ({reference(*at)}: {text})"
            )
        if facts.without_value:
            empty = f"{counted(facts.without_value, 'formula')} without a value, read as empty"
            found.append(
                f"{empty} ({facts.first_without_value}); save the file in Excel or LibreOffice first"
            )
        merged = [area for area in self._sheet.merged_cell_ranges or () if area[1][0] > self.header]
        if merged:
            cells = counted(len(merged), "merged cell")
            found.append(
                f"{cells}, with the value in the first row and column alone ({reference(*merged[0][0])})"
            )
        return tuple(found)


def _is_too_large(facts: SheetFacts) -> bool:
    """Whether a stray cell is so far out that the reader, which fills the space, had no memory left."""
    area = facts.rows * facts.columns
    return area > _MOST_CELLS and area > _SPARSE * facts.cells


FORMAT = Format(
    suffixes=(".xlsx", ".xlsm", ".ods", ".xls"),
    source=ExcelSource,
    writer=ExcelWriter,
    options=("sheet", "skip_lines"),
    begins_with=b"PK\3\4",
    check=check_rows,
    magic=(b"PK\3\4", BINARY_MAGIC),
    output=".xlsx",
    libraries=("python_calamine", "xlsxwriter"),
    extra="excel",
)
