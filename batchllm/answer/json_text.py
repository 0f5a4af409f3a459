"""Finds the JSON in a paid answer, leniently, and without inventing anything.

Each step is tried only where the ones before it found nothing:

1. The whole answer, or a fenced block, is JSON. A literal line break or tab within a string is let through.
2. The standard library's decoder, which keeps every digit of an integer, reads a value at each bracket in the text.
3. The text at a bracket is rewritten as JSON: comments and trailing commas go; ``'`` and typographic quotes, bare keys,
   ``True``, ``False``, ``None`` and wrong escapes become JSON's.
4. ``json_repair`` mends missing commas and quotes that are not escaped. It would also guess, so that its result counts
   only if nothing but quotes, commas and blanks differs from the text.

What is cut off is never completed: where a string or bracket that was opened is not closed, there is no JSON. NaN and
infinities are none either.
"""

import json
import math
import re
from typing import Any, NamedTuple

from batchllm.answer.code import fenced_blocks
from batchllm.exact import mended

_MOST_TRIES = 100
_LONGEST_REPAIR = 20_000
_BRACKET = re.compile(r"[{\[]")
# What follows a bracket that opens JSON, and not a remark in brackets.
_OPENS = re.compile(r"""[{\[]\s*["'“{\[]|\{\s*[\w$]+\s*:""")
_TOKEN = re.compile(
    r"""(?P<gap>\s+|//[^\n]*|\#[^\n]*|/\*.*?\*/)
    |(?P<string>"[^"\\]*(?:\\.[^"\\]*)*"|'[^'\\]*(?:\\.[^'\\]*)*'|“[^”]*”)
    |(?P<mark>[{}\[\]:,])
    |(?P<word>[^\s{}\[\]:,"'“/\#]+)
    |(?P<other>[^"'“])""",
    re.DOTALL | re.VERBOSE,
)
_ESCAPE = re.compile(r"""\\(u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|U00[01][0-9a-fA-F]{5}|.)|["]""", re.DOTALL)
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII)
_LITERALS = {"true": "true", "false": "false", "null": "null", "none": "null"}
_NO_NUMBERS = frozenset({"nan", "inf", "infinity"})
_NOT_KEPT = re.compile(r"[\s\"'“”\\,]+")
_NOTHING = object()
_CUT = "it is cut off: a string or a bracket is not closed"


class NotJson(ValueError):
    """The answer holds no JSON."""


class Found(NamedTuple):
    """A JSON value in an answer.

    Attributes:
        value: The value.
        length: How many characters of the text it takes.
        is_last: Nothing but the end of a fence comes after it.
    """

    value: Any
    length: int
    is_last: bool = True


def _refuse(word: str) -> Any:
    raise NotJson(f"{word} is no JSON value")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse(text[:20])


_DECODER = json.JSONDecoder(strict=False, parse_constant=_refuse, parse_float=_finite)


def json_values(text: str) -> list[Found]:
    """Returns the JSON values of an answer in their order: the whole text, or what it holds.

    Raises:
        NotJson: There is none, or one is cut off.
    """
    text = text.lstrip("\ufeff")
    try:
        return [_decoded(text.strip())]
    except NotJson:
        raise
    except (ValueError, RecursionError) as error:
        reason = str(error)
    found = _scanned(text) or _scalars(text)
    if not found:
        raise NotJson(reason)
    return [one._replace(value=mended(one.value)) for one in found]


def unwrapped(value: Any) -> list[Any]:
    """Returns what stands alone within a list, an object or a string of JSON."""
    if isinstance(value, str):
        try:
            return [_decoded(value.strip()).value]
        except (ValueError, RecursionError):
            return []
    if isinstance(value, list | dict) and len(value) == 1:
        return list(value.values() if isinstance(value, dict) else value)
    return []


def _decoded(text: str) -> Found:
    return Found(mended(_DECODER.decode(text)), len(text))


def _scalars(text: str) -> list[Found]:
    """Returns the values of fenced blocks that are a number, a string or a word."""
    found = []
    for _, content in fenced_blocks(text):
        try:
            found.append(_decoded(content.strip()))
        except (ValueError, RecursionError):
            continue
    return found


