"""What it means that a batch failed its validation, which comes after its creation has succeeded. Pure.

Four kinds: the queue is full (its requests wait for room), the file is too long (its requests go in shorter ones),
some lines are wrong (their rows get the error, the others go again), or everything is wrong alike (a model without
a Batch API): then no row is to blame, and the job stops with the endpoint's words.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MANY = 100
"""Errors on so many lines, all of one code, are not those lines' own: endpoints list no more."""

_QUEUE_FULL = re.compile(
    r"token_limit_exceeded|enqueued[_ ]token|max[_ ]enqueued|too many (?:enqueued|queued)|queue (?:is )?full",
    re.I,
)
_TOO_LONG = re.compile(
    r"too_many_(?:tasks|requests)|too many requests in|(?:file|input)[_ ](?:is )?too[_ ]large", re.I
)
_LIMIT = re.compile(r"limit:?\s*(\d[\d,]*)", re.I)
Error = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class BatchRejection:
    """Why a batch failed.

    Attributes:
        words: What the endpoint said first.
        queue_full: There was no room for its tokens.
        limit_tokens: How many may be queued, where the endpoint says so.
        too_long: The file has more lines or bytes than the endpoint takes.
        lines: Line, from 0, to what is wrong with it, where the others are not to blame.
        systemic: No row is to blame.
    """

    words: str
    queue_full: bool = False
    limit_tokens: int | None = None
    too_long: bool = False
    lines: Mapping[int, Error] | None = None
    systemic: bool = False


def read(errors: Sequence[Error], requests: int, *, answered: bool) -> BatchRejection:
    """Reads the errors of a failed batch.

    Args:
        errors: The objects of ``errors.data``.
        requests: Lines of its file.
        answered: Whether the job has any answer: then a batch of bad rows is no wrong setting.
    """
    said = [f"{error.get('code') or ''}: {error.get('message') or ''}".strip(": ") for error in errors]
    words = said[0] if said else "no reason given"
    if full := next((text for text in said if is_queue_full(text)), None):
        found = _LIMIT.search(full)
        limit = int(found[1].replace(",", "")) if found else None
        return BatchRejection(words=full, queue_full=True, limit_tokens=limit)
    if requests > 1 and (long := next((text for text in said if _TOO_LONG.search(text)), None)):
        return BatchRejection(words=long, too_long=True)
    lines = {line - 1: error for error in errors if (line := _line(error)) is not None and line <= requests}
    alike = len({error.get("code") for error in errors}) == 1
    if not lines or (alike and (len(lines) >= MANY or (len(lines) == requests and not answered))):
        return BatchRejection(words=words, systemic=True)
    return BatchRejection(words=words, lines=lines)


def is_queue_full(text: str) -> bool:
    """Whether an error says that no more tokens may be queued now."""
    return _QUEUE_FULL.search(text) is not None


def _line(error: Error) -> int | None:
    line = error.get("line")
    return line if isinstance(line, int) and not isinstance(line, bool) and line >= 1 else None
