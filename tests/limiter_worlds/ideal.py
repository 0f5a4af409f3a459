"""What could be had in a world: an all-knowing scheduler, the even pace, and the time that slots need."""

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heapreplace

from .endpoint import Row
from .noise import down, mean_work_s
from .servers import Cap, grant_of
from .spec import DAY_S, Limit, Spec


@dataclass(frozen=True, slots=True)
class Ideal:
    """Seconds until the last row could be let in.

    Attributes:
        knowing_s: Of a scheduler that knows when each row would be let in, and never comes too early.
        even_s: At the even pace of the limit that binds (or of the user's, if lower).
        slots_s: If only the requests in flight bound it.
    """

    knowing_s: float
    even_s: float
    slots_s: float

    @property
    def longest_s(self) -> float:
        """The longest of the three."""
        return max(self.knowing_s, self.even_s, self.slots_s)


def told_for(limit: Limit, spec: Spec) -> float | None:
    """What the user says of a limit, per minute."""
    return spec.told_tpm if limit.of == "tokens" else spec.told_rpm


def rate_per_s(limit: Limit, spec: Spec, stranger: float = 0.0) -> float:
    """What a limit lets in per second beside a stranger; less where the user told less."""
    rate = limit.amount / limit.window_s * (1.0 - stranger)
    told = told_for(limit, spec)
    return rate if told is None else min(rate, told / 60.0 * spec.clients)


def ideal(spec: Spec, rows: Sequence[Row]) -> Ideal:
    """Computes what could be had for all rows of all clients."""
    tries = 1.0 / (1.0 - spec.noise - spec.faults)
    stranger = sum(spec.stranger) / len(spec.stranger) if spec.stranger else 0.0
    even_s = 0.0
    tokens = float(sum(row.tokens for row in rows))
    told_even = [(spec.told_rpm, float(len(rows))), (spec.told_tpm, tokens)]
    if not any(limit.kind != "cap" for limit in spec.limits):
        even_s = max((60.0 * amount / told / spec.clients for told, amount in told_even if told), default=0.0)
    for limit in spec.limits:
        if limit.kind != "cap" and limit.window_s < DAY_S:
            amount = tokens if limit.of == "tokens" else float(len(rows))
            even_s = max(even_s, amount / rate_per_s(limit, spec, stranger))
    slots_s = len(rows) * mean_work_s(spec) / spec.slots
    return Ideal(_knowing_s(spec, rows), even_s * tries, slots_s * tries)


def _knowing_s(spec: Spec, rows: Sequence[Row]) -> float:
    grants = [grant for limit in spec.limits if not isinstance(grant := grant_of(limit), Cap)]
    free = [0.0] * min(spec.slots, len(rows))
    heapify(free)
    work_s, now, owed, tick_at = mean_work_s(spec), 0.0, 0.0, 0.0
    steps = spec.stranger
    for row in rows:
        at = max(now, free[0])
        while True:
            opens = at
            for grant in grants:
                opens = max(opens, grant.opens_at(at, row.tokens if grant.limit.of == "tokens" else 1.0))
            if down(spec, opens) and spec.outage is not None:
                opens = sum(spec.outage)
            if steps and tick_at + 0.2 <= opens:
                tick_at += 0.2
                for grant in grants:
                    share = steps[int(tick_at / spec.stranger_s) % len(steps)]
                    owed += share * grant.limit.amount / grant.limit.window_s * 0.2
                    whole = min(int(owed), int(max(0.0, grant.free(tick_at)) + 1e-6))
                    owed = min(owed - whole, 1.0)
                    grant.take(tick_at, whole)
                at = max(at, tick_at)
                continue
            if opens <= at:
                break
            at = opens
        now = at
        for grant in grants:
            grant.take(now, row.tokens if grant.limit.of == "tokens" else 1.0)
        heapreplace(free, now + work_s)
    return now
