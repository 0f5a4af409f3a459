"""The judge of the random worlds, judged: worlds whose verdict is plain, and bugs that it must find."""

import random
from typing import Any

import pytest

from tests.limiter_worlds import controls
from tests.limiter_worlds.classes import CLASSES, ORDER, spec_of
from tests.limiter_worlds.controls import BUGS, Plain
from tests.limiter_worlds.figures import misses
from tests.limiter_worlds.ideal import ideal
from tests.limiter_worlds.servers import grant_of
from tests.limiter_worlds.shrink import badness, kind_of, shrunk
from tests.limiter_worlds.spec import Limit, Spec, parse
from tests.limiter_worlds.world import rows_of, run

TOLD = Spec(rows=90, told_rpm=600.0, limits=(Limit("bucket", 600.0),))
CONTROL_CLASSES = (
    "told right, empty", "told right, spent", "told too low", "no limit", "odd first, no limit",
    "faults, told right", "true Retry-After, spent",
)  # fmt: skip
CONTROL_SEEDS = range(2)


class Sleeps(Plain):
    """Stands still for 20 s once, from the tenth second on."""

    def next_at(self, now: float) -> float:
        return max(super().next_at(now), 25.0 if 5.0 <= now < 25.0 else 0.0)


def test_twenty_seconds_beside_an_open_endpoint_are_nineteen_too_many() -> None:
    outcome = run(TOLD, Sleeps)
    assert outcome.excess_s == pytest.approx(19.0, abs=0.2)
    assert outcome.since_s == pytest.approx(5.0, abs=0.7)


def test_a_limiter_that_keeps_the_pace_is_within_its_bound() -> None:
    outcome = run(TOLD, Plain)
    assert outcome.excess_s < 0.0 and not outcome.fails and outcome.refused == 0


def test_two_intervals_of_a_slow_pace_are_no_standstill() -> None:
    slow = Spec(rows=20, told_rpm=6.0, limits=(Limit("bucket", 6.0),))
    assert run(slow, Plain).excess_s < 0.0


def test_what_the_endpoint_asked_for_is_no_standstill() -> None:
    spent = Spec(
        rows=30, told_rpm=600.0, limits=(Limit("fixed", 600.0, used=1.0, phase=0.5),), retry_after="60"
    )
    outcome = run(spent, Plain)
    assert outcome.last_s > 60.0 and outcome.excess_s < 0.0 and not outcome.fails


def test_a_closed_window_is_no_standstill_but_the_time_after_it_is() -> None:
    class ComesBackLate(Plain):
        """Waits a minute after each refusal."""

        def pause_s(self, told_s: float | None) -> float:
            return 60.0

    spent = Spec(rows=30, told_rpm=600.0, limits=(Limit("fixed", 600.0, used=1.0, phase=0.5),))
    assert run(spent, Plain).excess_s <= 0.0
    assert run(spent, ComesBackLate).excess_s == pytest.approx(30.0 - 3.0, abs=0.3)


def test_with_every_slot_taken_nothing_has_to_leave() -> None:
    one = Spec(rows=5, latency_s=30.0, latency_sigma=0.0, concurrency=1)
    outcome = run(one, Plain)
    assert outcome.excess_s <= 0.0 and not outcome.unfinished


def test_of_several_clients_one_that_sends_is_enough() -> None:
    made: list[Plain] = []

    def one_sleeps(*args: Any, **options: Any) -> Plain:
        made.append((Plain if made else Sleeps)(*args, **options))
        return made[-1]

    both = Spec(rows=600, told_rpm=300.0, limits=(Limit("bucket", 600.0),), clients=2)
    assert run(both, one_sleeps).excess_s < 0.0


def test_a_crawl_is_alive_and_too_slow() -> None:
    outcome = run(Spec(rows=300), controls.OneASecond)
    assert outcome.excess_s < 0.0
    assert outcome.slow_s > 200.0 and kind_of(outcome) == "slow"


def test_a_row_that_is_lost_never_finishes() -> None:
    spec = Spec(rows=40, odd_first=1, odd_retry_after="1")
    outcome = run(spec, controls.LosesARow)
    assert outcome.ended == "late"


@pytest.mark.parametrize("kind", ["bucket", "fixed", "log", "counter"])
def test_a_limit_opens_exactly_when_it_says(kind: str) -> None:
    rng = random.Random(kind)
    for _ in range(200):
        limit = Limit(kind, 20.0, window_s=10.0, used=rng.choice((0.0, 0.5, 1.0)), phase=rng.random())
        grant, now = grant_of(limit), 0.0
        for _ in range(60):
            now += rng.random()
            amount = rng.randint(1, 6)
            opens = grant.opens_at(now, amount)
            if opens > now:
                assert grant.opens_at(opens - 1e-3, amount) > opens - 1e-3 or opens - now < 1e-3
                assert grant.opens_at(opens + 1e-6, amount) == opens + 1e-6
                now = opens + 1e-6
            grant.take(now, amount)
            assert grant.free(now) >= -1e-6


def test_no_sliding_window_ever_holds_more_than_its_limit() -> None:
    rng, grant, taken, now = random.Random(3), grant_of(Limit("log", 20.0, window_s=10.0)), [], 0.0
    for _ in range(500):
        now = max(now + 0.3 * rng.random(), grant.opens_at(now, 1.0))
        now = grant.opens_at(now, 1.0)
        grant.take(now, 1.0)
        taken.append(now)
        assert sum(at > now - 10.0 + 1e-6 for at in taken) <= 20


def test_the_all_knowing_scheduler_waits_for_no_more_than_it_must() -> None:
    window = Spec(rows=900, limits=(Limit("fixed", 600.0, used=1.0, phase=0.5),), latency_sigma=0.0)
    found = ideal(window, rows_of(window))
    assert found.knowing_s == pytest.approx(90.0, abs=2.0)
    assert found.even_s == pytest.approx(90.0)
    slots = Spec(rows=100, latency_s=2.0, latency_sigma=0.0, concurrency=10)
    assert ideal(slots, rows_of(slots)).knowing_s == pytest.approx(18.0)


@pytest.mark.parametrize("name", CLASSES)
def test_a_world_is_read_again_from_its_line(name: str) -> None:
    for seed in range(5):
        spec = spec_of(seed, name)
        assert parse(str(spec)) == spec
        assert spec_of(seed, name) == spec


def test_a_world_repeats_itself() -> None:
    spec = spec_of(ORDER.index("faults, told right"))
    assert run(spec, Plain) == run(spec, Plain)


def test_a_failing_world_shrinks_to_a_smaller_one_that_fails_as_badly() -> None:
    spec = spec_of(3, "odd first, told right")
    before = run(spec, controls.LosesARow)
    small = shrunk(spec, controls.LosesARow)
    assert badness(run(small, controls.LosesARow)) >= badness(before) > 0
    assert small.rows <= 3 and not small.limits and len(str(small)) < len(str(spec))


def _worlds() -> list[Spec]:
    return [spec_of(seed, name) for seed in CONTROL_SEEDS for name in CONTROL_CLASSES]


def test_a_plain_limiter_misses_nothing_in_the_worlds_that_it_is_made_for() -> None:
    outcomes = [run(spec, Plain) for spec in _worlds()]
    assert [str(outcome.spec) for outcome in outcomes if outcome.fails] == []
    assert misses(outcomes) == []


@pytest.mark.parametrize("bug", BUGS)
def test_each_seeded_bug_is_found(bug: type[Plain]) -> None:
    outcomes = []
    for spec in _worlds():
        outcomes.append(run(spec, bug))
        if outcomes[-1].fails:
            return
    assert misses(outcomes)
