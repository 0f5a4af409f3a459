"""Rate limits as OpenAI keeps them, told the time.

Each limit is a leaky bucket: it holds what one minute allows and leaks a sixtieth of it a second, so that
``reset = used * 60 / limit``. A request takes one off the requests and the larger of its bound on the answer
and an estimate of its prompt off the tokens; both or neither. A refused request takes one off the requests.
"""

from dataclasses import dataclass
from math import ceil

PERIOD_S = 60.0
_SLACK = 1e-6  # of one request or token: rounding must not refuse who waited exactly as long as told


class LeakyBucket:
    """What is used of one limit, in units; times are seconds that never go back."""

    def __init__(self, limit: float, now: float) -> None:
        self.limit = limit
        self._level = 0.0
        self._at = now

    def used(self, now: float) -> float:
        """Returns the units in use at ``now``."""
        return max(0.0, self._level - (now - self._at) * self.limit / PERIOD_S)

    def spend(self, now: float, amount: float) -> None:
        """Uses ``amount`` units; never above the limit."""
        self._level = min(self.limit, self.used(now) + amount)
        self._at = now

    def wait_s(self, now: float, amount: float) -> float:
        """Returns the seconds until ``amount`` fits; 0 when it does now."""
        excess = self.used(now) + amount - self.limit
        return excess * PERIOD_S / self.limit if excess > _SLACK else 0.0

    def reset_s(self, now: float) -> float:
        """Returns the seconds until nothing is in use."""
        return self.used(now) * PERIOD_S / self.limit


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
        """Returns the sentence that OpenAI writes."""
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
        self, requests_per_minute: float | None, tokens_per_minute: float | None, *, now: float
    ) -> None:
        limits = {"requests": requests_per_minute, "tokens": tokens_per_minute}
        self._buckets = {kind: LeakyBucket(limit, now) for kind, limit in limits.items() if limit is not None}

    def admit(self, now: float, tokens: int) -> LimitRefusal | None:
        """Takes one request and ``tokens`` tokens, or says why not."""
        amounts = {"requests": 1, "tokens": tokens}
        for kind, bucket in self._buckets.items():
            if bucket.wait_s(now, amounts[kind]) > 0:
                return self._refuse(now, kind, bucket, amounts[kind])
        for kind, bucket in self._buckets.items():
            bucket.spend(now, amounts[kind])
        return None

    def _refuse(self, now: float, kind: str, bucket: LeakyBucket, amount: int) -> LimitRefusal:
        if "requests" in self._buckets:
            self._buckets["requests"].spend(now, 1)
        wait_s = None if amount > bucket.limit else bucket.wait_s(now, amount)
        return LimitRefusal(kind, int(bucket.limit), ceil(bucket.used(now) - _SLACK), amount, wait_s)

    def headers(self, now: float) -> dict[str, str]:
        """Returns ``x-ratelimit-{limit,remaining,reset}-{requests,tokens}`` of the limits there are."""
        headers = {}
        for kind, bucket in self._buckets.items():
            remaining = max(0, int(bucket.limit - bucket.used(now) + _SLACK))
            headers[f"x-ratelimit-limit-{kind}"] = str(int(bucket.limit))
            headers[f"x-ratelimit-remaining-{kind}"] = str(remaining)
            headers[f"x-ratelimit-reset-{kind}"] = go_duration(bucket.reset_s(now))
        return headers


def go_duration(seconds: float) -> str:
    """Returns a duration as Go prints it, rounded up to a millisecond: ``0s``, ``12ms``, ``9.816s``, ``6m0s``."""
    milliseconds = max(0, ceil(seconds * 1000 - 1e-6))
    if 0 < milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text
