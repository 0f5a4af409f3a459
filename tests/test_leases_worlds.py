"""Leases in random worlds: what holds whatever dies, is late, lost or cut off, and wherever the clocks stand."""

import random
from collections.abc import Callable
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.budget.budget import BudgetLimits
from batchllm.leases import LeaseHolder
from tests.lease_worlds import World

TROUBLE_S = 60.0
TTL_S = 10.0
LIMITS = (3.0, 30.0, 600.0, 6000.0)
WORKERS = (1, 2, 3, 8)
SEEDS = st.integers(0, 2**32)


def world(seed: int, make: Callable[..., LeaseHolder] = LeaseHolder) -> World:
    """A world after a minute of trouble."""
    rng = random.Random(seed)
    limit, workers = rng.choice(LIMITS), rng.choice(WORKERS)
    return World(seed, limit=limit, workers=workers, calm_after=TROUBLE_S, make=make).run(TROUBLE_S)


def calmed(seed: int) -> World:
    """The same, two times to live after the last trouble."""
    found = world(seed)
    found.settle()
    return found.run(TROUBLE_S + 2.0 * TTL_S)


def the_limit_is_kept(seed: int) -> None:
    found = calmed(seed)
    assert found.most_over <= 1e-9
    assert found.most_burst <= 1e-6


def the_whole_limit_is_in_use(seed: int) -> None:
    found = calmed(seed)
    if not any(worker.alive and worker.demand is None for worker in found.workers):
        return
    before = sum(worker.sent for worker in found.workers)
    found.granted_since_calm = 0.0
    seconds = max(20.0, 600.0 / found.limit)
    found.run(found.now + seconds)
    sent = sum(worker.sent for worker in found.workers) - before + found.granted_since_calm
    assert sent >= 0.95 * found.limit * seconds / 60.0 - 1.0


def nobody_starves(seed: int) -> None:
    found = calmed(seed)
    began = [worker.sent for worker in found.workers]
    waiting = [
        (worker, sent)
        for worker, sent in zip(found.workers, began, strict=True)
        if worker.alive and worker.demand is None
    ]
    alive = sum(worker.alive for worker in found.workers)
    found.run(found.now + 60.0 / found.limit * 2.0 * max(1, alive) + 5.0)
    for worker, sent in waiting:
        fair = found.limit / alive
        assert worker.sent > sent or worker.rate(found.now) >= 0.99 * fair


def budget_of(rng: random.Random) -> BudgetLimits:
    """A budget with at least one limit."""
    limits = BudgetLimits(
        cost=rng.choice([None, Decimal("0.5"), Decimal(2)]),
        requests=rng.choice([None, 30, 60]),
        tokens=rng.choice([None, 500, 2000]),
    )
    return limits if limits.any else BudgetLimits(requests=40)


def a_budget_is_kept(seed: int) -> None:
    rng = random.Random(seed)
    limits = budget_of(rng)
    found = World(seed, limit=600.0, workers=rng.choice(WORKERS), budget=limits, calm_after=TROUBLE_S)
    found.run(TROUBLE_S)
    found.settle()
    found.run(TROUBLE_S + 600.0)
    for name in ("cost", "requests", "tokens"):
        limit = getattr(limits, name)
        assert limit is None or getattr(found.most_paid, name) <= limit
    assert not [worker for worker in found.workers if worker.alive], "all have been told that nothing is left"


LAWS = [the_limit_is_kept, the_whole_limit_is_in_use, nobody_starves, a_budget_is_kept]


@pytest.mark.parametrize("law", LAWS)
@settings(max_examples=12, deadline=None)
@given(seed=SEEDS)
def test_a_law_holds_in_random_worlds(law: Callable[[int], None], seed: int) -> None:
    law(seed)


@pytest.mark.proof
@pytest.mark.parametrize("law", LAWS)
@settings(max_examples=400, deadline=None)
@given(seed=SEEDS)
def test_a_law_holds_in_many_random_worlds(law: Callable[[int], None], seed: int) -> None:
    law(seed)
