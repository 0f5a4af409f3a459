"""Sends chat requests over aiohttp; every outcome is data.

The OpenAI SDK's transport costs 1 to 4 ms of CPU a request, so chat requests go out over aiohttp, with the URL
and headers that the SDK would send. Models, files and batches are the SDK's.
"""

import asyncio
from collections.abc import Mapping
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from batchllm import presets
from batchllm.client.connection import chat_headers, mask_of, sdk_client
from batchllm.client.deadlines import Deadlines
from batchllm.client.encoding import TooLarge, Truncated, Undecodable, decoded
from batchllm.client.failures import Destination, meaning, port_speaks_tls, speaks_tls
from batchllm.client.named import renamed
from batchllm.client.route import proxy_of, ssl_context
from batchllm.client.secrets import Mask
from batchllm.error_body import read_error
from batchllm.errors import Unavailable, UsageError
from batchllm.printable import one_line
from batchllm.records import ChatRequest, Endpoint, Failure, FailureKind, Paid, Response

if TYPE_CHECKING:
    import openai

    from batchllm.client.batches import BatchApi

MAX_BODY_BYTES = 16 * 1024 * 1024
PARTIAL_BYTES = 65_536
"""The most bytes that are kept of an answer that is not whole."""
KEEP_ALIVE_S = 60.0
CONNECT_TIMEOUT_S = 15.0
HANDSHAKE_TIMEOUT_S = 30.0
"""For the whole connection: name service, proxy and TLS included."""


class Client:
    """Sends chat requests to one endpoint.

    Args:
        endpoint: Where to, and with which key.
        timeout_s: Total seconds of one attempt: connecting, headers and the whole body.
        names: What the endpoint calls a model, by the name that requests have.

    Use as an async context manager. ``send`` may be called any number of times side by side; the limiter
    decides how many are in flight, so the connection pool has no limit of its own.
    """

    def __init__(
        self, endpoint: Endpoint, *, timeout_s: float = 600.0, names: Mapping[str, str] | None = None
    ) -> None:
        self.endpoint = endpoint
        self._names = names
        self._timeout_s = timeout_s
        self._deadlines = Deadlines(timeout_s)
        self._urls: dict[str, URL] = {}
        self._session: aiohttp.ClientSession | None = None
        self._sdk: openai.AsyncOpenAI | None = None
        self._proxy = proxy_of(endpoint.base_url)
        self._destination = Destination(endpoint.base_url, self._proxy)
        self._proxy_url = None if self._proxy is None else self._proxy.url
        self._is_secure = urlsplit(endpoint.base_url).scheme == "https" or self._proxy is not None
        self._is_known = self._is_secure

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._deadlines.close()
        if self._session is not None:
            await self._session.close()
        if self._sdk is not None:
            await self._sdk.close()

    async def send(self, request: ChatRequest) -> Response | Failure:
        """Sends one chat request and reads its whole answer, secrets hidden; every outcome is data."""
        if self._names and (own := self._names.get(request.model)) is not None:
            request = renamed(request, own)
        session = self._session or self._open()
        url = self._urls.get(request.model) or self.url(request.model)
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None, "requests are sent by tasks"
        started = loop.time()
        received: list[bytes] = []
        outcome: Response | Failure
        self._deadlines.begin(task, started)
        try:
            reply = await session.post(url, data=request.body, allow_redirects=False, proxy=self._proxy_url)
            try:
                whole = await _receive(reply.content, received)
            finally:
                if not reply.closed:  # not read to its end, so the connection cannot be kept
                    reply.close()
            if whole:
                self._is_known = True
                headers = {name.lower(): value for name, value in reply.headers.items()}
                outcome = _decoded(reply.status, headers, b"".join(received), loop.time() - started)
            else:
                outcome = _too_large(loop.time() - started, received)
        except asyncio.CancelledError:
            if not self._deadlines.was_late(task):
                raise
            outcome = self._failed(TimeoutError(), loop.time() - started, received)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            outcome = self._failed(error, loop.time() - started, received)
        finally:
            self._deadlines.end(task)
        if not self._is_known and isinstance(outcome, Failure) and outcome.kind is FailureKind.RESET:
            # Some TLS servers close a connection on which plain http arrives without a word.
            self._is_known = True
            if await port_speaks_tls(self._destination):
                kind, paid, message = speaks_tls(self._destination)
                outcome = outcome._replace(kind=kind, paid=paid, message=message)
        return self._mask.reply(outcome)

    def _failed(self, error: Exception, latency_s: float, received: list[bytes]) -> Failure:
        """Maps the transport's exception; ``paid`` is ``MAYBE`` where bytes of the request can have been sent."""
        kind, paid, message = meaning(error, self._destination) or _broken(error, self._timeout_s)
        return Failure(kind, message, paid, latency_s, b"".join(received)[:PARTIAL_BYTES])

    def _open(self) -> aiohttp.ClientSession:
        context = ssl_context() if self._is_secure else True
        self._session = aiohttp.ClientSession(
            headers=chat_headers(self.endpoint),
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S, ssl=context),
            timeout=aiohttp.ClientTimeout(
                total=None, connect=HANDSHAKE_TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
        )
        return self._session

    def url(self, model: str) -> URL:
        """Returns the URL of a model's chat requests."""
        if model not in self._urls:
            self._urls[model] = URL(presets.chat_url(self.endpoint, model))
        return self._urls[model]

    async def models(self) -> list[str]:
        """Returns the names of the models that the endpoint lists.

        Raises:
            UsageError: The endpoint refused the key or has no such URL.
            Unavailable: The endpoint cannot be reached.
        """
        import openai

        try:
            return [model.id async for model in self.sdk.models.list()]
        except openai.APIStatusError as error:
            said = read_error(self._mask.error(error.response.content)).message
            said = one_line(said) or "no explanation"
            raise UsageError(
                f"{self.endpoint.base_url} does not list its models: HTTP {error.status_code}: {said}"
            ) from error
        except openai.APIConnectionError as error:
            found = meaning(error, self._destination)
            words = found[2] if found else one_line(self._mask.text(str(error.__cause__ or error)))
            raise Unavailable(f"{self.endpoint.base_url} cannot be reached: {words}") from error

    @cached_property
    def _mask(self) -> Mask:
        return mask_of(self.endpoint)

    @property
    def batches(self) -> "BatchApi":
        """Files and batches."""
        from batchllm.client.batches import BatchApi

        return BatchApi(self.sdk, self._mask)

    @property
    def sdk(self) -> "openai.AsyncOpenAI":
        """The SDK's client, for models, files and batches. Its retries are off."""
        if self._sdk is None:
            self._sdk = sdk_client(self.endpoint)
        return self._sdk


