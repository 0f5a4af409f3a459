"""JSON with integers of any length: the fast parser where it is exact, the standard library elsewhere.

``orjson`` reads an integer beyond 64 bits as a float, so a tracking number of 22 digits loses most of them.
"""

import json
import re
from typing import Any

import orjson

_LONG = re.compile(r"\d{19}", re.ASCII)
_LONG_BYTES = re.compile(rb"\d{19}")


def has_long_number(text: bytes | str) -> bool:
    """Returns whether a text may hold an integer beyond 64 bits."""
    return (_LONG.search(text) if isinstance(text, str) else _LONG_BYTES.search(text)) is not None


def loads(text: bytes | str) -> Any:
    """Parses JSON and keeps every digit of its integers.

    Raises:
        ValueError: This is not JSON, or an integer has more digits than Python reads (4,300).
        RecursionError: It is nested too deeply for the standard library.
    """
    return json.loads(text) if has_long_number(text) else orjson.loads(text)


def parse_json(body: bytes | str) -> Any:
    """Parses JSON as leniently as endpoints need: a byte order mark, NaN, invalid UTF-8, lone surrogates.

    Integers in answers and tool calls keep all their digits. A lone surrogate becomes U+FFFD, so that every text
    can be written as UTF-8.

    Raises:
        ValueError: This is not JSON, or it is nested too deeply.
    """
    # Of a whole response only tool calls hold numbers that matter, and a search takes longer than the parser.
    exact = isinstance(body, str) or b"tool_calls" in body
    if not (exact and has_long_number(body)):
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError:
            pass
    text = body if isinstance(body, str) else body.decode("utf-8-sig", "replace")
    try:
        return mended(json.loads(text))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def encodable(text: str) -> str:
    """Returns a text that UTF-8 can hold: U+FFFD stands for half of a surrogate pair."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def mended(value: Any) -> Any:
    """Returns a JSON value whose texts UTF-8 can hold; see ``encodable``."""
    if isinstance(value, str):
        return encodable(value)
    if isinstance(value, dict):
        return {mended(key): mended(item) for key, item in value.items()}
    if isinstance(value, list):
        return [mended(item) for item in value]
    return value
