"""The kinds of values that have parts: pairs of a name and a value, tables, words, a shard."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from batchllm.job.values import kind_of


@kind_of("TEXT", tuple, repeated=True, annotation="str | Sequence[str]")
def one_or_several(value: Any) -> tuple[str, ...]:
    """One or more words: a list, or separated by blanks."""
    found = tuple(value.split()) if isinstance(value, str) else value
    if not isinstance(found, (list, tuple)) or not found:
        raise ValueError("must be text")
    if not all(isinstance(word, str) and word.strip() for word in found):
        raise ValueError("must be text, or a list of texts")
    return tuple(word.strip() for word in found)


@kind_of("TABLES", tuple, annotation="Sequence[Mapping[str, Any]]")
def tables(value: Any) -> tuple[Mapping[str, Any], ...]:
    """One or more tables."""
    found = value if isinstance(value, (list, tuple)) else ()
    if not found or not all(isinstance(table, Mapping) for table in found):
        raise ValueError("must be tables; in a job file each is headed [[endpoints]]")
    return tuple(found)


@kind_of("N/M", tuple, annotation="str")
def shard(value: Any) -> tuple[int, int]:
    """The number of a shard, from 1, and how many there are: ``3/8``."""
    if isinstance(value, (list, tuple)) and len(value) == 2:
        value = f"{value[0]}/{value[1]}"  # as the journal keeps it
    number, slash, of = value.partition("/") if isinstance(value, str) else ("", "", "")
    if not (slash and all(part.strip().isascii() and part.strip().isdigit() for part in (number, of))):
        raise ValueError(f"must be a number of how many, such as 3/8, not {value!r}")
    if not (len(of.strip()) < 8 and 1 <= int(number) <= int(of)):
        raise ValueError(f"must be from 1/M to M/M, such as 3/8, not {value!r}")
    return int(number), int(of)


@kind_of("NAME=VALUE", dict, repeated=True, merged=True, annotation="Mapping[str, str] | Sequence[str] | str")
def pairs(value: Any) -> dict[str, str]:
    """``NAME=VALUE`` once or in a list, or a table; values stay text."""
    return {name: item if isinstance(item, str) else json.dumps(item) for name, item in _items(value)}


renames = replace(pairs, merged=False)
"""Pairs of one layer: those of a stronger one take the place of all of them."""


@kind_of("NAME=JSON", dict, repeated=True, merged=True, annotation="Mapping[str, Any] | Sequence[str] | str")
def json_pairs(value: Any) -> dict[str, Any]:
    """``NAME=JSON`` once or in a list, or a table; what is no JSON is text."""
    return {
        name: _json_or_text(item) if isinstance(value, (str, list, tuple)) else item
        for name, item in _items(value)
    }


def _items(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return [(str(name), item) for name, item in value.items()]
    parts = [value] if isinstance(value, str) else value
    found: list[tuple[str, Any]] = []
    for part in parts if isinstance(parts, (list, tuple)) else [value]:
        name, equals, item = part.partition("=") if isinstance(part, str) else ("", "", "")
        if not equals or not name.strip():
            raise ValueError(f"must be NAME=VALUE, not {part!r}")
        if any(name.strip() == other for other, _ in found):
            raise ValueError(f"names {name.strip()!r} twice")
        found.append((name.strip(), item))
    return found


def _json_or_text(item: str) -> Any:
    try:
        return json.loads(item, parse_constant=_no_constant)
    except ValueError:
        return item


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")
