"""Divides the limits of one model at one endpoint among the workers.

Shares are max-min by demand: what a worker does not need goes to the others, and who can use everything gets as much
as everyone else who can. A share grows only by what no living lease holds, so the sum stays within the limit while
shares move from one worker to another.

Where a limit is too low to be divided, so that a share would be less than a request in the time of a lease, workers
get whole requests in turn instead. They come out of a bucket that is filled by what the rates leave of the limit. So
both can go on side by side while one takes over from the other.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from batchllm.leases.learned import LearnedLimit
from batchllm.leases.messages import HEADROOM, RENEW_S, Share, Use
from batchllm.limiter.terms import MINUTE_S

CATCH_UP_S = 2.0
"""The time whose requests may be saved up while nobody asks for one."""
LATE = 1.5
"""A refusal is reported at most this many renewal intervals later."""
RENEWAL_S = 0.005
"""Seconds of the holder's time for one renewal: with more workers than fit into a second, each asks less often."""
DIVIDED_FROM, DIVIDED_TO = 1.5, 1.0
"""Requests in the time of a lease from which on a limit is divided, and below which it is not."""


def water_level(total: float, demands: Sequence[float]) -> float:
    """Returns the most that anybody gets of a total that is divided max-min: each gets the demand, or that level.

    Args:
        total: What is divided.
        demands: What each can use; infinite is everything.
    """
    left, count = total, len(demands)
    for demand in sorted(demands):
        if demand * count >= left:
            return max(0.0, left) / count
        left -= demand
        count -= 1
    return math.inf


@dataclass(slots=True, eq=False)
class Member:
    """A worker that has, or had lately, a lease.

    Attributes:
        use: What it said last.
        until: When what it holds ends.
        served_at: When it got its last whole request.
        counted: The most that it may hold of each rate.
        demands: What it can use of requests and tokens a minute.
        told: The limits that it gives, or is shown; infinite where there are none.
    """

    use: Use
    until: float
    served_at: float = -math.inf
    counted: list[float] = field(default_factory=lambda: [0.0, 0.0])
    demands: tuple[float, float] = (math.inf, math.inf)
    told: tuple[float, float] = (math.inf, math.inf)

    def says(self, use: Use) -> None:
        """Takes what it says."""
        self.use = use
        self.demands = _or_infinite(use.demand_rpm), _or_infinite(use.demand_tpm)
        self.told = (
            min(_or_infinite(use.limit_rpm), _or_infinite(use.shown_rpm)),
            min(_or_infinite(use.limit_tpm), _or_infinite(use.shown_tpm)),
        )

    @property
    def wants(self) -> bool:
        """Whether it can use anything."""
        return self.demands[0] > 0.0 and self.demands[1] > 0.0


