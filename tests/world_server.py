"""Endpoints whose answers are functions of the requests, with one ledger of what was paid.

An answer that gets to another row is seen, because it names its own; and a request that is paid twice, because the
ledger has it twice.
"""

import hashlib
import json
import random
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from batchllm.simulator import ScriptedResponse, SimulatorSettings, start_in_thread
from tests.field_servers import FieldServer

ROW = re.compile(r"row (\d+)\b")
LABELS = ("positive", "negative", "neutral")
PROMPT_TOKENS, COMPLETION_TOKENS = 10, 5


@dataclass(frozen=True)
class Arrival:
    """A request as an endpoint saw it.

    Attributes:
        at_s: When, on the clock of ``time.time``.
        key: What was asked, whatever the model is called.
        row: The row that its text names.
        endpoint: Which endpoint was asked.
        model: The name of the model.
        paid: It was answered, or would have been.
    """

    at_s: float
    key: str
    row: int
    endpoint: int
    model: str
    paid: bool


@dataclass
class WorldLedger:
    """What some endpoints were asked.

    Attributes:
        chance: Draws what the endpoints do by chance.
        fault_rate: The share of requests that are refused or fail for a moment.
        useless: Every answer is one that the job cannot use.
        arrivals: All requests.
    """

    chance: random.Random
    fault_rate: float = 0.0
    useless: bool = False
    arrivals: list[Arrival] = field(default_factory=list)

    def paid(self) -> Counter[str]:
        """How often each request was paid."""
        return Counter(each.key for each in self.arrivals if each.paid)

    def reply(self, endpoint: int, body: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        """Returns status and body of the answer to a request."""
        asked = {name: value for name, value in body.items() if name != "model"}
        key = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]
        content = body["messages"][-1]["content"]
        named = [ROW.findall(str(each["content"])) for each in reversed(body["messages"])]
        row = next((int(found[-1]) for found in named if found), -1)
        status, answer = 200, completion(f"chat-{key}", body["model"], self._text(key, row, body))
        if "refused" in content:
            status, answer = 400, _error("it is against the policy", "content_policy_violation")
        elif self.chance.random() < self.fault_rate:
            status = self.chance.choice((429, 500, 503))
            answer = _error("try again", None)
        self.arrivals.append(Arrival(time.time(), key, row, endpoint, body["model"], status == 200))
        return status, answer

    def _text(self, key: str, row: int, body: Mapping[str, Any]) -> str:
        number = int(key, 16)
        if self.useless:
            return "neither of them"
        if "response_format" in body:
            if number % 11 == 0:
                return "no JSON"
            return json.dumps({"sort": "ab"[number % 2], "score": 1 + number % 5})
        whole = " ".join(str(each["content"]) for each in body["messages"])
        if all(label in whole for label in LABELS):
            return LABELS[number % 3]
        return f"echo {key} of row {row}"


def completion(identity: str, model: str, text: str) -> dict[str, Any]:
    usage = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": COMPLETION_TOKENS}
    message = {"role": "assistant", "content": text}
    return {
        "id": identity,
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        "usage": {**usage, "total_tokens": PROMPT_TOKENS + COMPLETION_TOKENS},
    }


def _error(message: str, code: str | None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "t", "code": code, "param": None}}


class PlainEndpoint(FieldServer):
    """An endpoint that says nothing about limits."""

    def __init__(self, number: int, ledger: WorldLedger, latency_s: float) -> None:
        super().__init__()
        self.ledger = ledger
        self._number, self._latency_s = number, latency_s

    async def _chat(self, request: web.Request) -> web.Response:
        import asyncio

        status, answer = self.ledger.reply(self._number, await request.json())
        delay_s = self._latency_s * self.ledger.chance.uniform(0.5, 1.5)
        await asyncio.sleep(delay_s)
        return web.json_response(answer, status=status, headers={"Retry-After": "0"} if status != 200 else {})


@contextmanager
def endpoint(number: int, ledger: WorldLedger, latency_s: float) -> Iterator[str]:
    """Runs an endpoint of one of two makes; yields its URL."""
    if number % 2:
        with PlainEndpoint(number, ledger, latency_s) as server:
            yield server.base_url
        return

    def script(body: dict[str, Any]) -> ScriptedResponse:
        status, answer = ledger.reply(number, body)
        return ScriptedResponse(
            status=status, body=answer, delay_s=latency_s * ledger.chance.uniform(0.5, 1.5)
        )

    with start_in_thread(SimulatorSettings(), script=script) as simulator:
        yield simulator.base_url
