"""Decides how many requests may be in flight at once.

An engine with continuous batching answers each request more slowly when more are in flight, but all of them together
faster. So latency is no measure here (of an engine's best throughput, the limit "Vegas" reaches 6 %, "Gradient2"
94 %). This one measures goodput, answer tokens per second: a step up is kept if goodput grows by at least 15 % of the
step, else it is undone, and the next step is smaller and later. Behind a rate limit, Little's law gives the number:
rate times latency.

A slot that is used for the first time opens a connection. New slots are opened one after another, as fast as the event
loop can follow: if hundreds of requests left at once, their answers would arrive at once, and each would wait for all
the others.
"""

import logging
import math
from collections.abc import Sequence

from batchllm.limiter.terms import sum_of

log = logging.getLogger("batchllm.limiter")

START = 16
MOST = 256
MOST_BEHIND_A_RATE = 4096
FIRST_STEP = 2.0
LEAST_STEP = 1.15
WORTH_IT = 0.15
SHRINK = 0.8
MUCH = 0.25
"""Share of refusals for overload from which on they cannot be chance."""
_QUANTILE = 0.9

NEW_SLOTS_PER_S = 2000.0
NEW_SLOTS_AT_ONCE = 8


class Concurrency:
    """The cap on requests in flight.

    Args:
        explicit: ``--concurrency``, which holds from the first second; only overload lowers it, for a while.
        now: The time now, in seconds.

    Attributes:
        cap: Requests that may be in flight now.
        latency_s: The moving average of the latency of an answer.
        slow_s: The 90 % quantile of latencies.
    """

    def __init__(self, explicit: int | None, now: float) -> None:
        self.explicit = explicit
        self.cap = explicit or START
        self.latency_s: float | None = None
        self.slow_s = 0.0
        self._step = FIRST_STEP
        self._before: tuple[int, float] | None = None  # the cap that a step up was made from, and its goodput
        self._rate: float | None = None
        self._told: float | None = None
        self._overloaded = False
        self._uncut: tuple[int, float, bool] | None = (
            None  # cap, step and ``_overloaded`` before cuts not judged yet
        )
        self._answers = 0
        self._cut_at = -math.inf
        self._results: list[bool] = []
        self._hold_until = now
        self._return_to: int | None = None
        self._return_step = 1.25
        self._used = 0
        self._new = float(NEW_SLOTS_AT_ONCE)
        self._new_at = now
        self._window(now)

    def room(self, in_flight: int, now: float) -> int:
        """Returns how many more requests may be sent now."""
        grown = self._new + (now - self._new_at) * NEW_SLOTS_PER_S
        self._new, self._new_at = min(float(NEW_SLOTS_AT_ONCE), grown), now
        return min(self.cap, max(self._used, in_flight) + int(self._new)) - in_flight

    def taken(self, in_flight: int) -> float:
        """Records how many requests are in flight after a round of grants; returns when a new slot opens."""
        if in_flight > self._used:
            self._new -= in_flight - self._used
            self._used = in_flight
        if in_flight >= self.cap:
            return math.inf
        return self._new_at + (NEW_SLOTS_AT_ONCE - self._new) / NEW_SLOTS_PER_S

    def _window(self, now: float) -> None:
        """Starts a measurement, after the time that requests in flight need to be answered."""
        self._starts_at = now + 1.2 * (self.latency_s or 0.0)
        self._done = 0
        self._tokens = 0.0
        self._full = False

    def behind(self, limits: Sequence[tuple[float | None, float | None]]) -> None:
        """Sets the requests per second that the limits of all models allow together.

        Args:
            limits: For each model what its limits allow now, and the limit itself where the user or headers told it;
                ``None`` without one.
        """
        rates, told = ([each[i] for each in limits] for i in (0, 1))
        self._rate, self._told = sum_of(rates), sum_of(told)

    @property
    def requests_per_s(self) -> float:
        """The requests a second that limits and slots allow; 0 before the first answer."""
        if not self.latency_s:
            return 0.0
        by_slots = self.cap / self.latency_s
        return by_slots if self._rate is None else min(self._rate, by_slots)

    def saturated(self, now: float) -> None:
        """Records that all slots are taken while more items could be sent."""
        self._full = True
        if self.explicit is None and self._return_to is None and now >= self._hold_until:
            needed = self._needed_if_told()
            if needed > self.cap and not self._overloaded:
                self._set(needed, now, "a told limit")

    def answered(self, now: float, latency_s: float, tokens: float) -> None:
        """Records an answer: its latency since it was sent, and its completion tokens."""
        self._answers += 1
        if self.latency_s is None:
            self.latency_s = self.slow_s = latency_s
        self.latency_s += 0.05 * (latency_s - self.latency_s)
        step = max(0.02, 1.0 / self._answers) * self.latency_s
        self.slow_s = max(
            0.0, self.slow_s + step * (_QUANTILE if latency_s > self.slow_s else _QUANTILE - 1.0)
        )
        self._note(False, now)
        if now < self._starts_at:
            return
        self._done += 1
        self._tokens += tokens
        self._decide(now)

    def _decide(self, now: float) -> None:
        span = now - self._starts_at
        if self._return_to is not None and self.cap < self._return_to:
            if now >= self._hold_until:
                self._set(min(self._return_to, math.ceil(self._return_step * self.cap)), now, "back")
                self._hold_until = self._starts_at
            return
        self._return_to = None
        if now >= self._hold_until:
            self._uncut = None
        if self.explicit is not None or now < self._hold_until:
            return
        if self._rate is not None and not self._overloaded:
            self._follow(now, span)
        elif self._done >= max(30, self.cap // 2) and span >= self._span_s():
            self._climb(now, self._tokens / span)

    def _follow(self, now: float, span: float) -> None:
        """Moves the cap towards rate times latency: at once where the limit is told, else doubling it once per latency.

        A told limit is no guess, and the pace fills the slots no faster than the limit allows.
        """
        assert self._rate is not None
        needed = self._needed(self._rate)
        if needed < self.cap:
            if span > 4.0 * self.slow_s:
                self._set(max(needed, math.floor(0.9 * self.cap)), now, "Little's law")
        elif self._full and needed > self.cap:
            self._set(min(needed, max(2 * self.cap, self._needed_if_told())), now, "Little's law")

    def _needed(self, rate: float) -> int:
        """Returns the slots that a rate in requests per second takes (Little's law), with room for slow answers."""
        return min(MOST_BEHIND_A_RATE, max(START, math.ceil(1.3 * rate * self.slow_s) + 2))

    def _needed_if_told(self) -> int:
        """Returns the same of a limit that is told; 0 where none is, and before the first answer."""
        if self._rate is None or self._told is None or self.latency_s is None:
            return 0
        return self._needed(min(self._rate, self._told))

    def _span_s(self) -> float:
        """Returns how long goodput is measured: longer for a small step, whose effect is small."""
        latency_s = self.latency_s or 0.0
        return max(2.0, latency_s) if self._step >= FIRST_STEP else max(5.0, 2.0 * latency_s)

    def _climb(self, now: float, goodput: float) -> None:
        if not self._full:
            self._window(now)
            return
        if self._before is None:
            if self.cap < MOST:
                self._before = self.cap, goodput
                self._set(min(MOST, math.ceil(self._step * self.cap)), now, "a step up")
            else:
                self._window(now)
            return
        cap, before = self._before
        worth = (goodput / max(1e-9, before) - 1.0) / (self.cap / cap - 1.0)
        if worth >= WORTH_IT:
            self._before = self.cap, goodput
            if self.cap < MOST:
                self._set(min(MOST, math.ceil(self._step * self.cap)), now, f"worth {worth:.2f}")
            else:
                self._before = None
                self._window(now)
            return
        self._before = None
        self._step = max(LEAST_STEP, 1.0 + (self._step - 1.0) / 2.0)
        windows = 12 if self._step <= LEAST_STEP else 3
        self._set(cap, now, f"not worth it ({worth:.2f})")
        self._starts_at = now + windows * max(5.0, 2.0 * (self.latency_s or 0.0))

    def overloaded(self, now: float, *, alone: bool = False) -> None:
        """Lowers the cap, because the endpoint said that too much is in flight.

        Where it says so of a probe that was alone, what is in flight is not the reason, and cuts that are not judged
        yet are undone.
        """
        if alone:
            if self._uncut is not None:
                self.cap, self._step, self._overloaded = self._uncut
                self._uncut = self._return_to = None
            return
        before = (self.cap if self._before is None else self._before[0], self._step, self._overloaded)
        self._overloaded = True
        self._note(True, now)
        share = sum(self._results) / max(20, len(self._results))
        # A few random faults look like overload, and a lower cap does not prevent them. So while little is refused, a
        # number that the user gave is lowered once per hold, and a found one not below where it started.
        mild = share <= MUCH
        rest_s = self._hold_s() if mild and self.explicit is not None else max(0.1, self.latency_s or 1.0)
        if now - self._cut_at < rest_s:
            return
        self._cut_at = now
        self._uncut = self._uncut or before
        self._results.clear()
        step_from = self._before[0] if self._before is not None else self.cap
        self._before = None
        self._step = LEAST_STEP
        least = min(START, self.cap) if mild and self.explicit is None else 1
        cut = math.floor((0.5 if share > 0.5 else SHRINK) * self.cap)
        self._set(max(least, min(cut, step_from)), now, "overload")
        self._hold_until = now + self._hold_s()
        if self.explicit is not None:
            self._return_to, self._return_step = self.explicit, 1.25

    def _hold_s(self) -> float:
        """Returns how long a lower cap is kept before it is judged."""
        return 4.0 * max(5.0, 2.0 * (self.latency_s or 0.0))

    def _note(self, overload: bool, now: float) -> None:
        if self._overloaded:
            self._results.append(overload)
            del self._results[: -self._judged_by()]

    def _judged_by(self) -> int:
        """Returns how many results decide whether much is refused: twice what is in flight."""
        return max(50, 2 * self.cap)

    def recover(self, now: float) -> None:
        """Goes on after an outage with a quarter of the cap, and doubles it every latency up to what it was."""
        self._before = None
        self._return_to, self._return_step = max(self.cap, self._return_to or 0), 2.0
        self._set(max(1, self.cap // 4), now, "after an outage")
        self._hold_until = self._starts_at

    def _set(self, cap: int, now: float, why: str) -> None:
        log.debug("concurrency %d -> %d: %s", self.cap, cap, why)
        self.cap = cap
        self._window(now)
