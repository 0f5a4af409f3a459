"""What endpoints let through: written models of their limits, one class each, in virtual time.

Each model has ``limit`` per ``window_s`` and answers ``takes(now, amount)``: ``None`` when it admits the amount
(and has counted it), else the seconds until it would. ``add`` counts without asking, ``give_back`` undoes the
last. ``limit`` may be changed at any time.
"""

from collections import deque


class SlidingLog:
    """Never more than the limit in any window; exact."""

    def __init__(self, limit: float, window_s: float = 60.0) -> None:
        self.limit, self.window_s = limit, window_s
        self._log: deque[tuple[float, float]] = deque()
        self._sum = 0.0

    def takes(self, now: float, amount: float) -> float | None:
        log = self._log
        while log and log[0][0] <= now - self.window_s:
            self._sum -= log.popleft()[1]
        excess = self._sum + amount - self.limit
        if excess <= 1e-9:
            log.append((now, amount))
            self._sum += amount
            return None
        for instant, taken in log:
            excess -= taken
            if excess <= 1e-9:
                return instant + self.window_s - now
        return self.window_s

    def add(self, now: float, amount: float) -> None:
        self._log.append((now, amount))
        self._sum += amount

    def give_back(self, amount: float) -> None:
        if self._log:
            instant, taken = self._log.pop()
            self._log.append((instant, taken - amount))
            self._sum -= amount


class FixedWindow:
    """A counter set to zero at fixed instants. ``opens_with_first``: the window starts with a request."""

    def __init__(
        self, limit: float, window_s: float = 60.0, *, phase_s: float = 0.0, opens_with_first: bool = False,
        counts_refused: bool = False,
    ) -> None:  # fmt: skip
        self.limit, self.window_s = limit, window_s
        self._phase_s, self._opens_with_first, self._counts_refused = (
            phase_s,
            opens_with_first,
            counts_refused,
        )
        self._start = phase_s - window_s
        self._count = 0.0

    def takes(self, now: float, amount: float) -> float | None:
        if now >= self._start + self.window_s:
            if self._opens_with_first:
                self._start = now
            else:
                self._start = now - (now - self._phase_s) % self.window_s
            self._count = 0.0
        if self._count + amount <= self.limit + 1e-9:
            self._count += amount
            return None
        if self._counts_refused:
            self._count += amount
        return self._start + self.window_s - now

    def add(self, now: float, amount: float) -> None:
        self.takes(now, 0.0)
        self._count += amount

    def give_back(self, amount: float) -> None:
        self._count -= amount


class SlidingCounter:
    """Two counters: the last window's, weighed by how much of it is still in view, and this one's."""

    def __init__(self, limit: float, window_s: float = 60.0) -> None:
        self.limit, self.window_s = limit, window_s
        self._window = 0
        self._last = self._count = 0.0

    def takes(self, now: float, amount: float) -> float | None:
        window, into = int(now // self.window_s), now % self.window_s
        if window != self._window:
            self._last = self._count if window == self._window + 1 else 0.0
            self._window, self._count = window, 0.0
        share = 1.0 - into / self.window_s
        excess = self._last * share + self._count + amount - self.limit
        if excess <= 1e-9:
            self._count += amount
            return None
        if self._last:
            wait = excess / self._last * self.window_s
            if wait <= self.window_s - into:
                return wait
        return self.window_s - into

    def add(self, now: float, amount: float) -> None:
        self.takes(now, 0.0)
        self._count += amount

    def give_back(self, amount: float) -> None:
        self._count -= amount


class LeakyBucket:
    """A bucket that holds ``capacity`` and leaks at ``limit`` per window; its level can be told exactly."""

    def __init__(self, limit: float, window_s: float = 60.0, *, capacity: float | None = None) -> None:
        self.limit, self.window_s = limit, window_s
        self._capacity = capacity
        self._level = 0.0
        self._at = 0.0

    @property
    def capacity(self) -> float:
        return self.limit if self._capacity is None else self._capacity

    def level(self, now: float) -> float:
        self._level = max(0.0, self._level - (now - self._at) * self.limit / self.window_s)
        self._at = now
        return self._level

    def takes(self, now: float, amount: float) -> float | None:
        excess = self.level(now) + amount - self.capacity
        if excess <= 1e-9:
            self._level += amount
            return None
        return excess * self.window_s / self.limit

    def add(self, now: float, amount: float) -> None:
        self._level = self.level(now) + amount

    def give_back(self, amount: float) -> None:
        self._level -= amount


Grant = SlidingLog | FixedWindow | SlidingCounter | LeakyBucket


def second_bins(limit_per_minute: float) -> FixedWindow:
    """Hard one-second bins."""
    return FixedWindow(limit_per_minute / 60.0, 1.0)


def second_bucket(limit_per_minute: float) -> LeakyBucket:
    """A leaky bucket that holds one second of the limit, at least one request."""
    return LeakyBucket(limit_per_minute, capacity=max(1.0, limit_per_minute / 60.0))
