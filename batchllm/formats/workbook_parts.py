"""What a workbook's file says of a sheet that its reader does not: error values, formulas without a value, its extent.

An ``.xlsx`` file is a ZIP archive of XML parts (ECMA-376). An error value such as ``#N/A`` is a cell of type ``e``. A
formula is kept with its last value; programs that do not calculate leave the value out. In an ``.ods`` file
(OpenDocument), an error value of LibreOffice is an empty text that is marked as an error. An ``.xls`` file is binary.
"""

import lzma
import posixpath
import re
import struct
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO, StringIO
from typing import IO
from xml.etree import ElementTree
from xml.parsers import expat

_REFERENCE = re.compile(r"([A-Z]{1,3})([0-9]+)")
_WORKBOOK = "xl/workbook.xml"
_OPEN_DOCUMENT = "content.xml"
_TAB = re.compile(rb"<text:tab\b[^>]*?(?:/>|>\s*</text:tab>)")
_LINE_BREAK = re.compile(rb"<text:line-break\b[^>]*?(?:/>|>\s*</text:line-break>)")
_CHUNK_BYTES = 1 << 20
BINARY_MAGIC = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
"""The first bytes of an ``.xls`` file, and of every other OLE file."""

_ERROR = re.compile(
    rb"""(<(?:\w+:)?c\b[^>]*\st=["']e["'][^>]*>(?:(?!</(?:\w+:)?c>).)*?<(?:\w+:)?v\b[^>]*>)[^<]*""", re.DOTALL
)
_REMARKABLE = re.compile(rb"""<(?:\w+:)?f[ />]|\st=["']e["']""")
_CELL = re.compile(rb"""\sr=["']([A-Z]{1,3})[0-9]""")
_ROW = re.compile(rb"""<row [^>]*?\br=["']([0-9]+)""")


# A flag that a damaged byte sets makes an archive look encrypted, which is a RuntimeError.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    OSError,
    EOFError,
    KeyError,
    ValueError,
    RuntimeError,
    struct.error,
    expat.ExpatError,
    ElementTree.ParseError,
)


@dataclass(slots=True)
class SheetFacts:
    """What is known of a sheet.

    Attributes:
        errors: Row and column of each error value, from 0, to its text: ``#N/A``.
        without_value: Formulas that have no value.
        first_without_value: The first one, such as ``C2``.
        cells: Cells that there are.
        rows, columns: Rows and columns from A1 to the last cell.
    """

    errors: dict[tuple[int, int], str] = field(default_factory=dict)
    without_value: int = 0
    first_without_value: str = ""
    cells: int = 0
    rows: int = 0
    columns: int = 0


def sheet_facts(content: bytes, sheet: str) -> SheetFacts | None:
    """Reads what is known of a sheet; ``None`` where the file is unusual or damaged.

    Args:
        content: The file.
        sheet: The name of the sheet.
    """
    if content.startswith(BINARY_MAGIC):
        return _binary_facts(content, sheet)
    try:
        with zipfile.ZipFile(BytesIO(content)) as archive:
            if _OPEN_DOCUMENT in archive.namelist():
                with archive.open(_OPEN_DOCUMENT) as file:
                    return _OpenDocumentCells(sheet).read(file)
            part = _part_of(archive, sheet)
            if part is None:
                return None
            with archive.open(part) as file:
                found = _quick_facts(file)
            if found is not None:
                return found
            with archive.open(part) as file:
                return _ExcelCells().read(file)
    except _DAMAGE:
        return None  # the workbook's reader says what is wrong with the file


def _binary_facts(content: bytes, sheet: str) -> SheetFacts | None:
    """Reads the error values of a sheet of an ``.xls`` file, by xlrd."""
    import xlrd

    try:
        with xlrd.open_workbook(file_contents=content, on_demand=True, logfile=StringIO()) as book:
            cells = book.sheet_by_name(sheet)
            errors = {
                (row, column): xlrd.error_text_from_code[cells.cell_value(row, column)]
                for row in range(cells.nrows)
                for column, kind in enumerate(cells.row_types(row))
                if kind == xlrd.XL_CELL_ERROR
            }
    except Exception:  # noqa: BLE001 - of any kind where a file is damaged; the workbook's reader says what is wrong
        return None
    return SheetFacts(errors)


