"""The law of concurrency, told a stream of results."""

import random

import pytest

from batchllm.limiter.concurrency import START, Concurrency


def mean_cap(explicit: int | None, share: float, *, seconds: float = 100.0, latency_s: float = 0.05) -> float:
    """The cap over time, where a share of the answers says overload whatever is in flight."""
    rng = random.Random(1)
    concurrency = Concurrency(explicit, 0.0)
    now = area = 0.0
    while now < seconds:
        step = latency_s / concurrency.cap
        now += step
        area += concurrency.cap * step
        concurrency.saturated()
        if rng.random() < share:
            concurrency.overloaded(now)
        else:
            concurrency.answered(now, latency_s, 20)
    return area / seconds


@pytest.mark.parametrize("share", [0.01, 0.02, 0.05, 0.1])
def test_faults_at_random_do_not_take_a_given_concurrency_away(share: float) -> None:
    assert mean_cap(64, share) >= 0.75 * 64


@pytest.mark.parametrize("share", [0.01, 0.02, 0.05])
def test_faults_at_random_do_not_push_a_found_concurrency_below_its_start(share: float) -> None:
    assert mean_cap(None, share) >= START


@pytest.mark.parametrize("explicit", [64, None])
def test_an_endpoint_that_refuses_half_gets_next_to_nothing(explicit: int | None) -> None:
    assert mean_cap(explicit, 0.5) < 4


def test_without_faults_a_given_concurrency_is_used_all_the_time() -> None:
    assert mean_cap(64, 0.0) == pytest.approx(64)
