"""Slices of a budget: they last for some seconds, so that a worker is never short, and its death costs little."""

from collections import deque
from dataclasses import dataclass, field
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.budget.budget import NOTHING, Amount, BudgetLimits
from batchllm.leases import LeaseHolder
from batchllm.leases.client import LeaseClient
from batchllm.leases.leased_budget import LeasedBudget
from batchllm.leases.slices import EACH_S, FIRST, SLICE_S, SLICES

BOUND = Amount(1, 500, Decimal("0.01"))
TAKEN = Amount(1, 120, Decimal("0.002"))
STEP_S = 0.1
RENEW_EVERY = 5


@dataclass
class Spender:
    """A worker that sends at a rate for as long as its budget lets it."""

    name: str
    whole: BudgetLimits
    rate: float
    latency_s: float
    owed: float = 0.0
    waited_s: float = 0.0
    in_flight: deque[float] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self.budget = LeasedBudget(self.whole)
        self.client = LeaseClient(self.name)

    def step(self, now: float) -> None:
        while self.in_flight and self.in_flight[0] <= now:
            self.in_flight.popleft()
            self.budget.release(BOUND, TAKEN)
        self.owed += self.rate * STEP_S
        while self.owed >= 1.0 and self.budget.reserve(BOUND):
            self.owed -= 1.0
            self.in_flight.append(now + self.latency_s)
        if self.owed >= 1.0:
            self.waited_s += STEP_S
            self.owed = 1.0  # a pace does not catch up

    def renew(self, holder: LeaseHolder, now: float) -> None:
        lease = holder.renew(self.client.ask(now, {}, self.budget.ask()), now)
        if self.client.take(lease) and lease.budget is not None:
            self.budget.take(lease.budget)


@dataclass
class Job:
    """Workers and a holder, until all of them die at once."""

    limits: BudgetLimits
    workers: int
    rate: float
    latency_s: float
    saved: int = 0

    def run(self, seconds: float) -> "Job":
        self.holder = LeaseHolder(0.0, budget=self.limits)
        self.spenders = [Spender(str(n), self.limits, self.rate, self.latency_s) for n in range(self.workers)]
        for step in range(int(seconds / STEP_S)):
            now = step * STEP_S
            for place, spender in enumerate(self.spenders):
                spender.step(now)
                if step % RENEW_EVERY == place % RENEW_EVERY or spender.budget.short:
                    spender.renew(self.holder, now)
                    if self.holder.changed:
                        self.saved += 1
                        self.holder.saved()
        return self

    @property
    def paid(self) -> Amount:
        return sum((each.budget.spent + each.budget.reserved for each in self.spenders), NOTHING)


@settings(max_examples=5, deadline=None)
@given(
    workers=st.sampled_from([1, 3, 50]),
    rate=st.sampled_from([0.2, 2.0, 20.0]),
    latency_s=st.sampled_from([0.3, 5.0]),
)
def test_where_all_workers_die_at_once_what_they_held_is_what_they_spend_in_some_seconds(
    workers: int, rate: float, latency_s: float
) -> None:
    limits = BudgetLimits(requests=1_000_000, tokens=1_000_000_000, cost=Decimal(10_000))
    job = Job(limits, workers, rate, latency_s).run(30.0)
    left = job.holder.left
    assert left is not None
    in_flight = rate * latency_s
    lasts_s = max(SLICE_S, EACH_S * workers)
    most = workers * 1.5 * (max(FIRST, in_flight + 1.0, rate * lasts_s) + 1.0)
    held = Amount(1_000_000, 1_000_000_000, Decimal(10_000)) - left - job.paid
    assert 0 <= held.requests <= most
    assert 0 <= held.tokens <= most * BOUND.tokens
    assert 0 <= held.cost <= Decimal(most) * BOUND.cost
    assert sum(each.waited_s for each in job.spenders) / workers <= 2.0, "only while connections open"
    assert job.saved <= workers * 20 + 30.0 * 4 / EACH_S


def test_a_slice_is_never_more_than_a_part_of_what_is_left_and_at_least_one_request() -> None:
    limits = BudgetLimits(requests=200)
    holder = LeaseHolder(0.0, budget=limits)
    spender = Spender("a", limits, 100.0, 1.0)
    spender.step(0.0)
    spender.renew(holder, 0.0)
    assert spender.budget.limits.requests == 200 // SLICES
    small = LeaseHolder(0.0, budget=BudgetLimits(requests=3))
    other = Spender("b", limits, 100.0, 1.0)
    other.step(0.0)
    other.renew(small, 0.0)
    assert other.budget.limits.requests == 1


def test_a_worker_that_begins_gets_a_slice_before_it_knows_what_it_needs_where_others_have_said_it() -> None:
    limits = BudgetLimits(requests=100_000)
    holder = LeaseHolder(0.0, budget=limits)
    first, second = Spender("a", limits, 10.0, 1.0), Spender("b", limits, 10.0, 1.0)
    first.renew(holder, 0.0)
    assert first.budget.limits.requests == 0, "nobody knows"
    first.step(0.1)
    first.renew(holder, 0.1)
    second.renew(holder, 0.2)
    assert first.budget.limits.requests == second.budget.limits.requests == FIRST


def test_what_a_dead_worker_held_stays_spent_over_any_number_of_holders() -> None:
    limits = BudgetLimits(requests=1000)
    holder = LeaseHolder(0.0, budget=limits)
    dead = Spender("dead", limits, 100.0, 1.0)
    dead.step(0.0)
    dead.renew(holder, 0.0)
    held = dead.budget.limits.requests
    assert held
    for start in (100.0, 200.0):
        holder = LeaseHolder(start, budget=limits, saved=holder.saved())
        assert holder.left is not None
        assert holder.left.requests == 1000 - held
