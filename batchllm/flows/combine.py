"""Runs flows side by side: what they ask at the same time goes out together."""

from collections.abc import Generator, Sequence
from typing import Any

from batchllm.flows.flow import Ask, Flow, RequestFailed, Step
from batchllm.records import Answer


def together(flows: Sequence[Flow]) -> Generator[Step, Any, list[Answer | RequestFailed]]:
    """Runs flows side by side, in steps: each gets its answers once those of all have come.

    Returns:
        What each flow returned, or what failed it, in their order.
    """
    ended: dict[int, Answer | RequestFailed] = {}
    asks: dict[int, list[Ask]] = {}
    received: dict[int, Any] = dict.fromkeys(range(len(flows)))
    while True:
        for number, value in received.items():
            try:
                flow = flows[number]
                step = flow.throw(value) if isinstance(value, RequestFailed) else flow.send(value)
            except StopIteration as end:
                ended[number] = end.value
                asks.pop(number, None)
            except RequestFailed as failed:
                ended[number] = failed
                asks.pop(number, None)
            else:
                assert isinstance(step, Ask), "flows that run side by side ask one request at a time"
                asks[number] = [step]
        if not asks:
            return [ended[number] for number in range(len(flows))]
        wanted = [ask for group in asks.values() for ask in group]
        answers: Sequence[Answer]
        try:
            answers = yield wanted
        except RequestFailed as failed:
            answers = failed.answers
            given_up = failed.given_up
        else:
            given_up = False
        received = {
            number: answer
            if answer.error is None
            else RequestFailed([answer], ask.path, answer, given_up=given_up)
            for (number, (ask,)), answer in zip(asks.items(), answers, strict=True)
        }
