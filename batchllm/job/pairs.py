"""The kinds of values that are pairs of a name and a value: of a flag that is given several times, or a table."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from batchllm.job.values import kind_of


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
