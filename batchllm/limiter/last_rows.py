"""Keeps the last rows of a job for the endpoints that answer them first.

Near the end a free slot is no reason to send: a row that a slow endpoint takes may be answered long after the others
have answered all that wait. The time in which all can be answered is the least over the fastest endpoints, the two
fastest, and so on, of the time in which these get through what is left, and the latency of the slowest of them. An
endpoint whose latency is longer than that gets nothing more, unless it works and the others do not get on.
"""

import math
from collections.abc import Sequence
from typing import Any

from batchllm.limiter.route import Route

LOOK_S = 0.1
"""How often it is computed again."""
MORE_S = 1.0
"""How much longer than computed nothing may leave for the others, before all endpoints get the last rows after all."""


def all_answered_s(left: float, costs: Sequence[tuple[float, float]]) -> float:
    """Returns the seconds in which what is left can be answered.

    Args:
        left: How many requests are left to be sent.
        costs: Of each endpoint that works, the latency in seconds, and the requests a second.
    """
    least, together = math.inf, 0.0
    for latency_s, rate in sorted(costs):
        together += rate
        if together > 0.0:
            least = min(least, left / together + latency_s)
    return least


class LastRows:
    """Says which endpoints get none of the last rows.

    Attributes:
        held: Their numbers.
    """

    def __init__(self) -> None:
        self.held: frozenset[int] = frozenset()
        self._looked_at = self._moved_at = -math.inf
        self._is_over = False

    def moved(self, now: float) -> None:
        """Records that a row has left, or that none waits."""
        self._moved_at = now

    def look(self, now: float, left: float, routes: Sequence[Route[Any]]) -> float:
        """Decides again where it is time; returns when to ask the next time, infinity if none is held back.

        Args:
            now: The time now.
            left: How many requests are left to be sent.
            routes: The endpoints.
        """
        if self._is_over:
            return math.inf
        if now >= self._looked_at + LOOK_S:
            self._looked_at = now
            latencies = {route.number: route.latency_s(now) for route in routes if not route.out}
            all_s = all_answered_s(
                left, [(latencies[route.number], route.rate) for route in routes if route.works]
            )
            held = frozenset(number for number, latency_s in latencies.items() if latency_s > all_s)
            self._is_over = bool(self.held) and now > self._moved_at + all_s + MORE_S
            self.held = frozenset() if self._is_over else held
        return self._looked_at + LOOK_S if self.held else math.inf
