"""Puts the name that an endpoint has for a model into a request."""

from batchllm.exact import loads
from batchllm.records import ChatRequest
from batchllm.template import dumps


def renamed(request: ChatRequest, model: str) -> ChatRequest:
    """Returns a request with another model in its body, every other byte as it was.

    Bodies are made with the model first, so only the beginning is replaced; what looks like it in a message stays.
    """
    before, after = (dumps({"model": name})[:-1] for name in (request.model, model))
    if request.body.startswith(before) and request.body[len(before) : len(before) + 1] in (b",", b"}"):
        return request._replace(body=after + request.body[len(before) :], model=model)
    return request._replace(body=dumps({**loads(request.body), "model": model}), model=model)
