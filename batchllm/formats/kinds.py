"""The kinds of columns: what a column of a format with types holds.

A kind is ``str``, ``int``, ``float``, ``bool``, a type of ``datetime``, ``list[kind]`` of one of these, or ``object``:
what has no type of its own, and is written as JSON text.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from types import GenericAlias, NoneType
from typing import Any

from batchllm.formats.json_text import WrittenNumber

Kind = type | GenericAlias

_INT64 = range(-(1 << 63), 1 << 63)
_EXACT_IN_FLOAT = range(-(1 << 53), (1 << 53) + 1)
_SCALARS = frozenset({str, bool, float, date, time, timedelta})


class _Whole:
    """The kind of whole numbers of which a float does not hold each."""


def kinds_of(rows: Iterable[Sequence[Any]], names: Sequence[str]) -> Mapping[str, Kind]:
    """Returns a kind for each column that holds every value of it as it is.

    ``None`` fits each kind. Whole numbers and others are ``float`` together, if a float holds all of them. A number
    that remembers its spelling is a float if that means the same number. A column without values is ``str``.

    Args:
        rows: The values of each row, in the order of ``names``.
        names: The columns.
    """
    found: list[set[Any]] = [set() for _ in names]
    for values in rows:
        for kinds, value in zip(found, values, strict=True):
            kinds.add(_kind_of(value))
    return {name: _settled(_common(kinds)) for name, kinds in zip(names, found, strict=True)}


def _kind_of(value: Any) -> Any:
    kind = type(value)
    if kind in _SCALARS or value is None:
        return kind
    if kind is int:
        return int if value in _EXACT_IN_FLOAT else _Whole if value in _INT64 else object
    if kind is list:
        items = _common({_kind_of(item) for item in value})
        return object if items is object else GenericAlias(list, (items,))
    if kind is WrittenNumber:
        return float if Decimal(value.text) == Decimal(repr(float(value))) else object
    return datetime if kind is datetime and value.tzinfo is None else object


def _common(kinds: set[Any]) -> Any:
    """The kind that holds all values of some kinds; that of ``None`` where there are no others."""
    kinds = kinds - {NoneType}
    if len(kinds) <= 1:
        return kinds.pop() if kinds else NoneType
    if kinds == {int, _Whole}:
        return _Whole
    if kinds == {int, float}:
        return float
    if not all(isinstance(kind, GenericAlias) for kind in kinds):
        return object
    items = _common({kind.__args__[0] for kind in kinds})
    return object if items is object else GenericAlias(list, (items,))


def _settled(kind: Any) -> Kind:
    if isinstance(kind, GenericAlias):
        return GenericAlias(list, (_settled(kind.__args__[0]),))
    known: dict[Any, Kind] = {NoneType: str, _Whole: int}
    found: Kind = known.get(kind, kind)
    return found
