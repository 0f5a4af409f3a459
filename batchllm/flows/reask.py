"""Re-asks an answer that does not validate, with the validator's message."""

from batchllm.answer import ASK_AGAIN
from batchllm.flows.flow import Ask, Flow, RequestFailed
from batchllm.records import Answer, ChatRequest
from batchllm.request import RequestBuilder


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