def _scanned(text: str) -> list[Found]:
    """Returns the values at the brackets of a text."""
    found: list[Found] = []
    at, tries = 0, 0
    while (bracket := _BRACKET.search(text, at)) and tries < _MOST_TRIES:
        start, at = bracket.start(), bracket.end()
        try:
            value, end = _DECODER.raw_decode(text, start)
        except NotJson:
            raise
        except (ValueError, RecursionError):
            tries += 1
            rewritten = _rewritten(text, start)
            if rewritten is None:
                continue
            value, end = rewritten
            at = end
        if value is _NOTHING:
            continue
        if isinstance(value, dict) and not value and end - start < 3 and text[start - 1 : start] == "{":
            continue  # a placeholder of a template
        found.append(Found(value, end - start, not text[end:].strip(" \t\r\n`")))
        at = end
    return found


def _rewritten(text: str, start: int) -> tuple[Any, int] | None:
    """Reads JavaScript's and Python's spelling of a value, or repairs it.

    Returns:
        The value, ``_NOTHING`` where it cannot be read, and its end; ``None`` where the bracket opens no JSON.

    Raises:
        NotJson: It is cut off, or holds a number that is none.
    """
    written: list[str] = []
    depth, at, is_readable = 0, start, True
    while token := _TOKEN.match(text, at):
        at = token.end()
        kind, piece = token.lastgroup, token.group()
        if kind == "gap":
            continue
        if kind == "word" and piece.casefold().lstrip("+-") in _NO_NUMBERS:
            raise NotJson(f"{piece} is no JSON value")
        new = piece if kind == "mark" else _scalar(piece, text, at, is_string=kind == "string")
        is_readable = is_readable and new is not None
        if new in ("}", "]") and written[-1] == ",":
            written.pop()
        depth += (new in ("{", "[")) - (new in ("}", "]"))
        written.append(new or "")
        if depth == 0:
            value = _read("".join(written)) if is_readable else _NOTHING
            if value is _NOTHING and _OPENS.match(text, start):
                value = _repaired(text[start:at])
            return value, at
    if not _OPENS.match(text, start):
        return None
    end = max(text.rfind("}"), text.rfind("]")) + 1
    rest = text[end:].strip(" \t\r\n`")
    value = _NOTHING if rest.count('"') % 2 else _repaired(text[start:end])
    if value is _NOTHING:
        raise NotJson(_CUT)
    return value, end


def _read(written: str) -> Any:
    try:
        return _DECODER.decode(written)
    except NotJson:
        raise
    except (ValueError, RecursionError):
        return _NOTHING


def _scalar(piece: str, text: str, end: int, *, is_string: bool) -> str | None:
    """Returns a string, a word or a bare key as JSON writes it; ``None`` where it is none of these."""
    if is_string:
        return '"' + _ESCAPE.sub(_escape, piece[1:-1]) + '"'
    if _NUMBER.fullmatch(piece):
        return piece
    if re.match(r"\s*:", text[end : end + 50]):
        return json.dumps(piece) if re.fullmatch(r"[\w$.-]+", piece) else None
    return _LITERALS.get(piece.casefold())


def _escape(found: re.Match[str]) -> str:
    sign = found.group(1)
    if sign is None:
        return '\\"'
    if sign[0] in "xU" and len(sign) > 1:
        code = int(sign[1:], 16)
        return json.dumps(chr(code))[1:-1] if code <= 0x10FFFF else "\\" + found.group()
    if len(sign) > 1 or sign in '"\\/bfnrt':
        return found.group()
    return {"'": "'", "\n": ""}.get(sign, "\\\\" + sign)


def _repaired(piece: str) -> Any:
    """Returns what ``json_repair`` makes of a text in brackets, if that keeps every character; else ``_NOTHING``."""
    balanced = all(piece.count(one) == piece.count(other) for one, other in ("{}", "[]"))
    if not piece or not balanced or piece.count('"') % 2 or len(piece) > _LONGEST_REPAIR:
        return _NOTHING
    import json_repair

    try:
        value, notes = json_repair.repair_json(piece, return_objects=True, skip_json_loads=True, logging=True)
        written = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (ValueError, RecursionError, TypeError, IndexError):
        return _NOTHING
    guessed = any("missed the closing" in str(note) for note in notes)
    if guessed or not isinstance(value, dict | list) or written.count('"') != piece.count('"'):
        return _NOTHING
    kept, given = (_NOT_KEPT.sub("", each).casefold() for each in (written, piece))
    return value if kept == given else _NOTHING
