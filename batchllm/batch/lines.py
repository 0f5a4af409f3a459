"""Lines of the Batch API's files: writes a request's line, reads a result's line.

A result's body is kept as the bytes that the endpoint wrote, so the journal holds what it would hold in online mode.
That takes a scanner for members, because a parser would not return the bytes. No line raises.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from batchllm.records import Failure, FailureKind, Paid, Response

UNWORKED = re.compile(r"(?:^|_)(?:expired|cancell?ed)(?:$|_)", re.I)
"""Codes of requests that were never processed: not billed, to be sent again."""

_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=str)


class ResultLine(NamedTuple):
    """A line of a file of results.

    Attributes:
        number: The line of the request that it answers, from 0.
        outcome: The request's outcome.
    """

    number: int
    outcome: Response | Failure


def request_line(name: str, number: int, url: str, body: bytes) -> bytes:
    """Returns the line of a chat request; its ``custom_id`` is ``name-number``, unique everywhere."""
    start = f'{{"custom_id":"{name}-{number}","method":"POST","url":"{url}","body":'
    return start.encode() + body + b"}\n"


def read_line(line: bytes, name: str) -> ResultLine | str:
    """Reads a line of an output or error file.

    Args:
        line: The line.
        name: The batch's name, which every ``custom_id`` starts with.

    Returns:
        The result; or why there is none: ``unreadable``, ``unknown``.
    """
    try:
        members = _members(line.decode("utf-8", "surrogateescape"))
        custom_id = _value(members.get("custom_id"))
        response = members.get("response", "")
        inner = _members(response) if response.startswith("{") else None
        error = _value(members.get("error"))
    except (ValueError, RecursionError):
        return "unreadable"
    start, _, number = custom_id.rpartition("-") if isinstance(custom_id, str) else ("", "", "")
    if start != name or not (number.isascii() and number.isdigit()):
        return "unknown"
    if inner is None:
        return ResultLine(int(number), _without_response(error, members.get("error", "")))
    request_id = _value(inner.get("request_id"))
    headers = {"x-request-id": request_id} if isinstance(request_id, str) else {}
    body = inner.get("body", "").encode("utf-8", "surrogateescape")
    return ResultLine(
        int(number), Response(_status(_value(inner.get("status_code")), 200), headers, body, 0.0)
    )


def error_response(error: Mapping[str, Any]) -> Response:
    """Makes a validation error of a line the refusal that the request would have got in online mode."""
    return Response(400, {}, json.dumps({"error": dict(error)}, default=str).encode(), 0.0)


def _without_response(error: Any, raw: str) -> Response | Failure:
    """Returns the outcome of a line with an ``error`` instead of a response, or with neither."""
    if not error:
        return Failure(FailureKind.NO_RESULT, "the batch has a line without a response", Paid.MAYBE, 0.0)
    facts = error if isinstance(error, dict) else {}
    code = str(facts.get("code") or "")
    message = str(facts.get("message") or code or error)
    if UNWORKED.search(code):
        return Failure(FailureKind.UNSENT, f"{message} ({code})", Paid.NO, 0.0)
    status = _status(code, 400 if "invalid" in code else 500)
    return Response(status, {}, f'{{"error":{raw}}}'.encode("utf-8", "surrogateescape"), 0.0)


def _status(value: Any, default: int) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and 100 <= int(value[:4]) <= 599:
        return int(value)
    return default


def _value(raw: str | None) -> Any:
    return None if raw is None else _DECODER.decode(raw)


def _members(text: str) -> dict[str, str]:
    """Returns the members of a JSON object, each value as it is written.

    Raises:
        ValueError: The text does not begin with an object.
    """
    at = _skip_space(text, 0)
    if text[at : at + 1] != "{":
        raise ValueError("no object")
    members: dict[str, str] = {}
    at = _skip_space(text, at + 1)
    while text[at : at + 1] != "}":
        key, at = _DECODER.raw_decode(text, at)
        at = _skip_space(text, at)
        if not isinstance(key, str) or text[at : at + 1] != ":":
            raise ValueError("no member")
        start = _skip_space(text, at + 1)
        _, end = _DECODER.raw_decode(text, start)
        members[key] = text[start:end]
        at = _skip_space(text, end)
        if text[at : at + 1] == ",":
            at = _skip_space(text, at + 1)
        elif text[at : at + 1] != "}":
            raise ValueError("no end")
    return members


def _skip_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None, "the pattern matches the empty string"
    return found.end()
