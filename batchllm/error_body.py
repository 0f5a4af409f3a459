"""Reads error bodies in every dialect that OpenAI-compatible endpoints use.

OpenAI ``{"error": {message, type, code}}`` · Azure the same with ``innererror`` · Anthropic ``{"type": "error",
"error": {…}}`` · Ollama ``{"error": "…"}`` · FastAPI and vLLM ``{"detail": …}`` · Mistral ``{"message", "code"}`` ·
Gemini ``[{"error": {status, details}}]`` · OpenRouter with the provider's words in ``metadata.raw`` and its headers
in ``metadata.headers`` · HTML pages or plain text from proxies.
"""

import html
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from batchllm.exact import parse_json

_LONGEST_MESSAGE = 2_000
_LONGEST_WORD = 100
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"<[^>]*>")
_TOO_LONG = re.compile(
    r"context[_ ](?:length|window|size)|maximum context|prompt is too long|too many (?:input )?tokens"
    r"|input is too long|string_above_max",
    re.IGNORECASE,
)
_TOO_LARGE = re.compile(
    r"request too large|payload too large|request entity too large"
    r"|exceeds? the maximum (?:number of )?(?:tokens|request size)",
    re.IGNORECASE,
)
_FILTERED = re.compile(
    r"content[_ ]?(?:filter|policy|management)|responsible\s?ai|moderation|flagged|guardrail|data_inspection|safety",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorBody:
    """What an endpoint says about a failure; an empty string where it says nothing.

    Attributes:
        message: The explanation, at most 2,000 characters.
        code: The error's code as text (``429``, ``insufficient_quota``), with Azure's inner code behind it.
        type: The error's type, or Gemini's status.
        is_json: Whether it comes from a JSON object and not from a page or plain text.
        retry_delays: Gemini's ``retryDelay`` values, as written.
        headers: OpenRouter's copy of the provider's headers, names in lower case.
    """

    message: str = ""
    code: str = ""
    type: str = ""
    is_json: bool = True
    retry_delays: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)

    def row_fault(self, status: int) -> str | None:
        """Returns what is wrong with the row itself, or ``None`` where the error does not blame the row.

        Args:
            status: HTTP status of the response.

        Returns:
            ``context_length``, ``too_large``, ``content_filter`` or ``None``.
        """
        words = f"{self.code} {self.type}"
        if status >= 500:
            return None
        if _TOO_LONG.search(words) or (status in (400, 413, 422) and _TOO_LONG.search(self.message)):
            return "context_length"
        if status == 413 or _TOO_LARGE.search(self.message):
            return "too_large"
        if _FILTERED.search(words) or (status in (400, 403) and _FILTERED.search(self.message)):
            return "content_filter"
        return None


def read_error(body: bytes) -> ErrorBody:
    """Reads the body of a failed response; never raises."""
    try:
        return error_in(parse_json(body))
    except ValueError:
        return ErrorBody(message=_page_text(body), is_json=False)


def error_in(data: Any) -> ErrorBody:
    """Reads an error from a body that is parsed already."""
    if isinstance(data, list):
        data = data[0] if data else {}
    if not isinstance(data, dict):
        return ErrorBody(message=_text(data) if isinstance(data, str) else "", is_json=False)
    error = next((data[name] for name in ("error", "errors", "detail") if data.get(name)), data)
    if isinstance(error, str):
        said = data.get("message") or data.get("error_description") or data.get("detail")
        said = said if isinstance(said, str) else error
        code = _word(data, "code", "statusCode") or (_cut_word(error) if said != error else "")
        return ErrorBody(message=_text(said), code=code, type=_word(data, "type", "error_type"))
    message = _message(error)
    if isinstance(error, list):
        error = error[0]
    if not isinstance(error, dict):
        error = data
    metadata = error.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    raw, inner, details = metadata.get("raw"), error.get("innererror"), error.get("details")
    codes = (_word(error, "code", "statusCode") or _word(data, "code"), _word(inner, "code"))
    return ErrorBody(
        message=_text(": ".join(filter(None, (message, raw)))) if isinstance(raw, str) else message,
        code=" ".join(filter(None, codes)),
        type=_word(error, "type", "status"),
        retry_delays=tuple(
            _text(detail["retryDelay"])
            for detail in (details if isinstance(details, list) else ())
            if isinstance(detail, dict) and isinstance(detail.get("retryDelay"), str)
        ),
        headers=_lower(metadata.get("headers")),
    )


def _message(error: Any) -> str:
    """Finds the explanation in an error object, or joins those of a list of them."""
    for _ in range(8):  # some endpoints nest one error in another
        if not isinstance(error, dict):
            break
        error = next((error[name] for name in ("message", "msg", "detail", "errors") if error.get(name)), "")
    if isinstance(error, list):
        return _text("; ".join(filter(None, map(_field_fault, error[:3]))))
    return _text(error) if isinstance(error, str) else ""


def _field_fault(item: Any) -> str:
    """Reads FastAPI's object for a field that does not fit."""
    if not isinstance(item, dict):
        return item if isinstance(item, str) else ""
    place = item.get("loc")
    said = item.get("msg") or item.get("message")
    steps: Iterable[Any] = place if isinstance(place, list) else ()
    where = ".".join(step if isinstance(step, str) else _cut_word(step) for step in steps)
    return ": ".join(filter(None, (where, said if isinstance(said, str) else "")))


def _word(data: Any, *names: str) -> str:
    """Returns the first of some fields that holds a word or a number."""
    if not isinstance(data, dict):
        return ""
    return next(filter(None, (_cut_word(data.get(name)) for name in names)), "")


def _cut_word(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    try:
        return _text(str(value))[:_LONGEST_WORD]
    except ValueError:  # an integer of more digits than Python writes
        return ""


def _text(text: str) -> str:
    """Returns the text cut, and without lone surrogates, which UTF-8 cannot carry."""
    text = text[:_LONGEST_MESSAGE]
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _page_text(body: bytes) -> str:
    text = body[:4_000].decode("utf-8", "replace")
    title = _TITLE.search(text)
    if title or "<html" in text[:1000].lower():
        text = html.unescape(title.group(1) if title else _TAG.sub(" ", text[:1_000]))
    return text[:_LONGEST_MESSAGE].strip()


def _lower(headers: Any) -> dict[str, str]:
    """Returns headers that a JSON body holds as a response has them; leaves out what is no text or number."""
    if not isinstance(headers, dict):
        return {}
    return {
        name.lower(): str(value)
        for name, value in headers.items()
        if type(value) in (str, float) or (type(value) is int and abs(value) < 10**18)
    }
