"""A process keeps its share of the limits from one attempt at a shard to the next."""

import asyncio
from pathlib import Path

import pytest

from batchllm.budget.budget import ONE_REQUEST, BudgetLimits
from batchllm.cluster.lease_service import JobBudget, LeaseService
from batchllm.cluster.worker import ProcessLease
from batchllm.leases import BudgetUse, Lease, LeaseRequest, Use
from batchllm.leases.messages import key_of

KEY = key_of("http://e/v1", "m")


class World:
    """Two processes, their leases, and the service of the leases, in a time of their own.

    Attributes:
        holds: The rate that each attempt has been told last.
    """

    def __init__(self, folder: Path, limits: BudgetLimits | None = None) -> None:
        self.now = 100.0
        self.budget = JobBudget(str(folder), limits or BudgetLimits())
        self.service = LeaseService(clock=lambda: self.now)
        self.leases = [ProcessLease(lambda: self.now), ProcessLease(lambda: self.now)]
        self.holds: dict[str, float] = {}
        self._numbers: dict[str, int] = {}

    def renew(
        self,
        process: int,
        name: str,
        *,
        all_sent: bool = False,
        leaving: bool = False,
        to_the_end: bool = False,
        budget: BudgetUse | None = None,
    ) -> Lease:
        demand = 0.0 if all_sent else None
        use = Use(
            limit_rpm=600, demand_rpm=demand, demand_tpm=0.0 if all_sent else None,
            holds_rpm=self.holds.get(name, 0.0),
        )  # fmt: skip
        number = self._numbers[name] = self._numbers.get(name, 0) + 1
        request = LeaseRequest(
            worker=name, number=number, uses={} if leaving else {KEY: use}, budget=budget, leaving=leaving
        )

        async def ask(request: LeaseRequest) -> Lease:
            return self.service.renew(self.budget, request)

        lease = asyncio.run(self.leases[process].renew(request, ask, to_the_end=to_the_end))
        assert lease.number == number
        if KEY in lease.shares:
            self.holds[name] = lease.shares[KEY].rpm or 0.0
        if leaving:
            self.holds.pop(name, None)
        assert sum(self.holds.values()) <= 600.0
        return lease

    def settle(self, *attempts: tuple[int, str]) -> None:
        """Lets attempts renew until their shares are what they will be."""
        for _ in range(40):
            for process, name in attempts:
                self.renew(process, name)
            self.now += 0.5


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_the_next_attempt_has_the_share_as_soon_as_the_former_has_sent_everything(world: World) -> None:
    world.settle((0, "a"), (1, "other"))
    assert world.renew(0, "b").shares == {}, "it waits"
    world.renew(0, "a", all_sent=True)
    assert world.holds == {"a": 0.0, "other": 300.0}
    world.renew(0, "b")
    assert world.holds == {"a": 0.0, "b": 300.0, "other": 300.0}


def test_a_new_holder_confirms_the_share_that_was_handed_on(world: World) -> None:
    world.settle((0, "a"), (1, "other"))
    world.renew(0, "b")
    world.service = LeaseService(restarted=True, clock=lambda: world.now)
    world.renew(0, "a", all_sent=True)
    world.renew(0, "b")
    world.renew(1, "other")
    assert world.holds == {"a": 0.0, "b": 300.0, "other": 300.0}


def test_what_the_former_attempt_sends_again_gets_a_share_of_its_own(world: World) -> None:
    world.settle((0, "a"), (1, "other"))
    world.renew(0, "b")
    world.renew(0, "a", all_sent=True)
    world.settle((0, "b"), (1, "other"), (0, "a"))
    assert world.holds == {"a": 200.0, "b": 200.0, "other": 200.0}
    world.renew(0, "a", leaving=True)
    world.settle((0, "b"), (1, "other"))
    assert world.holds == {"b": 300.0, "other": 300.0}


def test_without_a_next_attempt_the_share_goes_to_others(world: World) -> None:
    world.settle((0, "a"), (1, "other"))
    for _ in range(3):
        world.renew(0, "a", all_sent=True)
        world.now += 0.5
        world.renew(1, "other")
    assert world.holds == {"a": 0.0, "other": 600.0}
    world.renew(0, "a", leaving=True)
    world.settle((0, "b"), (1, "other"))
    assert world.holds == {"b": 300.0, "other": 300.0}


def test_an_attempt_that_ends_while_another_waits_hands_the_share_on(world: World) -> None:
    world.settle((0, "a"), (1, "other"))
    world.renew(0, "b")
    world.renew(0, "a", leaving=True)
    world.renew(0, "b")
    assert world.holds == {"b": 300.0, "other": 300.0}


def test_an_attempt_that_is_given_up_while_it_waits_leaves_the_share_where_it_is(world: World) -> None:
    world.settle((0, "a"))
    world.renew(0, "b")
    world.renew(0, "b", leaving=True)
    world.renew(0, "a", all_sent=True)
    world.renew(0, "a")
    world.renew(0, "a")
    assert world.holds == {"a": 600.0}


def test_a_share_can_stay_until_the_run_is_over(world: World) -> None:
    world.settle((0, "a"))
    assert world.renew(0, "b").shares == {}
    world.renew(0, "a", all_sent=True, to_the_end=True)
    assert world.renew(0, "b").shares == {}
    world.renew(0, "a", leaving=True)
    world.settle((0, "b"))
    assert world.holds == {"b": 600.0}


def test_a_service_that_cannot_be_reached_at_the_end_of_an_attempt_does_not_keep_the_next_one_waiting(
    world: World,
) -> None:
    async def silent(request: LeaseRequest) -> Lease:
        raise ConnectionError

    world.settle((0, "a"))
    with pytest.raises(ConnectionError):
        asyncio.run(world.leases[0].renew(LeaseRequest(worker="a", number=1000, leaving=True), silent))
    world.now += 20
    world.holds.clear()
    world.settle((0, "b"))
    assert world.holds == {"b": 600.0}


def test_each_attempt_has_a_budget_of_its_own_also_while_its_last_answers_arrive(tmp_path: Path) -> None:
    world = World(tmp_path, BudgetLimits(requests=1000))
    has = world.renew(0, "a", budget=BudgetUse(wanted=ONE_REQUEST)).budget
    assert has is not None and has.ceiling.requests > 0
    assert world.renew(0, "b", budget=BudgetUse(wanted=ONE_REQUEST)).budget is None, "it waits"
    last = world.renew(
        0, "a", all_sent=True, budget=BudgetUse(ceiling=has.ceiling, wanted=ONE_REQUEST)
    ).budget
    assert last is not None and last.ceiling.requests >= has.ceiling.requests
    assert world.renew(0, "b", budget=BudgetUse(wanted=ONE_REQUEST)).budget is not None
    assert (
        world.renew(0, "a", all_sent=True, budget=BudgetUse(ceiling=last.ceiling, wanted=ONE_REQUEST)).budget
        is not None
    )