def _or_infinite(value: float | None) -> float:
    return math.inf if value is None else value


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
        self._is_new = True
        self._resumed_at = -math.inf
        self._learned = LearnedLimit()

    def renew(self, worker: str, use: Use, now: float) -> Share:
        """Returns the share that a worker has from now on, and counts it until it ends.

        Args:
            worker: Its name.
            use: What it needs, and what it holds.
            now: The time now, in seconds.
        """
        self._forget(now)
        self._fill(now)
        member = self._members.get(worker)
        if member is None:
            member = self._members[worker] = Member(use, now)
        before = member.use
        confirms = now < self._confirms_until
        claims = [use.holds_rpm or 0.0, use.holds_tpm or 0.0]
        holds = claims if confirms else [min(pair) for pair in zip(claims, member.counted, strict=True)]
        member.says(use)
        pause_s = self._pause_s(worker, before, now)
        if confirms and use.divided_rpm is not None and self._told(0) == math.inf:
            self._learned.inherit(use.divided_rpm, now)
        self._limits = [self._learned.limit(now, self._told(0)), self._told(1)]
        targets = holds if confirms else self._targets(member)
        shares = []
        for index, limit in enumerate(self._limits):
            others = sum(other.counted[index] for other in self._members.values() if other is not member)
            room = max(0.0, limit - others) if limit < math.inf else math.inf
            shares.append(min(targets[index], room))
            # It may go on at its old rate until it has this answer.
            member.counted[index] = max(holds[index], shares[index] if limit < math.inf else 0.0)
        member.until = now + self._ttl_s
        limit_rpm, limit_tpm = (limit if limit < math.inf else None for limit in self._limits)
        whole = Share(limit_rpm=limit_rpm, limit_tpm=limit_tpm, pause_s=pause_s)
        if confirms:
            has_lease = use.holds_rpm is None or use.holds_rpm > 0.0
            unlimited = None if has_lease else 0.0
            rpm = unlimited if limit_rpm is None else shares[0]
            return replace(whole, rpm=rpm, tpm=None if limit_tpm is None else shares[1])
        if self._divided:
            rpm, tpm = (
                share if limit < math.inf else None for share, limit in zip(shares, self._limits, strict=True)
            )
            return replace(whole, rpm=rpm, tpm=tpm)
        requests = 0 if pause_s else self._whole_requests(member, now, first=worker == self._probing)
        return replace(whole, rpm=limit_rpm, tpm=limit_tpm, requests=requests)

    @property
    def renew_s(self) -> float:
        """When a worker is to ask again: later where there are many."""
        return max(self._renew_s, min(RENEWAL_S * len(self._members), self._ttl_s / 4.0))

    def leave(self, worker: str) -> None:
        """Takes back what a worker holds, which sends nothing more."""
        self._members.pop(worker, None)
        if self._probing == worker:
            self._probing, self._paused_until = None, -math.inf  # what is left of the pause teaches nothing

    def _forget(self, now: float) -> None:
        for worker in [name for name, member in self._members.items() if member.until <= now]:
            self.leave(worker)

    def _told(self, index: int) -> float:
        """Returns the lowest limit that a worker gives, or is shown; infinite if there is none."""
        return min((member.told[index] for member in self._members.values()), default=math.inf)

    def _targets(self, member: Member) -> list[float]:
        """Returns the rates that a worker gets once the others have given theirs back."""
        members = list(self._members.values())
        sizes = [other.use.tokens_per_request for other in members if other.wants]
        in_a_lease = [
            limit * self._ttl_s / MINUTE_S / max(1, len(sizes)) / amount
            for limit, amount in zip(self._limits, (1.0, max(sizes, default=0.0)), strict=True)
            if amount > 0.0
        ]
        self._divided = min(in_a_lease) >= (DIVIDED_TO if self._divided else DIVIDED_FROM)
        if not self._divided:
            return [0.0, 0.0]
        levels = self._levels(members)
        return [
            min(demand, level) if limit < math.inf else 0.0
            for demand, level, limit in zip(
                self._demands(member, levels), self._levels(members, levels), self._limits, strict=True
            )
        ]

    def _levels(self, members: Collection[Member], first: tuple[float, ...] = ()) -> tuple[float, ...]:
        """Returns the most that anybody gets of each rate; with the ``first`` levels, those that follow from them."""
        demands = [self._demands(member, first) if first else member.demands for member in members]
        return tuple(
            water_level(limit, [each[index] for each in demands]) for index, limit in enumerate(self._limits)
        )

    def _demands(self, member: Member, levels: tuple[float, ...]) -> tuple[float, float]:
        """Returns what a worker can use: of the rate that does not hold it back, what goes with the other one."""
        requests, tokens = member.demands
        size = member.use.tokens_per_request
        if size <= 0.0 or not member.wants or math.isinf(requests) == math.isinf(tokens):
            return requests, tokens
        if math.isinf(requests):
            return requests, max(tokens, HEADROOM * min(levels[0], self._limits[0]) * size)
        return max(requests, HEADROOM * min(levels[1], self._limits[1]) / size), tokens

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
        if self._divided:
            self._saved_up = [0.0, 0.0]
            return
        for index, rate in enumerate(self._rates_left()):
            if rate < math.inf:
                most = CATCH_UP_S * rate + (1.0 if index == 0 else 0.0)
                self._saved_up[index] = min(most, self._saved_up[index] + rate * elapsed_s)
            else:
                self._saved_up[index] = math.inf

    def _whole_requests(self, member: Member, now: float, *, first: bool) -> int:
        """Returns how many requests a worker may send: one if it is among the next in turn, or goes ``first``."""
        rate = self._rates_left()[0]
        if not member.demands[0] or self._saved_up[0] < 1.0 or self._saved_up[1] < 0.0:
            return 0
        ahead = sum(other.wants and other.served_at < member.served_at for other in self._members.values())
        # Each asks once until the next renewal: as many are next as there will be requests by then, and some more.
        if not first and ahead >= max(1.0, self._saved_up[0] - 1.0 + 2.0 * rate * self.renew_s):
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
                # A refusal that is heard of only after its pause says nothing new; a second one does.
                self._is_new = not self._is_new or now - self._resumed_at > LATE * self.renew_s
                self._learned.paused(now)
            if self._probing is None or self._paused_until <= now:
                self._probing = worker
            self._paused_until = max(self._paused_until, now + max(use.paused_s, self.renew_s))
        elif self._probing is not None and (self._probing == worker or self._paused_until <= now):
            self._resume(now)
        return 0.0 if self._probing == worker else max(0.0, self._paused_until - now)

    def _resume(self, now: float) -> None:
        self._probing, self._paused_until = None, -math.inf
        if self._is_new:
            self._learned.resumed(now, self._told(0))
        self._resumed_at = now
