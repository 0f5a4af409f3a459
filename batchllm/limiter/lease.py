"""A lease on a part of a limit that many runs share, as a lane obeys it."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from batchllm.limiter.gate import Gate
from batchllm.limiter.limits import LaneLimits
from batchllm.limiter.terms import REQUESTS, TOKENS

if TYPE_CHECKING:
    from batchllm.limiter.lane import Lane


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneLease:
    """What a lane may do, and until when.

    Attributes:
        until: When it ends; from then on nothing is granted.
        requests_per_minute, tokens_per_minute: The paces; ``None`` is no limit.
        tokens_limit: The whole limit of tokens a minute, against which a request is too large; ``None`` is none.
        requests: How many requests may be granted in all; ``None`` is any number.
        paused_until: Nothing is granted before.
    """

    until: float
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    tokens_limit: float | None = None
    requests: int | None = None
    paused_until: float = -math.inf

    def may_go(self, now: float) -> bool:
        """Returns whether it has not ended, and its paces are above zero."""
        return now < self.until and 0 not in (self.requests_per_minute, self.tokens_per_minute)


NO_LEASE = LaneLease(until=-math.inf)


class LeasedLane:
    """What a lane may do under the leases that it gets one after the other.

    Args:
        limits: Its limits, which take the paces.
    """

    def __init__(self, limits: LaneLimits) -> None:
        self._limits = limits
        self._lease = NO_LEASE
        self._left: int | None = None

    def obey(self, now: float, lease: LaneLease) -> None:
        """Goes at the paces of a lease from now on."""
        waited = not self._lease.may_go(now)
        self._lease, self._left = lease, lease.requests
        if lease.may_go(now):
            self._limits.dimension(REQUESTS).share(now, lease.requests_per_minute, None)
            self._limits.dimension(TOKENS).share(now, lease.tokens_per_minute, lease.tokens_limit)
            if waited:
                self._limits.restart(now)  # the first request is due one request later

    def waits_until(self, now: float) -> float | None:
        """Returns when something may be granted again: infinity needs another lease, ``None`` is now."""
        if self._left == 0 or not self._lease.may_go(now):
            return math.inf
        return self._lease.paused_until if now < self._lease.paused_until else None

    def sent(self) -> None:
        """Counts a request that is granted."""
        if self._left is not None:
            self._left -= 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneDemand:
    """What a lane needs of its limits, and what it has done so far.

    Attributes:
        binding: What held the next request back at the last poll, as in ``View.limits``.
        waiting: Items that wait.
        granted: Requests granted so far.
        tokens: Tokens that they took.
        tokens_per_request: What a request usually takes.
        refused: Requests that were refused so far.
        pauses: How often the gate has closed.
        paused_s: How much longer it stays closed.
        shown_rpm, shown_tpm: The limits a minute that headers show; ``None`` if they do not.
    """

    binding: str
    waiting: int
    granted: int
    tokens: float
    tokens_per_request: float
    refused: int
    pauses: int
    paused_s: float
    shown_rpm: float | None
    shown_tpm: float | None


def demand_of(lane: "Lane[Any]", now: float) -> LaneDemand:
    """Returns what a lane needs of its limits, and what it has done so far."""
    requests, tokens = lane.limits.dimension(REQUESTS), lane.limits.dimension(TOKENS)
    return LaneDemand(
        binding=lane.binding,
        waiting=len(lane.queue),
        granted=round(requests.sent.total),
        tokens=tokens.sent.total,
        tokens_per_request=tokens.usual or _next_tokens(lane),
        refused=lane.refused_requests,
        pauses=lane.pauses,
        paused_s=_paused_s(lane.gate, now),
        shown_rpm=requests.shown_limit,
        shown_tpm=tokens.shown_limit,
    )


def _paused_s(gate: Gate, now: float) -> float:
    """Returns how much longer a gate stays closed: until its probe goes, or is known to be accepted."""
    if not gate.closed:
        return 0.0
    quiet_at = gate.quiet_at()
    return max(0.0, (gate.until if quiet_at is None else quiet_at) - now)


def _next_tokens(lane: "Lane[Any]") -> float:
    """Returns what the next request is expected to take of the tokens, before any was sent."""
    head = lane.queue.head()
    return 0.0 if head is None else lane.charge.amount(TOKENS, head.cost)
