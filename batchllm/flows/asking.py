"""What the flows are made of: first requests, re-asks, and flows that run side by side."""

from collections.abc import Generator, Iterable, Sequence
from hashlib import sha256
from typing import Any

from batchllm.answer import ASK_AGAIN, Reader
from batchllm.flows.flow import Ask, Flow, RequestFailed, Step, Unsent, sendable
from batchllm.records import Answer, ChatRequest, Row
from batchllm.request import RequestBuilder, Unsendable
from batchllm.template import dumps


def whole(builder: RequestBuilder, row: Row) -> Ask:
    """Returns the first request of a row whose later ones read nothing else of it.

    Raises:
        Unsent: It cannot be sent.
    """
    built = sendable(builder.build(row))
    return Ask("", built.key, builder.reader(row), built)


def first_of_several(path: str, built: ChatRequest, values: bytes, reader: Reader, model: str = "") -> Ask:
    """Returns the first request of a row, which is known by everything that the later ones read (``values_of``)."""
    identity = sha256(built.key + values).digest()[:16]
    return Ask(path, identity, reader, built, body_key=built.key, model=model)


def values_of(row: Row, names: Iterable[str]) -> bytes:
    """Returns what the requests of a row read of it.

    Raises:
        Unsent: It cannot be written.
    """
    try:
        return dumps([[name, row.values[name]] for name in sorted(names) if name in row.values])
    except ValueError as error:
        message = f"the row cannot be written as JSON: {error}"
        raise Unsent(Unsendable(row.index, message, "bad_text")) from error


def reasking(builder: RequestBuilder, ask: Ask, most: int) -> Flow:
    """Yields a request, and re-asks up to ``most`` times as long as its answer does not validate."""
    base = f"{ask.path}/" if ask.path else ""
    for number in range(1, most + 1):
        try:
            answer: Answer = yield ask._replace(again=True)
            return answer
        except RequestFailed as failed:
            if failed.answer.reason not in ASK_AGAIN:
                raise
            ask = _again(builder, ask, failed.answer, f"{base}reask/{number}")
    last: Answer = yield ask
    return last


def _again(builder: RequestBuilder, ask: Ask, answer: Answer, path: str) -> Ask:
    """Returns the re-ask; the request before it is built only if this one is sent."""

    def built() -> ChatRequest:
        return builder.reask(ask.built(), answer)

    identity = ask.identity + b"\0" + answer.text.encode("utf-8", "surrogatepass")
    return Ask(path, identity, ask.reader, built, model=ask.model)


def together(flows: Sequence[Flow]) -> Generator[Step, Any, list[Answer | RequestFailed]]:
    """Runs flows side by side, in steps: each gets its answers once those of all have come.

    Returns:
        What each flow returned, or what failed it, in their order.
    """
    ended: dict[int, Answer | RequestFailed] = {}
    asks: dict[int, Ask] = {}
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
                asks[number] = step
        if not asks:
            return [ended[number] for number in range(len(flows))]
        answers: Sequence[Answer]
        given_up = False
        try:
            answers = yield list(asks.values())
        except RequestFailed as failed:
            answers, given_up = failed.answers, failed.given_up
        received = {
            number: answer
            if answer.error is None
            else RequestFailed([answer], ask.path, answer, given_up=given_up)
            for (number, ask), answer in zip(asks.items(), answers, strict=True)
        }
