"""Lists of messages: checked where a row brings its own, completed, counted."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from batchllm.request.images import Media, image_tokens
from batchllm.request.outcome import InvalidRow
from batchllm.template import did_you_mean, to_json

Messages = list[dict[str, Any]]

_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_LEADING = ("system", "developer")
# What the chat format adds to each message and to the whole, by the count in OpenAI's cookbook.
_PER_MESSAGE = 4
_PER_REQUEST = 3


def checked(value: Any, media: Media) -> Messages:
    """A row's own messages as they are, with images fit to be sent.

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
    """The message with its image parts made fit to be sent."""
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
    """The messages with image parts behind the text of the last user message."""
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


def own_start(messages: Sequence[Mapping[str, Any]]) -> int:
    """Where a row's own turn begins in messages that it brought: after those that set the scene."""
    for position, message in enumerate(messages):
        if message["role"] not in _LEADING:
            return position
    return len(messages)


def last_user(messages: Sequence[Mapping[str, Any]]) -> int:
    """Where a row's own turn begins in a template: its last user message; what stands before are examples."""
    return max(
        (number for number, message in enumerate(messages) if message["role"] == "user"),
        default=len(messages),
    )


class TokenCount:
    """Counts the tokens of messages.

    Args:
        count: Counts a text.
    """

    def __init__(self, count: Callable[[str], int]) -> None:
        self._count = count
        self._fixed: dict[str, int] = {}  # system messages, tools and schemas, mostly the same

    def _often(self, text: str) -> int:
        known = self._fixed.get(text)
        if known is None:
            known = self._count(text)
            if len(self._fixed) < 64:
                self._fixed[text] = known
        return known

    def prompt(self, messages: Messages, parameters: Mapping[str, Any]) -> int:
        """Tokens of the prompt that messages, tools and schema make."""
        total = _PER_REQUEST
        for name in ("tools", "response_format"):
            if name in parameters:
                total += self._often(to_json(parameters[name]))
        for message in messages:
            content = message.get("content")
            total += _PER_MESSAGE
            if isinstance(content, str):
                total += self._often(content) if message["role"] in _LEADING else self._count(content)
            elif isinstance(content, list):
                for part in content:
                    if part.get("type") == "image_url":
                        total += image_tokens(part)
                    elif isinstance(part.get("text"), str):
                        total += self._count(part["text"])
        return total
