"""A turn of a conversation: a request with what was said before it."""

from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from hashlib import sha256
from typing import Any

from batchllm.flows.asking import whole
from batchllm.flows.flow import After, Ask, Flow, History, Unsent
from batchllm.records import Answer, Row
from batchllm.request import RequestBuilder, Unsendable
from batchllm.template import to_json

BROKEN = "conversation"
"""The reason of a turn that was not sent because an earlier turn has no answer; the next run tries it again."""


def turn(
    builder: RequestBuilder,
    row: Row,
    name: str,
    answered: Callable[[Ask], Flow],
) -> Flow:
    """Waits for the turn before, and asks with its history.

    The key of a turn is the hash of the conversation's name, the key of the turn before with its answer, and the turn's
    own request. With the request alone, conversations that begin alike (``Hello``) would share answers by their order
    in the file; and to hash the whole request takes a time that grows with the square of the turns.

    Args:
        builder: Makes requests.
        row: The turn.
        name: The conversation.
        answered: Makes the flow of a request.
    """
    history: History = yield After(name)
    own = whole(builder, row)
    if history.broken_by is not None:
        raise Unsent(Unsendable(row.index, broken(history.broken_by), BROKEN))
    said_before = name.encode("utf-8", "backslashreplace") + b"\0" + history.key
    key = history.turn_key or sha256(own.identity + said_before).digest()[:16]
    request = own.request
    if history.key:
        request = partial(builder.build, row, history.messages, history.tokens)
    return (yield from answered(own._replace(identity=key, request=request)))


def said(history: History, builder: RequestBuilder, row: Row, key: bytes, answer: Answer) -> None:
    """Adds a turn and its answer to the history.

    Args:
        history: Of its conversation.
        builder: Makes the turn's messages.
        row: The turn.
        key: Its key.
        answer: Its answer.
    """
    message = answer_message(answer)
    messages = [*builder.turn(row), message]
    history.messages += messages
    history.tokens += builder.count(messages)
    history.key = key + to_json(message).encode("utf-8", "surrogatepass")


def answer_message(answer: Answer) -> dict[str, Any]:
    """Returns an answer as a message for the later turns: its visible text and its tool calls."""
    message: dict[str, Any] = {"role": "assistant", "content": answer.text}
    if answer.tool_calls:
        message |= {"content": answer.text or None, "tool_calls": answer.tool_calls}
    return message


def conversation_of(row: Row, column: str) -> str | None:
    """Returns the conversation of a row; ``None`` if its cell is empty, so that it stands alone."""
    value = row.values.get(column)
    name = value if isinstance(value, str) else "" if value is None else to_json(value)
    return name if name.strip() else None


def turns_of(rows: Iterable[Row], column: str) -> dict[int, int]:
    """Counts the turns of each conversation with several, by the hash of its name."""
    turns = Counter(hash(conversation_of(row, column)) for row in rows)
    turns.pop(hash(None), None)
    return {name: count for name, count in turns.items() if count > 1}


def broken(number: int) -> str:
    """Returns why a turn is not sent, with the row, from 1, that broke its conversation."""
    return f"not sent: row {number}, an earlier turn of its conversation, has no answer"
