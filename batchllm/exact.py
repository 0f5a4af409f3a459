"""JSON with integers of any length: the fast parser where it is exact, the standard library where it is not.

``orjson`` reads an integer beyond 64 bits as a float, so a tracking number of 22 digits loses most of them.
"""

import json
import re
from typing import Any

import orjson

_LONG = re.compile(r"\d{19}", re.ASCII)
_LONG_BYTES = re.compile(rb"\d{19}")


def has_long_number(text: bytes | str) -> bool:
    """Whether a text may hold an integer beyond 64 bits."""
    return (_LONG.search(text) if isinstance(text, str) else _LONG_BYTES.search(text)) is not None


def loads(text: bytes | str) -> Any:
    """What JSON says, with every digit of its integers.

    Raises:
        ValueError: This is not JSON, or an integer has more digits than Python reads (4,300).
        RecursionError: It is nested too deeply for the standard library.
    """
    return json.loads(text) if has_long_number(text) else orjson.loads(text)
