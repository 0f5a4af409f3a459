"""Items for a limiter, and what a test does with them."""

import random
from typing import Any

from batchllm.limiter import Cost, Limiter
from batchllm.records import Pace, Usage
from batchllm.retry import Disposition, Verdict

COST = Cost(100, 200)
USED = Usage(100, 50, 150)
REFUSED = Verdict(Disposition.REFUSED, "rate_limit", "requests per min (RPM)")
BROKEN = Verdict(Disposition.TRANSIENT, "http_500", "it answered 500")
CONNECT = Verdict(Disposition.TRANSIENT, "connect", "no connection")
OVERLOADED = Verdict(Disposition.OVERLOADED, "overloaded", "server busy")


class Item:
    """What waits: equal to every other one, so only its identity tells it apart."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


def make(rows: int = 0, *, charge: str = "max_tokens", **pace: Any) -> Limiter[Item]:
    limiter: Limiter[Item] = Limiter(Pace(**pace), charge=charge, now=0.0, rng=random.Random(1))
    for _ in range(rows):
        limiter.offer(Item(), COST, lane="m")
    return limiter


def answer(limiter: Limiter[Item], now: float, item: Item, headers: dict[str, str] | None = None) -> None:
    limiter.answered(now, item, headers or {}, USED)
    limiter.released(now, item)


def warm(limiter: Limiter[Item], now: float = 0.0) -> None:
    """Answers the first request, which goes alone."""
    (item,) = limiter.poll(now).grants
    answer(limiter, now, item)


def fill(limiter: Limiter[Item], now: float) -> list[Item]:
    """All that goes within a second without any further event."""
    granted: list[Item] = []
    wake: float | None = now
    while wake is not None and wake < now + 1.0:
        poll = limiter.poll(wake)
        granted += poll.grants
        wake = poll.wake_at
    return granted
