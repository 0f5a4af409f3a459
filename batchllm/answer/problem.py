"""Error bodies: one reading of the many shapes in which endpoints say what is wrong.

OpenAI ``{"error": {message, type, code}}`` · Azure the same with ``innererror`` · Ollama ``{"error": "…"}`` ·
FastAPI ``{"detail": …}`` · Mistral ``{"message", "code"}`` · Gemini ``[{"error": {status}}]`` · OpenRouter with
the provider's own words in ``metadata.raw`` · pages of HTML or plain text from whatever stands between.
"""

import html
import re
from typing import Any, NamedTuple

from batchllm.answer.text import parse_json
from batchllm.printable import one_line

_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"<[^>]*>")
_TOO_LONG = re.compile(
    r"context[_ ](length|window|size)|maximum context|prompt is too long|too many (input )?tokens|input is too long",
    re.IGNORECASE,
)
_TOO_LARGE = re.compile(r"request too large|payload too large|request entity too large", re.IGNORECASE)
_FILTERED = re.compile(
    r"content[_ ]?(filter|policy|management)|responsible\s?ai|moderation|data_inspection|safety",
    re.IGNORECASE,
)


class Problem(NamedTuple):
    """What an endpoint said about a refusal; ``None`` where it did not say."""

    code: str | None
    type: str | None
    message: str


def problem(status: int, body: bytes) -> Problem:
    """The error object of a response in any dialect; never raises.

    Args:
        status: HTTP status, for the message where the body has none.
        body: The body as it came.
    """
    try:
        data = parse_json(body)
    except ValueError:
        return Problem(None, None, _plain_text(body) or f"HTTP {status} without a message")
    found = _of(data)
    return found if found.message else found._replace(message=f"HTTP {status} without a message")


def error_object(data: Any) -> Problem:
    """The same for a body that has been parsed."""
    found = _of(data)
    return found if found.message else found._replace(message="an error without a message")


def reason_of(status: int, found: Problem) -> str:
    """One word for counting: ``content_filter``, ``context_length``, ``too_large`` or ``http_400``."""
    words = " ".join(filter(None, (found.code, found.type)))
    if status < 500:
        if _TOO_LONG.search(words) or (status in (400, 413, 422) and _TOO_LONG.search(found.message)):
            return "context_length"
        if status == 413 or _TOO_LARGE.search(found.message):
            return "too_large"
        if _FILTERED.search(words) or (status in (400, 403) and _FILTERED.search(found.message)):
            return "content_filter"
    return f"http_{status}"


def _of(data: Any) -> Problem:
    if isinstance(data, list):
        data = data[0] if data else {}
    if not isinstance(data, dict):
        return Problem(None, None, one_line(data if isinstance(data, str) else ""))
    inner = data.get("error")
    if isinstance(inner, str) and inner:
        kind = _word(data.get("type")) or _word(data.get("error_type"))
        said = data.get("message") or data.get("error_description") or data.get("detail")
        return Problem(_word(data.get("code")), kind, one_line(said if isinstance(said, str) else inner))
    error = inner if isinstance(inner, dict) else data
    message = error.get("message") or error.get("msg") or error.get("detail") or error.get("errors")
    metadata = error.get("metadata")
    if isinstance(metadata, dict) and isinstance(metadata.get("raw"), str):
        message = f"{message}: {metadata['raw']}" if isinstance(message, str) else metadata["raw"]
    deeper = error.get("innererror")
    code = _word(error.get("code"))
    if isinstance(deeper, dict) and _word(deeper.get("code")):
        code = f"{code} {_word(deeper.get('code'))}" if code else _word(deeper.get("code"))
    return Problem(code, _word(error.get("type")) or _word(error.get("status")), _message(message))


def _message(value: Any) -> str:
    if isinstance(value, list):  # FastAPI: one object for each field that does not fit
        parts = []
        for item in value[:3]:
            if isinstance(item, dict):
                place = item.get("loc")
                where = ".".join(str(step) for step in place) + ": " if isinstance(place, list) else ""
                parts.append(f"{where}{item.get('msg') or item.get('message') or ''}")
            elif isinstance(item, str):
                parts.append(item)
        return one_line("; ".join(parts))
    if isinstance(value, dict):
        return _message(value.get("message") or value.get("detail"))
    return one_line(value) if isinstance(value, str) else ""


def _word(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    try:
        return one_line(str(value))[:100] or None
    except ValueError:  # an integer of more digits than Python writes
        return None


def _plain_text(body: bytes) -> str:
    text = body[:4_000].decode("utf-8", "replace")
    title = _TITLE.search(text)
    if title or "<html" in text[:1000].lower():
        text = html.unescape(title.group(1) if title else _TAG.sub(" ", text[:1_000]))
    return one_line(text)
