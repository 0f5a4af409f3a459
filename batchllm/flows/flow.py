"""What flows yield, receive and raise."""

import re
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, NamedTuple

from batchllm.answer import Reader
from batchllm.records import Answer, ChatRequest, Row
from batchllm.request import Skipped, Unsendable

_NUMBERS = re.compile(r"/\d+")
_REASK = re.compile(r"(^|/)reask$")


class Ask(NamedTuple):
    """A request of a flow.

    Attributes:
        path: Its name in the flow: ``topic``, ``sample/2``, ``reask/1``; empty where a row has one request.
        identity: What makes it this request and no other. Of a row's first request, its key: 16 bytes, a hash of the
            body and of whatever else of the row the later requests read. Of a later one, its body, or less where the
            rest follows from the requests before it.
        reader: Reads its answer.
        request: What is sent; or a function that builds it, or returns why it cannot be sent, and is called only if
            there is no answer yet.
        body_key: Of a first request, the hash of its body, where ``identity`` is made of more.
        again: An answer that does not validate is re-asked.
        model: The model that is asked; empty where it is the row's.
    """

    path: str
    identity: bytes
    reader: Reader
    request: ChatRequest | Callable[[], ChatRequest | Skipped | Unsendable]
    body_key: bytes | None = None
    again: bool = False
    model: str = ""

    def built(self) -> ChatRequest:
        """Returns the request.

        Raises:
            Unsent: It cannot be sent.
        """
        return self.request if isinstance(self.request, ChatRequest) else sendable(self.request())


class Kept(NamedTuple):
    """A value that is computed once in the life of a job, and then read from the journal.

    Attributes:
        name: What it is: ``cuts``, ``text``.
        subject: What it is computed from, or a hash of that; with the name, it identifies the value.
        compute: Computes it; raises ``Unsent`` where the row cannot be sent without it.
    """

    name: str
    subject: bytes
    compute: Callable[[], bytes]

    @property
    def key(self) -> bytes:
        """Identifies the value in the journal."""
        return sha256(self.name.encode() + b"\0" + self.subject).digest()[:16]

    def value(self) -> "bytes | Unsent":
        """Computes it; returns why the row cannot be sent without it, for the flow that waits."""
        try:
            return self.compute()
        except Unsent as unsent:
            return unsent


@dataclass(slots=True, eq=False)
class History:
    """What was said in a conversation before a turn.

    Attributes:
        messages: Messages of the earlier turns, and their answers.
        tokens: Tokens of these.
        key: The key of the turn before, and its answer; empty before the first turn.
        broken_by: The row, from 1, whose turn has no answer.
        turn_key: The key of the turn itself, for a replay without the turns before it.
    """

    messages: list[Mapping[str, Any]] = field(default_factory=list)
    tokens: int = 0
    key: bytes = b""
    broken_by: int | None = None
    turn_key: bytes | None = None


class After(NamedTuple):
    """Waits for the turn before, in the conversation of that name."""

    conversation: str


Step = Ask | Sequence[Ask] | Kept | After
Flow = Generator[Step, Any, Answer]
"""A flow of one row; see the package."""

SlowValues = Callable[[Row], Generator[Kept, bytes, None]]
"""Yields the kept values of a row that take long, and receives each; they may be computed in another thread."""


class RequestFailed(Exception):
    """A request has no answer that can be used.

    Attributes:
        answers: The answers of the requests that were yielded together, the failed ones included, in their order.
        path: The path of the first that failed.
        answer: Its answer, with ``error``.
        given_up: It has no reply; the next run tries it again.
    """

    def __init__(
        self, answers: Sequence[Answer], path: str, answer: Answer, *, given_up: bool = False
    ) -> None:
        super().__init__(path, answer.error)
        self.answers = tuple(answers)
        self.path = path
        self.answer = answer
        self.given_up = given_up


class Unsent(Exception):
    """A row, or a later request of it, cannot be sent.

    Attributes:
        outcome: Why.
    """

    def __init__(self, outcome: Skipped | Unsendable) -> None:
        super().__init__(outcome)
        self.outcome = outcome


def sendable(built: ChatRequest | Skipped | Unsendable) -> ChatRequest:
    """Returns a request that was built.

    Raises:
        Unsent: It cannot be sent.
    """
    if not isinstance(built, ChatRequest):
        raise Unsent(built)
    return built


def later_key(root_id: int, ask: Ask) -> bytes:
    """Returns the key of a later request, by the journal's number of the row's first request.

    The number stays the same where the first request gets another key by a change of the job; so the later requests
    stay its own.
    """
    return sha256(b"%d\0%b\0%b" % (root_id, ask.path.encode(), ask.identity)).digest()[:16]


def step_of(path: str) -> str:
    """Returns the step that a path belongs to: without numbers and re-asks."""
    return _REASK.sub("", _NUMBERS.sub("", path)) if path else path
