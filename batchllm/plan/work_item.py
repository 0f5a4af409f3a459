"""A request within one run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from batchllm.answer import Reader
from batchllm.budget.budget import NOTHING, Amount
from batchllm.journal import State
from batchllm.limiter import Cost
from batchllm.plan.row_flow import RowFlow
from batchllm.records import Answer, ChatRequest, Failure, Response


@dataclass(slots=True, eq=False)
class WorkItem:
    """A request within one run.

    Attributes:
        request: What is sent.
        request_id: The journal's id of the request.
        reader: Reads its answer.
        earlier: Attempts of earlier runs, for the ``attempts`` column.
        attempts: Attempts of this run that count against ``max_attempts``.
        possibly_billed: Those of them that may be billed though no answer came.
        refused: Times that the endpoint refused it for a limit in this run.
        refused_at: When that happened first, in the loop's time.
        sent: Whether it was sent at least once.
        sent_at: When its last attempt was sent, in the loop's time.
        ordinal: Which of several equal first requests it is, from 0.
        reserved: What the budget has reserved for the attempt in flight.
        flow: The flow that waits for its answer; ``None`` where a later pass goes on with it.
        number: Which of the flow's requests it is.
        path: Its path in the flow.
        later: It is not the first request of its row.
        begun: Its flow has had an answer, so it goes before new rows.
        endpoint: The number of the endpoint that its present or last attempt went to.
        away: By the number of an endpoint, until when it is not for that one, in the loop's time.
        before: The answer that it had and keeps unless a better one comes, and how that ended it.
    """

    request: ChatRequest
    request_id: int
    reader: Reader
    earlier: int = 0
    attempts: int = 0
    possibly_billed: int = 0
    refused: int = 0
    refused_at: float | None = None
    sent: bool = False
    sent_at: float = 0.0
    ordinal: int = 0
    reserved: Amount = field(default=NOTHING)
    flow: RowFlow | None = None
    number: int = 0
    path: str = ""
    later: bool = False
    begun: bool = False
    endpoint: int = 0
    away: Mapping[int, float] = field(default_factory=dict)
    before: "RowEnd | None" = None

    @property
    def lane(self) -> str:
        """The lane of the limiter that it waits in: its model."""
        return self.request.model

    @property
    def cost(self) -> Cost:
        """What its request takes of the limits."""
        return Cost(self.request.prompt_tokens, self.request.max_tokens)


class ChatSender(Protocol):
    """A client, as online mode uses it."""

    async def send(self, request: ChatRequest) -> Response | Failure:
        """Sends one request; a failure is returned, not raised."""


RowEnd = tuple[Answer, State]
"""The answer of a row, and how it ended."""

Settled = Callable[[WorkItem, Answer, State], RowEnd | None]
"""Called with each request that is finished; returns how its row ended, if it has."""
