"""A worker's side of its leases: what it asks, and what it may do until when."""

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from batchllm.leases.messages import MARGIN, RENEW_S, BudgetUse, Lease, LeaseRequest, Share, Use

WHOLE = 3.0
"""A whole request may be sent for so many times between two renewals, so that late answers make no burst."""

Renew = Callable[[LeaseRequest], Awaitable[Lease]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Leases:
    """Makes a run obey leases: give it to ``run_job``.

    Args:
        renew: Takes a request to the holder, and returns its answer. It may raise, or be cancelled after the time to
            live: the run asks again, and sends nothing once its lease has ended.
        worker: The name of this run, which no other run ever has.
    """

    renew: Renew
    worker: str


@dataclass(slots=True)
class LeaseClient:
    """The leases of one worker. It is told the time.

    Attributes:
        worker: Its name.
        number: That of its newest request.
        renew_s: When it is to ask again after an answer.
        until: By endpoint and model, when the share in force ends.
        shares: By endpoint and model, the share in force, or that was.
    """

    worker: str
    number: int = 0
    renew_s: float = RENEW_S
    until: dict[str, float] = field(default_factory=dict)
    shares: dict[str, Share] = field(default_factory=dict)
    _asked_at: float = -math.inf

    def ask(
        self, now: float, uses: Mapping[str, Use], budget: BudgetUse | None = None, *, leaving: bool = False
    ) -> LeaseRequest:
        """Returns the next request; the answer to an older one is ignored from now on."""
        self.number += 1
        self._asked_at = now
        return LeaseRequest(worker=self.worker, number=self.number, uses=uses, budget=budget, leaving=leaving)

    def take(self, lease: Lease) -> bool:
        """Takes a lease; returns whether it is the one that was asked for last.

        Its time counts from before it was asked for, so it ends before the holder gives the share to another worker.
        """
        if lease.number != self.number:
            return False
        self.renew_s = lease.renew_s
        until = self._asked_at + lease.ttl_s * (1.0 - MARGIN)
        soon = min(until, self._asked_at + WHOLE * lease.renew_s)
        for key, share in lease.shares.items():
            self.shares[key], self.until[key] = share, until if share.requests is None else soon
        return True

    def holds(self, now: float, key: str) -> tuple[float | None, float | None]:
        """Returns the rates of the share in force: zero without one, ``None`` where there is no limit."""
        share = self.shares.get(key)
        if share is None or share.requests is not None or now >= self.until[key]:
            return 0.0, 0.0
        return share.rpm, share.tpm

    def divided_rpm(self, key: str) -> float | None:
        """Returns the limit that the last share was a part of."""
        share = self.shares.get(key)
        return None if share is None else share.limit_rpm
