"""Leases a job's budget to its workers in slices.

Each worker has a ceiling: the most that it may spend in all. The holder raises it by a slice when the worker runs
short, and the worker lowers it when others do. At every instant what has been spent by runs that are over, and the
ceilings of all others, are within the limits. A worker that is dead keeps its ceiling, because it may have spent all of
it, until ``settle`` says what it has spent.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from batchllm.budget.budget import NOTHING, Amount, BudgetLimits
from batchllm.leases.terms import BudgetShare, BudgetUse, amount_of, plain_amount

SLICES = 50
"""A slice is this part of what is left."""

_NAMES = ("requests", "tokens", "cost")


@dataclass(slots=True)
class WorkerBudget:
    """What one worker has of the budget.

    Attributes:
        ceiling: The most that it may spend in all.
        number: That of the request after which the ceiling was raised.
        use: What it said last; ``None`` after a restart of the holder.
        until: Until when it counts as alive.
        waits: It is short, and there was not enough for it.
    """

    ceiling: Amount
    number: int
    use: BudgetUse | None
    until: float
    waits: bool = False


class BudgetSlices:
    """The budget of a job.

    Args:
        limits: The budget.
        spent: What was spent before.
        saved: What ``saved`` returned, if the holder was restarted; then ``spent`` is left out.
        now: The time now, in seconds.
        ttl_s: How long a lease lasts.

    Attributes:
        changed: Something has to be saved before a lease is handed out.
    """

    def __init__(
        self, limits: BudgetLimits, spent: Amount, saved: Mapping[str, Any] | None, now: float, ttl_s: float
    ) -> None:
        self._limits = limits
        self._ttl_s = ttl_s
        self._spent = spent if saved is None else amount_of(saved["spent"])
        self._accounts = {
            worker: WorkerBudget(amount_of(ceiling), number, None, now + ttl_s)
            for worker, (number, ceiling) in ({} if saved is None else saved["workers"]).items()
        }
        self.changed = False

    def saved(self) -> dict[str, Any]:
        """Returns what a restarted holder has to know, as plain values."""
        self.changed = False
        return {
            "spent": plain_amount(self._spent),
            "workers": {
                worker: [account.number, plain_amount(account.ceiling)]
                for worker, account in self._accounts.items()
            },
        }

    def number_of(self, worker: str) -> int:
        """Returns the number of the last request that is known to have raised a worker's ceiling."""
        account = self._accounts.get(worker)
        return 0 if account is None else account.number

    @property
    def left(self) -> Amount:
        """What no worker has yet; of an unlimited part it means nothing."""
        taken = sum((account.ceiling for account in self._accounts.values()), self._spent)
        limits = self._limits
        return Amount(
            (limits.requests or 0) - taken.requests,
            (limits.tokens or 0) - taken.tokens,
            (limits.cost or Decimal(0)) - taken.cost,
        )

    def renew(self, worker: str, number: int, use: BudgetUse, now: float) -> BudgetShare:
        """Returns what a worker may spend from now on.

        Args:
            worker: Its name.
            number: The number of its request.
            use: What it has and needs.
            now: The time now, in seconds.
        """
        account = self._accounts.get(worker)
        if account is None:
            account = self._accounts[worker] = WorkerBudget(NOTHING, number, use, now)
        account.use = use
        account.until = now + self._ttl_s
        if use.ceiling != account.ceiling:
            # The worker knows best: it has lowered its ceiling, or an answer did not reach it.
            account.ceiling = use.ceiling
            self.changed = True
        more = self._slice(use)
        if more != NOTHING:
            account.ceiling += more
            account.number = number
            self.changed = True
        account.waits = use.short and not self._fits(account.ceiling - use.spent - use.reserved, use.wanted)
        return BudgetShare(
            ceiling=account.ceiling,
            scarce=any(other.waits and other.until > now for other in self._accounts.values()),
            nothing_left=account.waits and not self._fits(self._most(account, now), use.wanted),
        )

    def settle(self, worker: str, spent: Amount) -> None:
        """Ends a worker's account with what it has spent, and may have spent."""
        if self._accounts.pop(worker, None) is not None:
            self._spent += spent
            self.changed = True

    def _slice(self, use: BudgetUse) -> Amount:
        """Returns by how much a ceiling rises: a slice in each part of which less than half a slice is left."""
        left, has = self.left, use.ceiling - use.spent - use.reserved
        more: dict[str, Any] = {}
        for name in _NAMES:
            limit, rest = getattr(self._limits, name), getattr(left, name)
            if limit is None or rest <= 0:
                continue
            wanted, own = getattr(use.wanted, name), getattr(has, name)
            portion = rest / SLICES if name == "cost" else rest // SLICES
            size = max(portion, wanted)
            if own < max(wanted, size / 2) and rest >= wanted - own:
                more[name] = min(rest, max(portion, wanted - own))
        given = Amount(**more)
        # A part of what a waiting request needs would only be missing elsewhere.
        return given if not use.short or self._fits(has + given, use.wanted) else NOTHING

    def _most(self, account: WorkerBudget, now: float) -> Amount:
        """Returns what a worker would have if all the living gave back what they have not spent."""
        most = self.left
        for other in self._accounts.values():
            if other is account or other.until > now:
                # One that has said nothing since the holder was restarted may have spent nothing yet.
                most += other.ceiling - (other.use.spent if other.use is not None else NOTHING)
        return most

    def _fits(self, has: Amount, wanted: Amount) -> bool:
        return all(
            getattr(self._limits, name) is None or getattr(has, name) >= getattr(wanted, name)
            for name in _NAMES
        )
