"""Checks, extends and counts lists of messages.

What is equal for all rows comes first, so that an endpoint's prompt cache applies: instructions before the row's
text, an added turn at the end.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from batchllm.errors import did_you_mean
from batchllm.exact import loads
from batchllm.records import Answer, ChatRequest
from batchllm.request.images import Media, image_tokens
from batchllm.request.outcome import InvalidRow, Messages
from batchllm.template import LEADING_ROLES, dumps, to_json

_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
# What the chat format adds to each message and to the whole, by the count in OpenAI's cookbook.
_PER_MESSAGE = 4
_PER_REQUEST = 3


def checked(value: Any, media: Media) -> Messages:
    """Returns a row's own messages with their images as URLs that can be sent.

    Raises:
        InvalidRow: They are not messages of the chat API; the text says which and why.
    """
    if not isinstance(value, list) or not value:
        raise InvalidRow("bad_messages", "messages must be a list with at least one message")
    return [_checked(message, f"messages[{number}]", media) for number, message in enumerate(value)]


def _checked(message: Any, place: str, media: Media) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise InvalidRow("bad_messages", f"{place} is not an object with role and content")
    role = message.get("role")
    if role not in _ROLES:
        hint = did_you_mean(role, _ROLES) if isinstance(role, str) else ""
        raise InvalidRow(
            "bad_messages", f"{place} has the role {role!r}{hint}; the roles are {', '.join(_ROLES)}"
        )
    content = message.get("content")
    if content is None:
        if role == "assistant" and (message.get("tool_calls") or message.get("function_call")):
            return message
        raise InvalidRow("bad_messages", f"{place} ({role}) has no content")
    if role == "tool" and not isinstance(message.get("tool_call_id"), str):
        raise InvalidRow(
            "bad_messages", f"{place} (tool) has no tool_call_id; it says which call this answers"
        )
    if isinstance(content, list):
        return with_media(message, media, place)
    if not isinstance(content, str):
        raise InvalidRow("bad_messages", f"{place} has content that is neither text nor a list of parts")
    return message


def with_media(message: dict[str, Any], media: Media, place: str = "a message") -> dict[str, Any]:
    """Returns the message with its images as URLs that can be sent."""
    parts = []
    for part in message["content"]:
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            raise InvalidRow("bad_messages", f"{place} has a content part that is not an object with a type")
        if part["type"] == "image_url":
            image = part.get("image_url")
            source = image.get("url") if isinstance(image, dict) else image
            if not isinstance(source, str):
                raise InvalidRow("bad_messages", f"{place} has an image without a url")
            url = media.url(source)
            part = {**part, "image_url": {**image, "url": url} if isinstance(image, dict) else {"url": url}}
        parts.append(part)
    return {**message, "content": parts}


def with_images(messages: Messages, parts: Sequence[Mapping[str, Any]]) -> Messages:
    """Returns the messages with image parts behind the text of the last user message."""
    for position in range(len(messages) - 1, -1, -1):
        message = messages[position]
        if message["role"] == "user":
            content = message["content"]
            before = [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
            return [
                *messages[:position],
                {**message, "content": [*before, *parts]},
                *messages[position + 1 :],
            ]
    return [*messages, {"role": "user", "content": list(parts)}]


def with_instructions(messages: Messages, instructions: str) -> Messages:
    """Returns messages with the instructions at the end of their leading system message, or as a new one."""
    first, *others = messages
    if first["role"] not in LEADING_ROLES:
        return [{"role": "system", "content": instructions}, *messages]
    content = first["content"]
    if isinstance(content, str):
        content = f"{content}\n\n{instructions}"
    else:
        content = [*content, {"type": "text", "text": instructions}]
    return [{**first, "content": content}, *others]


def own_start(messages: Sequence[Mapping[str, Any]]) -> int:
    """Returns where a row's own turn begins in messages that it brought: after the leading system messages."""
    for position, message in enumerate(messages):
        if message["role"] not in LEADING_ROLES:
            return position
    return len(messages)


def last_user(messages: Sequence[Mapping[str, Any]]) -> int:
    """Returns where a row's own turn begins in a template: at its last user message, behind the examples."""
    return max(
        (number for number, message in enumerate(messages) if message["role"] == "user"),
        default=len(messages),
    )


def reask(request: ChatRequest, answer: Answer, count: Callable[[str], int] | None = None) -> ChatRequest:
    """Returns the request that asks again for an answer that does not validate, with the validator's message.

    Args:
        request: What was sent.
        answer: What came, with ``text`` and ``error``.
        count: Counts tokens, where somebody needs them.
    """
    body = loads(request.body)
    complaint = f"This cannot be used: {answer.error}. Answer again with nothing but JSON that is right."
    body["messages"] += [
        {"role": "assistant", "content": answer.text},
        {"role": "user", "content": complaint},
    ]
    added = 0 if count is None else count(answer.text) + count(complaint) + 8
    return request._replace(body=dumps(body), prompt_tokens=request.prompt_tokens + added)


class TokenCount:
    """Counts the tokens of messages.

    Args:
        count: Counts a text.
    """

    def __init__(self, count: Callable[[str], int]) -> None:
        self._count = count
        # What stands before the last message is mostly the same in all rows: instructions, tools, schema, examples.
        self._often = lru_cache(256)(count)

    def prompt(self, messages: Messages, parameters: Mapping[str, Any]) -> int:
        """Counts the tokens of messages, tools and schema."""
        total = _PER_REQUEST
        for name in ("tools", "response_format"):
            if name in parameters:
                total += self._often(to_json(parameters[name]))
        last = len(messages) - 1
        for number, message in enumerate(messages):
            content = message.get("content")
            total += _PER_MESSAGE
            if isinstance(content, str):
                total += self._often(content) if number < last else self._count(content)
            elif isinstance(content, list):
                for part in content:
                    if part.get("type") == "image_url":
                        total += image_tokens(part)
                    elif isinstance(part.get("text"), str):
                        total += self._count(part["text"])
        return total
