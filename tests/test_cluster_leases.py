"""The service of the leases: a seat keeps its share between the runs that a process makes one after the other."""

import asyncio
from pathlib import Path

from batchllm.budget.budget import ONE_REQUEST, BudgetLimits
from batchllm.cluster.lease_service import JobBudget, LeaseService, Seat, SeatKeeper
from batchllm.leases import BudgetUse, Lease, LeaseRequest, Use
from batchllm.leases.terms import key_of

KEY = key_of("http://e/v1", "m")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def asked(worker: str, number: int, *, leaving: bool = False) -> LeaseRequest:
    return LeaseRequest(worker=worker, number=number, uses={KEY: Use(limit_rpm=600)}, leaving=leaving)


def test_the_next_run_of_a_seat_has_its_share_at_once_and_a_seat_that_leaves_gives_it_up(
    tmp_path: Path,
) -> None:
    clock, budget = Clock(), JobBudget(str(tmp_path), BudgetLimits())
    services = [LeaseService(clock=clock)]
    seats = [SeatKeeper(clock), SeatKeeper(clock)]

    def renew(seat: int, worker: str, number: int, *, leaving: bool = False) -> float:
        async def ask(request: LeaseRequest, of: Seat) -> Lease:
            return services[-1].renew(budget, request, of)

        lease = asyncio.run(seats[seat].renew(asked(worker, number, leaving=leaving), ask))
        assert lease.number == number
        return lease.shares[KEY].rpm or 0.0

    for number in range(1, 30):
        shares = [renew(0, "a", number), renew(1, "b", number)]
        clock.now += 0.5
    assert shares == [300.0, 300.0]
    renew(0, "a", 30, leaving=True)
    assert renew(1, "b", 30) == 300.0, "nobody else takes it"
    assert renew(0, "c", 1) == 300.0
    services.append(LeaseService(restarted=True, clock=clock))
    assert renew(0, "d", 1) == 300.0 == renew(1, "b", 31), "another holder confirms what the seat holds"
    services[-1].leave(seats[0].next())
    for number in range(32, 90):
        clock.now += 0.5
        share = renew(1, "b", number)
    assert share == 600.0


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
