"""Servers that answer chat requests with whatever bytes and headers a test likes."""

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Self

from aiohttp import web


class LoopbackServer(ABC):
    """An OpenAI-compatible URL on loopback, in a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def _serve(self) -> None:
        self._loop.run_until_complete(self._run())
        self._loop.close()

    async def _run(self) -> None:
        self._stop = asyncio.Event()
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._chat)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self._port = runner.addresses[0][1]
        self._ready.set()
        await self._stop.wait()
        await runner.cleanup()

    @abstractmethod
    async def _chat(self, request: web.Request) -> web.Response: ...


class RawServer(LoopbackServer):
    """Answers what a function says.

    Args:
        answer: Takes the body of a request; returns the response.
    """

    def __init__(self, answer: Callable[[dict[str, Any]], web.Response]) -> None:
        super().__init__()
        self._answer = answer

    async def _chat(self, request: web.Request) -> web.Response:
        return self._answer(await request.json())
