"""How one limit is divided: by demand, by what is free, and in whole requests where it is too low."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchllm.leases import Lease, LeaseHolder, Share, Use
from batchllm.leases.client import LeaseClient
from batchllm.leases.shares import water_level

KEY = "endpoint model"
DEMANDS = st.lists(st.floats(0.0, 1e6) | st.just(math.inf), min_size=1, max_size=20)


@given(st.floats(0.0, 1e6), DEMANDS)
def test_no_share_exceeds_its_demand_and_their_sum_is_the_least_of_both(
    total: float, demands: list[float]
) -> None:
    shares = max_min(total, demands)
    assert all(share >= 0.0 for share in shares)
    assert sum(shares) == pytest.approx(min(total, sum(demands)))


@given(st.floats(0.0, 1e6), DEMANDS)
def test_whoever_gets_less_than_the_demand_gets_as_much_as_anybody(
    total: float, demands: list[float]
) -> None:
    shares = max_min(total, demands)
    most = max(shares)
    for share, demand in zip(shares, demands, strict=True):
        assert share == pytest.approx(most) or share == demand


def max_min(total: float, demands: list[float]) -> list[float]:
    return [min(demand, water_level(total, demands)) for demand in demands]


def test_with_hundreds_of_workers_each_asks_less_often() -> None:
    holder = LeaseHolder(0.0)
    leases = [
        holder.renew(LeaseClient(str(place)).ask(0.0, {KEY: Use(limit_rpm=1e6)}), 0.0) for place in range(400)
    ]
    assert leases[0].renew_s == 1.0
    assert leases[-1].renew_s == 2.0


class Told:
    """A worker that a test speaks for."""

    def __init__(self, holder: LeaseHolder, name: str) -> None:
        self.holder = holder
        self.client = LeaseClient(name)

    def ask(self, now: float, **use: float | None) -> Share:
        holds = dict(zip(("holds_rpm", "holds_tpm"), self.client.holds(now, KEY), strict=True))
        request = self.client.ask(now, {KEY: Use(**{"limit_rpm": 600.0, **holds, **use})})  # type: ignore[arg-type]
        lease = self.holder.renew(request, now)
        assert self.client.take(lease)
        return lease.shares[KEY]


def test_a_worker_that_comes_gets_its_share_once_the_other_has_confirmed_the_smaller_one() -> None:
    holder = LeaseHolder(0.0)
    first, second = Told(holder, "a"), Told(holder, "b")
    assert first.ask(0.0).rpm == 600.0
    assert second.ask(0.1).rpm == 0.0
    assert first.ask(1.0).rpm == 300.0
    assert second.ask(1.1).rpm == 0.0, "the first may not have heard of it yet"
    assert first.ask(2.0).rpm == 300.0
    assert second.ask(2.1).rpm == 300.0


def test_what_a_dead_worker_held_goes_to_the_others_when_its_lease_has_ended() -> None:
    holder = LeaseHolder(0.0)
    first, second = Told(holder, "a"), Told(holder, "b")
    for now in (0.0, 1.0, 2.0):
        first.ask(now)
        second.ask(now + 0.1)
    assert first.ask(12.0).rpm == 300.0
    assert first.ask(12.2).rpm == 600.0


def test_what_a_worker_gives_back_at_its_end_goes_to_the_others_at_once() -> None:
    holder = LeaseHolder(0.0)
    first, second = Told(holder, "a"), Told(holder, "b")
    for now in (0.0, 1.0, 2.0):
        first.ask(now)
        second.ask(now + 0.1)
    holder.renew(second.client.ask(3.0, {}, leaving=True), 3.0)
    assert first.ask(3.0).rpm == 600.0


def test_a_holder_that_is_born_again_confirms_what_workers_hold_and_grants_nothing() -> None:
    old, new = LeaseHolder(0.0), LeaseHolder(1000.0, restarted=True)
    worker = Told(old, "a")
    assert worker.ask(0.0, demand_rpm=100.0).rpm == 100.0
    worker.holder = new
    request = worker.client.ask(1.0, {KEY: Use(limit_rpm=600.0, holds_rpm=100.0)})
    lease = new.renew(request, 1000.5)
    assert lease.shares[KEY].rpm == 100.0
    assert Told(new, "b").ask(1001.0).rpm == 0.0
    request = worker.client.ask(11.0, {KEY: Use(limit_rpm=600.0, holds_rpm=100.0)})
    assert new.renew(request, 1011.1).shares[KEY].rpm == 600.0


def test_a_limit_too_low_to_be_divided_goes_round_in_whole_requests() -> None:
    holder = LeaseHolder(0.0)
    workers = [Told(holder, name) for name in "abc"]
    sent = [0, 0, 0]
    for second in range(600):
        for place, worker in enumerate(workers):
            share = worker.ask(second + 0.1 * place, limit_rpm=6.0)
            sent[place] += share.requests or 0
    assert 59 <= sum(sent) <= 60
    assert max(sent) - min(sent) <= 1


def test_what_one_limit_keeps_a_worker_from_using_of_the_other_goes_to_the_others() -> None:
    holder = LeaseHolder(0.0)
    large, small = Told(holder, "large"), Told(holder, "small")
    limits = {"limit_rpm": 600.0, "limit_tpm": 60_000.0}
    for second in range(6):
        first = large.ask(second, **limits, demand_rpm=9.0, tokens_per_request=1000.0)
        other = small.ask(second + 0.1, **limits, demand_tpm=900.0, tokens_per_request=10.0)
    assert first.rpm == pytest.approx(60_000 / 1000 * 1.5, rel=0.2)
    assert first.tpm is not None
    assert first.tpm > 50_000.0
    assert other.rpm is not None
    assert other.rpm > 480.0
    assert other.tpm is not None
    assert other.tpm >= 4_800.0, "enough for what its requests a minute may be"


def test_whole_requests_come_out_of_what_the_rates_leave() -> None:
    holder = LeaseHolder(0.0)
    assert Told(holder, "dead").ask(0.0, limit_rpm=60.0).rpm == 60.0
    others = [Told(holder, str(place)) for place in range(20)]
    granted = [
        (second, other.ask(second + 0.01, limit_rpm=60.0).requests)
        for second in range(1, 20)
        for other in others
    ]
    assert not sum(count or 0 for second, count in granted if second < 10)
    assert sum(count or 0 for second, count in granted if second >= 10) == pytest.approx(9, abs=1)


def test_a_request_that_arrives_twice_gets_one_lease_and_one_that_was_overtaken_gets_nothing() -> None:
    holder = LeaseHolder(0.0)
    client = LeaseClient("a")
    first = client.ask(0.0, {KEY: Use(limit_rpm=600.0)})
    second = client.ask(1.0, {KEY: Use(limit_rpm=600.0)})
    granted = holder.renew(second, 1.1)
    assert holder.renew(second, 1.2) is granted
    assert holder.renew(first, 1.3) == Lease(number=1)
    assert not client.take(Lease(number=1))
    assert client.take(granted)


def test_a_lease_counts_from_before_it_was_asked_for_and_ends_early() -> None:
    client = LeaseClient("a")
    client.ask(100.0, {})
    client.take(Lease(number=1, ttl_s=10.0, shares={KEY: Share(rpm=5.0)}))
    assert client.holds(109.4, KEY) == (5.0, None)
    assert client.holds(109.5, KEY) == (0.0, 0.0)


def test_a_refusal_anywhere_pauses_all_others_until_its_worker_goes_on() -> None:
    holder = LeaseHolder(0.0)
    first, second, third = (Told(holder, name) for name in "abc")
    for worker in (first, second, third):
        worker.ask(0.0)
    assert first.ask(1.0, pauses=1, paused_s=5.0).pause_s == 0.0
    assert second.ask(1.5).pause_s == 4.5
    assert third.ask(1.6, pauses=1, paused_s=3.0).pause_s == pytest.approx(4.4), "one probe is enough"
    assert first.ask(6.0).pause_s == 0.0
    assert second.ask(6.1).pause_s == 0.0
