"""The chat endpoint: admit, work it out, strike with a fault or answer."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from math import ceil
from typing import Any

import orjson
from aiohttp import web

from batchllm.simulator import wire
from batchllm.simulator.completion import Author, Completion, charge
from batchllm.simulator.faults import Chance
from batchllm.simulator.ledger import Ledger, LedgerFile
from batchllm.simulator.limits import RateLimits
from batchllm.simulator.problem import ApiError, injected
from batchllm.simulator.settings import SimulatorSettings
from batchllm.simulator.validation import check

_CLIENT_WENT = 499  # nginx's status for a client that closed its connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Scripted:
    """An answer that a test dictates.

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


Script = Callable[[dict[str, Any]], Scripted | None]


@dataclass(slots=True)
class _Exchange:
    """One request on its way through the endpoint."""

    number: int
    raw: bytes
    digest: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    fault: str | None = None
    scripted: Scripted | None = None
    completion: Completion | None = None
    recorded: bool = False


class Chat:
    """Answers chat requests under the limits, faults and latency of the settings."""

    def __init__(
        self,
        settings: SimulatorSettings,
        author: Author,
        ledger: Ledger,
        file: LedgerFile | None,
        script: Script | None,
    ) -> None:
        self._settings = settings
        self._author = author
        self._ledger = ledger
        self._file = file
        self._script = script
        self._chance = Chance(settings.seed, settings.error_rate, settings.latency_s, settings.latency_sigma)
        self._limits: dict[str, RateLimits] = {}
        self._limited = (settings.requests_per_minute, settings.tokens_per_minute) != (None, None)
        self._closing = asyncio.Event()

    def close(self) -> None:
        """Let go of the requests that are never answered."""
        self._closing.set()

    async def answer(
        self, request: web.BaseRequest, raw: bytes, deployment: str | None
    ) -> web.StreamResponse:
        """Answer one request, or fail it as the settings say."""
        exchange = _Exchange(self._ledger.arrive(), raw)
        exchange.headers["x-request-id"] = f"req_{exchange.number:016x}"
        if self._file is not None:
            exchange.digest = sha256(raw).hexdigest()
        try:
            return await self._answer(request, exchange, deployment)
        except ApiError as error:
            self._count(error)
            return self._send(exchange, error.status, orjson.dumps(error.body()), error.headers)
        except asyncio.CancelledError:
            self._ledger.abandoned += 1
            self._record(exchange, _CLIENT_WENT, whole=False)
            raise
        finally:
            self._ledger.leave()

    async def _answer(
        self, request: web.BaseRequest, exchange: _Exchange, deployment: str | None
    ) -> web.StreamResponse:
        body = self._read(exchange.raw, deployment)
        self._admit(body, exchange)
        if self._script is not None:
            exchange.scripted = self._script(body)
        scripted = exchange.scripted
        exchange.fault = scripted.fault if scripted else self._chance.fault(exchange.number)
        if exchange.fault:
            exchange.headers["x-simulator-injected"] = "1"
            self._ledger.injected[exchange.fault] += 1
        delay_s = scripted.delay_s if scripted else self._chance.latency_s(exchange.number)
        if exchange.fault and exchange.fault.isdigit():
            await _pass(delay_s)
            raise injected(int(exchange.fault), self._settings.injected_retry_after_s)
        if scripted is None or scripted.body is None:
            self._complete(body, exchange)
        await _pass(delay_s)
        if exchange.fault in ("timeout", "reset", "cut", "garbage"):
            return await self._strike(request, exchange)
        if scripted is None:
            return self._send(exchange, 200, self._content(exchange))
        return self._send(exchange, scripted.status, self._content(exchange), scripted.headers)

    def _read(self, raw: bytes, deployment: str | None) -> dict[str, Any]:
        try:
            body = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            message = (
                "We could not parse the JSON body of your request. (HINT: This likely means you aren't using "
                "your HTTP library correctly. The OpenAI API expects a JSON payload, but what was sent was "
                f"not valid JSON: {error}.)"
            )
            raise ApiError(400, message) from error
        if deployment is not None and isinstance(body, dict):
            body["model"] = deployment
        check(body)
        self.check_model(body["model"])
        return body  # type: ignore[no-any-return]

    def check_model(self, model: str) -> None:
        """Raise ``ApiError`` 404 for a model that the settings do not list."""
        if self._settings.models is not None and model not in self._settings.models:
            raise ApiError(
                404, f"The model `{model}` does not exist or you do not have access to it.", "model_not_found"
            )

    def _admit(self, body: Mapping[str, Any], exchange: _Exchange) -> None:
        if not self._limited:
            return
        now = asyncio.get_running_loop().time()
        limits = self._limits.get(body["model"])
        if limits is None:
            limits = self._limits[body["model"]] = RateLimits(
                self._settings.requests_per_minute,
                self._settings.tokens_per_minute,
                model=self._settings.limit_model,
                count_refused=self._settings.count_refused,
                now=now,
            )
        refusal = limits.admit(now, charge(body))
        if self._settings.headers:
            exchange.headers.update(limits.headers(now))
        if refusal is None:
            return
        self._ledger.refused += 1
        headers = self._retry_after(refusal.wait_s) if refusal.wait_s is not None else {}
        raise ApiError(
            429, refusal.message(body["model"]), "rate_limit_exceeded", refusal.kind, headers=headers
        )

    def _retry_after(self, wait_s: float) -> dict[str, str]:
        if not self._settings.retry_after:
            return {}
        return {"retry-after": str(ceil(wait_s)), "retry-after-ms": str(ceil(wait_s * 1000))}

    def _count(self, error: ApiError) -> None:
        """Count a rejection of the request itself; limits and faults count their own."""
        if error.code != "rate_limit_exceeded" and "x-simulator-injected" not in error.headers:
            self._ledger.rejected += 1

    def _complete(self, body: Mapping[str, Any], exchange: _Exchange) -> None:
        done = self._author.complete(
            body, exchange.raw, exchange.number, int(time.time()), fault=exchange.fault
        )
        self._ledger.bill(done.prompt_tokens, done.completion_tokens)
        exchange.completion = done

    def _content(self, exchange: _Exchange) -> bytes:
        if exchange.completion is not None:
            return orjson.dumps(exchange.completion.body)
        body = exchange.scripted.body if exchange.scripted else None
        return body if isinstance(body, bytes) else orjson.dumps(body or {})

    def _send(
        self, exchange: _Exchange, status: int, content: bytes, more: Mapping[str, str] | None = None
    ) -> web.Response:
        headers = exchange.headers
        if more:
            headers.update(more)
        if status == 429 and exchange.fault:
            headers.update(self._retry_after(self._settings.injected_retry_after_s))
        headers.setdefault("content-type", "application/json")
        self._record(exchange, status, whole=True)
        self._ledger.answered += status == 200
        return web.Response(status=status, body=content, headers=headers)

    def _record(self, exchange: _Exchange, status: int | None, *, whole: bool) -> None:
        if self._file is None or exchange.recorded:
            return
        exchange.recorded = True
        done = exchange.completion
        self._file.write(
            kind="chat",
            identity=done.body["id"] if done else exchange.headers["x-request-id"],
            body_sha256=exchange.digest,
            status=status,
            whole=whole,
            prompt_tokens=done.prompt_tokens if done else 0,
            completion_tokens=done.completion_tokens if done else 0,
        )

    async def _strike(self, request: web.BaseRequest, exchange: _Exchange) -> web.StreamResponse:
        """Fail on the wire. The answer was worked out and is on the bill all the same."""
        if exchange.fault == "garbage":
            self._record(exchange, 200, whole=False)
            return wire.garbage(exchange.headers)
        if exchange.fault == "cut":
            self._record(exchange, 200, whole=False)
            return await wire.send_half(request, self._content(exchange), exchange.headers)
        self._record(exchange, None, whole=False)
        if exchange.fault == "timeout":
            await self._closing.wait()
        return wire.abort(request, reset=exchange.fault == "reset")


async def _pass(seconds: float) -> None:
    if seconds > 0:
        await asyncio.sleep(seconds)
