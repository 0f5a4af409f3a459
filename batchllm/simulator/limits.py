"""Rate limits as endpoints keep them, told the time.

OpenAI's limiter behaves as a leaky bucket: it holds one minute's grant and leaks a sixtieth of it a second,
so that ``reset = used * 60 / limit``. Others set a counter back every minute (fixed window) or add up the
last 60 s (sliding log). A request takes one off the requests and the larger of its bound on the answer and an
estimate of its prompt off the tokens; both or neither.
"""

from collections import deque
from dataclasses import dataclass
from math import ceil
from typing import Protocol

PERIOD_S = 60.0
_TICK_S = 1e-6  # the same of times
_SLACK = 1e-6  # of one request or token: rounding must not refuse who waited exactly as long as told


class Meter(Protocol):
    """What was used of one limit."""

    limit: float

    def used(self, now: float) -> float:
        """Units in use at ``now`` (seconds, never going back)."""

    def spend(self, now: float, amount: float) -> None:
        """Use ``amount`` units; never above the limit."""

    def wait_s(self, now: float, amount: float) -> float:
        """Seconds until ``amount`` fits; 0 when it does now."""

    def reset_s(self, now: float) -> float:
        """Seconds until nothing is in use."""


class LeakyBucket:
    """Holds a minute's grant and leaks all the time."""

    def __init__(self, limit: float, now: float) -> None:
        self.limit = limit
        self._level = 0.0
        self._at = now

    def used(self, now: float) -> float:
        """Units in use at ``now``."""
        return max(0.0, self._level - (now - self._at) * self.limit / PERIOD_S)

    def spend(self, now: float, amount: float) -> None:
        """Use ``amount`` units."""
        self._level = min(self.limit, self.used(now) + amount)
        self._at = now

    def wait_s(self, now: float, amount: float) -> float:
        """Seconds until ``amount`` fits."""
        excess = self.used(now) + amount - self.limit
        return excess * PERIOD_S / self.limit if excess > _SLACK else 0.0

    def reset_s(self, now: float) -> float:
        """Seconds until the bucket is empty."""
        return self.used(now) * PERIOD_S / self.limit


