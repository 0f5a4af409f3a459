"""Limits of endpoints: each says when it would let an amount in, takes it, and shows what is left.

Between two calls of ``take`` a limit only ever opens, so ``opens_at`` holds until the next one.
"""

from collections import deque
from collections.abc import Callable
from math import floor, inf
from typing import Protocol

from .spec import Limit

_LEAST = 1e-9


class Grant(Protocol):
    """A limit at work."""

    limit: Limit

    def opens_at(self, now: float, amount: float) -> float:
        """The first instant from ``now`` on at which the amount is let in, if nothing else comes."""

    def take(self, now: float, amount: float) -> None:
        """Lets the amount in; the caller has asked ``opens_at``."""

    def free(self, now: float) -> float:
        """What would be let in now."""

    def reset_s(self, now: float) -> float:
        """Seconds until all of it is free (bucket, sliding window) or the next window."""


class Bucket:
    """A token bucket: it holds ``amount`` and refills evenly in ``window_s``."""

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self._rate = limit.amount / limit.window_s
        self._level, self._at = limit.amount * (1.0 - limit.used), 0.0

    def free(self, now: float) -> float:
        return min(self.limit.amount, self._level + self._rate * (now - self._at))

    def opens_at(self, now: float, amount: float) -> float:
        lacking = amount - self.free(now)
        return now if lacking <= _LEAST else now + lacking / self._rate

    def take(self, now: float, amount: float) -> None:
        self._level, self._at = self.free(now) - amount, now

    def reset_s(self, now: float) -> float:
        return (self.limit.amount - self.free(now)) / self._rate


class Windows:
    """Counts by windows that turn at fixed instants."""

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self._edge = limit.window_s * (1.0 - limit.phase)
        self._used = limit.amount * limit.used

    def _turn(self, now: float) -> None:
        """Begins the window that holds the instant."""
        raise NotImplementedError

    def take(self, now: float, amount: float) -> None:
        self._turn(now)
        self._used += amount

    def reset_s(self, now: float) -> float:
        self._turn(now)
        return self._edge - now


class Fixed(Windows):
    """A window that begins with nothing used."""

    def _turn(self, now: float) -> None:
        if now >= self._edge:
            window = self.limit.window_s
            self._edge += window * (floor((now - self._edge) / window) + 1)
            if self._edge <= now:
                self._edge += window
            self._used = 0.0

    def free(self, now: float) -> float:
        self._turn(now)
        return self.limit.amount - self._used

    def opens_at(self, now: float, amount: float) -> float:
        return now if self.free(now) - amount >= -_LEAST else self._edge


class SlidingLog:
    """At most ``amount`` in any ``window_s``, exactly; what was spent before went ``phase`` of a window ago."""

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self._log: deque[tuple[float, float]] = deque()
        self._sum = 0.0
        spent, age = limit.amount * limit.used, limit.window_s * limit.phase
        if spent >= 1.0:
            parts = 20 if limit.of == "tokens" else int(min(spent, 20))
            for part in range(parts):  # within a tenth of a window
                share = floor(spent * (part + 1) / parts) - floor(spent * part / parts)
                self._log.append((-age + 0.1 * age * part / parts, share))
                self._sum += share

    def _forget(self, now: float) -> None:
        log, edge = self._log, now - self.limit.window_s
        while log and log[0][0] <= edge + _LEAST:
            self._sum -= log.popleft()[1]

    def free(self, now: float) -> float:
        self._forget(now)
        return self.limit.amount - self._sum

    def opens_at(self, now: float, amount: float) -> float:
        lacking = amount - self.free(now)
        if lacking <= _LEAST:
            return now
        for at, share in self._log:
            lacking -= share
            if lacking <= _LEAST:
                return at + self.limit.window_s
        return inf

    def take(self, now: float, amount: float) -> None:
        self._log.append((now, amount))
        self._sum += amount

    def reset_s(self, now: float) -> float:
        self._forget(now)
        return self._log[-1][0] + self.limit.window_s - now if self._log else 0.0


class SlidingCounter(Windows):
    """Two counters: the last window's, weighted by what of it is still in sight, and the present one's."""

    def __init__(self, limit: Limit) -> None:
        super().__init__(limit)
        self._before = 0.0

    def _turn(self, now: float) -> None:
        while now >= self._edge:
            self._edge += self.limit.window_s
            self._before, self._used = self._used, 0.0
            if not self._before:
                skipped = floor((now - self._edge) / self.limit.window_s) + 1
                self._edge += max(0, skipped) * self.limit.window_s

    def free(self, now: float) -> float:
        self._turn(now)
        return self.limit.amount - self._used - self._before * (self._edge - now) / self.limit.window_s

    def opens_at(self, now: float, amount: float) -> float:
        if self.free(now) - amount >= -_LEAST:
            return now
        limit, window = self.limit.amount, self.limit.window_s
        if self._used + amount <= limit:
            return max(now, self._edge - (limit - self._used - amount) / self._before * window) + _LEAST
        return self._edge + max(0.0, 1.0 - (limit - amount) / self._used) * window + _LEAST


class Cap:
    """Requests in flight at once; ``give_back`` frees a slot."""

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self._out = 0.0

    def free(self, now: float) -> float:
        return self.limit.amount - self._out

    def opens_at(self, now: float, amount: float) -> float:
        return now if self._out + amount <= self.limit.amount else inf

    def take(self, now: float, amount: float) -> None:
        self._out += amount

    def give_back(self) -> None:
        self._out -= 1.0

    def reset_s(self, now: float) -> float:
        return 0.0


_KINDS: dict[str, Callable[[Limit], Grant]] = {
    "bucket": Bucket,
    "fixed": Fixed,
    "log": SlidingLog,
    "counter": SlidingCounter,
    "cap": Cap,
}


def grant_of(limit: Limit) -> Grant:
    """The limit at work, with its history."""
    return _KINDS[limit.kind](limit)
