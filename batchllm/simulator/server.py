"""The server: URLs, keys, errors, and the life of the listening socket."""

import asyncio
import inspect
import re
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import orjson
from aiohttp import web

from batchllm.errors import UsageError
from batchllm.simulator.batches import SimulatedBatches
from batchllm.simulator.chat import Chat, Script
from batchllm.simulator.completion import MODEL, CompletionBuilder
from batchllm.simulator.errors import ApiError, parsed
from batchllm.simulator.files import FileStore, page_of
from batchllm.simulator.ledger import Ledger
from batchllm.simulator.settings import SimulatorSettings

HOST = "127.0.0.1"
_BACKLOG = 4096  # connections that may wait to be accepted: a client opens all of its own at once
_SHUTDOWN_S = 1.0
_MAX_BODY_BYTES = 256 * 1024 * 1024
_BASE = re.compile(r"(?:/[\w.-]+)*?/v1(?=/)")  # ``/v1``, ``/openai/v1``, ``/api/v1`` and alike

Handler = Callable[[web.BaseRequest, str], Any]


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it came, kept for tests.

    Attributes:
        method: ``POST``, …
        path: Path and query.
        headers: Names in lower case to values.
        body: The bytes.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class Simulator:
    """An OpenAI-compatible server on loopback, for ``async with`` in a running loop.

    Args:
        settings: How it behaves.
        script: Called with every accepted request; what it returns is sent instead of the usual answer.

    Raises:
        UsageError: On entry, the port is taken.

    Attributes:
        ledger: Counters of what it received and sent.
        received: The latest ``keep_requests`` chat requests.
    """

    def __init__(self, settings: SimulatorSettings | None = None, *, script: Script | None = None) -> None:
        self.settings = settings or SimulatorSettings()
        self.ledger = Ledger()
        self.received: deque[Received] = deque(maxlen=self.settings.keep_requests)
        self._builder = CompletionBuilder()
        self._script = script
        self._port = 0

    @property
    def base_url(self) -> str:
        """The root of the API, ending in ``/v1``."""
        return f"http://{HOST}:{self._port}/v1"

    async def __aenter__(self) -> Self:
        settings = self.settings
        self._folder = TemporaryDirectory(prefix="simulator-")
        self._chat = Chat(settings, self._builder, self.ledger, self._script)
        files = FileStore(Path(self._folder.name), settings.batches.max_file_bytes)
        self._batches = SimulatedBatches(settings, files, self._builder, self.ledger)
        self._routes = self._routes_to(files, self._batches)
        server = web.Server(self._handle, request_factory=_large_request, handler_cancellation=True)
        self._runner = web.ServerRunner(server, access_log=None, shutdown_timeout=_SHUTDOWN_S)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, HOST, settings.port, backlog=_BACKLOG).start()
        except OSError as error:
            await self.__aexit__()
            raise UsageError(
                f"the simulator cannot listen on {HOST}, port {settings.port} "
                f"({error.strerror or error}): choose another port, or 0 for a free one"
            ) from error
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._chat.close()
        await self._batches.close()
        await self._runner.cleanup()
        self._folder.cleanup()

    def _routes_to(
        self, files: FileStore, batches: SimulatedBatches
    ) -> list[tuple[re.Pattern[str], Handler]]:
        """Returns what answers each method and path; a handler gets the id in the path."""

        async def upload(request: web.BaseRequest, _: str) -> dict[str, Any]:
            uploaded = await files.upload(request)
            self.ledger.files += 1
            return uploaded

        async def create_batch(request: web.BaseRequest, _: str) -> dict[str, Any]:
            return batches.create(parsed(await request.read()))

        routes: dict[str, Handler] = {
            "POST /chat/completions": self._answer_chat,
            "GET /models": lambda *_: {"object": "list", "data": self._models()},
            "POST /files": upload,
            "GET /files": lambda request, _: page_of(files.listed(), request.query, 10_000),
            "GET /files/([^/]+)": lambda _, name: files[name],
            "DELETE /files/([^/]+)": lambda _, name: files.delete(name),
            "GET /files/([^/]+)/content": lambda _, name: web.FileResponse(files.path(name)),
            "POST /batches": create_batch,
            "GET /batches": lambda request, _: page_of(batches.states(), request.query, 20),
            "GET /batches/([^/]+)": lambda _, name: batches.retrieve(name),
            "POST /batches/([^/]+)/cancel": lambda _, name: batches.cancel(name),
        }
        return [(re.compile(pattern), handler) for pattern, handler in routes.items()]

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            handler, name = self._find(request)
            self._check_key(request)
            answer = handler(request, name)
            if inspect.isawaitable(answer):
                answer = await answer
            return answer if isinstance(answer, web.StreamResponse) else _json(answer)
        except ApiError as error:
            return _json(error.body(), error.status, error.headers)

    def _find(self, request: web.BaseRequest) -> tuple[Handler, str]:
        """Returns the handler of a request and the id in its path."""
        base = _BASE.match(request.path)
        asked = f"{request.method} {request.path[base.end() :]}" if base else ""
        for pattern, handler in self._routes:
            if found := pattern.fullmatch(asked):
                return handler, "".join(found.groups())
        raise ApiError(404, f"Unknown request URL: {request.method} {request.path}.", "unknown_url")

    def _check_key(self, request: web.BaseRequest) -> None:
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        given = request.headers.get("api-key") or bearer
        if self.settings.api_key not in (None, given):
            self.ledger.requests += 1
            self.ledger.rejected += 1
            raise ApiError(401, f"Incorrect API key provided: {given[:3]}***.", "invalid_api_key")

    async def _answer_chat(self, request: web.BaseRequest, _: str) -> web.StreamResponse:
        raw = await request.read()
        if self.settings.keep_requests:
            headers = {name.lower(): value for name, value in request.headers.items()}
            self.received.append(Received(request.method, request.path_qs, headers, raw))
        return await self._chat.answer(request, raw)

    def _models(self) -> list[dict[str, Any]]:
        names = self.settings.models or (MODEL,)
        return [{"id": each, "object": "model", "created": 0, "owned_by": "batchllm"} for each in names]


def _large_request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=_MAX_BODY_BYTES)


def _json(
    body: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    usual = {"x-request-id": f"req_{time.monotonic_ns():016x}", "content-type": "application/json"}
    return web.Response(status=status, body=orjson.dumps(body), headers={**usual, **(headers or {})})
