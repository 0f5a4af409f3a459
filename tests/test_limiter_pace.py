"""The pace, the log of the minute, charges and budgets: small pure objects, told the time."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.limiter import Cost
from batchllm.limiter.budget import Budget
from batchllm.limiter.charge import Charge
from batchllm.limiter.headers import Level
from batchllm.limiter.pace import CATCH_UP_S, Pacer, WindowLog
from batchllm.records import Usage

STEPS = st.lists(st.tuples(st.floats(0.0, 3.0), st.floats(0.1, 5.0)), min_size=1, max_size=60)


@given(st.floats(0.1, 50.0), STEPS)
@settings(max_examples=200)
def test_no_span_holds_more_than_the_rate_allows(rate: float, steps: list[tuple[float, float]]) -> None:
    pacer, now, sent = Pacer(rate, now=0.0), 0.0, []
    for wait, amount in steps:
        now = max(now + wait, pacer.ready_at())
        pacer.take(now, amount)
        sent.append((now, amount))
    for i, (start, _) in enumerate(sent):
        for j in range(i, len(sent)):
            within = sum(amount for _, amount in sent[i:j])  # the last one is borrowed, then paid
            assert within <= rate * (sent[j][0] - start + CATCH_UP_S) + 1e-6


@given(STEPS, st.floats(0.1, 10.0), st.floats(0.1, 10.0))
@settings(max_examples=200)
def test_a_new_rate_carries_what_is_owed_as_an_amount(
    steps: list[tuple[float, float]], before: float, after: float
) -> None:
    pacer, now = Pacer(before, now=0.0, catch_up_s=0.0), 0.0
    for wait, amount in steps:
        now += wait
        pacer.take(now, amount)
    owed = max(0.0, pacer.ready_at() - now) * before
    pacer.set_rate(after, now)
    assert max(0.0, pacer.ready_at() - now) * after == pytest.approx(owed, abs=1e-6)


def test_a_restart_neither_bursts_nor_freezes() -> None:
    pacer = Pacer(10.0, now=0.0)
    pacer.take(0.0, 1.0)
    pacer.restart(100.0)
    assert pacer.ready_at() == pytest.approx(100.1)


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
    log.settle(entry, 8.0)
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


def test_a_day_s_budget_counts_down_between_answers_and_leaks() -> None:
    budget = Budget("requests", daily=True, leaks=True)
    budget.observe(0.0, 0.0, Level("requests", 86_400.0, 100.0, 86_300.0, None), 10.0)
    for _ in range(90):
        budget.take(0.0, 1.0)
    assert budget.left(0.0) == 0.0
    assert budget.fits_at(0.0, 1.0) == pytest.approx(1.0)
    assert budget.left(60.0) == pytest.approx(60.0)


def test_a_window_s_budget_comes_back_at_its_edge() -> None:
    budget = Budget("requests", daily=False, leaks=False)
    budget.observe(0.0, 0.0, Level("requests", 50.0, 0.0, 30.0, None), 0.0)
    at = budget.fits_at(0.0, 1.0)
    assert 30.0 <= at < 31.0
    budget.take(at + 0.1, 1.0)
    assert budget.left(at + 0.1) == 49.0
