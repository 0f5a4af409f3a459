"""Lines of the two kinds of file, pure: a request on its way into one, an outcome on its way out of the other.

A result's body is kept as the bytes that the endpoint wrote, cut out of its line, so that it is in the journal
what it would have been online. Nothing here raises, whatever a line holds.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from batchllm.records import Failure, FailureKind, Paid, Response

UNWORKED = re.compile(r"(?:^|_)(?:expired|cancell?ed)(?:$|_)", re.I)
"""Codes of requests that a batch never came to: not paid, to be sent again."""

_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=str)


class ResultLine(NamedTuple):
    """A line of a file of results.

    Attributes:
        number: The line of the request that it answers, from 0.
        outcome: What came.
    """

    number: int
    outcome: Response | Failure


def request_line(name: str, number: int, url: str, body: bytes) -> bytes:
    """The line that asks for one chat completion; its ``custom_id`` is ``name-number``, unique everywhere."""
    start = f'{{"custom_id":"{name}-{number}","method":"POST","url":"{url}","body":'
    return start.encode() + body + b"}\n"


def read_line(line: bytes, name: str) -> ResultLine | str:
    """Reads a line of an output or error file.

    Args:
        line: The line.
        name: The batch's name, which every ``custom_id`` starts with.

    Returns:
        The result, or why there is none, in one word: ``unreadable``, ``unknown``.
    """
    text = line.decode("utf-8", "surrogateescape")
    try:
        spans = _members(text, 0)
        custom_id = _value(text, spans, "custom_id")
        inner = _members(text, spans["response"][0]) if _starts_object(text, spans, "response") else None
        error = _value(text, spans, "error")
    except (ValueError, RecursionError):
        return "unreadable"
    start, _, number = custom_id.rpartition("-") if isinstance(custom_id, str) else ("", "", "")
    if start != name or not (number.isascii() and number.isdigit()):
        return "unknown"
    if inner is None:
        return ResultLine(int(number), _without_response(text, spans, error))
    status = _value(text, inner, "status_code")
    request_id = _value(text, inner, "request_id")
    headers = {"x-request-id": request_id} if isinstance(request_id, str) else {}
    body = _raw(text, inner["body"]) if "body" in inner else b""
    return ResultLine(int(number), Response(_status(status, 200), headers, body, 0.0))


def error_response(error: Mapping[str, Any]) -> Response:
    """What validation says about a line, as the refusal that the request would have met by itself."""
    return Response(400, {}, json.dumps({"error": dict(error)}, default=str).encode(), 0.0)


def _without_response(text: str, spans: dict[str, tuple[int, int]], error: Any) -> Response | Failure:
    """A request that never reached the model, or whose answer is not there."""
    if not error:
        return Failure(FailureKind.NO_RESULT, "the batch has a line without a response", Paid.MAYBE, 0.0)
    facts = error if isinstance(error, dict) else {}
    code = str(facts.get("code") or "")
    message = str(facts.get("message") or code or error)
    if UNWORKED.search(code):
        return Failure(FailureKind.UNSENT, f"{message} ({code})", Paid.NO, 0.0)
    status = _status(code, 400 if "invalid" in code else 500)
    return Response(status, {}, b'{"error":' + _raw(text, spans["error"]) + b"}", 0.0)


def _status(value: Any, default: int) -> int:
    """An HTTP status out of a number or its digits."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and 100 <= int(value[:4]) <= 599:
        return int(value)
    return default


def _members(text: str, at: int) -> dict[str, tuple[int, int]]:
    """Where the value of each member of an object begins and ends.

    Raises:
        ValueError: There is no object at ``at``.
    """
    at = _after_space(text, at)
    if text[at : at + 1] != "{":
        raise ValueError("no object")
    spans: dict[str, tuple[int, int]] = {}
    at = _after_space(text, at + 1)
    while text[at : at + 1] != "}":
        key, at = _DECODER.raw_decode(text, at)
        at = _after_space(text, at)
        if not isinstance(key, str) or text[at : at + 1] != ":":
            raise ValueError("no member")
        start = _after_space(text, at + 1)
        _, end = _DECODER.raw_decode(text, start)
        spans[key] = (start, end)
        at = _after_space(text, end)
        if text[at : at + 1] == ",":
            at = _after_space(text, at + 1)
        elif text[at : at + 1] != "}":
            raise ValueError("no end")
    return spans


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None, "the pattern matches nothing, too"
    return found.end()


def _starts_object(text: str, spans: dict[str, tuple[int, int]], name: str) -> bool:
    return name in spans and text[spans[name][0]] == "{"


def _value(text: str, spans: dict[str, tuple[int, int]], name: str) -> Any:
    return _DECODER.raw_decode(text, spans[name][0])[0] if name in spans else None


def _raw(text: str, span: tuple[int, int]) -> bytes:
    return text[slice(*span)].encode("utf-8", "surrogateescape")
