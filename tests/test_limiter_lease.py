"""A limiter under a lease: it keeps the pace of its share, and sends nothing when the lease has ended."""

import random

import pytest

from batchllm.limiter import Cost, Limiter
from batchllm.limiter.lease import LaneLease
from batchllm.records import Pace


def leased(items: int = 3_000, **pace: float) -> Limiter[object]:
    """A limiter with items that wait, whose endpoint has answered."""
    limiter: Limiter[object] = Limiter(Pace(**pace), charge="max_tokens", now=0.0, leased=True)  # type: ignore[arg-type]
    for _ in range(items):
        limiter.offer(object(), Cost(10, 10), lane="m")
    return limiter


def granted(limiter: Limiter[object], begin: float, end: float, step_s: float = 0.01) -> list[float]:
    """When items are granted; each is answered at once."""
    times = []
    for tick in range(round((end - begin) / step_s)):
        now = begin + tick * step_s
        for item in limiter.poll(now).grants:
            times.append(now)
            limiter.answered(now, item, {}, None)
            limiter.released(now, item)
    return times


@pytest.mark.parametrize(("has_worked", "first"), [(False, 1), (True, 8)])
def test_the_first_request_goes_alone_unless_the_endpoint_has_answered_the_job(
    has_worked: bool, first: int
) -> None:
    limiter: Limiter[object] = Limiter(Pace(), charge="max_tokens", now=0.0, has_worked=has_worked)
    for _ in range(20):
        limiter.offer(object(), Cost(10, 10), lane="m")
    assert len(limiter.poll(0.0).grants) == first


def test_nothing_is_granted_without_a_lease() -> None:
    limiter = leased()
    assert granted(limiter, 0.0, 5.0) == []
    assert limiter.view(5.0).limits == "lease"


def test_the_pace_is_that_of_the_lease_and_ends_with_it() -> None:
    limiter = leased(requests_per_minute=600)
    limiter.lease(0.0, "m", LaneLease(until=30.0, requests_per_minute=120))
    times = granted(limiter, 0.0, 40.0)
    assert len(times) == pytest.approx(60, abs=1)
    assert max(times) < 30.0
    assert limiter.view(40.0).limits == "lease"


def test_the_first_request_goes_one_request_later_so_that_workers_do_not_start_with_a_burst() -> None:
    limiter = leased()
    limiter.lease(0.0, "m", LaneLease(until=60.0, requests_per_minute=6))
    assert granted(limiter, 0.0, 25.0) == pytest.approx([10.05, 20.1], abs=0.02)


def test_a_slow_pace_goes_on_from_one_lease_to_the_next() -> None:
    limiter = leased()
    times = []
    for second in range(120):
        limiter.lease(second, "m", LaneLease(until=second + 9.5, requests_per_minute=3))
        times += granted(limiter, second, second + 1.0)
    assert len(times) == 5


def test_whole_requests_are_granted_once_each() -> None:
    limiter = leased()
    limiter.lease(0.0, "m", LaneLease(until=9.5, requests_per_minute=600, requests=2))
    assert len(granted(limiter, 0.0, 5.0)) == 2
    assert limiter.view(5.0).limits == "lease"
    limiter.lease(5.0, "m", LaneLease(until=14.5, requests_per_minute=600, requests=1))
    assert len(granted(limiter, 5.0, 10.0)) == 1


def test_a_pause_of_the_lease_is_kept_to_its_instant() -> None:
    limiter = leased()
    limiter.lease(0.0, "m", LaneLease(until=9.5, requests_per_minute=600, paused_until=3.0))
    poll = limiter.poll(0.0)
    assert poll.grants == []
    assert poll.wake_at == 3.0
    assert min(granted(limiter, 0.0, 5.0)) >= 3.0


def test_a_share_smaller_than_a_request_does_not_fail_it_and_the_whole_limit_does() -> None:
    limiter = leased(1)
    limiter.lease(0.0, "m", LaneLease(until=60.0, tokens_per_minute=5, tokens_limit=15))
    poll = limiter.poll(0.0)
    assert not poll.too_large
    assert len(granted(limiter, 0.0, 20.0)) == 1
    limiter.offer(object(), Cost(10, 20), lane="m")
    limiter.lease(20.0, "m", LaneLease(until=900.0, tokens_per_minute=5, tokens_limit=15))
    assert any(limiter.poll(second).too_large for second in range(20, 400))


@pytest.mark.parametrize("seed", range(3))
def test_a_share_that_changes_with_every_lease_lets_no_more_through_than_its_sum(seed: int) -> None:
    rng = random.Random(seed)
    limiter = leased()
    times, allowed = [], 0.0
    for second in range(100):
        share = rng.choice([0.0, 1.0, 30.0, 600.0, 1200.0])
        limiter.lease(second, "m", LaneLease(until=second + 9.5, requests_per_minute=share))
        times += granted(limiter, second, second + 1.0, 0.02)
        allowed += share / 60.0
    assert len(times) <= allowed + 1.0
    assert len(times) >= 0.9 * allowed - 5.0
