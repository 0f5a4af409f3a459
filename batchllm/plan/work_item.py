"""A row's request on the road, and what the road needs of others for it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from batchllm.answer import Reader
from batchllm.budget.budget import NOTHING, Amount
from batchllm.journal import State
from batchllm.limiter import Cost
from batchllm.records import Answer, ChatRequest, Failure, Response


@dataclass(slots=True, eq=False)
class WorkItem:
    """A row's request on its way to an end, within one run.

    Attributes:
        request: What is sent; replaced when an answer is asked for once more.
        request_id: The journal's name for it.
        reader: Reads its answer.
        earlier: Attempts of earlier runs, for the ``attempts`` column.
        attempts: Attempts of this run that count against ``max_attempts``.
        possibly_billed: How many of them may have been paid without an answer.
        reasked: How many times an answer that did not validate was asked for again.
        sent: Whether it has left at least once.
        sent_at: When its last attempt left, in the loop's time.
        ordinal: Which of several equal requests it is, from 0.
        reserved: What the budget has set aside for the attempt in flight.
    """

    request: ChatRequest
    request_id: int
    reader: Reader
    earlier: int = 0
    attempts: int = 0
    possibly_billed: int = 0
    reasked: int = 0
    sent: bool = False
    sent_at: float = 0.0
    ordinal: int = 0
    reserved: Amount = field(default=NOTHING)

    @property
    def cost(self) -> Cost:
        """What its request takes of the limits."""
        return Cost(self.request.prompt_tokens, self.request.max_tokens)


class ChatSender(Protocol):
    """What the road needs of a client."""

    async def send(self, request: ChatRequest) -> Response | Failure:
        """Sends one request; every outcome is data."""


Settled = Callable[[WorkItem, Answer, State], None]
Reask = Callable[[WorkItem, Answer], ChatRequest | None]
