"""What leases rate limits and budgets to the workers of a cluster; an engine keeps one of it alive."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from batchllm.budget.budget import BudgetLimits
from batchllm.cluster.work import BUDGET, WorkFolder, open_work
from batchllm.job import Job
from batchllm.leases import Lease, LeaseHolder, LeaseRequest

RENEW_S = 0.5
"""How often a worker asks: whenever one ends or begins a shard, shares move, which takes two requests."""


@dataclass(frozen=True, slots=True)
class JobBudget:
    """The budget of a job.

    Attributes:
        work: Its work folder, which keeps what is spent.
        limits: The budgets of ``--max-cost``, ``--max-requests`` and ``--max-total-tokens``.
        run: The name of the run of the job.
    """

    work: str
    limits: BudgetLimits
    run: str = ""

    @classmethod
    def of(cls, job: Job, work: str, run: str) -> "JobBudget":
        """Returns the budget of a run of a job."""
        limits = BudgetLimits(cost=job.max_cost, requests=job.max_requests, tokens=job.max_total_tokens)
        return cls(work, limits, run)


class LeaseService:
    """Divides the rate limits of each endpoint and model among the workers of all jobs, and each job's own budget.

    It lives longer than a job, so that of each work folder it knows the budget of one run, and reads the file again for
    another one: the folder may have been removed and begun anew, and a larger budget goes on with what is spent.

    Args:
        restarted: It takes the place of one that died, whose leases workers may still have.
        clock: Tells the time, in seconds.
    """

    def __init__(self, *, restarted: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._rates = LeaseHolder(clock(), restarted=restarted, renew_s=RENEW_S)
        self._budgets: dict[str, tuple[JobBudget, LeaseHolder, WorkFolder]] = {}

    def renew(self, budget: JobBudget, request: LeaseRequest) -> Lease:
        """Returns a worker's next lease; what it may spend is durable in the work folder before.

        Args:
            budget: The budget of the worker's job.
            request: What the worker needs, and what it holds.

        Raises:
            JobError: The work folder cannot be read or written.
        """
        rates = self._rates.renew(replace(request, budget=None), self._clock())
        if request.budget is None or not budget.limits.any:
            return rates
        if budget.work not in self._budgets or self._budgets[budget.work][0] != budget:
            work = open_work(budget.work)
            saved = work.get_json(BUDGET, "budget")
            holder = LeaseHolder(self._clock(), budget=budget.limits, saved=saved, renew_s=RENEW_S)
            self._budgets[budget.work] = budget, holder, work
        _, holder, work = self._budgets[budget.work]
        spend = holder.renew(replace(request, uses={}), self._clock())
        if holder.changed:
            work.put_json(BUDGET, holder.saved())
        return replace(rates, budget=spend.budget)
