"""The pace, the log of the minute and charges: small pure objects, told the time."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.limiter import Cost
from batchllm.limiter.charge import Charge
from batchllm.limiter.pace import CATCH_UP_S, Pacer, WindowLog
from batchllm.records import Usage

STEPS = st.lists(st.tuples(st.floats(0.0, 3.0), st.floats(0.1, 5.0)), min_size=1, max_size=60)


@given(st.floats(0.1, 50.0), STEPS)
@settings(max_examples=200)
def test_no_span_holds_more_than_the_rate_allows(rate: float, steps: list[tuple[float, float]]) -> None:
    pacer, now, sent = Pacer(0.0), 0.0, []
    for wait, amount in steps:
        now = max(now + wait, pacer.ready_at(rate))
        pacer.take(now, amount, rate)
        sent.append((now, amount))
    for i, (start, _) in enumerate(sent):
        for j in range(i, len(sent)):
            within = sum(amount for _, amount in sent[i:j])  # the last one is borrowed, then paid
            assert within <= rate * (sent[j][0] - start + CATCH_UP_S) + 1e-6


@given(st.lists(st.tuples(st.floats(0.0, 3.0), st.floats(0.5, 50.0)), min_size=1, max_size=60))
@settings(max_examples=200)
def test_under_a_pace_that_changes_no_span_holds_more_than_the_fastest_of_it(
    steps: list[tuple[float, float]],
) -> None:
    pacer, now, sent = Pacer(0.0), 0.0, []
    fastest = max(rate for _, rate in steps)
    for wait, rate in steps:
        now = max(now + wait, pacer.ready_at(rate))
        pacer.take(now, 1.0, rate)
        sent.append(now)
    for i, start in enumerate(sent):
        for j in range(i, len(sent)):
            assert j - i <= fastest * (sent[j] - start + CATCH_UP_S) + 1e-6


@given(STEPS, st.floats(0.1, 10.0), st.floats(0.1, 10.0))
@settings(max_examples=200)
def test_a_debt_is_the_last_request_at_the_present_rate_however_much_left_before(
    steps: list[tuple[float, float]], before: float, after: float
) -> None:
    pacer, now, amount = Pacer(0.0, catch_up_s=0.0), 0.0, 0.0
    for wait, amount in steps:
        now += wait
        pacer.take(now, amount, before)
    assert pacer.ready_at(after) - now <= amount / after + 1e-6


def test_what_no_rate_held_back_moves_the_due_time_by_one_request_at_most() -> None:
    pacer = Pacer(0.0)
    for _ in range(280):
        pacer.take(0.0, 1.0, float("inf"))
    assert pacer.ready_at(0.1) == pytest.approx(10.0, abs=0.1)


def test_a_rate_that_rises_is_felt_at_once() -> None:
    pacer = Pacer(0.0, catch_up_s=0.0)
    pacer.take(0.0, 1.0, 0.01)
    assert pacer.ready_at(0.01) == pytest.approx(100.0)
    assert pacer.ready_at(10.0) == pytest.approx(0.1)


def test_what_is_given_back_may_be_sent_again_at_once() -> None:
    pacer = Pacer(0.0, catch_up_s=0.0)
    pacer.take(0.0, 100.0, 10.0)
    pacer.give_back(40.0, 10.0)
    assert pacer.ready_at(10.0) == pytest.approx(6.0)


def test_a_restart_neither_bursts_nor_freezes() -> None:
    pacer = Pacer(0.0)
    pacer.take(0.0, 1.0, 10.0)
    pacer.restart(100.0)
    assert pacer.ready_at(10.0) == pytest.approx(100.1)


@given(st.lists(st.tuples(st.floats(0.0, 20.0), st.floats(1.0, 60.0)), min_size=1, max_size=80))
@settings(max_examples=200)
def test_no_minute_holds_more_than_the_log_s_limit(steps: list[tuple[float, float]]) -> None:
    log, now, sent = WindowLog(100.0), 0.0, []
    for wait, amount in steps:
        now = max(now + wait, log.fits_at(now + wait, amount))
        log.take(now, amount)
        sent.append((now, amount))
    for start, _ in sent:
        assert sum(amount for at, amount in sent if start <= at < start + 60.0) <= 100.0 + 1e-6


def test_what_can_never_fit_the_log_never_does() -> None:
    assert WindowLog(10.0).fits_at(0.0, 11.0) == float("inf")


def test_giving_back_what_has_left_the_window_changes_nothing() -> None:
    log = WindowLog(10.0)
    entry = log.take(0.0, 10.0)
    assert log.fits_at(100.0, 10.0) == 100.0
    log.take(100.0, 10.0)
    log.give_back(entry, 8.0)
    assert log.total == 10.0


def test_the_log_s_memory_is_bounded() -> None:
    log = WindowLog(1e9)
    for i in range(100_000):
        log.take(i * 0.001, 1.0)
    log.fits_at(100.0, 1.0)
    assert len(log._entries) < 61 / 0.02


@pytest.mark.parametrize(
    ("kind", "amount"), [("max_tokens", 500.0), ("sum", 600.0), ("usage", 356.0), ("split", 356.0)]
)
def test_each_kind_of_charge_reserves_what_its_endpoint_takes(kind: str, amount: float) -> None:
    assert Charge(kind).amount("tokens", Cost(100, 500)) == amount


def test_an_unbounded_answer_is_reserved_by_what_is_usual() -> None:
    charge = Charge("usage")
    for _ in range(300):
        charge.learn(Cost(100, None), Usage(100, 1000, 1100))
    assert charge.amount("tokens", Cost(100, None)) == pytest.approx(1100, rel=0.1)


def test_requested_n_corrects_the_charge() -> None:
    charge = Charge("max_tokens")
    for _ in range(8):
        charge.correct(Cost(100, 1000), 1500)
    assert charge.amount("tokens", Cost(100, 1000)) == pytest.approx(1500, rel=0.01)


def test_usage_corrects_only_where_the_endpoint_does() -> None:
    usage = Usage(90, 10, 100)
    assert Charge("max_tokens").used("tokens", usage) is None
    assert Charge("usage").used("tokens", usage) == 100
    assert Charge("split").used("output_tokens", usage) == 10


def test_missing_usage_is_never_taken_for_nothing() -> None:
    assert Charge("usage").used("tokens", Usage()) is None
