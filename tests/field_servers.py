"""Small limited servers on loopback, one kind for each limiter fault seen in the field.

Each server decides a request by what it is told to be and nothing else, and keeps when every request arrived
and what it was answered. None shares a line with the limiter or with the simulator.
"""

import asyncio
import math
import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from itertools import pairwise
from typing import Any, Self

from aiohttp import web

from tests.raw_server import LoopbackServer

ROW = re.compile(r"row (\d+) ")


@dataclass(frozen=True)
class Reply:
    """What a server answers: a completion where ``body`` is ``None``."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    after_s: float = 0.05


@dataclass(frozen=True)
class Arrival:
    """A request as the server saw it: seconds since the server's start, the row's number, the status decided."""

    at_s: float
    row: int
    status: int


def refusal(headers: Mapping[str, str] | None = None, status: int = 429, **error: Any) -> Reply:
    said = {"message": "Too many requests", "type": "rate_limit", "code": status} | error
    return Reply(status, headers or {}, {"error": said}, after_s=0.01)


class FieldServer(LoopbackServer):
    """A server of which a subclass, or the function given, decides each request.

    Args:
        decide: Takes seconds since the start and the number in the row's text; returns the reply.
    """

    def __init__(self, decide: Callable[[float, int], Reply] | None = None) -> None:
        super().__init__()
        self.arrivals: list[Arrival] = []
        self._decide = decide

    def decide(self, now: float, row: int) -> Reply:
        assert self._decide is not None
        return self._decide(now, row)

    def now(self) -> float:
        """Seconds since the server's start."""
        return time.monotonic() - self._born

    @property
    def admitted(self) -> list[float]:
        """When the requests arrived that were answered with 200."""
        return [arrival.at_s for arrival in self.arrivals if arrival.status == 200]

    @property
    def refused(self) -> int:
        return sum(arrival.status == 429 for arrival in self.arrivals)

    @property
    def span_s(self) -> float:
        """From the first to the last admission."""
        return self.admitted[-1] - self.admitted[0]

    def longest_gap_s(self, since_s: float = 0.0) -> float:
        """The longest time between two arrivals, counted from the first one after ``since_s``."""
        times = [arrival.at_s for arrival in self.arrivals if arrival.at_s >= since_s]
        return max((after - before for before, after in pairwise(times)), default=0.0)

    def __enter__(self) -> Self:
        self._born = time.monotonic()
        return super().__enter__()

    async def _chat(self, request: web.Request) -> web.Response:
        body = await request.json()
        now = self.now()
        found = ROW.search(body["messages"][-1]["content"])
        row = int(found[1]) if found else -1
        reply = self.decide(now, row)
        self.arrivals.append(Arrival(now, row, reply.status))
        await asyncio.sleep(reply.after_s)
        return web.json_response(reply.body or completion(row), status=reply.status, headers=reply.headers)


def completion(row: int, *, prompt_tokens: int = 40, completion_tokens: int = 100) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{row}",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": f"answer {row}"},
            }
        ],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        },
    }


class FirstRefused(FieldServer):
    """Refuses the very first request with ``Retry-After: 1``, and nothing after it."""

    def decide(self, now: float, row: int) -> Reply:
        return Reply() if self.arrivals else refusal({"Retry-After": "1"})


class RefusesAtRandom(FieldServer):
    """Refuses a share of the requests at random, whatever their pace, and tells nothing."""

    def __init__(self, share: float, seed: int) -> None:
        super().__init__()
        self._share = share
        self._random = random.Random(seed)

    def decide(self, now: float, row: int) -> Reply:
        return refusal() if self._random.random() < self._share else Reply(after_s=0.2)


class SpentWindow(FieldServer):
    """A fixed window that somebody else has spent when the job begins.

    Args:
        limit: Requests of a window.
        window_s: Its length.
        left_s: Seconds from the start of the server until the window turns.
        tells: ``nothing``, ``retry-after`` (true, on refusals), or ``headers`` (true, on every answer).
    """

    def __init__(self, limit: int, window_s: float, left_s: float, tells: str) -> None:
        super().__init__()
        self._limit, self._window_s, self._tells = limit, window_s, tells
        self.turns_s = left_s
        self._number, self._used = 0, limit

    def decide(self, now: float, row: int) -> Reply:
        number = math.floor((now - self.turns_s) / self._window_s) + 1
        if number != self._number:
            self._number, self._used = number, 0
        left_s = self.turns_s + number * self._window_s - now
        fits = self._used < self._limit
        self._used += fits
        headers = {}
        if self._tells == "headers":
            headers = {
                "x-ratelimit-limit-requests": str(self._limit),
                "x-ratelimit-remaining-requests": str(self._limit - self._used),
                "x-ratelimit-reset-requests": f"{left_s:.3f}s",
            }
        if self._tells == "retry-after" and not fits:
            headers = {"Retry-After": str(math.ceil(left_s))}
        return Reply(headers=headers, after_s=0.1) if fits else refusal(headers)


