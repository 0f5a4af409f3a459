"""The OpenAI SDK for an endpoint: its client, the head that it would give a chat request, its error classes.

What the SDK would send, and what it would raise, it is asked by a transport that records and does not send.
The SDK's retries are off: what to do about an outcome is decided in one place, ``batchllm.retry``.
"""

from collections.abc import Mapping
from typing import Any

import httpx2
import openai

from batchllm.records import Endpoint, Failure, FailureKind, Response

_NO_KEY = "no-key-needed"


class _Recorder(httpx2.AsyncBaseTransport):
    """A transport that sends nothing: it keeps the request and answers what it was given to answer."""

    def __init__(
        self, status: int = 200, headers: Mapping[str, str] | None = None, body: bytes = b"{}"
    ) -> None:
        self.request: httpx2.Request | None = None
        self._answer = (status, headers or {"content-type": "application/json"}, body)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.request = request
        status, headers, body = self._answer
        kept = {k: v for k, v in headers.items() if k not in ("content-length", "content-encoding")}
        return httpx2.Response(status, headers=kept, content=body, request=request)


def sdk_client(endpoint: Endpoint, transport: httpx2.AsyncBaseTransport | None = None) -> openai.AsyncOpenAI:
    """The SDK's client of an endpoint; with a transport, over that."""
    http_client = openai.DefaultAsyncHttpxClient(follow_redirects=False, transport=transport)
    shared: dict[str, Any] = {
        "api_key": endpoint.api_key or _NO_KEY,
        "default_headers": dict(endpoint.headers) or None,
        "max_retries": 0,
        "http_client": http_client,
    }
    version = endpoint.azure_api_version
    client: openai.AsyncOpenAI
    if version is None:
        client = openai.AsyncOpenAI(base_url=endpoint.base_url, **shared)
    elif "/openai" in endpoint.base_url:
        client = openai.AsyncAzureOpenAI(base_url=endpoint.base_url, api_version=version, **shared)
    else:
        client = openai.AsyncAzureOpenAI(azure_endpoint=endpoint.base_url, api_version=version, **shared)
    # Not as arguments: the SDK would fill a None from the environment, also for endpoints of others.
    client.organization, client.project = endpoint.organization, endpoint.project
    return client


async def sdk_head_of(endpoint: Endpoint, model: str) -> tuple[str, dict[str, str]]:
    """URL and headers that the SDK gives a chat request, without those of its body and its connection."""
    recorder = _Recorder()
    async with sdk_client(endpoint, recorder) as sdk:
        await sdk.post("/chat/completions", body={"model": model}, cast_to=httpx2.Response)
    request = recorder.request
    assert request is not None
    left_out = {"host", "content-length", "connection"}
    if endpoint.api_key is None:
        left_out |= {"authorization", "api-key"}
    return str(request.url), {k: v for k, v in request.headers.items() if k not in left_out}


async def sdk_error_of(endpoint: Endpoint, outcome: Response | Failure) -> openai.APIError:
    """The SDK's own exception for an outcome that is not an answer, to be raised or chained."""
    request = httpx2.Request("POST", endpoint.base_url)
    if isinstance(outcome, Failure):
        if outcome.kind is FailureKind.TIMEOUT:
            return openai.APITimeoutError(request=request)
        return openai.APIConnectionError(message=outcome.message, request=request)
    recorder = _Recorder(outcome.status, outcome.headers, outcome.body)
    async with sdk_client(endpoint, recorder) as sdk:
        try:
            await sdk.post("/chat/completions", body={"model": "any"}, cast_to=httpx2.Response)
        except openai.APIError as error:
            return error
    return openai.APIError("not an error", request=request, body=None)
