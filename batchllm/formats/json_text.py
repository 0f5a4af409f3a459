"""JSON as it is written: parsed so that nothing of it is lost, and made of any value.

A number that Python would write otherwise (``1e5``, ``1.50``, ``-0``, 5,000 digits) is a ``WrittenNumber``. NaN and
Infinity are not JSON and are refused. Half of a surrogate pair (``"\\ud83d"``, what a careless cut leaves) is its
escape in the value, six characters that can be encoded and seen. Of two equal keys the last one
counts, as everywhere in Python. Objects nested deeper than 200 levels are refused, whatever the depth of the call
stack.
"""

import json
import re
from base64 import b64encode
from collections.abc import Iterable, Mapping
from decimal import Decimal
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any, NoReturn

import orjson

DEPTH_LIMIT = 200

_HALF_PAIR = re.compile(rb"\\u[dD][89a-fA-F]")
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_SURROGATE = re.compile("[\ud800-\udfff]")
_BLANKS = re.compile(r"[ \t\r\n]*")
_AS_WRITTEN = json.JSONDecoder(parse_int=str, parse_float=str)


class WrittenNumber(float):
    """A number that remembers how it was written: ``str`` and ``format`` give that back.

    As a ``float`` it is what ``float`` makes of the text, infinite where that is too large.
    """

    __slots__ = ("text",)

    def __new__(cls, text: str) -> "WrittenNumber":
        """Make a number of its JSON text."""
        number = super().__new__(cls, text)
        number.text = text
        return number

    text: str

    def __str__(self) -> str:
        return self.text

    __repr__ = __str__

    def __format__(self, specification: str) -> str:
        return format(float(self), specification) if specification else self.text

    def __reduce__(self) -> tuple[type["WrittenNumber"], tuple[str]]:
        return WrittenNumber, (self.text,)


def parse_quickly(raw: bytes) -> dict[str, Any]:
    """Parses an object for its keys alone; its numbers may differ from those of ``parse_object``.

    What the faster parser refuses, ``parse_object`` decides.

    Raises:
        ValueError: As for ``parse_object``.
    """
    if raw.count(b"[") + raw.count(b"{") <= DEPTH_LIMIT:
        try:
            values = orjson.loads(raw)
        except orjson.JSONDecodeError:
            pass
        else:
            if type(values) is dict:
                return values
    return parse_object(raw)


def parse_object(raw: bytes) -> dict[str, Any]:
    """Parses an object by the rules above.

    Raises:
        ValueError: It is not a JSON object; the message is the reason. ``UnicodeDecodeError``: not UTF-8.
    """
    if raw.count(b"[") + raw.count(b"{") > DEPTH_LIMIT and _depth(raw) > DEPTH_LIMIT:
        raise ValueError(f"nested deeper than {DEPTH_LIMIT} levels")
    text = raw.decode()
    try:
        values = (_EXACT if "-0" in text else _QUICK).decode(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg.removesuffix(' at')} at character {error.pos + 1}") from None
    except _NotJsonError:
        raise
    except ValueError:  # more digits than int() takes
        values = _EXACT.decode(text)
    if type(values) is not dict:
        raise ValueError(f"{_KIND_NAMES.get(type(values), 'a number')} where an object is expected")
    if _HALF_PAIR.search(raw):
        values = _encodable(values)
    return values  # type: ignore[no-any-return]


class _NotJsonError(ValueError):
    """A word that Python's parser takes and JSON does not have."""


_KIND_NAMES = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}


def _depth(raw: bytes) -> int:
    depth = deepest = 0
    for byte in _STRING.sub(b"", raw):
        if byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest


def _float(text: str) -> float:
    number = float(text)
    return number if repr(number) == text else WrittenNumber(text)


def _integer(text: str) -> int | float:
    return WrittenNumber(text) if text == "-0" or len(text) > 4000 else int(text)


def _refuse(word: str) -> NoReturn:
    raise _NotJsonError(f"not JSON: {word} is no JSON value (null is)")


_QUICK = json.JSONDecoder(parse_float=_float, parse_constant=_refuse)
_EXACT = json.JSONDecoder(parse_float=_float, parse_int=_integer, parse_constant=_refuse)


def _encodable(value: Any) -> Any:
    """The same with a visible escape for each half of a surrogate pair."""
    if type(value) is str:
        return value.encode("utf-8", "backslashreplace").decode()
    if type(value) is dict:
        return {_encodable(key): _encodable(inner) for key, inner in value.items()}
    if type(value) is list:
        return [_encodable(inner) for inner in value]
    return value


def members_as_written(raw: bytes) -> dict[str, str]:
    """Maps the keys of a JSON object to their values as they are written."""
    text = raw.decode()
    members: dict[str, str] = {}
    position = _past_blanks(text, text.index("{") + 1)
    while text[position] == '"':
        key, position = scanstring(text, position + 1, True)
        position = _past_blanks(text, _past_blanks(text, position) + 1)
        _, end = _AS_WRITTEN.raw_decode(text, position)
        members[_encodable(key)] = text[position:end]
        position = _past_blanks(text, end)
        if text[position] == ",":
            position = _past_blanks(text, position + 1)
    return members


def _past_blanks(text: str, position: int) -> int:
    found = _BLANKS.match(text, position)
    return found.end() if found else position


def json_bytes(value: Any) -> bytes:
    """Returns the JSON of any value; one that JSON does not know becomes its text."""
    try:
        return orjson.dumps(value, default=_plain)
    except TypeError:  # half of a surrogate pair, or an integer beyond 64 bits
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_plain)
        return _SURROGATE.sub(lambda found: f"\\\\u{ord(found[0]):04x}", text).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, float | Decimal):
        return float(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Iterable):
        return list(value)
    return str(value)


def bytes_text(value: bytes) -> str:
    """Returns bytes as text: as UTF-8, or in Base64 where they are not."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return b64encode(value).decode()


def cell_text(value: Any) -> str:
    """Returns a value as text: a string as it is, nothing for ``None``, plain digits, or JSON."""
    if type(value) is str:
        return value
    if value is None:
        return ""
    if type(value) is int or isinstance(value, WrittenNumber):
        return str(value)
    if isinstance(value, Decimal):
        return format(value, "f")
    return json_bytes(value).decode()
