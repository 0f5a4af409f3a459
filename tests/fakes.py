"""Small working stand-ins: a client that answers from a script, in the loop's time, and a bar that is silent."""

import asyncio
import json
from collections.abc import Callable, Iterable
from typing import Any

from batchllm.progress import Quiet
from batchllm.records import ChatRequest, Failure, FailureKind, Paid, Response

Outcome = Response | Failure
Script = Callable[[ChatRequest, int], Outcome]


class Notes(Quiet):
    """Remembers what the bar says beside the rows."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def show(self, done: int, failed: int, tokens: int | None, note: str, waits: str = "") -> None:
        self.notes.append(note)


def chat_body(
    text: str | None = "fine", *, finish_reason: str = "stop", prompt: int = 5, completion: int = 3
) -> bytes:
    """The body of a chat answer."""
    return json.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1_700_000_000,
            "model": "fake",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": text},
                    "finish_reason": finish_reason,
                }
            ],
            "usage": {
                "prompt_tokens": prompt,
                "completion_tokens": completion,
                "total_tokens": prompt + completion,
            },
        }
    ).encode()


def answered(text: str | None = "fine", **details: Any) -> Response:
    return Response(200, {"content-type": "application/json"}, chat_body(text, **details), 0.01)


def status(code: int, message: str = "no", error_code: str | None = None, **headers: str) -> Response:
    body = json.dumps(
        {"error": {"message": message, "type": "t", "code": error_code, "param": None}}
    ).encode()
    return Response(code, {name.replace("_", "-"): value for name, value in headers.items()}, body, 0.01)


def lost(kind: FailureKind = FailureKind.TIMEOUT, paid: Paid = Paid.MAYBE) -> Failure:
    return Failure(kind, f"{kind}", paid, 0.01)


class FakeClient:
    """Answers each request by a script of the request and how often it was seen; knows what was in flight.

    Attributes:
        sent: The loop's time and the row of every attempt.
        in_flight, most_in_flight: Requests on their way, now and at the most.
    """

    def __init__(
        self, script: Script = lambda request, attempt: answered(), *, latency_s: float = 0.5
    ) -> None:
        self._script = script
        self._latency_s = latency_s
        self.sent: list[tuple[float, int]] = []
        self.seen: dict[int, int] = {}
        self.in_flight = 0
        self.most_in_flight = 0

    async def send(self, request: ChatRequest) -> Outcome:
        self.sent.append((asyncio.get_running_loop().time(), request.row_index))
        attempt = self.seen[request.row_index] = self.seen.get(request.row_index, 0) + 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self._latency_s)
            return self._script(request, attempt)
        finally:
            self.in_flight -= 1


def in_turn(*outcomes: Outcome) -> Script:
    """Every row gets these outcomes, one an attempt; the last one again and again."""
    return lambda request, attempt: outcomes[min(attempt, len(outcomes)) - 1]


def rows_with(bad: Iterable[int], outcome: Outcome) -> Script:
    """Some rows always get ``outcome``, the others an answer."""
    chosen = set(bad)
    return lambda request, attempt: outcome if request.row_index in chosen else answered()
