"""The service of the leases, over its restarts."""

from pathlib import Path

from batchllm.budget.budget import ONE_REQUEST, BudgetLimits
from batchllm.cluster.lease_service import JobBudget, LeaseService
from batchllm.leases import BudgetUse, LeaseRequest


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_what_a_worker_may_spend_is_durable_before_it_is_told(tmp_path: Path) -> None:
    budget = JobBudget(str(tmp_path), BudgetLimits(requests=100))
    request = LeaseRequest(worker="a", number=1, budget=BudgetUse(wanted=ONE_REQUEST))
    told = LeaseService(clock=Clock()).renew(budget, request).budget
    assert told is not None and told.ceiling.requests > 0
    assert (tmp_path / "budget.json").exists()
    restarted = LeaseService(restarted=True, clock=Clock())
    rest = 0
    for number in range(1, 200):
        lease = restarted.renew(budget, LeaseRequest(worker="b", number=number, budget=BudgetUse(short=True)))
        rest = lease.budget.ceiling.requests if lease.budget else 0
    assert rest + told.ceiling.requests <= 100
