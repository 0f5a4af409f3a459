"""Reads error bodies in every dialect that OpenAI-compatible endpoints use.

OpenAI ``{"error": {message, type, code}}`` · Azure the same with ``innererror`` · Anthropic ``{"type": "error",
"error": {…}}`` · Ollama ``{"error": "…"}`` · FastAPI and vLLM ``{"detail": …}`` · Mistral ``{"message", "code"}`` ·
Gemini ``[{"error": {status, details}}]`` · OpenRouter with the provider's words in ``metadata.raw`` and its headers
in ``metadata.headers`` · MiniMax ``{"base_resp": {status_code, status_msg}}`` · DashScope ``{"code", "message"}`` ·
Qianfan ``{"error_code", "error_msg"}`` · Tencent ``{"Response": {"Error": {Code, Message}}}`` · AWS ``{"__type",
"message"}`` · Cloudflare ``{"success": false, "errors": […]}`` · Apigee ``{"fault": {"faultstring"}}`` · TGI
``{"error", "error_type"}`` · RFC 9457 ``{"title", "status", "detail"}`` · HTML pages or plain text from proxies.
"""

import html
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from batchllm.error_words import FILTERED, TOO_LARGE, TOO_LONG, says_too_long, status_meant
from batchllm.event_stream import parse_reply
from batchllm.finish_reason import finish_word

_LONGEST_MESSAGE = 2_000
_LONGEST_WORD = 100
_DEEPEST = 4
_BROKE_OFF = "the endpoint says that it failed while answering (finish_reason error)"
# Names of fields, in lower case without "_" and "-".
_ERRORS = ("error", "errors", "detail", "err", "fault", "exception")
_WRAPPERS = ("baseresp", "response", "output", "result", "data", "header", "status", "meta")
_SAID = (
    "message", "msg", "statusmsg", "errormsg", "errmsg", "errormessage", "errordescription", "statusmessage",
    "faultstring", "detail", "description", "details", "errors", "error", "reason", "title",
)  # fmt: skip
_CODES = (
    "code", "statuscode", "errorcode", "errcode", "errno", "errorno", "retcode", "httpstatus", "httpcode",
)  # fmt: skip
_TYPES = ("type", "errortype", "status", "name")
_DELAYS = {
    "retryafter": "s", "retryafterseconds": "s", "retryafters": "s", "retryafterms": "ms", "estimatedtime": "s",
    "waittime": "s", "waitseconds": "s",
}  # fmt: skip
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"<[^>]*>")


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
            status: HTTP status of the response; of a 2xx, what its error means decides.

        Returns:
            ``context_length``, ``too_large``, ``content_filter`` or ``None``.
        """
        words = f"{self.code} {self.type}"
        if 200 <= status < 300:
            status = status_meant(self.code, self.type, self.message)
        if status == 500:  # Ollama, DeepInfra and others count after they have accepted a request
            return "context_length" if TOO_LONG.search(f"{words} {self.message}") else None
        if status > 500:
            return None
        if TOO_LONG.search(words) or (
            status in (400, 413, 422) and (says_too_long(self.message) or says_too_long(words))
        ):
            return "context_length"
        if status == 413 or TOO_LARGE.search(self.message):
            return "too_large"
        if self.is_json and (  # a proxy's page does not judge a row
            FILTERED.search(words) or (status in (400, 403) and FILTERED.search(self.message))
        ):
            return "content_filter"
        return None


def read_error(body: bytes) -> ErrorBody:
    """Reads the body of a failed response; never raises."""
    try:
        return error_in(parse_reply(body))
    except ValueError:
        return ErrorBody(message=_page_text(body), is_json=False)


def error_within(data: Mapping[str, Any]) -> ErrorBody | None:
    """Returns the error that the body of a 2xx holds in an answer's place; ``None`` where an answer was billed.

    A body with neither choices nor usage is not billed, whatever its shape: the error is what it says.
    """
    choices = data.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if isinstance(choice, dict):
        fault = data.get("error") or choice.get("error")
        if fault or finish_word(choice.get("finish_reason")) == "error":
            return error_in({"error": fault or _BROKE_OFF})
        return None
    if data.get("error"):
        return error_in(data)
    return None if _is_billed(data) else error_in(data)


def _is_billed(data: Mapping[str, Any]) -> bool:
    """Returns whether a body without choices counts tokens, or holds the answer of another protocol."""
    for name in ("usage", "usageMetadata", "usage_metadata"):
        usage = data.get(name)
        counts = usage.values() if isinstance(usage, dict) else ()
        if any(type(count) is int and count > 0 for count in counts):
            return True
    return any(
        isinstance(data.get(name), list) and data[name] for name in ("candidates", "content", "output")
    )


def error_in(data: Any, depth: int = 0) -> ErrorBody:
    """Reads an error from a body that is parsed already."""
    if isinstance(data, list):
        data = data[0] if data else {}
    if not isinstance(data, dict):
        return ErrorBody(message=_text(data) if isinstance(data, str) else "", is_json=False)
    outer = _folded(data)
    error = next((outer[name] for name in _ERRORS if outer.get(name)), data)
    if isinstance(error, bool | int | float):  # {"error": true, "message": …}
        code = _word(outer, *_CODES) or _cut_word(error)
        return ErrorBody(message=_message(data), code=code, type=_word(outer, *_TYPES))
    if isinstance(error, str):
        said = next(filter(None, (_string(outer, name) for name in _SAID)), error)
        code = _word(outer, *_CODES) or (_cut_word(error) if said != error else "")
        return ErrorBody(
            message=_text(said),
            code=code,
            type=_word(outer, "type", "errortype", "exception"),
            retry_delays=_delays(outer),
        )
    message = _message(error)
    if isinstance(error, list):
        error = error[0]
    if not isinstance(error, dict):
        error = data
    if error is data and not message and depth < _DEEPEST:
        inside = (error_in(outer[name], depth + 1) for name in _WRAPPERS if isinstance(outer.get(name), dict))
        found = next((inner for inner in inside if inner.message or inner.type), None)
        if found is not None:
            return found
    return _of_object(error, message, outer if error is not data else {})


def _of_object(error: Mapping[str, Any], message: str, outer: Mapping[str, Any]) -> ErrorBody:
    """Reads the object of an error.

    Args:
        error: The object.
        message: Its explanation.
        outer: What it is in, by folded names; empty where nothing is around it.
    """
    own = _folded(error)
    metadata = own.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    raw, inner, details = metadata.get("raw"), own.get("innererror"), own.get("details")
    codes = (_word(own, *_CODES) or _word(outer, *_CODES), _word(inner, "code"))
    counted, context = own.get("nprompttokens"), own.get("nctx")
    if type(counted) is int and type(context) is int and str(context) not in message:  # llama.cpp
        message = f"{message} ({counted} tokens, and the context has {context})"
    return ErrorBody(
        message=_text(": ".join(filter(None, (message, raw)))) if isinstance(raw, str) else message,
        code=" ".join(filter(None, codes)),
        type=_word(own, *_TYPES),
        retry_delays=(
            *(
                _text(detail["retryDelay"])
                for detail in (details if isinstance(details, list) else ())
                if isinstance(detail, dict) and isinstance(detail.get("retryDelay"), str)
            ),
            *_delays(own),
            *_delays(outer),
        ),
        headers=_lower(metadata.get("headers")),
    )


def _folded(data: Mapping[str, Any]) -> dict[str, Any]:
    """Returns an object by its names in lower case without ``_`` and ``-``; the first of equal names stays."""
    folded: dict[str, Any] = {}
    for name, value in data.items():
        folded.setdefault(name.replace("_", "").replace("-", "").lower(), value)
    return folded


def _string(data: Mapping[str, Any], name: str) -> str:
    value = data.get(name)
    return value if isinstance(value, str) else ""


def _delays(data: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the pauses that an error object names, as durations."""
    found = []
    for name, unit in _DELAYS.items():
        value = data.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e9:
            found.append(f"{value}{unit}")
        elif isinstance(value, str) and len(value) < 64:
            found.append(_text(f"{value}{unit}" if value.isdigit() else value))
    return tuple(found)


