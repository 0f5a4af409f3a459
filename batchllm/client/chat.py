"""Chat requests: one out as bytes, one outcome back as data.

The OpenAI SDK decides everything about a request but its transport: URL, authentication, headers, error
classes, files and batches are its own. Its transport costs 1 to 4 ms of CPU a request, so chat requests
leave over aiohttp instead, which is also the SDK's optional transport. The SDK is asked once per model what
its request would look like (by a transport that records and does not send); that URL and those headers are
reused for every request. An error becomes the SDK's own class by replaying the answer through the SDK.

The SDK's retries are off: what to do about an outcome is decided in one place, ``batchllm.retry``.
"""

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

import aiohttp
import httpx2
import openai
from yarl import URL

from batchllm.client.batches import BatchApi
from batchllm.client.deadlines import Deadlines
from batchllm.errors import Unavailable, UsageError
from batchllm.records import ChatRequest, Endpoint, Failure, FailureKind, Paid, Response

MAX_BODY_BYTES = 16 * 1024 * 1024
KEEP_ALIVE_S = 60.0
CONNECT_TIMEOUT_S = 15.0
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


@dataclass(frozen=True, slots=True)
class _Route:
    """Where a model's chat requests go, in a session whose headers are those that the SDK gives them."""

    url: URL
    session: aiohttp.ClientSession


