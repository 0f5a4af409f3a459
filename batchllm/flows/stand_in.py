"""Runs a flow with stand-ins for the answers that there are not: for the estimate and the budget.

There is no other description of what a flow will send.
"""

from collections.abc import Callable, Iterator

from batchllm.answer import ASK_AGAIN
from batchllm.flows.flow import After, Ask, Flow, History, Kept, Unsent
from batchllm.flows.open_flow import OpenFlow
from batchllm.records import Answer, ChatRequest

STAND_IN = "stand-in"
"""The ``response_id`` of a stand-in: a flow takes every condition on it as true."""

_WORD = "word "  # a token of every vocabulary

KnownAnswer = Callable[[Ask, bool], Answer | None]
"""Returns the answer that there is to a request, which is the first one of its row or not; ``None``: there is none."""

StandIn = Callable[[Ask, ChatRequest], Answer]
"""Returns the answer that stands for the one to a request."""

KeptValue = Callable[[Kept], bytes | Unsent]
"""Returns the value that is kept, or computes it."""

Length = Callable[[int | None], int]
"""Returns the tokens of an answer, by the most that it may have."""


def expected(length: Length) -> StandIn:
    """Returns usable answers of that length."""
    return lambda ask, request: _answer(length(request.max_tokens))


def longest(length: Length) -> StandIn:
    """Returns answers of that length, which do not validate as long as they are re-asked."""

    def answer(ask: Ask, request: ChatRequest) -> Answer:
        found = _answer(length(request.max_tokens))
        if request.max_tokens is None:
            found = found._replace(finish_reason="length")  # nothing bounds it
        return found._replace(error=STAND_IN, reason=min(ASK_AGAIN)) if ask.again else found

    return answer


def _answer(tokens: int) -> Answer:
    return Answer(text=_WORD * max(1, tokens), response_id=STAND_IN)  # an empty answer takes no condition


def missing(
    flow: OpenFlow,
    stand_in: StandIn,
    known: KnownAnswer = lambda ask, first: None,
    history: History | None = None,
    kept: KeptValue = Kept.value,
) -> Iterator[tuple[Ask, ChatRequest]]:
    """Yields the requests of a flow that have no answer.

    Args:
        flow: The flow, begun.
        stand_in: Returns the answer that stands for one.
        known: Returns the answers that there are.
        history: Of its conversation.
        kept: Returns kept values.
    """
    while not flow.ended:
        if flow.waits_for is not None:
            waits = flow.waits_for
            flow.give((history or History()) if isinstance(waits, After) else kept(waits))
            continue
        answers: list[Answer] = []
        first = flow.steps == 1
        try:
            for number, ask in enumerate(flow.asks):
                answer = known(ask, first and number == 0)
                if answer is None:
                    request = ask.built()
                    yield ask, request
                    answer = stand_in(ask, request)
                answers.append(answer)
        except Unsent as unsent:
            flow.cannot_send(unsent)
            continue
        for number, answer in enumerate(answers):
            flow.take(number, answer)


def begun(flow: Flow, kept: KeptValue = Kept.value) -> OpenFlow:
    """Begins a flow, up to where it asks or waits for the turn before it."""
    found = OpenFlow()
    found.begin(flow)
    while isinstance(found.waits_for, Kept):
        found.give(kept(found.waits_for))
    return found
