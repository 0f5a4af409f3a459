"""The values of Arrow as rows have them: those of their JSON text, by the table of ``memory``.

A number of fewer bits than a float has gets the shortest digits that mean it, a decimal all its digits. Dates and times
are ISO 8601. A struct is an object, a map too where its keys are different texts, else a list of pairs. Bytes are their
text where they are UTF-8, else Base64. What is not finite is ``None`` or its name, as in ``memory``.

A struct has every member in every row. In one with ``role`` and ``content``, a message, members that are null are left
out, as they are in JSON.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from batchllm.formats.json_text import WrittenNumber, bytes_text

if TYPE_CHECKING:
    import pyarrow as pa

Convert = Callable[[Any], Any]

_OWN_VALUES = frozenset({"arrow.uuid", "arrow.bool8"})
"""Extension types whose values are not those of what stores them."""


class ArrowRows:
    """The rows of a record batch; the values of a column are made when the first row's is asked for.

    Args:
        batch: The batch.
        positions: The columns by the names that rows know them by.
    """

    __slots__ = ("_columns", "batch", "positions")

    def __init__(self, batch: "pa.RecordBatch", positions: Mapping[str, int]) -> None:
        self.batch = batch
        self.positions = positions
        self._columns: dict[str, list[Any]] = {}

    def column(self, name: str) -> list[Any]:
        """Returns the values of a column; raises ``KeyError``."""
        found = self._columns.get(name)
        if found is None:
            found = self._columns[name] = plain_values(self.batch.column(self.positions[name]))
        return found


class ArrowOrigin(NamedTuple):
    """Where a row of Arrow data is, as a row's ``origin``.

    Attributes:
        rows: The rows of its record batch.
        offset: Its position among them.
    """

    rows: ArrowRows
    offset: int


class ArrowRow(Mapping[str, Any]):
    """One of ``ArrowRows``, as a mapping of column names to values."""

    __slots__ = ("_index", "_rows")

    def __init__(self, rows: ArrowRows, index: int) -> None:
        self._rows = rows
        self._index = index

    def __getitem__(self, name: str) -> Any:
        return self._rows.column(name)[self._index]

    def __contains__(self, name: object) -> bool:
        return name in self._rows.positions

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows.positions)

    def __len__(self) -> int:
        return len(self._rows.positions)

    def __repr__(self) -> str:
        return repr(dict(self))


def plain_values(array: "pa.Array") -> list[Any]:
    """Returns the values of a column."""
    import pyarrow as pa

    if isinstance(array, pa.ExtensionArray) and array.type.extension_name not in _OWN_VALUES:
        return plain_values(array.storage)
    convert = _converter(array.type)
    try:
        given: list[Any] = array.to_pylist()
    except (ValueError, OverflowError, KeyError, OSError):  # dates beyond the year 9999, unknown time zones
        return [_value(array, index, convert or _same) for index in range(len(array))]
    return given if convert is None else [None if value is None else convert(value) for value in given]


def _value(array: "pa.Array", index: int, convert: Convert) -> Any:
    """A value, which may be one that Python cannot hold: then the number of its units, or as Arrow shows it."""
    scalar = array[index]
    with suppress(ValueError, OverflowError, KeyError, OSError):
        value = scalar.as_py()
        return None if value is None else convert(value)
    units = getattr(scalar, "value", None)
    return str(units) if isinstance(units, int) else array.slice(index, 1).to_string()


def _converter(kind: "pa.DataType") -> Convert | None:
    """Returns what makes a row's value of one of ``to_pylist``; ``None`` where it is that already."""
    import pyarrow as pa

    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return plain
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return _converter(kind.value_type)
    if (
        types.is_integer(kind)
        or types.is_boolean(kind)
        or types.is_null(kind)
        or types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_string_view(kind)
    ):
        return None
    if types.is_float64(kind):
        return _finite
    if types.is_floating(kind):
        return _short_digits(kind)
    if types.is_map(kind):
        return _of_map(_converter(kind.key_type) or _same, _converter(kind.item_type) or _same)
    if types.is_struct(kind):
        return _of_struct({field.name: _converter(field.type) for field in kind})
    if types.is_nested(kind) and hasattr(kind, "value_type"):
        return _of_list(_converter(kind.value_type))
    return plain


def _same(value: Any) -> Any:
    return value


def _finite(value: float) -> Any:
    if math.isfinite(value):
        return value
    return None if math.isnan(value) else str(value)


def _short_digits(kind: "pa.DataType") -> Convert:
    import numpy as np
    import pyarrow as pa

    narrow = np.float16 if pa.types.is_float16(kind) else np.float32

    def convert(value: Any) -> Any:
        return _finite(float(str(narrow(value))))

    return convert


def _of_list(inner: Convert | None) -> Convert | None:
    if inner is None:
        return None

    def convert(values: Any) -> Any:
        return [None if value is None else inner(value) for value in values]

    return convert


def _of_struct(fields: Mapping[str, Convert | None]) -> Convert | None:
    is_message = fields.keys() >= {"role", "content"}
    if not is_message and not any(fields.values()):
        return None

    def convert(values: Mapping[str, Any]) -> Any:
        return {
            name: value if value is None or (inner := fields[name]) is None else inner(value)
            for name, value in values.items()
            if value is not None or not is_message or name == "content"
        }

    return convert


def _of_map(of_key: Convert, of_item: Convert) -> Convert:
    def convert(pairs: Any) -> Any:
        found = [(of_key(key), None if item is None else of_item(item)) for key, item in pairs]
        keys = {key for key, _ in found if isinstance(key, str)}
        return dict(found) if len(keys) == len(found) else [list(pair) for pair in found]

    return convert


def plain(value: Any) -> Any:
    """Returns any value of Python as JSON would have it, by the table above."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return _finite(value)
    if isinstance(value, Decimal):
        return _number(value)
    if isinstance(value, bytes):
        return bytes_text(value)
    if hasattr(value, "isoformat"):
        text = value.isoformat()
        return None if text == "NaT" else text
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return plain(value.tolist()) if hasattr(value, "tolist") else str(value)


def _number(value: Decimal) -> Any:
    text = str(value)
    if not value.is_finite():
        return None if value.is_nan() else text
    if text.lstrip("-").isdigit():
        return int(value) if text != "-0" else WrittenNumber(text)
    number = float(text)
    return number if repr(number) == text else WrittenNumber(text)
