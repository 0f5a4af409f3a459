"""Each bug of naive leases is seeded once: the law that forbids it must fail in one of a few dozen worlds."""

from collections.abc import Callable
from typing import Any

import pytest

from batchllm.budget.budget import Amount
from batchllm.leases import client, holder, shares, slices
from batchllm.leases.leased_budget import LeasedBudget
from batchllm.leases.messages import BudgetUse, Lease, LeaseRequest, Share, Use
from tests import test_leases_shares as divided
from tests.test_leases_worlds import (
    a_budget_is_kept,
    nobody_starves,
    the_limit_is_kept,
    the_whole_limit_is_in_use,
)

pytestmark = pytest.mark.proof

WORLDS = 120
Patch = pytest.MonkeyPatch


def shares_grow_at_once(patch: Patch) -> None:
    """What others still hold is granted again."""
    real = shares.DividedLimit.renew

    def renew(self: Any, worker: str, use: Use, now: float) -> Share:
        for name, member in self._members.items():
            if name != worker:
                member.counted = [0.0, 0.0]
        return real(self, worker, use, now)

    patch.setattr(shares.DividedLimit, "renew", renew)


def a_smaller_share_counts_before_its_worker_has_heard_of_it(patch: Patch) -> None:
    real = shares.DividedLimit.renew

    def renew(self: Any, worker: str, use: Use, now: float) -> Share:
        share = real(self, worker, use, now)
        if share.requests is None and share.rpm is not None:
            self._members[worker].counted[0] = share.rpm
        return share

    patch.setattr(shares.DividedLimit, "renew", renew)


def a_worker_ends_its_lease_late(patch: Patch) -> None:
    """As if the time counted from the answer, and clocks all went alike."""
    patch.setattr(client, "MARGIN", -0.5)


def a_reborn_holder_grants_at_once(patch: Patch) -> None:
    real = holder.LeaseHolder.__init__

    def begin(self: Any, now: float, **given: Any) -> None:
        real(self, now, **{**given, "restarted": False})

    patch.setattr(holder.LeaseHolder, "__init__", begin)


def late_answers_are_taken(patch: Patch) -> None:
    real = client.LeaseClient.take

    def take(self: Any, lease: Lease) -> bool:
        number, self.number = self.number, lease.number
        try:
            return real(self, lease)
        finally:
            self.number = number

    patch.setattr(client.LeaseClient, "take", take)


def late_requests_are_served(patch: Patch) -> None:
    real = holder.LeaseHolder.renew

    def renew(self: Any, request: LeaseRequest, now: float) -> Lease:
        self._newest.clear()
        return real(self, request, now)

    patch.setattr(holder.LeaseHolder, "renew", renew)


def the_dead_keep_what_they_hold(patch: Patch) -> None:
    patch.setattr(shares.DividedLimit, "_forget", lambda self, now: None)


def whoever_comes_first_is_served(patch: Patch) -> None:
    real = shares.DividedLimit._whole_requests

    def whole(self: Any, member: Any, now: float, *, first: bool) -> int:
        return real(self, member, now, first=True)

    patch.setattr(shares.DividedLimit, "_whole_requests", whole)


def whole_requests_are_saved_up_for_ever(patch: Patch) -> None:
    patch.setattr(shares, "CATCH_UP_S", 1000.0)


def whole_requests_come_beside_the_rates(patch: Patch) -> None:
    """The bucket is filled by the whole limit, not by what the leased rates leave."""
    patch.setattr(shares.DividedLimit, "_rates_left", lambda self: [limit / 60.0 for limit in self._limits])


def what_the_dead_may_have_spent_is_given_to_others(patch: Patch) -> None:
    real = slices.BudgetSlices.renew

    def renew(self: Any, worker: str, number: int, use: BudgetUse, now: float) -> Any:
        self._accounts = {
            name: each for name, each in self._accounts.items() if name == worker or each.until > now
        }
        return real(self, worker, number, use, now)

    patch.setattr(slices.BudgetSlices, "renew", renew)


def nothing_outlives_the_holder(patch: Patch) -> None:
    real = holder.LeaseHolder.__init__

    def begin(self: Any, now: float, **given: Any) -> None:
        real(self, now, **{**given, "saved": None})

    patch.setattr(holder.LeaseHolder, "__init__", begin)


def what_is_given_back_is_still_spent(patch: Patch) -> None:
    """The worker says that it has lowered its ceiling, and goes on under the old one."""
    real = LeasedBudget.ask

    def ask(self: Any) -> BudgetUse:
        limits = self.limits
        use = real(self)
        self.limits = limits
        return use

    patch.setattr(LeasedBudget, "ask", ask)


def nobody_gives_back(patch: Patch) -> None:
    """Each keeps what is left of its slice, too little for one request, and waits for the others."""
    real = LeasedBudget.ask

    def ask(self: Any) -> BudgetUse:
        self._gives_back = False
        return real(self)

    patch.setattr(LeasedBudget, "ask", ask)


def more_may_always_come(patch: Patch) -> None:
    patch.setattr(slices.BudgetSlices, "_most", lambda self, account, now: Amount(10**9, 10**9, 10**9))  # type: ignore[arg-type]


SEEDED: list[tuple[Callable[[Patch], None], Callable[[int], None]]] = [
    (shares_grow_at_once, the_limit_is_kept),
    (a_smaller_share_counts_before_its_worker_has_heard_of_it, the_limit_is_kept),
    (a_worker_ends_its_lease_late, the_limit_is_kept),
    (a_reborn_holder_grants_at_once, the_limit_is_kept),
    (late_answers_are_taken, the_limit_is_kept),
    (whole_requests_are_saved_up_for_ever, the_limit_is_kept),
    (the_dead_keep_what_they_hold, the_whole_limit_is_in_use),
    (whoever_comes_first_is_served, nobody_starves),
    (what_the_dead_may_have_spent_is_given_to_others, a_budget_is_kept),
    (nothing_outlives_the_holder, a_budget_is_kept),
    (what_is_given_back_is_still_spent, a_budget_is_kept),
    (nobody_gives_back, a_budget_is_kept),
    (more_may_always_come, a_budget_is_kept),
]


NAMED: list[tuple[Callable[[Patch], None], Callable[[], None]]] = [
    (
        late_requests_are_served,
        divided.test_a_request_that_arrives_twice_gets_one_lease_and_one_that_was_overtaken_gets_nothing,
    ),
    (
        whole_requests_come_beside_the_rates,
        divided.test_whole_requests_come_out_of_what_the_rates_leave,
    ),
]


@pytest.mark.parametrize(("seed", "law"), SEEDED, ids=[seed.__name__ for seed, _ in SEEDED])
def test_a_seeded_bug_breaks_its_law(
    seed: Callable[[Patch], None], law: Callable[[int], None], monkeypatch: Patch
) -> None:
    seed(monkeypatch)
    with pytest.raises(AssertionError):
        for world in range(WORLDS):
            law(world)


@pytest.mark.parametrize(("seed", "test"), NAMED, ids=[seed.__name__ for seed, _ in NAMED])
def test_a_seeded_bug_is_caught_by_the_test_that_names_it(
    seed: Callable[[Patch], None], test: Callable[[], None], monkeypatch: Patch
) -> None:
    seed(monkeypatch)
    with pytest.raises(AssertionError):
        test()