def with_characters(content: bytes) -> bytes:
    """Returns a spreadsheet of OpenDocument with tabs and line breaks as characters, where the reader drops elements.

    Args:
        content: The file; what is no such spreadsheet, or is damaged, is returned as it is.
    """
    return _with_part(
        content,
        lambda archive: _OPEN_DOCUMENT,
        lambda cells: _LINE_BREAK.sub(b"\n", _TAB.sub(b"\t", cells)),
    )


def with_known_errors(content: bytes, sheet: str) -> bytes:
    """Returns an ``.xlsx`` file with ``#N/A`` for all error values of a sheet, where the reader refuses one of them.

    Args:
        content: The file; what is no such workbook, or is damaged, is returned as it is.
        sheet: The name of the sheet.
    """
    return _with_part(
        content, lambda archive: _part_of(archive, sheet), lambda cells: _ERROR.sub(rb"\1#N/A", cells)
    )


def _with_part(
    content: bytes, part: Callable[[zipfile.ZipFile], str | None], change: Callable[[bytes], bytes]
) -> bytes:
    """Returns an archive with one part changed; as it is where it lacks that part, or is damaged."""
    try:
        with zipfile.ZipFile(BytesIO(content)) as archive:
            name = part(archive)
            if name is None:
                return content
            before = archive.read(name)
            after = change(before)
            if after == before:
                return content
            changed = BytesIO()
            with zipfile.ZipFile(changed, "w") as target:
                for each in archive.infolist():
                    target.writestr(each, after if each.filename == name else archive.read(each))
            return changed.getvalue()
    except _DAMAGE:
        return content


def _quick_facts(file: IO[bytes]) -> SheetFacts | None:
    """The extent of a sheet that has neither formulas nor error values; ``None``: it has, which an XML parser reads."""
    facts = SheetFacts()
    letters: set[bytes] = set()
    rest = b""
    while chunk := file.read(_CHUNK_BYTES):
        data = rest + chunk
        if _REMARKABLE.search(data):
            return None
        cut = data.rfind(b"<") if len(chunk) == _CHUNK_BYTES else len(data)
        data, rest = data[:cut], data[cut:]
        found = _CELL.findall(data)
        facts.cells += len(found)
        letters.update(found)
        at = data.rfind(b"<row ")
        if at >= 0 and (row := _ROW.match(data, at)):
            facts.rows = max(facts.rows, int(row[1]))
    columns = (position(f"{each.decode()}1") for each in letters)
    facts.columns = max((each[1] + 1 for each in columns if each is not None), default=0)
    return facts


def _part_of(archive: zipfile.ZipFile, sheet: str) -> str | None:
    """The name of a sheet's part in the archive."""
    identity = None
    for element in ElementTree.fromstring(archive.read(_WORKBOOK)).iter():  # noqa: S314 - expat bounds entities
        if _local(element.tag) == "sheet" and element.get("name") == sheet:
            identity = next((value for key, value in element.items() if _local(key) == "id"), None)
    relations = ElementTree.fromstring(archive.read("xl/_rels/workbook.xml.rels"))  # noqa: S314
    for relation in relations:
        if identity is not None and relation.get("Id") == identity:
            target = posixpath.join("xl", relation.get("Target", ""))
            return posixpath.normpath(target).lstrip("/")
    return None


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def position(reference: str) -> tuple[int, int] | None:
    """Returns row and column, from 0, of a cell such as ``B7``."""
    found = _REFERENCE.fullmatch(reference)
    if found is None:
        return None
    column = 0
    for letter in found[1]:
        column = 26 * column + ord(letter) - 64
    return int(found[2]) - 1, column - 1


