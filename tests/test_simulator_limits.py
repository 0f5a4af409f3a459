"""The limits of the simulator, told the time."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.simulator.faults import draw_fault, draw_latency_s
from batchllm.simulator.limits import PERIOD_S, RateLimits, go_duration


@pytest.mark.parametrize(
    ("limit", "used", "requested", "told"),
    [(10_000, 8_554, 3_082, "9.816s"), (30_000, 29_937, 385, "644ms"), (30_000, 14_567, 24_754, "18.642s")],
)
def test_a_refusal_says_what_openai_says(limit: int, used: int, requested: int, told: str) -> None:
    limits = RateLimits(None, limit, now=0.0)
    assert limits.admit(0.0, used) is None
    refusal = limits.admit(0.0, requested)
    assert refusal is not None
    assert refusal.message("simulator") == (
        "Rate limit reached for simulator in organization org-sim on tokens per min (TPM): "
        f"Limit {limit}, Used {used}, Requested {requested}. Please try again in {told}. "
        "Visit https://platform.openai.com/account/rate-limits to learn more."
    )


def test_a_request_above_the_limit_is_too_large_for_ever() -> None:
    refusal = RateLimits(None, 30_000, now=0.0).admit(0.0, 30_601)
    assert refusal is not None
    assert refusal.wait_s is None
    assert refusal.message("m").startswith(
        "Request too large for m in organization org-sim on tokens per min (TPM): Limit 30000, Requested 30601."
    )


def test_headers_show_both_limits_as_openai_does() -> None:
    limits = RateLimits(5_000, 160_000, now=0.0)
    assert limits.admit(0.0, 24) is None
    assert limits.headers(0.0) == {
        "x-ratelimit-limit-requests": "5000",
        "x-ratelimit-remaining-requests": "4999",
        "x-ratelimit-reset-requests": "12ms",
        "x-ratelimit-limit-tokens": "160000",
        "x-ratelimit-remaining-tokens": "159976",
        "x-ratelimit-reset-tokens": "9ms",
    }


def test_a_refused_request_uses_up_a_request() -> None:
    limits = RateLimits(60, 100, now=0.0)
    assert limits.admit(0.0, 100) is None
    assert limits.admit(0.0, 50) is not None
    assert limits.headers(0.0)["x-ratelimit-remaining-requests"] == "58"


@given(st.lists(st.tuples(st.floats(0, 40), st.integers(1, 90)), min_size=1, max_size=40))
@settings(max_examples=100)
def test_who_waits_as_long_as_told_is_admitted(arrivals: list[tuple[float, int]]) -> None:
    limits = RateLimits(None, 100, now=0.0)
    now = 0.0
    for gap, tokens in arrivals:
        now += gap
        refusal = limits.admit(now, tokens)
        if refusal is not None:
            assert refusal.wait_s is not None
            assert 0 < refusal.wait_s < PERIOD_S + 1e-6
            now += refusal.wait_s
            assert limits.admit(now, tokens) is None


def test_a_bucket_leaks_all_the_time() -> None:
    limits = RateLimits(60, None, now=0.0)
    admitted = [sum(limits.admit(at, 1) is None for _ in range(100)) for at in (0.0, 30.0, 59.0, 60.0, 61.0)]
    assert admitted == [60, 30, 29, 1, 1]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"), (0.012, "12ms"), (0.5475, "548ms"), (1, "1s"), (9.816, "9.816s"), (60, "1m0s"),
        (360, "6m0s"), (172.8, "2m52.8s"), (3600, "1h0m0s"), (5400.25, "1h30m0.25s"), (-1, "0s"),
    ],
)  # fmt: skip
def test_durations_are_written_as_go_writes_them(seconds: float, text: str) -> None:
    assert go_duration(seconds) == text


@given(st.floats(0, 90_000))
def test_a_duration_read_back_is_never_shorter(seconds: float) -> None:
    units = {"h": 3600, "m": 60, "s": 1, "ms": 0.001}
    parts = re.findall(r"([\d.]+)(ms|h|m|s)", go_duration(seconds))
    total = sum(float(number) * units[unit] for number, unit in parts)
    assert seconds - 1e-6 <= total <= seconds + 0.001 + 1e-6


def test_faults_come_at_their_rate_and_the_same_way_every_time() -> None:
    rates = {"429": 0.1, "cut": 0.05}
    first, second, other = ([draw_fault(seed, n, rates) for n in range(20_000)] for seed in (7, 7, 8))
    assert first == second != other
    assert first.count("429") / 20_000 == pytest.approx(0.1, abs=0.01)
    assert first.count("cut") / 20_000 == pytest.approx(0.05, abs=0.01)


def test_latency_has_its_median_and_a_long_tail() -> None:
    drawn = sorted(draw_latency_s(1, n, 0.5) for n in range(20_000))
    assert drawn[10_000] == pytest.approx(0.5, rel=0.03)
    assert drawn[19_800] / drawn[10_000] == pytest.approx(3.2, rel=0.1)
    assert draw_latency_s(1, 1, 0.0) == 0.0