class FixedWindow:
    """A counter that is set back every minute, counted from the start of the server."""

    def __init__(self, limit: float, now: float) -> None:
        self.limit = limit
        self._start = now
        self._window = 0
        self._count = 0.0

    def used(self, now: float) -> float:
        """Units in use at ``now``."""
        window = int((now - self._start + _TICK_S) // PERIOD_S)
        if window != self._window:
            self._window, self._count = window, 0.0
        return self._count

    def spend(self, now: float, amount: float) -> None:
        """Use ``amount`` units."""
        self._count = min(self.limit, self.used(now) + amount)

    def wait_s(self, now: float, amount: float) -> float:
        """Seconds until ``amount`` fits: the end of the window."""
        return self.reset_s(now) if self.used(now) + amount - self.limit > _SLACK else 0.0

    def reset_s(self, now: float) -> float:
        """Seconds until the counter is set back; 0 when it stands at 0."""
        return self._start + (self._window + 1) * PERIOD_S - now if self.used(now) else 0.0


class SlidingLog:
    """The sum of what was spent in the last 60 s."""

    def __init__(self, limit: float, now: float) -> None:
        self.limit = limit
        self._log: deque[tuple[float, float]] = deque()
        self._sum = 0.0

    def used(self, now: float) -> float:
        """Units in use at ``now``."""
        while self._log and self._log[0][0] + PERIOD_S <= now + _TICK_S:
            self._sum -= self._log.popleft()[1]
        return self._sum

    def spend(self, now: float, amount: float) -> None:
        """Use ``amount`` units."""
        amount = min(amount, self.limit - self.used(now))
        if amount > 0:
            self._log.append((now, amount))
            self._sum += amount

    def wait_s(self, now: float, amount: float) -> float:
        """Seconds until enough of the log is older than 60 s."""
        excess = self.used(now) + amount - self.limit
        if excess <= _SLACK:
            return 0.0
        for at, spent in self._log:
            excess -= spent
            if excess <= _SLACK:
                return at + PERIOD_S - now
        return PERIOD_S

    def reset_s(self, now: float) -> float:
        """Seconds until the log is empty."""
        return self._log[-1][0] + PERIOD_S - now if self.used(now) else 0.0


METERS: dict[str, type[LeakyBucket] | type[FixedWindow] | type[SlidingLog]] = {
    "leaky": LeakyBucket,
    "fixed": FixedWindow,
    "sliding": SlidingLog,
}


@dataclass(frozen=True, slots=True)
class LimitRefusal:
    """Why a request was not admitted.

    Attributes:
        kind: ``requests`` or ``tokens``.
        limit, used, requested: The numbers of that limit.
        wait_s: Seconds until it would fit; ``None`` when it never will.
    """

    kind: str
    limit: int
    used: int
    requested: int
    wait_s: float | None

    def message(self, model: str) -> str:
        """The sentence that OpenAI writes."""
        where = f"for {model} in organization org-sim on {self.kind} per min ({self.kind[0].upper()}PM)"
        if self.wait_s is None:
            return (
                f"Request too large {where}: Limit {self.limit}, Requested {self.requested}. "
                "The input or output tokens must be reduced in order to run successfully."
            )
        return (
            f"Rate limit reached {where}: Limit {self.limit}, Used {self.used}, Requested {self.requested}. "
            f"Please try again in {go_duration(self.wait_s)}. "
            "Visit https://platform.openai.com/account/rate-limits to learn more."
        )


class RateLimits:
    """Both limits of one model; a limit of ``None`` is none."""

    def __init__(
        self,
        requests_per_minute: float | None,
        tokens_per_minute: float | None,
        *,
        model: str = "leaky",
        count_refused: bool = True,
        now: float,
    ) -> None:
        meter = METERS[model]
        self._count_refused = count_refused
        self._meters: dict[str, Meter] = {}
        if requests_per_minute is not None:
            self._meters["requests"] = meter(requests_per_minute, now)
        if tokens_per_minute is not None:
            self._meters["tokens"] = meter(tokens_per_minute, now)

    def admit(self, now: float, tokens: int) -> LimitRefusal | None:
        """Take one request and ``tokens`` tokens, or say why not."""
        amounts = {"requests": 1, "tokens": tokens}
        for kind, meter in self._meters.items():
            if meter.wait_s(now, amounts[kind]) > 0:
                return self._refuse(now, kind, meter, amounts[kind])
        for kind, meter in self._meters.items():
            meter.spend(now, amounts[kind])
        return None

    def _refuse(self, now: float, kind: str, meter: Meter, amount: int) -> LimitRefusal:
        if self._count_refused and "requests" in self._meters:
            self._meters["requests"].spend(now, 1)
        wait_s = None if amount > meter.limit else meter.wait_s(now, amount)
        return LimitRefusal(kind, int(meter.limit), ceil(meter.used(now) - _SLACK), amount, wait_s)

    def headers(self, now: float) -> dict[str, str]:
        """``x-ratelimit-{limit,remaining,reset}-{requests,tokens}`` of the limits there are."""
        headers = {}
        for kind, meter in self._meters.items():
            headers[f"x-ratelimit-limit-{kind}"] = str(int(meter.limit))
            headers[f"x-ratelimit-remaining-{kind}"] = str(
                max(0, int(meter.limit - meter.used(now) + _SLACK))
            )
            headers[f"x-ratelimit-reset-{kind}"] = go_duration(meter.reset_s(now))
        return headers


def go_duration(seconds: float) -> str:
    """A duration as Go prints it, rounded up to a millisecond: ``0s``, ``12ms``, ``9.816s``, ``6m0s``."""
    milliseconds = max(0, ceil(seconds * 1000 - 1e-6))
    if milliseconds == 0:
        return "0s"
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text
