"""What is remembered, given back and shown: limits, charges, and the pace of a lane."""

from typing import Any

import pytest

from batchllm.limiter import Cost, Limiter
from batchllm.records import Pace, Usage
from batchllm.retry import Disposition, Verdict
from tests.limiter_items import COST, REFUSED, USED, Item, answer, fill, make, warm


def test_a_row_larger_than_the_limit_is_given_back_at_once() -> None:
    limiter = make(0, tokens_per_minute=1000.0)
    big, small = Item(), Item()
    limiter.offer(big, Cost(100, 5000), lane="m")
    limiter.offer(small, COST, lane="m")
    poll = limiter.poll(0.0)
    assert poll.grants[0] is small
    ((item, words),) = poll.too_large
    assert item is big
    assert "5,000 tokens" in words and "1,000 a minute" in words
    assert limiter.waiting == 0


def found_after(seconds: float) -> tuple[Limiter[Item], float]:
    """A limiter that was let in twice a second for so long, was refused, and has resumed."""
    limiter = make(1000, concurrency=10)
    warm(limiter)
    now = 0.0
    while now < seconds:
        now += 0.5
        for item in limiter.poll(now).grants[:1]:
            answer(limiter, now, item)
    in_flight = [queued.item for queued in limiter._in_flight.values()]
    for item in in_flight:
        limiter.refused(now, item, REFUSED, {})
    probe_at = limiter.poll(now).wake_at
    assert probe_at is not None
    (probe,) = limiter.poll(probe_at).grants
    answer(limiter, probe_at + 0.1, probe)
    return limiter, probe_at + 0.1


def test_what_was_found_is_remembered_for_the_next_run() -> None:
    limiter, now = found_after(80.0)
    found = limiter.view(now).requests_per_minute
    assert found == pytest.approx(120.0, rel=0.05)
    again: Limiter[Item] = Limiter(Pace(), charge="max_tokens", now=0.0, learned=limiter.learned())
    again.offer(Item(), COST, lane="m")
    assert again.view(0.0).searching
    assert again.view(0.0).requests_per_minute == pytest.approx(found, rel=0.15)


def test_an_estimate_of_less_than_a_minute_does_not_go_to_the_next_run() -> None:
    limiter, now = found_after(40.0)
    assert limiter.view(now).searching
    assert limiter.learned()["lanes"] == {}


def test_a_job_that_fits_into_what_remains_is_not_stretched_over_a_minute() -> None:
    limiter = make(100, concurrency=200)
    used, now, done = 0, 0.0, 0
    while done < 100:
        poll = limiter.poll(now)
        for item in poll.grants:
            used += 1
            headers = {"x-ratelimit-limit-requests": "500", "x-ratelimit-remaining-requests": f"{500 - used}",
                    "x-ratelimit-reset-requests": f"{used * 120}ms"}  # fmt: skip
            answer(limiter, now, item, headers)
            done += 1
        now = now if poll.wake_at is None else poll.wake_at
        assert now < 3.0


def test_a_dimension_that_the_endpoint_settles_gives_back_what_was_not_used() -> None:
    limiter = make(2, tokens_per_minute=6000.0, charge="usage", concurrency=5)
    (item,) = limiter.poll(0.0).grants
    tokens = limiter._lanes["m"].limits.dimension("tokens")
    limiter.answered(1.0, item, {}, USED)
    assert tokens.sent.accepted == 150.0
    assert tokens.log is not None
    assert tokens.log.total == 150.0


@pytest.mark.parametrize("pace", [{"requests_per_minute": 1.0}, {"tokens_per_minute": 300.0}])
def test_while_a_row_waits_for_a_pace_somebody_looks_twice_a_second(pace: dict[str, Any]) -> None:
    limiter = make(3, **pace)
    warm(limiter)
    now, sent = 0.0, 0
    while not sent:
        poll = limiter.poll(now)
        sent += len(poll.grants)
        assert poll.grants or poll.wake_at is not None
        if poll.wake_at is not None:
            assert now < poll.wake_at <= now + 0.5
            now = poll.wake_at
    assert 50.0 < now < 70.0


def test_what_the_endpoint_charges_is_remembered_too() -> None:
    limiter = make(2, tokens_per_minute=60_000.0, concurrency=3)
    warm(limiter)
    (item,) = limiter.poll(0.0).grants
    limiter.refused(
        0.1, item, Verdict(Disposition.REFUSED, "rate_limit", "TPM", 1.0, requested_tokens=400), {}
    )
    again: Limiter[Item] = Limiter(
        Pace(tokens_per_minute=60_000.0), charge="max_tokens", now=0.0, learned=limiter.learned()
    )
    again.offer(Item(), COST, lane="m")
    again.poll(0.0)
    assert again._lanes["m"].limits.dimension("tokens").sent.total == 300.0


ANTHROPIC = {
    "anthropic-ratelimit-requests-limit": "50", "anthropic-ratelimit-requests-remaining": "40",
    "anthropic-ratelimit-input-tokens-limit": "50000", "anthropic-ratelimit-input-tokens-remaining": "0",
    "anthropic-ratelimit-input-tokens-reset": "2026-01-01T00:00:10Z", "date": "Thu, 01 Jan 2026 00:00:00 GMT",
}  # fmt: skip


def test_a_refusal_may_show_a_limit_that_was_not_known_when_its_request_left() -> None:
    limiter = make(20, concurrency=8)
    (first,) = limiter.poll(0.0).grants
    others = limiter.poll(2.0).grants
    answer(limiter, 3.0, first, ANTHROPIC)
    limiter.refused(3.1, others[0], REFUSED, ANTHROPIC)
    assert limiter.view(3.1).limits == "pause"
    resumes_at = limiter.view(3.1).resumes_at
    assert resumes_at == pytest.approx(13.1)


def test_what_an_earlier_stretch_gives_back_is_not_taken_off_the_present_one() -> None:
    limiter = make(20, tokens_per_minute=600_000.0, concurrency=8, charge="usage")
    warm(limiter)
    in_flight = fill(limiter, 0.0)
    tokens = limiter._lanes["m"].limits.dimension("tokens")
    tokens.sent.start_stretch(1.0)
    for item in in_flight:
        limiter.answered(2.0, item, {}, Usage(100, 5, 105))
    assert tokens.sent.accepted == 0.0
