"""Rows in memory as lines of JSONL, every value exactly.

=======================================  ==============================================================
``None``, NaN, NaT, ``pandas.NA``        ``null``
booleans                                 ``true``, ``false``
integers, ``Decimal``                    all their digits
floats                                   the shortest digits that mean the same number (``repr``)
dates and times                          ISO 8601
bytes                                    their text where they are UTF-8, else Base64
mappings, lists, tuples, arrays          objects and arrays
everything else, infinite numbers too    its ``str``
=======================================  ==============================================================

The values of NumPy and pandas are known by how they behave, so that neither is loaded here. Half of a surrogate pair,
which no text in UTF-8 can hold, is U+FFFD.
"""

import json
import math
from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any

from batchllm.errors import InputError
from batchllm.exact import encodable
from batchllm.formats.json_text import DEPTH_LIMIT, WrittenNumber, bytes_text
from batchllm.formats.output_file import AtomicFile

ROWS = "the rows"
"""What messages call rows that are in no file."""

_MISSING = frozenset({"NAType", "NaTType", "Null"})


def json_line(index: int, values: Mapping[str, Any]) -> str:
    """Returns a row as a JSON object on one line.

    Args:
        index: The position of the row, from 0, for messages.
        values: Its columns.

    Raises:
        InputError: A value cannot be written as text; the message names row and column.
    """
    cells = []
    for name, value in values.items():
        try:
            cells.append(f"{_string(name)}:{json_text(value)}")
        except Exception as error:  # a value of any class, whose methods may raise anything
            what = f"the {type(value).__name__} in column {name!r}"
            reason = f"row {index + 1}: {what} cannot be written as text ({error}); convert the column first"
            raise InputError(ROWS, reason) from error
    return f"{{{','.join(cells)}}}"


def json_text(value: Any, depth: int = 0) -> str:
    """Returns the JSON of any value, by the table above.

    Raises:
        ValueError: It is nested deeper than 200 levels, or it is an integer of more digits than Python writes.
    """
    if depth > DEPTH_LIMIT:
        raise ValueError(f"nested deeper than {DEPTH_LIMIT} levels")
    if type(value) is str:
        return _string(value)
    if value is None or type(value).__name__ in _MISSING:
        return "null"
    if type(value) is bool:
        return "true" if value else "false"
    if type(value) is int:
        return int.__repr__(value)
    if isinstance(value, float):
        return value.text if isinstance(value, WrittenNumber) else _float(float(value))
    return _other(value, depth)


def _float(value: float) -> str:
    if math.isnan(value):
        return "null"
    return float.__repr__(value) if math.isfinite(value) else _string(str(value))


def _other(value: Any, depth: int) -> str:
    if isinstance(value, Enum):
        return json_text(value.value, depth + 1)
    if isinstance(value, str):
        return _string(str.__str__(value))
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, Decimal):
        return "null" if value.is_nan() else str(value) if value.is_finite() else _string(str(value))
    if isinstance(value, datetime | date | time):
        return _string(value.isoformat())
    if isinstance(value, bytes | bytearray | memoryview):
        return _string(bytes_text(bytes(value)))
    if isinstance(value, Mapping):
        members = (f"{_string(_key(key))}:{json_text(item, depth + 1)}" for key, item in value.items())
        return f"{{{','.join(members)}}}"
    if isinstance(value, list | tuple):
        return f"[{','.join(json_text(item, depth + 1) for item in value)}]"
    kind = getattr(getattr(value, "dtype", None), "kind", None)
    if type(value).__module__ == "numpy":
        return _of_numpy(value, kind, depth)
    if hasattr(value, "to_list") and not isinstance(value, type):  # a Series
        return json_text(list(value.to_list()), depth + 1)
    return _string(str(value))


def _of_numpy(value: Any, kind: str | None, depth: int) -> str:
    """A scalar or an array of NumPy. A float of fewer bits is written with the digits that NumPy shows."""
    if getattr(value, "ndim", 0):
        return json_text(list(value), depth + 1)
    if kind in ("M", "m"):
        text = str(value)
        return "null" if text == "NaT" else _string(text)
    if kind == "f":
        number = float(value)
        if math.isnan(number):
            return "null"
        return str(value) if math.isfinite(number) else _string(str(number))
    if kind in ("b", "i", "u", "O"):
        return json_text(value.item(), depth + 1)
    return _string(str(value))


def _key(key: Any) -> str:
    return key if isinstance(key, str) else str(key)


def _string(text: str) -> str:
    return json.dumps(encodable(text), ensure_ascii=False)


def put_rows(path: Path, content: bytes) -> None:
    """Puts the lines of rows into a file that only its owner can read, unless they are there.

    Raises:
        CannotWrite, StorageFailure: The file cannot be written.
    """
    try:
        if path.stat().st_size == len(content) and path.read_bytes() == content:
            return
    except OSError:
        pass  # it is not there, or writing it says what is wrong
    with AtomicFile(path) as target:
        target.write(content)
        target.commit()
