"""The limiter of a run, by what its job has: one endpoint or several, limits of its own or leased ones."""

from collections.abc import Mapping
from typing import Any

from batchllm.budget.budget import Budget
from batchllm.job import Job
from batchllm.job.endpoints import names_of
from batchllm.leases import Leases
from batchllm.limiter import EndpointRouter, Limiter, Target
from batchllm.online.loop import OnlineLoop
from batchllm.plan.work_item import WorkItem
from batchllm.runner.leased import LeaseLoop
from batchllm.stopping import RunStop

JobLimiter = Limiter[WorkItem] | EndpointRouter[WorkItem]


def limiter_of(
    job: Job, now: float, learned: Mapping[str, Any] | None, *, leased: bool, has_worked: bool
) -> JobLimiter:
    """Returns the limiter of a job, or of several endpoints the router.

    Args:
        job: The job.
        now: The time now, on the loop's clock.
        learned: What the last run learned.
        leased: The limits are leased.
        has_worked: Another run of the job has had an answer.
    """
    if len(job.endpoints) < 2:
        return Limiter(
            job.pace,
            charge=job.endpoint.charge,
            now=now,
            learned=learned,
            leased=leased,
            has_worked=has_worked,
        )
    targets = [
        Target(name, each.pace, each.endpoint.charge, each.weight)
        for name, each in zip(names_of(job), job.endpoints, strict=True)
    ]
    return EndpointRouter(
        targets, now=now, max_outage_s=job.pace.max_outage_s, learned_before=learned, leased=leased
    )


def lease_loop(
    leases: Leases | None, job: Job, limiter: JobLimiter, budget: Budget, online: OnlineLoop, stop: RunStop
) -> LeaseLoop | None:
    """Returns what renews the leases of a run; ``None`` without leases."""
    if leases is None:
        return None

    def wake() -> None:
        if isinstance(limiter, EndpointRouter):
            limiter.look_again()
        online.wake()

    if isinstance(limiter, EndpointRouter):
        each = {target.name: (limiter.limiter_of(target.name), target.pace) for target in limiter.targets}
    else:
        each = {names_of(job)[0]: (limiter, job.pace)}
    renewing = LeaseLoop(leases, each, budget, wake, stop)
    online.all_sent = renewing.all_sent
    return renewing
