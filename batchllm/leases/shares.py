"""Divides the limits of one model at one endpoint among the workers.

Shares are max-min by demand: what a worker does not need goes to the others, and who can use everything gets as much
as everyone else who can. A share grows only by what no living lease holds, so the sum stays within the limit while
shares move from one worker to another.

Where a limit is too low to be divided, so that a share would be less than a request in the time of a lease, workers
get whole requests in turn instead. They come out of a bucket that is filled by what the rates leave of the limit. So
both can go on side by side while one takes over from the other.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from batchllm.leases.learned import LearnedLimit
from batchllm.leases.terms import RENEW_S, Share, Use
from batchllm.limiter.terms import MINUTE_S

CATCH_UP_S = 2.0
"""The time whose requests may be saved up while nobody asks for one."""
DIVIDED_FROM, DIVIDED_TO = 1.5, 1.0
"""Requests in the time of a lease from which on a limit is divided, and below which it is not."""


def max_min(total: float, demands: Sequence[float]) -> list[float]:
    """Returns the max-min shares of a total: nobody gets more than the demand, and the least get as much as can be.

    Args:
        total: What is divided.
        demands: What each can use; infinite is everything.
    """
    shares = [0.0] * len(demands)
    left = total
    order = sorted(range(len(demands)), key=demands.__getitem__)
    for place, index in enumerate(order):
        shares[index] = min(demands[index], max(0.0, left) / (len(order) - place))
        left -= shares[index]
    return shares


@dataclass(slots=True)
class Member:
    """A worker that has, or had lately, a lease.

    Attributes:
        use: What it said last.
        counted: The most that it may hold of each rate.
        until: When that ends.
        served_at: When it got its last whole request.
    """

    use: Use
    until: float
    served_at: float
    counted: list[float] = field(default_factory=lambda: [0.0, 0.0])

    @property
    def demands(self) -> list[float]:
        """What it can use of requests and tokens a minute."""
        use = self.use
        return [math.inf if demand is None else demand for demand in (use.demand_rpm, use.demand_tpm)]


class DividedLimit:
    """The leases of one model at one endpoint.

    Args:
        now: The time now, in seconds.
        ttl_s: How long a lease lasts.
        renew_s: How often a worker asks.
        confirms_until: Until then workers only keep what they say they hold.
    """

    def __init__(self, now: float, *, ttl_s: float, renew_s: float = RENEW_S, confirms_until: float) -> None:
        self._ttl_s = ttl_s
        self._renew_s = renew_s
        self._confirms_until = confirms_until
        self._members: dict[str, Member] = {}
        self._limits = [math.inf, math.inf]
        self._divided = True
        self._saved_up = [0.0, 0.0]
        self._filled_at = max(now, confirms_until)
        self._paused_until = -math.inf
        self._probing: str | None = None
        self._learned = LearnedLimit()

    def renew(self, worker: str, use: Use, now: float) -> Share:
        """Returns the share that a worker has from now on, and counts it until it ends."""
        self._forget(now)
        self._fill(now)
        member = self._members.get(worker)
        if member is None:
            member = self._members[worker] = Member(use, now, -math.inf)
        before = member.use
        confirms = now < self._confirms_until
        claims = [use.holds_rpm, use.holds_tpm]
        holds = claims if confirms else [min(pair) for pair in zip(claims, member.counted, strict=True)]
        member.use = use
        pause_s = self._pause_s(worker, before, now)
        self._limits = [self._learned.limit(now, self._told("rpm")), self._told("tpm")]
        targets = holds if confirms else self._targets(member)
        shares = []
        for index, limit in enumerate(self._limits):
            others = sum(other.counted[index] for other in self._members.values() if other is not member)
            room = max(0.0, limit - others) if limit < math.inf else math.inf
            shares.append(min(targets[index], room))
            # It may go on at its old rate until it has this answer.
            member.counted[index] = max(holds[index], shares[index] if limit < math.inf else 0.0)
        member.until = now + self._ttl_s
        limit_tpm = self._limits[1] if self._limits[1] < math.inf else None
        if self._divided or confirms:
            rpm, tpm = (
                share if limit < math.inf else None for share, limit in zip(shares, self._limits, strict=True)
            )
            return Share(rpm=rpm, tpm=tpm, pause_s=pause_s, limit_tpm=limit_tpm)
        requests = self._whole_requests(member, now) if not pause_s else 0
        rpm = self._limits[0] if self._limits[0] < math.inf else None
        return Share(rpm=rpm, tpm=limit_tpm, requests=requests, pause_s=pause_s, limit_tpm=limit_tpm)

    def leave(self, worker: str) -> None:
        """Takes back what a worker holds, which sends nothing more."""
        self._members.pop(worker, None)
        if self._probing == worker:
            self._probing, self._paused_until = None, -math.inf  # what is left of the pause teaches nothing

    def _forget(self, now: float) -> None:
        for worker in [name for name, member in self._members.items() if member.until <= now]:
            self.leave(worker)

    def _told(self, name: str) -> float:
        """Returns the lowest limit that a worker gives, or is shown; infinite if there is none."""
        uses = [member.use for member in self._members.values()]
        told = [getattr(use, f"{kind}_{name}") for use in uses for kind in ("limit", "shown")]
        return min((limit for limit in told if limit is not None), default=math.inf)

    def _targets(self, member: Member) -> list[float]:
        """Returns the rates that a worker gets once the others have given theirs back."""
        members = list(self._members.values())
        place = members.index(member)
        wanting = [other for other in members if min(other.demands) > 0.0]
        size = max((other.use.tokens_per_request for other in wanting), default=0.0)
        in_a_lease = [
            limit * self._ttl_s / MINUTE_S / max(1, len(wanting)) / amount
            for limit, amount in zip(self._limits, (1.0, size), strict=True)
            if amount > 0.0
        ]
        self._divided = min(in_a_lease) >= (DIVIDED_TO if self._divided else DIVIDED_FROM)
        if not self._divided:
            return [0.0, 0.0]
        return [
            max_min(limit, [other.demands[index] for other in members])[place] if limit < math.inf else 0.0
            for index, limit in enumerate(self._limits)
        ]

    def _rates_left(self) -> list[float]:
        """Returns what the leased rates leave of the limits, a second."""
        counted = [sum(member.counted[i] for member in self._members.values()) for i in (0, 1)]
        return [
            max(0.0, limit - held) / MINUTE_S if limit < math.inf else math.inf
            for limit, held in zip(self._limits, counted, strict=True)
        ]

    def _fill(self, now: float) -> None:
        """Saves up what the rates have left since the last time."""
        elapsed_s = max(0.0, now - self._filled_at)
        self._filled_at = max(now, self._filled_at)
        for index, rate in enumerate(self._rates_left()):
            if self._divided:
                self._saved_up[index] = 0.0
            elif rate < math.inf:
                most = CATCH_UP_S * rate + (1.0 if index == 0 else 0.0)
                self._saved_up[index] = min(most, self._saved_up[index] + rate * elapsed_s)
            else:
                self._saved_up[index] = math.inf

    def _whole_requests(self, member: Member, now: float) -> int:
        """Returns how many requests a worker may send: one if it is among the next in turn."""
        rate = self._rates_left()[0]
        if not member.demands[0] or self._saved_up[0] < 1.0 or self._saved_up[1] < 0.0:
            return 0
        wanting = [other for other in self._members.values() if min(other.demands) > 0.0]
        ahead = sum(other.served_at < member.served_at for other in wanting)
        # Each asks once until the next renewal: as many are next as there will be requests by then, and some more.
        if ahead >= max(1.0, self._saved_up[0] - 1.0 + 2.0 * rate * self._renew_s):
            return 0
        member.served_at = now
        self._saved_up[0] -= 1.0
        self._saved_up[1] -= member.use.tokens_per_request
        return 1

    def _pause_s(self, worker: str, before: Use, now: float) -> float:
        """Returns how long a worker pauses because another one was refused, which sends the probe."""
        use = self._members[worker].use
        sent, refused = use.sent - before.sent, max(0, use.refused - before.refused)
        self._learned.add(now, max(0, sent - refused), refused)
        has_paused = use.pauses > before.pauses or use.paused_s > 0.0
        if has_paused:
            if self._probing is None:
                self._learned.paused(now)
            if self._probing is None or self._paused_until <= now:
                self._probing = worker
            self._paused_until = max(self._paused_until, now + max(use.paused_s, self._renew_s))
        elif self._probing is not None and (self._probing == worker or self._paused_until <= now):
            self._resume(now)
        return 0.0 if self._probing == worker else max(0.0, self._paused_until - now)

    def _resume(self, now: float) -> None:
        self._probing, self._paused_until = None, -math.inf
        self._learned.resumed(now, self._told("rpm"))
