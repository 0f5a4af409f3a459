"""Sends requests under the names that an endpoint has for models."""

from collections.abc import Mapping
from typing import Any

from batchllm.client.chat import Client
from batchllm.exact import loads
from batchllm.records import ChatRequest, Failure, Response
from batchllm.template import dumps


class NamedModelClient(Client):
    """A client of an endpoint that calls models otherwise than the job does.

    Args:
        names: What the endpoint calls a model, by the name that requests have.
        arguments, more: Those of ``Client``.
    """

    def __init__(self, names: Mapping[str, str], *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._names = names

    async def send(self, request: ChatRequest) -> Response | Failure:
        """Sends one chat request; see ``Client.send``."""
        own = self._names.get(request.model)
        return await super().send(request if own is None else renamed(request, own))


def renamed(request: ChatRequest, model: str) -> ChatRequest:
    """Returns a request with another model in its body, every other byte as it was.

    Bodies are made with the model first, so only the beginning is replaced; what looks like it in a message stays.
    """
    before, after = (dumps({"model": name})[:-1] for name in (request.model, model))
    if request.body.startswith(before) and request.body[len(before) : len(before) + 1] in (b",", b"}"):
        return request._replace(body=after + request.body[len(before) :], model=model)
    return request._replace(body=dumps({**loads(request.body), "model": model}), model=model)
