"""Chat requests: one out as bytes, one outcome back as data.

The OpenAI SDK decides everything about a request but its transport: URL, authentication, headers, error
classes, files and batches are its own. Its transport costs 1 to 4 ms of CPU a request, so chat requests
leave over aiohttp instead, which is also the SDK's optional transport, with the URL and the headers that the
SDK would give them. The SDK itself is loaded by what needs it: models, files, batches, error classes.
"""

import asyncio
import errno
import os
import ssl
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

import aiohttp
from yarl import URL

from batchllm.client.deadlines import Deadlines
from batchllm.client.head import head_of
from batchllm.errors import Unavailable, UsageError
from batchllm.records import ChatRequest, Endpoint, Failure, FailureKind, Paid, Response

if TYPE_CHECKING:
    import openai

    from batchllm.client.batches import BatchApi

MAX_BODY_BYTES = 16 * 1024 * 1024
KEEP_ALIVE_S = 60.0
CONNECT_TIMEOUT_S = 15.0


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
        context = _ssl_context() if secure else True
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

    async def error(self, outcome: Response | Failure) -> "openai.APIError":
        """The SDK's own exception for an outcome that is not an answer, to be raised or chained."""
        from batchllm.client.sdk import sdk_error_of

        return await sdk_error_of(self.endpoint, outcome)

    async def models(self) -> list[str]:
        """Names of the models that the endpoint lists.

        Raises:
            UsageError: The endpoint refused the key or has no such URL.
            Unavailable: The endpoint cannot be reached.
        """
        import openai

        try:
            return [model.id async for model in self.sdk.models.list()]
        except openai.APIStatusError as error:
            raise UsageError(f"{self.endpoint.base_url} does not list its models: {error}") from error
        except openai.APIConnectionError as error:
            raise Unavailable(
                f"{self.endpoint.base_url} cannot be reached: {error.__cause__ or error}"
            ) from error

    @property
    def batches(self) -> "BatchApi":
        """Files and batches."""
        from batchllm.client.batches import BatchApi

        return BatchApi(self.sdk)

    @property
    def sdk(self) -> "openai.AsyncOpenAI":
        """The SDK itself, for what is not a chat request: models, files, batches. Its retries are off."""
        if self._sdk is None:
            from batchllm.client.sdk import sdk_client

            self._sdk = sdk_client(self.endpoint)
        return self._sdk

    async def _route(self, model: str) -> _Route:
        head = await head_of(self.endpoint, model)
        if model not in self._routes:
            session = aiohttp.ClientSession(
                headers=head.headers,
                connector=self._connector,
                connector_owner=False,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
            self._routes[model] = _Route(URL(head.url, encoded=True), session)
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


def _ssl_context() -> ssl.SSLContext:
    """The SDK's: it knows ``SSL_CERT_FILE`` and brings its own certificates."""
    import httpx2

    return httpx2.create_ssl_context()


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
            kind, paid, message = FailureKind.CONNECT, Paid.NO, _no_connection(error, words)
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


def _no_connection(error: Exception, words: str) -> str:
    """Why no connection came about: the system's own word for it where there is one."""
    if isinstance(error, aiohttp.ClientConnectorError) and not isinstance(error, aiohttp.ClientSSLError):
        number = error.os_error.errno
        if number is not None and number in errno.errorcode:
            return f"no connection to {error.host}:{error.port}: {os.strerror(number).lower()}"
    return f"no connection: {words}"
