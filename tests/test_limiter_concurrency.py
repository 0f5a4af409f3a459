"""The law of concurrency, told a stream of results."""

import heapq
import random
from itertools import count

import pytest

from batchllm.limiter import Limiter
from batchllm.limiter.concurrency import START, Concurrency
from tests.limiter_items import COST, OVERLOADED, USED, Item, make


def mean_cap(explicit: int | None, share: float, *, seconds: float = 100.0, latency_s: float = 0.05) -> float:
    """The cap over time, where a share of the answers says overload whatever is in flight."""
    rng = random.Random(1)
    concurrency = Concurrency(explicit, 0.0)
    now = area = 0.0
    while now < seconds:
        step = latency_s / concurrency.cap
        now += step
        area += concurrency.cap * step
        concurrency.saturated(now)
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


LATENCY_S = 1.0


def admissions(
    limiter: Limiter[Item],
    until: float,
    *,
    latency_s: float = LATENCY_S,
    down: tuple[float, float] = (0.0, 0.0),
) -> list[float]:
    """When an endpoint admits what a limiter grants; while it is down it answers 503 at once."""
    events: list[tuple[float, int, Item, bool]] = []
    numbers, now, admitted = count(), 0.0, list[float]()
    while now < until:
        poll = limiter.poll(now)
        for item in poll.grants:
            works = not down[0] <= now < down[1]
            heapq.heappush(events, (now + (latency_s if works else 0.01), next(numbers), item, works))
            admitted += [now] * works
        wake = until if poll.wake_at is None else poll.wake_at
        if not events or wake < events[0][0]:
            now = max(wake, now + 1e-6)
            continue
        now, _, item, works = heapq.heappop(events)
        if works:
            limiter.answered(now, item, {}, USED)
        else:
            limiter.failed(now, item, OVERLOADED, {})
        limiter.released(now, item)
        limiter.offer(item, COST, lane="m", again=not works)
    return admitted


def between(times: list[float], start: float, end: float) -> int:
    return sum(start <= at < end for at in times)


def test_a_told_limit_is_used_a_latency_after_the_first_answer() -> None:
    latency_s, rpm = 27.0, 1840
    admitted = admissions(make(1500, requests_per_minute=rpm), 100.0, latency_s=latency_s)
    assert between(admitted, latency_s + 1.0, 100.0) >= 0.95 * rpm / 60.0 * (99.0 - latency_s)


def test_a_limit_that_nobody_told_is_approached_by_doubling() -> None:
    concurrency = Concurrency(None, 0.0)
    concurrency.answered(27.0, 27.0, 20)
    concurrency.behind([(30.0, None)])
    concurrency.saturated(27.5)
    assert concurrency.cap == START
    concurrency.answered(60.0, 27.0, 20)
    assert concurrency.cap == 2 * START


@pytest.mark.parametrize(("explicit", "outage_s"), [(None, 6.0), (64, 6.0), (64, 40.0)])
def test_an_outage_takes_no_requests_in_flight_away(explicit: int | None, outage_s: float) -> None:
    back = 20.0 + outage_s
    admitted = admissions(make(1000, concurrency=explicit), back + 15.0, down=(20.0, back))
    before = between(admitted, 15.0, 20.0) / 5.0
    assert between(admitted, back + 8.0, back + 13.0) / 5.0 >= 0.9 * before