class Bucket:
    """A token bucket that is full, or holds ``level``, at the start."""

    def __init__(self, per_minute: float, size: float | None = None, level: float | None = None) -> None:
        self.per_minute = per_minute
        self.size = per_minute if size is None else size
        self._level = self.size if level is None else level
        self._at_s = 0.0

    def level(self, now: float) -> float:
        self._level = min(self.size, self._level + (now - self._at_s) * self.per_minute / 60)
        self._at_s = now
        return self._level

    def take(self, amount: float) -> None:
        self._level -= amount

    def headers(self, name: str, now: float) -> dict[str, str]:
        whole_s = (self.size - self.level(now)) * 60 / self.per_minute
        return {
            f"x-ratelimit-limit-{name}": f"{self.per_minute:.0f}",
            f"x-ratelimit-remaining-{name}": f"{max(0, math.floor(self.level(now)))}",
            f"x-ratelimit-reset-{name}": f"{whole_s:.3f}s",
        }


class Buckets(FieldServer):
    """Requests and tokens in a bucket each; every row is charged alike.

    Args:
        requests, tokens: The buckets; ``None``: not limited.
        charge: Tokens that a request takes when it is let in.
        headers: Whether every answer tells limit, remaining and reset.
        latency_s: Draws how long an answer takes.
    """

    def __init__(
        self,
        requests: Bucket | None = None,
        tokens: Bucket | None = None,
        *,
        charge: int = 140,
        headers: bool = True,
        latency_s: Callable[[], float] = lambda: 0.2,
    ) -> None:
        super().__init__()
        self._buckets = {"requests": (requests, 1), "tokens": (tokens, charge)}
        self._headers, self._latency_s = headers, latency_s

    def decide(self, now: float, row: int) -> Reply:
        buckets = [(name, bucket, amount) for name, (bucket, amount) in self._buckets.items() if bucket]
        fits = all(bucket.level(now) >= amount for _, bucket, amount in buckets)
        headers: dict[str, str] = {}
        for name, bucket, amount in buckets:
            if fits:
                bucket.take(amount)
            if self._headers:
                headers |= bucket.headers(name, now)
        return Reply(headers=headers, after_s=self._latency_s()) if fits else refusal(headers)


RESETS: dict[str, Callable[[float], str]] = {
    "epoch_ms": lambda at: f"{at * 1000:.0f}",
    "epoch_s": lambda at: f"{math.ceil(at)}",
    "seconds": lambda at: f"{max(0.0, at - time.time()):.3f}",
    "iso_date": lambda at: datetime.fromtimestamp(math.ceil(at), UTC).isoformat().replace("+00:00", "Z"),
    "http_date": lambda at: format_datetime(datetime.fromtimestamp(math.ceil(at), UTC), usegmt=True),
}


class DailyQuota(FieldServer):
    """A quota of a day, spent after ``left`` more requests; refusals have no Retry-After and name the reset.

    Args:
        left: Requests that are still let in.
        returns_in_s: Seconds from the server's start until the quota is whole again.
        place: ``header`` or ``body`` (``error.metadata.headers``), where ``X-RateLimit-Reset`` stands.
        form: A key of ``RESETS``.
    """

    def __init__(self, left: int, returns_in_s: float, place: str, form: str) -> None:
        super().__init__()
        self._left, self._returns_in_s, self._place, self._form = left, returns_in_s, place, form
        self.returns_at = time.time() + returns_in_s

    def decide(self, now: float, row: int) -> Reply:
        if len(self.admitted) < self._left or now >= self._returns_in_s:
            return Reply()
        reset = RESETS[self._form](self.returns_at)
        told = {"X-RateLimit-Limit": "50", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": reset}
        message = "Rate limit exceeded: free-models-per-day"
        if self._place == "header":
            return refusal(told, message=message)
        return refusal(message=message, metadata={"headers": told, "provider_name": None})


class TwoHang(FieldServer):
    """Rows 3 and 4 hang for 100 s; ``good`` others are answered, and what comes then gets ``then``."""

    def __init__(self, good: int, then: Reply) -> None:
        super().__init__()
        self._good, self._then = good, then

    def decide(self, now: float, row: int) -> Reply:
        if row in (3, 4):
            return Reply(after_s=100)
        answered = sum(arrival.row not in (3, 4) for arrival in self.arrivals)
        return Reply() if answered < self._good else self._then