def reference(row: int, column: int) -> str:
    """Returns the name of a cell, such as ``B7``, by its row and column, from 0."""
    from xlsxwriter.utility import xl_rowcol_to_cell

    return str(xl_rowcol_to_cell(row, column))


class _Parsed(ABC):
    """Reads facts out of XML."""

    def __init__(self) -> None:
        self._facts = SheetFacts()
        self._row = self._column = -1

    def read(self, file: IO[bytes]) -> SheetFacts:
        parser = expat.ParserCreate(namespace_separator="}")
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        while chunk := file.read(_CHUNK_BYTES):
            parser.Parse(chunk, False)
        parser.Parse(b"", True)
        return self._facts

    @abstractmethod
    def _start(self, tag: str, attributes: dict[str, str]) -> None: ...

    @abstractmethod
    def _text(self, text: str) -> None: ...

    @abstractmethod
    def _end(self, tag: str) -> None: ...

    def _count(self) -> None:
        facts = self._facts
        facts.cells += 1
        facts.rows = max(facts.rows, self._row + 1)
        facts.columns = max(facts.columns, self._column + 1)


class _ExcelCells(_Parsed):
    """Reads the cells of a sheet's part. A cell or row that does not say where it is follows the one before it."""

    def __init__(self) -> None:
        super().__init__()
        self._kind = ""
        self._has_formula = self._in_value = False
        self._value = ""

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        name = _local(tag)
        if name == "c":
            at = position(attributes.get("r", ""))
            self._row, self._column = at or (self._row, self._column + 1)
            self._kind = attributes.get("t", "")
            self._has_formula, self._value = False, ""
        elif name == "row":
            written = attributes.get("r", "")
            self._row = int(written) - 1 if written.isdecimal() else self._row + 1
            self._column = -1
        elif name == "f":
            self._has_formula = True
        elif name == "v":
            self._in_value = True

    def _text(self, text: str) -> None:
        if self._in_value:
            self._value += text

    def _end(self, tag: str) -> None:
        name = _local(tag)
        if name == "v":
            self._in_value = False
        elif name == "c":
            facts = self._facts
            self._count()
            if self._kind == "e" and self._value:
                facts.errors[self._row, self._column] = self._value
            elif self._has_formula and not self._value and self._kind not in ("str", "inlineStr"):
                facts.without_value += 1
                facts.first_without_value = facts.first_without_value or reference(self._row, self._column)


class _OpenDocumentCells(_Parsed):
    """Reads the cells of one table of a spreadsheet; empty rows and cells may stand for many."""

    def __init__(self, sheet: str) -> None:
        super().__init__()
        self._sheet = sheet
        self._is_inside = self._is_error = False
        self._repeated_rows = self._repeated = 1
        self._value = ""

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        name = _local(tag)
        if name == "table":
            self._is_inside = _attribute(attributes, "name") == self._sheet
            self._row = -1
        elif name == "table-row":
            self._row += self._repeated_rows if self._row >= 0 else 1
            self._repeated_rows = int(_attribute(attributes, "number-rows-repeated") or 1)
            self._column = -1
            self._repeated = 1
        elif name in ("table-cell", "covered-table-cell"):
            self._column += self._repeated if self._column >= 0 else 1
            self._repeated = int(_attribute(attributes, "number-columns-repeated") or 1)
            kinds = {value for key, value in attributes.items() if _local(key) == "value-type"}
            self._is_error = self._is_inside and "error" in kinds
            self._value = ""
            if self._is_inside and kinds:
                self._count()

    def _text(self, text: str) -> None:
        if self._is_error:
            self._value += text

    def _end(self, tag: str) -> None:
        if self._is_error and _local(tag) in ("table-cell", "covered-table-cell"):
            self._is_error = False
            self._facts.errors[self._row, self._column] = self._value


def _attribute(attributes: dict[str, str], name: str) -> str:
    """The value of an attribute, by its name without the namespace."""
    return next((value for key, value in attributes.items() if _local(key) == name), "")
