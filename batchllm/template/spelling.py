"""JSON out of Python values, with numbers as they were written."""

import json
from collections.abc import Mapping
from typing import Any

import orjson

_PASS = orjson.OPT_PASSTHROUGH_SUBCLASS


def dumps(value: Any) -> bytes:
    """Compact JSON in UTF-8. A number that remembers its spelling keeps it, however long it is.

    Raises:
        ValueError: A text holds half of a UTF-16 pair, so that UTF-8 cannot carry it, or nesting is too deep.
    """
    try:
        return orjson.dumps(value, default=_written, option=_PASS)
    except TypeError:  # beyond 64 bits, a key that is no text, half a pair
        pass
    try:
        return orjson.dumps(_plain(value), default=_written, option=_PASS)
    except (TypeError, RecursionError) as error:
        raise ValueError(str(error)) from error


def to_json(value: Any) -> str:
    """``dumps`` as text, for prompts; what UTF-8 cannot carry is written as JSON escapes."""
    try:
        return dumps(value).decode()
    except ValueError:
        return json.dumps(value, default=str)


def _written(value: Any) -> Any:
    if isinstance(value, int | float):
        return orjson.Fragment(str(value))
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, list | tuple):
        return list(value)
    return str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key if isinstance(key, str) else str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if type(value) is int:
        return orjson.Fragment(str(value))
    return value
