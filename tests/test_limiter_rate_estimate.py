"""An estimate of a limit that nobody tells, and the pace that follows from it."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.limiter.limits import LaneLimits
from batchllm.limiter.rate_estimate import (
    BELOW,
    FIRST_SPAN_S,
    LONGEST_S,
    MIN_ACCEPTED,
    Ramp,
    RateEstimate,
    SendRecord,
)
from batchllm.records import Pace

RATES = st.floats(0.01, 1000.0)
SPANS_S = st.floats(0.05, 2000.0)


def between_pauses(rate: float, measured_s: float, now: float = 0.0) -> RateEstimate:
    """An estimate that was measured from one pause to another."""
    estimate = RateEstimate(rate, measured_s, now)
    estimate.learn(rate, measured_s, now, refusals=1)
    return estimate


@given(RATES, SPANS_S, st.lists(st.floats(0.0, 500.0), min_size=2, max_size=30))
def test_the_pace_never_falls_while_nothing_is_refused(
    rate: float, measured_s: float, waits: list[float]
) -> None:
    for estimate in (RateEstimate(rate, measured_s, 0.0), between_pauses(rate, measured_s)):
        now, paces = 0.0, []
        for wait in waits:
            now += wait
            paces.append(estimate.pace(now))
        assert paces == sorted(paces)
        assert all(math.isfinite(pace) and pace > 0.0 for pace in paces)


@given(RATES, SPANS_S, st.floats(0.0, 1.0))
def test_an_estimate_is_kept_below_for_as_long_as_it_is_believed(
    rate: float, measured_s: float, share: float
) -> None:
    estimate = between_pauses(rate, measured_s)
    assert estimate.pace(share * estimate.span_s) <= BELOW * rate * (1.0 + 1e-9)


@given(RATES, SPANS_S)
def test_after_its_span_the_pace_doubles_every_span(rate: float, measured_s: float) -> None:
    estimate = between_pauses(rate, measured_s)
    for spans in (1.5, 2.0, 3.0, 7.25):
        early, late = (estimate.pace(n * estimate.span_s) for n in (spans, spans + 1.0))
        assert late == pytest.approx(2.0 * early) or late == pytest.approx(1e6)


def test_an_estimate_is_believed_for_twice_its_time_and_that_of_a_minute_for_minutes() -> None:
    assert between_pauses(10.0, 1.0).span_s == 2.0
    assert between_pauses(2.0, 40.0).span_s == 80.0
    assert between_pauses(2.0, 100.0).span_s == LONGEST_S
    assert between_pauses(0.5, 3000.0).span_s <= 2.0 * LONGEST_S


def test_what_holds_a_bucket_s_store_is_believed_for_seconds_only() -> None:
    assert RateEstimate(2.0, 100.0, 0.0).span_s == FIRST_SPAN_S
    assert not RateEstimate(2.0, 100.0, 0.0).between_pauses


def test_one_estimate_below_what_was_proven_is_not_believed_and_a_second_one_is() -> None:
    estimate, now = between_pauses(10.0, 60.0), 0.0
    now += estimate.span_s + 1.0
    estimate.learn(10.0, 60.0, now, refusals=1)
    assert estimate.proven_rate == pytest.approx(BELOW * 10.0)
    estimate.learn(4.0, 30.0, now + 1.0, refusals=1)
    assert estimate.rate == pytest.approx(BELOW * 10.0)
    estimate.learn(4.0, 30.0, now + 2.0, refusals=1)
    assert estimate.rate == 4.0


@given(st.lists(st.tuples(RATES, SPANS_S, st.floats(0.1, 300.0)), min_size=1, max_size=20))
def test_an_estimate_is_either_the_newest_or_one_that_was_proven(
    stretches: list[tuple[float, float, float]],
) -> None:
    estimate, now = RateEstimate(1.0, 1.0, 0.0), 0.0
    for rate, measured_s, wait_s in stretches:
        now += wait_s
        proven_rate = max(estimate.proven_rate, min(BELOW * estimate.rate, rate))
        estimate.learn(rate, measured_s, now, refusals=1)
        assert rate <= estimate.rate <= max(rate, proven_rate)
        assert estimate.pace(now) == pytest.approx(BELOW * estimate.rate)


def test_what_random_refusals_took_is_given_back() -> None:
    estimate, now = between_pauses(100.0, 20.0), 0.0
    for rate in (50.0, 25.0, 12.0, 6.0):
        now += 1.0
        estimate.learn(rate, 1.0, now, refusals=1)
    assert estimate.rate == 6.0
    estimate.restore(now)
    assert estimate.rate == 100.0


def test_where_nothing_is_known_the_pace_begins_at_four_a_second_and_doubles_every_second() -> None:
    estimate = RateEstimate.soft_start(10.0, usual=1.0)
    assert 3.5 <= estimate.pace(10.0) <= 4.0
    assert estimate.pace(20.0) >= 2.0**7 * 4.0


@pytest.mark.parametrize("accepted", range(MIN_ACCEPTED))
def test_fewer_than_three_that_were_let_in_make_no_estimate(accepted: int) -> None:
    limits = LaneLimits(Pace(), 0.0, {})
    for second in range(accepted):
        limits.take(float(second), (1.0, 300.0))
    limits.learn(400.0, "requests", 399.0, refusals=1, noisy=False)
    assert limits.dimension("requests").rate(400.0, 0.5) >= 3.5
    assert limits.learned() == {}


def test_three_that_were_let_in_make_one() -> None:
    limits = LaneLimits(Pace(), 0.0, {})
    for second in range(MIN_ACCEPTED):
        limits.take(float(second), (1.0, 300.0))
    limits.learn(30.0, "requests", 3.0, refusals=1, noisy=False)
    estimate = limits.dimension("requests").estimate
    assert estimate is not None
    assert estimate.rate == pytest.approx(0.1)


@pytest.mark.parametrize(("seconds", "goes"), [(59.0, False), (61.0, True)])
def test_an_estimate_goes_to_the_next_run_when_it_rests_on_a_minute(seconds: float, goes: bool) -> None:
    limits = LaneLimits(Pace(), 0.0, {})
    for second in range(int(seconds)):
        limits.take(float(second), (1.0, 300.0))
    limits.learn(seconds, "requests", seconds - 0.3, refusals=1, noisy=False)
    assert (limits.learned() != {}) is goes


def test_an_estimate_of_an_earlier_run_is_believed_for_seconds() -> None:
    limits = LaneLimits(Pace(), 0.0, {"requests_found_per_s": 10.0})
    estimate = limits.dimension("requests").estimate
    assert estimate is not None
    assert estimate.span_s == FIRST_SPAN_S
    assert estimate.pace(FIRST_SPAN_S) <= 9.5


def test_an_estimate_of_tokens_of_an_earlier_run_is_believed_for_as_long() -> None:
    limits = LaneLimits(Pace(), 0.0, {"tokens_found_per_s": 10_000.0})
    limits.take(0.0, (1.0, 500.0))
    estimate = limits.dimension("tokens").estimate
    assert estimate is not None
    assert estimate.pace(FIRST_SPAN_S) <= 9_500.0


def test_a_ramp_begins_below_what_was_too_much_and_rises_by_forty_percent_in_fifteen_minutes() -> None:
    ramp = Ramp(10.0, 0.0)
    assert ramp.pace(0.0) == pytest.approx(7.0)
    assert ramp.pace(900.0) == pytest.approx(9.8)
    ramp.refused(100.0, 900.0)
    assert ramp.pace(900.0) == pytest.approx(0.7 * 9.8)


LEAVES = st.lists(
    st.tuples(st.floats(0.0, 20.0), st.floats(0.5, 50.0), st.booleans(), st.booleans()),
    min_size=1,
    max_size=80,
)


@given(LEAVES, st.data())
@settings(max_examples=150)
def test_what_has_left_is_counted_as_a_plain_list_counts_it(
    steps: list[tuple[float, float, bool, bool]], data: st.DataObject
) -> None:
    sent, now = SendRecord(), 0.0
    left: list[list[float]] = []  # [when, amount that was let in, position, stretch]
    stretch = 0
    for wait, amount, refused, resumes in steps:
        now += wait
        sent.add(now, amount)
        left.append([now, amount, sent.total, stretch])
        if refused:
            sent.refused(sent.total, now, amount)
            left[-1][1] = 0.0
        if resumes:
            now += 0.1
            sent.start_stretch(now)
            stretch += 1
    assert sent.accepted == pytest.approx(sum(a for _, a, _, s in left if s == stretch))
    first = data.draw(st.sampled_from([0.0, *(p for _, _, p, _ in left)]))
    last = data.draw(st.sampled_from([p for _, _, p, _ in left if p >= first] or [first]))
    assert sent.since(first) == pytest.approx(sum(a for _, a, p, _ in left if p > first))
    assert sent.between(first, last) == pytest.approx(sum(a for _, a, p, _ in left if first < p <= last))
    surely = sum(a for at, a, _, _ in left if at > now - 59.74)
    perhaps = sum(a for at, a, _, _ in left if at >= now - 60.26)
    assert surely - 1e-6 <= sent.last_minute(now) <= perhaps + 1e-6


def test_a_refusal_of_an_earlier_stretch_takes_nothing_of_the_present_one() -> None:
    sent = SendRecord()
    sent.add(0.0, 1.0)
    position = sent.total
    sent.start_stretch(1.0)
    sent.add(2.0, 1.0)
    sent.refused(position, 0.0, 1.0)
    assert sent.accepted == 1.0
    assert sent.since(0.0) == 1.0


def test_the_memory_of_what_has_left_is_bounded() -> None:
    sent = SendRecord()
    for i in range(20_000):
        sent.add(0.1 * i, 1.0)
        sent.refused(sent.total, 0.1 * i, 1.0)
    assert len(sent._bins) <= 4 * 60 / 0.25 + 1
    assert len(sent._refused) <= 256
