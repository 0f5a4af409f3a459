"""The chat endpoint: checks a request, admits it, and answers it or injects a fault."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

from batchllm.simulator.completion import CompletionBuilder, limited_tokens
from batchllm.simulator.errors import ApiError, parsed
from batchllm.simulator.faults import (
    CONNECTION_FAULTS,
    draw_fault,
    draw_latency_s,
    inject_fault,
    injected_error,
    retry_after_headers,
)
from batchllm.simulator.ledger import Ledger
from batchllm.simulator.limits import RateLimits
from batchllm.simulator.settings import SimulatorSettings
from batchllm.simulator.validation import check


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptedResponse:
    """A response that a test dictates.

    Attributes:
        status: HTTP status.
        headers: Headers beside the usual ones.
        body: The bytes, or an object to write as JSON; ``None`` answers as without a script.
        delay_s: Seconds before the answer.
        fault: A fault as in ``SimulatorSettings.error_rate`` instead of an answer.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Mapping[str, Any] | None = None
    delay_s: float = 0.0
    fault: str | None = None


Script = Callable[[dict[str, Any]], ScriptedResponse | None]


class Chat:
    """Answers chat requests under the limits, faults and latency of the settings."""

    def __init__(
        self, settings: SimulatorSettings, builder: CompletionBuilder, ledger: Ledger, script: Script | None
    ) -> None:
        self._settings = settings
        self._builder = builder
        self._ledger = ledger
        self._script = script
        self._limits: dict[str, RateLimits] = {}
        self._closing = asyncio.Event()

    def close(self) -> None:
        """Closes the connections of requests that are never answered."""
        self._closing.set()

    async def answer(self, request: web.BaseRequest, raw: bytes) -> web.StreamResponse:
        """Answers one request, or fails it as the settings say."""
        number = self._ledger.arrive()
        headers = {"x-request-id": f"req_{number:016x}", "content-type": "application/json"}
        try:
            return await self._answer(request, raw, number, headers)
        except ApiError as error:
            if error.code != "rate_limit_exceeded" and "x-simulator-injected" not in error.headers:
                self._ledger.rejected += 1
            headers.update(error.headers)
            return web.Response(status=error.status, body=orjson.dumps(error.body()), headers=headers)
        except asyncio.CancelledError:
            self._ledger.abandoned += 1
            raise
        finally:
            self._ledger.in_flight -= 1

    async def _answer(
        self, request: web.BaseRequest, raw: bytes, number: int, headers: dict[str, str]
    ) -> web.StreamResponse:
        settings, body = self._settings, parsed(raw)
        check(body, settings.models)
        self._admit(body, headers)
        scripted = (self._script(body) if self._script else None) or ScriptedResponse(
            fault=draw_fault(settings.seed, number, settings.error_rate),
            delay_s=draw_latency_s(settings.seed, number, settings.latency_s),
        )
        fault, content = scripted.fault, scripted.body
        if fault:
            headers["x-simulator-injected"] = "1"
            self._ledger.injected[fault] += 1
        if fault and fault.isdigit():
            await asyncio.sleep(scripted.delay_s)
            raise injected_error(int(fault), settings.injected_retry_after_s)
        if content is None:
            content = self._builder.build(body, raw, number, int(time.time()), fault=fault)
            self._ledger.charge(content["usage"])
        if not isinstance(content, bytes):
            content = orjson.dumps(content)
        if scripted.delay_s > 0:
            await asyncio.sleep(scripted.delay_s)
        if fault == "timeout":
            await self._closing.wait()
        if fault in CONNECTION_FAULTS:
            return await inject_fault(fault, request, content, headers)
        headers.update(scripted.headers)
        self._ledger.answered += scripted.status == 200
        return web.Response(status=scripted.status, body=content, headers=headers)

    def _admit(self, body: Mapping[str, Any], headers: dict[str, str]) -> None:
        settings, model = self._settings, body["model"]
        if settings.requests_per_minute is None and settings.tokens_per_minute is None:
            return
        now = asyncio.get_running_loop().time()
        if model not in self._limits:
            limits = RateLimits(settings.requests_per_minute, settings.tokens_per_minute, now=now)
            self._limits[model] = limits
        refusal = self._limits[model].admit(now, limited_tokens(body))
        if settings.headers:
            headers.update(self._limits[model].headers(now))
        if refusal is not None:
            self._ledger.refused += 1
            wait = retry_after_headers(refusal.wait_s) if refusal.wait_s is not None else {}
            message = refusal.message(model)
            raise ApiError(429, message, "rate_limit_exceeded", refusal.kind, headers=wait)
