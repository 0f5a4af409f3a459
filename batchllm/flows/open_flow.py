"""A flow under way: what it waits for, and how it ended."""

from typing import Any

from batchllm.flows.flow import After, Ask, Flow, Kept, RequestFailed, Unsent
from batchllm.records import Answer
from batchllm.request import Skipped, Unsendable


class OpenFlow:
    """Runs a flow from one ``yield`` to the next; see the package for what it yields.

    Attributes:
        asks: The requests that it waits for.
        waits_for: The kept value or the turn that it waits for.
        steps: How many times it has asked.
        requests: How many requests it has yielded.
        answered: It has received an answer.
        result: Its answer, once it has ended.
        given_up: It ended because a request has no reply; the next run tries that again.
        unsent: Why it cannot go on, where a request cannot be sent; then ``result`` says so too, unless it is skipped.
    """

    __slots__ = (
        "_answers", "_flow", "_left", "_many", "answered", "asks", "given_up",
        "requests", "result", "steps", "unsent", "waits_for",
    )  # fmt: skip

    def __init__(self) -> None:
        self.asks: tuple[Ask, ...] = ()
        self.waits_for: Kept | After | None = None
        self.steps = self.requests = 0
        self.answered = False
        self.result: Answer | None = None
        self.given_up = False
        self.unsent: Skipped | Unsendable | None = None

    @property
    def ended(self) -> bool:
        """Whether it asks nothing more."""
        return self.result is not None or self.unsent is not None

    def begin(self, flow: Flow) -> None:
        """Begins a flow, from its start."""
        if self.steps:
            OpenFlow.__init__(self)  # a flow that is begun again has nothing of the last time
        self._flow = flow
        self._proceed(None)

    def give(self, value: Any) -> None:
        """Gives what ``waits_for`` says."""
        self.waits_for = None
        self._proceed(value)

    def take(self, number: int, answer: Answer, *, given_up: bool = False) -> bool:
        """Takes the answer to one of ``asks``.

        Args:
            number: Which one.
            answer: Its answer; with ``error``, the request failed.
            given_up: It failed without a reply.

        Returns:
            Whether that was the last one, so that the flow has gone on.
        """
        self._answers[number] = answer
        self.answered = True
        self._left -= 1
        self.given_up |= given_up
        if self._left:
            return False
        given_up, self.given_up = self.given_up, False
        answers: list[Answer] = self._answers
        for ask, each in zip(self.asks, answers, strict=True):
            if each.error is not None:
                self._proceed(RequestFailed(answers, ask.path, each, given_up=given_up))
                return True
        self._proceed(answers if self._many else answers[0])
        return True

    def cannot_send(self, unsent: Unsent) -> None:
        """Tells the flow that one of ``asks`` cannot be sent."""
        self._proceed(unsent)

    def _proceed(self, value: Any) -> None:
        self.asks = ()
        try:
            step = self._flow.throw(value) if isinstance(value, Exception) else self._flow.send(value)
        except StopIteration as end:
            self.result = end.value
        except RequestFailed as failed:
            where = f"{failed.path}: " if failed.path else ""
            self.result = failed.answer._replace(error=f"{where}{failed.answer.error}")
            self.given_up = failed.given_up
        except Unsent as unsent:
            self.unsent = unsent.outcome
            if isinstance(self.unsent, Unsendable):
                self.result = Answer(error=self.unsent.error, reason=self.unsent.reason)
        else:
            if isinstance(step, Ask):
                self._many, self.asks = False, (step,)
            elif isinstance(step, Kept | After):
                self.waits_for = step
                return
            else:
                self._many, self.asks = True, tuple(step)
                assert self.asks, "a flow asks at least one request at a time"
            self._left = len(self.asks)
            self._answers: list[Any] = [None] * self._left
            self.steps += 1
            self.requests += self._left
