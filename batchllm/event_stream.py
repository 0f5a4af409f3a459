"""Reads the body of a reply: JSON, or server-sent events though no stream was asked for.

Some gateways always stream. Their events are chunks of Chat Completions; joined they are the completion that one reply
would have been. Format: WHATWG HTML, "Server-sent events", and OpenAI's ``chat.completion.chunk``.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from batchllm.exact import parse_json

STREAM_CUT = "stream_cut"
"""The code of the error that stands for a stream without an end."""

_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")
_JOINED = ("content", "reasoning_content", "reasoning", "refusal")
_DONE = "[DONE]"


@lru_cache(maxsize=1)  # a reply is judged, then read
def parse_reply(body: bytes) -> Any:
    """Parses the body of a reply; server-sent events become the completion that their chunks make.

    Whoever calls must not change what it returns: the same body may be asked for again.

    Raises:
        ValueError: It is neither JSON nor a stream of events.
    """
    try:
        return parse_json(body)
    except ValueError:
        if not body.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(_FIELDS):
            raise
        return _joined(body.decode("utf-8-sig", "replace"))


def _events(text: str) -> Iterator[str]:
    """Yields the data of each event."""
    data: list[str] = []
    for line in [*text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), ""]:
        if line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
        elif not line and data:
            yield "\n".join(data)
            data = []


def _joined(text: str) -> Any:
    whole: dict[str, Any] = {}
    choice: dict[str, Any] = {}
    message: dict[str, Any] = {}
    calls: dict[Any, dict[str, Any]] = {}
    ended = False
    for data in _events(text):
        if data.strip() == _DONE:
            ended = True
            continue
        for chunk in _chunks(data):
            whole |= {name: value for name, value in chunk.items() if name != "choices" and value is not None}
            for part in _first_choice(chunk):
                choice |= {name: value for name, value in part.items() if value is not None}
                delta = part.get("delta")
                if isinstance(delta, dict):
                    _add(message, calls, delta)
                elif isinstance(part.get("text"), str):  # the older completions
                    _add(message, calls, {"content": part["text"]})
    if not whole and not choice:
        raise ValueError("the events hold no JSON")
    if not choice:
        return whole
    if calls:
        message["tool_calls"] = list(calls.values())
    full = choice.get("message")
    choice["message"] = {**full, **message} if isinstance(full, dict) else message
    if not ended and choice.get("finish_reason") is None and not whole.get("error"):
        whole["error"] = {"message": "the stream of events ended before the answer did", "code": STREAM_CUT}
    return whole | {"choices": [choice]}


def _chunks(data: str) -> Iterator[dict[str, Any]]:
    """Yields the objects of an event; some servers leave out the blank line between events."""
    try:
        parsed = [parse_json(data)]
    except ValueError:
        parsed = []
        for line in data.split("\n"):
            try:
                parsed.append(parse_json(line))
            except ValueError:
                continue
    yield from (chunk for chunk in parsed if isinstance(chunk, dict))


def _first_choice(chunk: dict[str, Any]) -> Iterator[dict[str, Any]]:
    choices = chunk.get("choices")
    for part in choices if isinstance(choices, list) else ():
        if isinstance(part, dict) and part.get("index", 0) in (0, None):
            yield part


def _add(message: dict[str, Any], calls: dict[Any, dict[str, Any]], delta: dict[str, Any]) -> None:
    """Adds what one chunk brings to the message and its tool calls."""
    for name, value in delta.items():
        if name == "tool_calls":
            for position, part in enumerate(value if isinstance(value, list) else ()):
                if isinstance(part, dict):
                    _add_call(calls, part, position)
        elif name in _JOINED and isinstance(value, str):
            before = message.get(name)
            message[name] = before + value if isinstance(before, str) else value
        elif name == "content" and isinstance(value, list):
            before = message.get(name)
            message[name] = [*before, *value] if isinstance(before, list) else value
        elif value is not None:
            message[name] = value


def _add_call(calls: dict[Any, dict[str, Any]], part: dict[str, Any], position: int) -> None:
    index = part.get("index")
    key: Any = (
        index if isinstance(index, int) else part.get("id") if isinstance(part.get("id"), str) else position
    )
    call = calls.setdefault(key, {})
    function = part.get("function")
    call |= {name: value for name, value in part.items() if name not in ("index", "function") and value}
    if not isinstance(function, dict):
        return
    whole = call.setdefault("function", {})
    for name, value in function.items():
        before = whole.get(name)
        if name == "arguments" and isinstance(value, str) and isinstance(before, str):
            whole[name] = before + value
        elif value is not None and not (name == "name" and before):
            whole[name] = value
