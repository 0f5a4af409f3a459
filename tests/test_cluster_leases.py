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


def test_a_work_folder_that_is_begun_anew_has_its_whole_budget(tmp_path: Path) -> None:
    """The service lives longer than a job, and the folder may be removed between two runs."""
    service = LeaseService(clock=Clock())

    def taken(run: str, requests: int) -> int:
        """What one worker after the other of a run gets until nothing is left; all of them die."""
        budget, total = JobBudget(str(tmp_path), BudgetLimits(requests=requests), run), 0
        for number in range(100):
            use = BudgetUse(wanted=ONE_REQUEST)
            told = service.renew(budget, LeaseRequest(worker=f"{run} {number}", number=1, budget=use)).budget
            total += 0 if told is None else told.ceiling.requests
        return total

    assert taken("one", 20) == 20
    assert taken("two", 20) == 0, "it is spent"
    assert taken("three", 30) == 10
    (tmp_path / "budget.json").unlink()
    assert taken("four", 20) == 20
    assert taken("one", 20) == 0, "a worker of an earlier run that lives on spends of the same budget"
