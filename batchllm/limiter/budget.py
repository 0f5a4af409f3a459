"""What is left of a limit that is counted, not paced: a day's grant, or a window that starts anew.

A budget is spent at the pace that other limits allow, never stretched over its period. Every answer corrects
it; between answers, what leaves is taken off, and what a leaky bucket lets go is added.
"""

from batchllm.limiter.headers import Level
from batchllm.limiter.terms import DAY_S, MINUTE_S

_AFTER_EDGE_S = 0.1


class Budget:
    """The remainder of one counted limit.

    Attributes:
        dimension: ``requests``, ``tokens``, ``input_tokens`` or ``output_tokens``.
        daily: Its period is a day.
        leaks: It comes back little by little (a leaky bucket), not all at once.
        limit: The grant per period.
    """

    __slots__ = ("_at", "_edge", "_left", "_sent_at", "daily", "dimension", "leaks", "limit")

    def __init__(self, dimension: str, *, daily: bool, leaks: bool) -> None:
        self.dimension = dimension
        self.daily = daily
        self.leaks = leaks
        self.limit = 0.0
        self._left = 0.0
        self._at = 0.0
        self._edge = float("inf")
        self._sent_at = float("-inf")

    def observe(self, now: float, sent_at: float, level: Level, taken_since: float) -> None:
        """Takes note of an answer; ``taken_since`` is what has left after its request did."""
        if sent_at < self._sent_at or level.remaining is None or level.reset_s is None:
            return
        self._sent_at = sent_at
        self.limit = level.limit
        self._left = level.remaining - taken_since
        self._at = now
        self._edge = now + level.reset_s

    def left(self, now: float) -> float:
        """What may still leave."""
        if self.leaks:
            leaked = max(0.0, now - self._at) * self.limit / self._period_s
            return min(self.limit, self._left + leaked)
        return self.limit if now > self._edge + _AFTER_EDGE_S else self._left

    @property
    def _period_s(self) -> float:
        return DAY_S if self.daily else MINUTE_S

    def take(self, now: float, amount: float) -> None:
        """An amount leaves."""
        if not self.leaks and now > self._edge + _AFTER_EDGE_S:
            self._left = self.limit
            self._edge += self._period_s
        self._left -= amount

    def fits_at(self, now: float, amount: float) -> float:
        """When an amount fits: ``now``, or a later instant."""
        short = amount - self.left(now)
        if short <= 0.0:
            return now
        return now + short * self._period_s / self.limit if self.leaks else self._edge + _AFTER_EDGE_S

    def whole_at(self, now: float) -> float:
        """When all of it is back."""
        return now + (self.limit - self.left(now)) * self._period_s / self.limit if self.leaks else self._edge

    def spread(self, now: float) -> float:
        """The pace, per second, that spends what is left by the window's end."""
        return max(0.01, self.left(now)) / max(0.5, self._edge - now)

    def sentence(self, now: float) -> str:
        """When and how many rows fit next."""
        what = f"{'the day' if self.daily else 'the window'}'s {self.limit:,.0f} {self.dimension.replace('_', ' ')}"
        if self.leaks:
            hourly = self.limit / 24.0
            when = f"{hourly:,.0f} more fit in an hour, {self.limit:,.0f} in {(self.whole_at(now) - now) / 3600:,.1f} h"
        else:
            when = f"{self.limit:,.0f} more fit in {(self._edge - now) / 3600:,.1f} h"
        return f"{what} are spent; {when}: give the same command then, or --max-wait 24h to go on as they come back"
