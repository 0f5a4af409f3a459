"""What leases rate limits and budgets to the workers of a cluster; an engine keeps one of it alive."""

import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from uuid import uuid4

from batchllm.budget.budget import BudgetLimits
from batchllm.cluster.work import BUDGET, WorkFolder, open_work
from batchllm.job import Job
from batchllm.leases import Lease, LeaseHolder, LeaseRequest, Share
from batchllm.leases.terms import MARGIN

RENEW_S = 0.5
"""How often a worker asks: whenever one ends or begins a shard, shares move, which takes two requests."""


@dataclass(frozen=True, slots=True)
class JobBudget:
    """The budget of a job.

    Attributes:
        work: Its work folder, which keeps what is spent.
        limits: The budgets of ``--max-cost``, ``--max-requests`` and ``--max-total-tokens``.
    """

    work: str
    limits: BudgetLimits

    @classmethod
    def of(cls, job: Job, work: str) -> "JobBudget":
        """Returns the budget of a job."""
        limits = BudgetLimits(cost=job.max_cost, requests=job.max_requests, tokens=job.max_total_tokens)
        return cls(work, limits)


@dataclass(frozen=True, slots=True)
class Seat:
    """The place of a process among those that share the rates, over the runs that it makes one after the other.

    Between two runs nobody else takes its share, so that it goes on at once.

    Attributes:
        name: Its name.
        number: How often it has asked.
    """

    name: str
    number: int


class SeatKeeper:
    """Keeps the seat of a process, and knows what it holds where a run that begins does not.

    Args:
        clock: Tells the time, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seat = Seat(uuid4().hex, 0)
        self._held: dict[str, Share] = {}
        self._until = 0.0

    def next(self) -> Seat:
        """Returns the seat as it asks again."""
        self._seat = replace(self._seat, number=self._seat.number + 1)
        return self._seat

    async def renew(
        self, request: LeaseRequest, ask: Callable[[LeaseRequest, Seat], Awaitable[Lease]]
    ) -> Lease:
        """Asks for a lease, with what the seat holds from the run before.

        Args:
            request: What the run needs.
            ask: Takes it to the service.
        """
        now = self._clock()
        held = self._held if now < self._until else {}
        uses = {
            key: replace(use, holds_rpm=held[key].rpm or 0.0, holds_tpm=held[key].tpm or 0.0)
            if key in held and use.holds_rpm == use.holds_tpm == 0.0 and held[key].requests is None
            else use
            for key, use in request.uses.items()
        }
        lease = await ask(replace(request, uses=uses), self.next())
        if lease.shares:
            self._held, self._until = {**held, **lease.shares}, now + lease.ttl_s * (1.0 - MARGIN)
        return lease


class LeaseService:
    """Divides the rate limits of each endpoint and model among the workers of all jobs, and each job's own budget.

    Args:
        restarted: It takes the place of one that died, whose leases workers may still have.
        clock: Tells the time, in seconds.
    """

    def __init__(self, *, restarted: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._rates = LeaseHolder(clock(), restarted=restarted, renew_s=RENEW_S)
        self._budgets: dict[JobBudget, tuple[LeaseHolder, WorkFolder]] = {}

    def renew(self, budget: JobBudget, request: LeaseRequest, seat: Seat | None = None) -> Lease:
        """Returns a worker's next lease; what it may spend is durable in the work folder before.

        Args:
            budget: The budget of the worker's job.
            request: What the worker needs, and what it holds.
            seat: What keeps the worker's share of the rates when its run is over, for the next one.

        Raises:
            JobError: The work folder cannot be read or written.
        """
        asked = replace(request, budget=None)
        if seat is not None:
            asked = replace(asked, worker=seat.name, number=seat.number, leaving=False)
        rates = replace(self._rates.renew(asked, self._clock()), number=request.number)
        if not budget.limits.any:
            return rates
        if budget not in self._budgets:
            work = open_work(budget.work)
            found = work.get(BUDGET)
            saved = None if found is None else json.loads(found)
            holder = LeaseHolder(self._clock(), budget=budget.limits, saved=saved, renew_s=RENEW_S)
            self._budgets[budget] = holder, work
        holder, work = self._budgets[budget]
        spend = holder.renew(replace(request, uses={}), self._clock())
        if holder.changed:
            work.put(BUDGET, json.dumps(holder.saved()).encode())
        return replace(rates, budget=spend.budget)

    def leave(self, seat: Seat) -> None:
        """Gives a seat's share of the rates to the others."""
        self._rates.renew(LeaseRequest(worker=seat.name, number=seat.number, leaving=True), self._clock())