class Client:
    """Sends chat requests to one endpoint.

    Args:
        endpoint: Where to, and with which key.
        timeout_s: Total seconds of one attempt: connecting, headers and the whole body.

    Use as an async context manager. ``send`` may be called any number of times side by side; the limiter
    decides how many are in flight, so the connection pool has no limit of its own.
    """

    def __init__(self, endpoint: Endpoint, *, timeout_s: float = 600.0) -> None:
        self.endpoint = endpoint
        self._timeout_s = timeout_s
        self._deadlines = Deadlines(timeout_s)
        self._routes: dict[str, _Route] = {}
        self._connector: aiohttp.TCPConnector | None = None
        self._sdk: openai.AsyncOpenAI | None = None
        self._proxy = proxy_of(endpoint.base_url)

    async def __aenter__(self) -> "Client":
        secure = urlsplit(self.endpoint.base_url).scheme == "https" or self._proxy is not None
        context: ssl.SSLContext | bool = httpx2.create_ssl_context() if secure else True
        self._connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S, ssl=context)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._deadlines.close()
        for route in self._routes.values():
            await route.session.close()
        if self._connector is not None:
            await self._connector.close()
        if self._sdk is not None:
            await self._sdk.close()

    async def send(self, request: ChatRequest) -> Response | Failure:
        """Sends one chat request and reads its whole answer; every outcome is data, nothing is raised."""
        route = self._routes.get(request.model) or await self._route(request.model)
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None, "requests are sent by tasks"
        started = loop.time()
        received: list[bytes] = []
        self._deadlines.begin(task, started)
        try:
            reply = await route.session.post(
                route.url, data=request.body, allow_redirects=False, proxy=self._proxy
            )
            try:
                whole = await _receive(reply.content, received)
            finally:
                reply.close()  # to be used again where the whole answer was read, else for good
            if not whole:
                return _too_large(loop.time() - started, received)
            headers = {name.lower(): value for name, value in reply.headers.items()}
            return Response(reply.status, headers, b"".join(received), loop.time() - started)
        except asyncio.CancelledError:
            if not self._deadlines.was_late(task):
                raise
            return _failure(TimeoutError(), self._timeout_s, loop.time() - started, b"".join(received))
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return _failure(error, self._timeout_s, loop.time() - started, b"".join(received))
        finally:
            self._deadlines.end(task)

    async def error(self, outcome: Response | Failure) -> openai.APIError:
        """The SDK's own exception for an outcome that is not an answer, to be raised or chained."""
        if isinstance(outcome, Failure):
            request = httpx2.Request("POST", self.endpoint.base_url)
            if outcome.kind is FailureKind.TIMEOUT:
                return openai.APITimeoutError(request=request)
            return openai.APIConnectionError(message=outcome.message, request=request)
        recorder = _Recorder(outcome.status, outcome.headers, outcome.body)
        async with _sdk_client(self.endpoint, recorder) as sdk:
            try:
                await sdk.post("/chat/completions", body={"model": "any"}, cast_to=httpx2.Response)
            except openai.APIError as error:
                return error
        return openai.APIError(
            "not an error", request=httpx2.Request("POST", self.endpoint.base_url), body=None
        )

    async def models(self) -> list[str]:
        """Names of the models that the endpoint lists.

        Raises:
            UsageError: The endpoint refused the key or has no such URL.
            Unavailable: The endpoint cannot be reached.
        """
        try:
            return [model.id async for model in self.sdk.models.list()]
        except openai.APIStatusError as error:
            raise UsageError(f"{self.endpoint.base_url} does not list its models: {error}") from error
        except openai.APIConnectionError as error:
            raise Unavailable(
                f"{self.endpoint.base_url} cannot be reached: {error.__cause__ or error}"
            ) from error

    @property
    def batches(self) -> BatchApi:
        """Files and batches."""
        return BatchApi(self.sdk)

    @property
    def sdk(self) -> openai.AsyncOpenAI:
        """The SDK itself, for what is not a chat request: models, files, batches. Its retries are off."""
        if self._sdk is None:
            self._sdk = _sdk_client(self.endpoint, None)
        return self._sdk

    async def _route(self, model: str) -> _Route:
        recorder = _Recorder()
        async with _sdk_client(self.endpoint, recorder) as sdk:
            await sdk.post("/chat/completions", body={"model": model}, cast_to=httpx2.Response)
        assert recorder.request is not None
        headers = {
            name: value
            for name, value in recorder.request.headers.items()
            if name not in ("host", "content-length", "connection")
        }
        headers["accept-encoding"] = "gzip, deflate"
        if self.endpoint.api_key is None:
            headers.pop("authorization", None)
            headers.pop("api-key", None)
        if model not in self._routes:
            session = aiohttp.ClientSession(
                headers=headers,
                connector=self._connector,
                connector_owner=False,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
            self._routes[model] = _Route(URL(str(recorder.request.url), encoded=True), session)
        return self._routes[model]


def proxy_of(base_url: str) -> str | None:
    """The proxy that the environment names for a URL; loopback is never proxied.

    Raises:
        UsageError: The environment asks for a SOCKS proxy, which the transport cannot speak.
    """
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    if host in ("localhost", "::1") or host.startswith("127."):
        return None
    proxies = getproxies_environment()
    if proxy_bypass_environment(host, proxies):
        return None
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy:
        return None
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    if urlsplit(proxy).scheme not in ("http", "https"):
        scheme = urlsplit(proxy).scheme
        raise UsageError(
            f"the environment names a {scheme} proxy; set HTTPS_PROXY to an http:// proxy instead"
        )
    return proxy


def _sdk_client(endpoint: Endpoint, transport: httpx2.AsyncBaseTransport | None) -> openai.AsyncOpenAI:
    http_client = openai.DefaultAsyncHttpxClient(follow_redirects=False, transport=transport)
    shared: dict[str, Any] = {
        "api_key": endpoint.api_key or _NO_KEY,
        "organization": endpoint.organization,
        "project": endpoint.project,
        "default_headers": dict(endpoint.headers) or None,
        "max_retries": 0,
        "http_client": http_client,
    }
    if endpoint.azure_api_version is None:
        return openai.AsyncOpenAI(base_url=endpoint.base_url, **shared)
    if "/openai" in endpoint.base_url:
        return openai.AsyncAzureOpenAI(
            base_url=endpoint.base_url, api_version=endpoint.azure_api_version, **shared
        )
    return openai.AsyncAzureOpenAI(
        azure_endpoint=endpoint.base_url, api_version=endpoint.azure_api_version, **shared
    )


async def _receive(content: aiohttp.StreamReader, received: list[bytes]) -> bool:
    """Reads a body to its end; ``False`` where it is larger than an answer may be."""
    size = 0
    while chunk := await content.readany():
        received.append(chunk)
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            return False
        if content.at_eof() and content.exception() is None:
            break
    return True


def _too_large(latency_s: float, received: list[bytes]) -> Failure:
    message = f"the answer is larger than {MAX_BODY_BYTES // 1024 // 1024} MiB and was cut off"
    partial = b"".join(received)[:65_536]
    return Failure(FailureKind.TOO_LARGE, message, Paid.MAYBE, latency_s, partial)


def _failure(error: Exception, timeout_s: float, latency_s: float, partial: bytes) -> Failure:
    """Reads the transport's exception; whether bytes of the request can have left decides ``paid``."""
    words = str(error) or type(error).__name__
    match error:
        case aiohttp.ClientConnectorDNSError():
            kind, paid, message = FailureKind.DNS, Paid.NO, f"the host name cannot be resolved: {words}"
        case aiohttp.ClientConnectorCertificateError():
            kind, paid, message = FailureKind.TLS, Paid.NO, f"the certificate is not valid: {words}"
        case (
            aiohttp.ConnectionTimeoutError()
            | aiohttp.ClientConnectorError()
            | aiohttp.ClientProxyConnectionError()
        ):
            kind, paid, message = FailureKind.CONNECT, Paid.NO, f"no connection: {words}"
        case aiohttp.ClientHttpProxyError():
            kind, paid, message = FailureKind.CONNECT, Paid.NO, f"the proxy refused: {words}"
        case TimeoutError():
            kind, paid, message = FailureKind.TIMEOUT, Paid.MAYBE, f"no whole answer within {timeout_s:g} s"
        case aiohttp.ClientPayloadError():
            kind, paid, message = FailureKind.CUT, Paid.MAYBE, "the answer was cut off"
        case aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError():
            kind, paid, message = FailureKind.CONNECT, Paid.NO, f"not a usable URL: {words}"
        case _:
            kind, paid, message = FailureKind.RESET, Paid.MAYBE, f"the connection broke: {words}"
    return Failure(kind, message, paid, latency_s, partial[:65_536])
