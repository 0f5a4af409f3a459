"""The text of CSV: names of columns out of a header, and headers and records out of cells."""

from collections import Counter
from collections.abc import Sequence

from batchllm.formats.dialect import DELIMITERS


def column_names(header: Sequence[str]) -> tuple[str, ...]:
    """Returns a name for each column by which it alone is called.

    A column without a name is ``column_1``, by its position. Columns of one name are called by name and position:
    ``id (column 1)`` and ``id (column 3)``.
    """
    names = [name if name.strip() else f"column_{position}" for position, name in enumerate(header, 1)]
    while len(set(names)) < len(names):
        counts = Counter(names)
        names = [
            f"{name} (column {position})" if counts[name] > 1 else name
            for position, name in enumerate(names, 1)
        ]
    return tuple(names)


def csv_header(names: Sequence[str], delimiter: str) -> str:
    """Returns the header. Names with any usual delimiter are quoted, so that it shows only the real one."""
    cells = [_quoted(name) if _is_special(name, delimiter) or has_delimiter(name) else name for name in names]
    if cells and (cells[0].startswith("\ufeff") or (len(cells) == 1 and not cells[0])):
        cells[0] = _quoted(cells[0])  # or it would be read as a byte-order mark, or as a blank line
    return delimiter.join(cells)


def csv_record(cells: Sequence[str], delimiter: str) -> str:
    """Returns one record, quoted where strict reading needs it (a lone CR too)."""
    line = delimiter.join(cells)
    if '"' in line or "\n" in line or "\r" in line or line.count(delimiter) >= len(cells):
        return delimiter.join([_quoted(cell) if _is_special(cell, delimiter) else cell for cell in cells])
    return line or ('""' if len(cells) == 1 else "")


def has_delimiter(name: str) -> bool:
    """Returns whether any usual delimiter is in a name."""
    return any(mark in name for mark in DELIMITERS)


def _is_special(cell: str, delimiter: str) -> bool:
    return delimiter in cell or '"' in cell or "\n" in cell or "\r" in cell


def _quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"'