def _message(error: Any) -> str:
    """Finds the explanation in an error object, or joins those of a list of them."""
    for _ in range(8):  # some endpoints nest one error in another
        if not isinstance(error, dict):
            break
        own = _folded(error)
        found = next(
            (own[name] for name in _SAID if isinstance(own.get(name), str | dict | list) and own[name]), None
        )
        if found is None:  # {"field": ["what is wrong with it"]}
            return _text("; ".join(f"{name}: {said[0]}" for name, said in error.items() if _is_words(said)))
        error = found
    if isinstance(error, list):
        return _text("; ".join(filter(None, map(_field_fault, error[:3]))))
    return _text(error) if isinstance(error, str) else ""


def _is_words(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], str)


def _field_fault(item: Any) -> str:
    """Reads FastAPI's object for a field that does not fit."""
    if not isinstance(item, dict):
        return item if isinstance(item, str) else ""
    place = item.get("loc")
    said = next(filter(None, (_string(item, name) for name in _SAID)), "")
    steps: Iterable[Any] = place if isinstance(place, list) else ()
    where = ".".join(step if isinstance(step, str) else _cut_word(step) for step in steps)
    return ": ".join(filter(None, (where, said)))


def _word(data: Any, *names: str) -> str:
    """Returns the first of some fields that holds a word or a number."""
    if not isinstance(data, dict):
        return ""
    return next(filter(None, (_cut_word(data.get(name)) for name in names)), "")


def _cut_word(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
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
