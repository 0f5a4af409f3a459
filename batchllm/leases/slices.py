"""Leases a job's budget to its workers in slices.

Each worker has a ceiling: the most that it may spend in all. The holder raises it by a slice when the worker runs
short, and the worker lowers it when others do. At every instant what has been spent by runs that are over, and the
ceilings of all others, are within the limits.

A worker that is dead keeps its ceiling for good, because nothing bounds what it has spent more closely. Its answer log
shows what it has spent at least: what left after the log was written last is in no place that outlives the worker.
Nor does the end of its lease show that it has stopped: a process that was paused between reserving a request and
sending it sends it when it wakes up, however late, and the endpoint knows of no leases. So a slice is small instead:
what a worker spends in some seconds, and never more than a part of what is left.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from batchllm.budget.budget import NOTHING, Amount, BudgetLimits
from batchllm.leases.messages import BudgetShare, BudgetUse

SLICES = 50
"""A slice is at most this part of what is left, or the upper bound of one request where that is more."""
SLICE_S, EACH_S = 10.0, 0.5
"""A slice lasts so long at the rate at which its worker has spent so far; with many workers so long for each of them,
since a slice is made durable before it is handed out."""
FIRST = 16
"""A slice is enough for so many requests, whatever the worker has spent so far."""

_NAMES = ("requests", "tokens", "cost")


@dataclass(slots=True)
class WorkerBudget:
    """What one worker has of the budget.

    Attributes:
        ceiling: The most that it may spend in all.
        number: That of the request after which the ceiling was raised.
        use: What it said last; ``None`` after a restart of the holder.
        until: Until when it counts as alive.
        since: When this holder first heard of it.
        spent_before: What it had spent by then.
        waits: It is short, and there was not enough for it.
    """

    ceiling: Amount
    number: int
    use: BudgetUse | None
    until: float
    since: float = 0.0
    spent_before: Amount = NOTHING
    waits: bool = False


class BudgetSlices:
    """The budget of a job.

    Args:
        limits: The budget.
        saved: What ``saved`` returned, if there was a holder before.
        now: The time now, in seconds.
        ttl_s: How long a lease lasts.

    Attributes:
        changed: Something has to be saved before a lease is handed out.
    """

    def __init__(
        self, limits: BudgetLimits, saved: Mapping[str, Any] | None, now: float, ttl_s: float
    ) -> None:
        self._limits = limits
        self._ttl_s = ttl_s
        self._spent = NOTHING if saved is None else _amount(saved["spent"])
        self._accounts = {
            worker: WorkerBudget(_amount(ceiling), number, None, now + ttl_s)
            for worker, (number, ceiling) in ({} if saved is None else saved["workers"]).items()
        }
        self._usual = NOTHING  # what the request that was asked for last may take
        self.changed = False

    def saved(self) -> dict[str, Any]:
        """Returns what a restarted holder has to know, as plain values."""
        self.changed = False
        return {
            "spent": _plain(self._spent),
            "workers": {
                worker: [account.number, _plain(account.ceiling)]
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
            account = self._accounts[worker] = WorkerBudget(NOTHING, number, None, now)
        if account.use is None:
            account.since, account.spent_before = now, use.spent
        account.use = use
        account.until = now + self._ttl_s
        if use.ceiling != account.ceiling:
            # The worker knows best: it has lowered its ceiling, or an answer did not reach it.
            account.ceiling = use.ceiling
            self.changed = True
        if use.wanted != NOTHING:
            self._usual = use.wanted
        more = self._slice(account, use, now)
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

    def leave(self, worker: str, spent: Amount) -> None:
        """Ends the account of a worker that sends nothing more, with what it has spent, and may have spent."""
        if self._accounts.pop(worker, None) is not None:
            self._spent += spent
            self.changed = True

    def _slice(self, account: WorkerBudget, use: BudgetUse, now: float) -> Amount:
        """Returns by how much a ceiling rises: to a slice in each part of which less than half a slice is left."""
        left, has, spent = self.left, use.ceiling - use.spent - use.reserved, use.spent - account.spent_before
        living = sum(each.until > now for each in self._accounts.values())
        elapsed_s = max(now - account.since, 1.0)
        times = Decimal(max(SLICE_S, EACH_S * living) / elapsed_s)
        more: dict[str, Any] = {}
        for name in _NAMES:
            limit, rest = getattr(self._limits, name), getattr(left, name)
            if limit is None or rest <= 0:
                continue
            wanted, own = getattr(use.wanted, name), getattr(has, name)
            number = Decimal if name == "cost" else int
            need = max(
                FIRST * getattr(self._usual, name),
                getattr(
                    use.reserved, name
                ),  # a worker that still opens connections doubles what is in flight
                number(getattr(spent, name) * times),
            )
            size = max(min(need, number(rest / SLICES)), wanted)
            if own < max(wanted, size / 2) and rest >= wanted - own:
                more[name] = min(rest, size - own)
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


def _plain(amount: Amount) -> list[Any]:
    return [amount.requests, amount.tokens, str(amount.cost)]


def _amount(value: list[Any]) -> Amount:
    return Amount(int(value[0]), int(value[1]), Decimal(value[2]))