async def _receive(content: aiohttp.StreamReader, received: list[bytes]) -> bool:
    """Reads a body to its end; returns ``False`` once it exceeds ``MAX_BODY_BYTES``."""
    size = 0
    while chunk := await content.readany():
        received.append(chunk)
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            return False
        if content.at_eof() and content.exception() is None:
            break
    return True


def _decoded(status: int, headers: Mapping[str, str], body: bytes, latency_s: float) -> Response | Failure:
    encoding = headers.get("content-encoding", "")
    try:
        if encoding or body.startswith(b"\x1f\x8b"):
            body = decoded(body, encoding, MAX_BODY_BYTES)
    except TooLarge:
        return _too_large(latency_s, [body])
    except Truncated as error:
        return Failure(FailureKind.CUT, str(error), Paid.MAYBE, latency_s, body[:PARTIAL_BYTES])
    except Undecodable as error:
        if not 200 <= status < 300:
            return Response(status, headers, b"", latency_s)
        return Failure(FailureKind.ENCODING, str(error), Paid.MAYBE, latency_s, body[:PARTIAL_BYTES])
    return Response(status, headers, body, latency_s)


def _too_large(latency_s: float, received: list[bytes]) -> Failure:
    message = f"the answer is larger than {MAX_BODY_BYTES // 1024 // 1024} MiB and was cut off"
    partial = b"".join(received)[:PARTIAL_BYTES]
    return Failure(FailureKind.TOO_LARGE, message, Paid.MAYBE, latency_s, partial)


def _broken(error: Exception, timeout_s: float) -> tuple[FailureKind, Paid, str]:
    match error:
        case TimeoutError():
            return FailureKind.TIMEOUT, Paid.MAYBE, f"no whole answer within {timeout_s:g} s"
        case aiohttp.ClientPayloadError():
            return FailureKind.CUT, Paid.MAYBE, "the answer was cut off"
    words = one_line(str(error) or type(error).__name__)
    return FailureKind.RESET, Paid.MAYBE, f"the connection broke: {words}"
