"""The server: routes, keys, errors, and the life of the listening socket."""

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import orjson
from aiohttp import web

from batchllm.errors import UsageError
from batchllm.simulator.batches import Batches
from batchllm.simulator.chat import Chat, Script
from batchllm.simulator.completion import MODEL, Author
from batchllm.simulator.files import FileStore, paged
from batchllm.simulator.ledger import Ledger, LedgerFile
from batchllm.simulator.problem import ApiError
from batchllm.simulator.route import Route, route_of
from batchllm.simulator.settings import SimulatorSettings

_BACKLOG = 4096  # connections that may wait to be accepted: a client opens all of its own at once
_GOODBYE_S = 1.0


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
        ledger: What it saw and sent.
        received: The latest ``keep_requests`` chat requests.
    """

    def __init__(
        self,
        settings: SimulatorSettings | None = None,
        *,
        script: Script | None = None,
    ) -> None:
        self.settings = settings or SimulatorSettings()
        self.ledger = Ledger()
        self.received: deque[Received] = deque(maxlen=self.settings.keep_requests)
        self._script = script
        self._author = Author(self.settings.seed)
        self._port = 0

    @property
    def base_url(self) -> str:
        """The root of the API, ending in ``/v1``."""
        host = f"[{self.settings.host}]" if ":" in self.settings.host else self.settings.host
        return f"http://{host}:{self._port}/v1"

    async def __aenter__(self) -> Self:
        settings = self.settings
        self._file = LedgerFile(settings.ledger_path) if settings.ledger_path else None
        self._folder = TemporaryDirectory(prefix="simulator-")
        self._files = FileStore(Path(self._folder.name), settings.batches.max_file_bytes)
        self._chat = Chat(settings, self._author, self.ledger, self._file, self._script)
        self._batches = Batches(
            settings, self._files, self._author, self.ledger, self._file, self._chat.check_model
        )
        server = web.Server(self._handle, request_factory=self._request, handler_cancellation=True)
        self._runner = web.ServerRunner(server, access_log=None, shutdown_timeout=_GOODBYE_S)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, settings.host, settings.port, backlog=_BACKLOG).start()
        except OSError as error:
            await self.__aexit__()
            raise UsageError(
                f"the simulator cannot listen on {settings.host}, port {settings.port} "
                f"({error.strerror or error}): choose another port, or 0 for a free one"
            ) from error
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._chat.close()
        await self._batches.close()
        await self._runner.cleanup()
        self._folder.cleanup()
        if self._file is not None:
            self._file.close()

    def _request(self, message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
        loop = asyncio.get_running_loop()
        largest = self.settings.max_body_bytes
        return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=largest)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            route = route_of(request.method, request.path, request.query_string)
            if not self._accepts_key(request):
                self.ledger.requests += 1
                self.ledger.rejected += 1
                raise _wrong_key(request)
            if route.resource == "chat":
                raw = await request.read()
                if self.settings.keep_requests:
                    headers = {name.lower(): value for name, value in request.headers.items()}
                    self.received.append(Received(request.method, request.path_qs, headers, raw))
                return await self._chat.answer(request, raw, route.identity)
            return await self._serve(request, route)
        except ApiError as error:
            return _json(error.body(), error.status, error.headers)
        except web.HTTPRequestEntityTooLarge:
            message = f"The request is larger than {self.settings.max_body_bytes} bytes."
            return _json(ApiError(413, message, "request_too_large").body(), 413)

    async def _serve(self, request: web.BaseRequest, route: Route) -> web.StreamResponse:
        """Everything that is not chat."""
        match route.resource, request.method:
            case "models", _:
                return _json({"object": "list", "data": self._models()})
            case "model", _:
                self._chat.check_model(route.identity or "")
                return _json(_model(route.identity or MODEL))
            case "ledger", _:
                return _json(self.ledger.snapshot())
            case "files", "POST":
                file = await self._files.upload(request)
                self.ledger.files += 1
                return _json(file.object())
            case "files", _:
                return _json(paged(self._files.all(request.query.get("purpose")), request.query, 10_000))
            case "file", "DELETE":
                return _json(self._files.delete(route.identity or ""))
            case "file", _:
                return _json(self._files[route.identity or ""].object())
            case "content", _:
                return web.FileResponse(self._files[route.identity or ""].path)
            case "batches", "POST":
                return _json(self._batches.create(await _json_of(request)))
            case "batches", _:
                return _json(paged(self._batches.all(), request.query, 20))
            case "cancel", _:
                return _json(self._batches.cancel(route.identity or ""))
            case _:
                return _json(self._batches.retrieve(route.identity or ""))

    def _models(self) -> list[dict[str, Any]]:
        return [_model(name) for name in self.settings.models or (MODEL,)]

    def _accepts_key(self, request: web.BaseRequest) -> bool:
        return self.settings.api_key is None or _key_of(request) == self.settings.api_key


def _key_of(request: web.BaseRequest) -> str:
    return request.headers.get("api-key") or request.headers.get("authorization", "").removeprefix("Bearer ")


def _wrong_key(request: web.BaseRequest) -> ApiError:
    given = _key_of(request)
    if not given:
        return ApiError(401, "You didn't provide an API key. Send it as a Bearer token.", None)
    shown = f"{given[:3]}{'*' * 8}{given[-4:]}" if len(given) > 12 else "*" * len(given)
    return ApiError(401, f"Incorrect API key provided: {shown}.", "invalid_api_key")


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 1_700_000_000, "owned_by": "batchllm"}


async def _json_of(request: web.BaseRequest) -> Any:
    try:
        return orjson.loads(await request.read())
    except orjson.JSONDecodeError as error:
        raise ApiError(400, f"We could not parse the JSON body of your request: {error}.") from error


def _json(
    body: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    identity = {"x-request-id": f"req_{time.monotonic_ns():016x}"}
    return web.Response(
        status=status,
        body=orjson.dumps(body),
        content_type="application/json",
        headers={**identity, **(headers or {})},
    )
