"""The holder of the leases: one for all workers of a job."""

from collections.abc import Mapping
from typing import Any

from batchllm.budget.budget import Amount, BudgetLimits
from batchllm.leases.messages import RENEW_S, TTL_S, BudgetShare, Lease, LeaseRequest
from batchllm.leases.shares import DividedLimit
from batchllm.leases.slices import BudgetSlices

REMEMBERED = 10_000
"""Workers whose newest request is remembered, to recognize older ones that come late."""


class LeaseHolder:
    """Divides rate limits and a budget among workers. It is told the time, and never waits itself.

    The limits per minute come with the requests, from the jobs of the workers, by endpoint and model. The budget is
    the holder's, because what was spent has to outlive it.

    Args:
        now: The time now, in seconds, on the monotonic clock of every later ``now``.
        budget: The budget for all workers together.
        saved: What ``saved()`` returned last, if there was a holder before.
        restarted: There may be workers with leases of another holder that died: for one time to live, workers only
            keep what they say they hold.
        ttl_s: How long a lease lasts.
        renew_s: How often a worker asks; less often where there are hundreds.

    Attributes:
        ttl_s, renew_s: As given.
    """

    def __init__(
        self,
        now: float,
        *,
        budget: BudgetLimits | None = None,
        saved: Mapping[str, Any] | None = None,
        restarted: bool = False,
        ttl_s: float = TTL_S,
        renew_s: float = RENEW_S,
    ) -> None:
        self.ttl_s = ttl_s
        self.renew_s = renew_s
        self._confirms_until = now + ttl_s if restarted else now
        self._limits: dict[str, DividedLimit] = {}
        self._newest: dict[str, tuple[int, Lease]] = {}
        self._slices: BudgetSlices | None = None
        if budget is not None and budget.any:
            self._slices = BudgetSlices(budget, None if saved is None else saved["budget"], now, ttl_s)

    @property
    def changed(self) -> bool:
        """Whether ``saved()`` has to be written before the newest lease is handed out."""
        return self._slices is not None and self._slices.changed

    def saved(self) -> dict[str, Any]:
        """Returns what the next holder has to know if this one dies, as plain values; ``changed`` is false then."""
        return {"budget": None if self._slices is None else self._slices.saved()}

    @property
    def left(self) -> Amount | None:
        """What no worker has of the budget; ``None`` without one. Of an unlimited part it means nothing."""
        return None if self._slices is None else self._slices.left

    def renew(self, request: LeaseRequest, now: float) -> Lease:
        """Returns a worker's next lease.

        A request that arrives twice gets the same lease again; one that a newer one has overtaken gets none.

        Args:
            request: What the worker needs, and what it holds.
            now: The time now; never before that of an earlier call.
        """
        worker, number = request.worker, request.number
        known, lease = self._newest.get(worker, (0, None))
        if lease is not None and number == known:
            return lease
        slices = self._slices
        if number < known or (slices is not None and number <= slices.number_of(worker)):
            return self._lease(number)
        if request.leaving:
            self._leave(request)
            lease = self._lease(number)
        else:
            shares = {}
            for key, use in request.uses.items():
                divided = self._limits.get(key)
                if divided is None:
                    divided = self._limits[key] = DividedLimit(
                        now, ttl_s=self.ttl_s, renew_s=self.renew_s, confirms_until=self._confirms_until
                    )
                shares[key] = divided.renew(worker, use, now)
            budget: BudgetShare | None = None
            if slices is not None and request.budget is not None:
                budget = slices.renew(worker, number, request.budget, now)
            renew_s = max((self._limits[key].renew_s for key in shares), default=self.renew_s)
            lease = Lease(number=number, ttl_s=self.ttl_s, renew_s=renew_s, shares=shares, budget=budget)
        self._newest.pop(worker, None)
        self._newest[worker] = (number, lease)  # the last one in the dictionary
        if len(self._newest) > REMEMBERED:
            del self._newest[next(iter(self._newest))]
        return lease

    def _leave(self, request: LeaseRequest) -> None:
        for divided in self._limits.values():
            divided.leave(request.worker)
        if self._slices is not None and request.budget is not None:
            self._slices.leave(request.worker, request.budget.spent + request.budget.reserved)

    def _lease(self, number: int) -> Lease:
        return Lease(number=number, ttl_s=self.ttl_s, renew_s=self.renew_s)
