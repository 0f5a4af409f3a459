"""The forecast's parts: sums, ranges, learned lengths, time under limits, and the set that finds equal rows."""

import random
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchllm.budget.costs import Pricing
from batchllm.budget.estimate import (
    SLACK,
    RequestTotals,
    forecast_job,
    forecast_left,
    seconds_under,
)
from batchllm.budget.forecast import Forecast
from batchllm.budget.usage import UsageEstimator
from batchllm.inspect.dry_run import dry_run
from batchllm.job import Job
from batchllm.plan.finished import KeySet
from batchllm.prepare.job_paths import job_paths
from batchllm.prepare.prepared_job import prepare_job
from batchllm.prices import Price, Rates
from batchllm.records import Endpoint, Pace, Usage
from batchllm.template import from_prompt
from tests.bill_jobs import MODEL, cost_of, write_prices

NO_PACE = Pace()


def job_of(folder: Path, text: str, *, name: str = "in.csv", **changes: Any) -> Job:
    source = folder / name
    source.write_text(text, "utf-8")
    endpoint = Endpoint(preset="simulator", base_url="http://127.0.0.1/v1", model=MODEL)
    job = Job(
        task="run",
        template=from_prompt("{{ text }}"),
        inputs=(source,),
        output=folder / "out.csv",
        endpoint=endpoint,
        prices=write_prices(folder),
    )
    return replace(job, **changes)


def sums_of(folder: Path, learned: UsageEstimator | None = None, charge: str = "max_tokens") -> RequestTotals:
    return RequestTotals(Pricing(job_of(folder, "text\none\n")), charge, learned or UsageEstimator())


def ready(sums: RequestTotals, **changes: Any) -> Forecast:
    return sums.forecast(**{"rows": 1, "exact": True, "pace": NO_PACE, "seen": None, **changes})


# -- sums ---------------------------------------------------------------------------------------------------------


def test_the_range_goes_from_no_answer_to_the_longest(tmp_path: Path) -> None:
    sums = sums_of(tmp_path)
    sums.add(MODEL, 100, 40, times=3)
    found = ready(sums)
    assert found.cost_low == cost_of(300, 0)
    assert found.cost_high == cost_of(300, 120)
    assert (found.completion_tokens_expected, found.completion_tokens_upper_bound) == (60, 120)


def test_an_estimate_of_the_prompts_widens_the_range(tmp_path: Path) -> None:
    sums = sums_of(tmp_path)
    sums.add(MODEL, 300, 0)
    found = ready(sums, exact=False)
    assert found.cost_low == cost_of(round(300 / SLACK), 0)
    assert found.cost_high == cost_of(round(300 * SLACK), 0)


def test_an_answer_without_a_bound_has_no_upper_bound(tmp_path: Path) -> None:
    sums = sums_of(tmp_path)
    sums.add(MODEL, 100, 40)
    sums.add(MODEL, 100, None)
    found = ready(sums)
    assert found.completion_tokens_upper_bound is None
    assert found.completion_tokens_expected is None
    assert found.cost_high is None
    assert found.cost_low == cost_of(200, 0)


def test_one_unknown_price_makes_the_sum_unknown(tmp_path: Path) -> None:
    endpoint = Endpoint(preset="custom", base_url="http://127.0.0.1/v1", model="nobody-knows")
    sums = RequestTotals(Pricing(job_of(tmp_path, "text\none\n", endpoint=endpoint)), "sum", UsageEstimator())
    sums.add(MODEL, 100, 40)
    assert ready(sums).cost_low == cost_of(100, 0)
    sums.add("nobody-knows", 100, 40)
    found = ready(sums)
    assert found.cost_low is found.cost_high is found.cost_expected is None
    assert found.to_json()["cost_low"] is None


def test_a_long_prompt_is_reckoned_at_its_own_tier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = (
        Rates(input=Decimal(1), output=Decimal(1)),
        Rates(above=1000, input=Decimal(5), output=Decimal(9)),
    )
    price = Price(rates=rates, per_request=Decimal("0.01"))
    pricing = Pricing(job_of(tmp_path, "text\none\n"))
    monkeypatch.setattr(pricing, "price_of", lambda model: price)
    sums = RequestTotals(pricing, "sum", UsageEstimator())
    sums.add(MODEL, 600, 10, times=2)  # together above the tier, each below it
    sums.add(MODEL, 2000, 10)
    expected = sum(pricing.cost(Usage(prompt, 10), MODEL) or 0 for prompt in (600, 600, 2000))
    assert ready(sums).cost_high == expected


@pytest.mark.parametrize(("charge", "expected"), [("max_tokens", 100.0), ("sum", 140.0), ("usage", 140.0)])
def test_time_is_reckoned_by_what_the_endpoint_charges(charge: str, expected: float, tmp_path: Path) -> None:
    sums = sums_of(tmp_path, charge=charge)
    sums.add(MODEL, 100, 40)
    assert sums.charged_tokens == expected
    assert ready(sums, pace=Pace(tokens_per_minute=expected)).seconds == pytest.approx(60)


def test_the_tightest_limit_decides_and_what_is_given_goes_before_what_was_seen() -> None:
    seen = {"requests_per_minute": 10.0, "tokens_per_minute": 1000.0}
    assert seconds_under(NO_PACE, None, 100, 100) is None
    assert seconds_under(NO_PACE, seen, 100, 500) == 600
    assert seconds_under(NO_PACE, seen, 1, 5000) == 300
    assert seconds_under(Pace(requests_per_minute=100), seen, 100, 500) == 60


# -- learning -----------------------------------------------------------------------------------------------------


def learned_of(lengths: list[int]) -> UsageEstimator:
    learned = UsageEstimator()
    for length in lengths:
        learned.add(Usage(10, length))
    return learned


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=300))
def test_a_high_percentile_is_known_within_a_tenth(lengths: list[int]) -> None:
    found = learned_of(lengths).high()
    true = sorted(lengths)[max(0, -(-len(lengths) * 95 // 100) - 1)]
    assert found is not None
    assert true <= found + 1 <= true * 1.1 + 2


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=300), st.integers(0, 500))
def test_low_and_high_keep_their_order_and_the_bound(lengths: list[int], bound: int) -> None:
    learned = learned_of(lengths)
    high = learned.high(bound)
    assert high is not None
    assert 0 <= learned.low(bound) <= high <= bound
    assert learned.low() <= sum(lengths) / len(lengths)


def test_what_was_learned_survives_the_journal() -> None:
    learned = learned_of([1, 5, 900])
    again = UsageEstimator(learned.to_json())
    assert again.to_json() == learned.to_json()
    assert again.high() == learned.high()


def test_without_answers_nothing_is_learned_and_usage_that_is_missing_teaches_nothing() -> None:
    learned = UsageEstimator()
    learned.add(Usage(10, None))
    assert learned.answers == 0
    assert learned.high(40) is None
    assert learned.mean_prompt() is None


def test_answers_that_came_move_the_expectation(tmp_path: Path) -> None:
    sums = sums_of(tmp_path, learned_of([10] * 100))
    sums.add(MODEL, 100, 40, times=10)
    found = ready(sums)
    assert found.completion_tokens_expected == 100
    assert found.completion_tokens_upper_bound == 400
    assert found.cost_low is not None
    assert cost_of(1000, 80) < found.cost_low < cost_of(1000, 100)


# -- whole inputs -------------------------------------------------------------------------------------------------


def test_a_sample_is_stretched_by_the_size_of_the_file(tmp_path: Path) -> None:
    chance = random.Random(1)
    rows = [f"word{i} " * int(chance.lognormvariate(2.0, 2.0) + 1) for i in range(5000)]
    job = job_of(tmp_path, "text\n" + "\n".join(rows) + "\n")
    with prepare_job(job, job_paths(job)) as prepared:
        estimated = forecast_job(prepared, rows=5000, left=5000).prompt_tokens
    exact = dry_run(job).forecast.prompt_tokens
    assert estimated is not None
    assert exact is not None
    assert 1 / SLACK < estimated / exact < SLACK


def test_a_dry_run_counts_every_kind_of_row_and_creates_nothing(tmp_path: Path) -> None:
    rows = ["one", '""', "two", "one", '"  "', "three"]
    job = job_of(tmp_path, "text\n" + "\n".join(rows) + "\n")
    before = sorted(tmp_path.iterdir())
    found = dry_run(job).forecast
    assert (found.rows, found.duplicate_rows, found.skipped, found.requests, found.answered) == (
        6,
        1,
        2,
        4,
        0,
    )
    assert found.exact
    assert sorted(tmp_path.iterdir()) == before


def test_a_dry_run_says_what_will_fail_unsent(tmp_path: Path) -> None:
    lines = '{"messages": [{"role": "nobody", "content": "x"}]}\n{"text": "one"}\n'
    job = job_of(tmp_path, lines, name="in.jsonl", per_row=True, template=None, input_format="jsonl")
    found = dry_run(job)
    assert found.forecast.unsendable == 1
    assert found.unsendable == {"bad_messages": 1}
    assert found.forecast.requests == 1


def test_a_dry_run_of_a_trial_counts_only_its_rows(tmp_path: Path) -> None:
    job = job_of(tmp_path, "text\n" + "".join(f"t{i}\n" for i in range(50)), limit=7)
    assert dry_run(job).forecast.requests == dry_run(job).forecast.rows == 7
    assert dry_run(replace(job, limit=None, sample=9)).forecast.requests == 9


def test_turns_of_a_conversation_count_the_turns_before_them(tmp_path: Path) -> None:
    text = "text,who\n" + "".join(f"hello number {i},a\n" for i in range(4))
    apart = dry_run(job_of(tmp_path, text)).forecast
    together = dry_run(job_of(tmp_path, text, conversation="who", parameters={"max_tokens": 100})).forecast
    assert apart.prompt_tokens is not None
    assert together.prompt_tokens is not None
    assert together.prompt_tokens > 2 * apart.prompt_tokens
    assert not together.exact


def test_what_nobody_knows_is_null_in_what_is_left(tmp_path: Path) -> None:
    job = job_of(tmp_path, "text\none\n")
    known: dict[str, Any] = {"learned": UsageEstimator(), "mean_request": None, "seen": None}
    figures = forecast_left(job, rows=None, left=None, **known).to_json()
    assert {figures[name] for name in ("rows", "prompt_tokens", "cost_low", "cost_high", "seconds")} == {None}
    figures = forecast_left(job, rows=5, left=5, **known).to_json()
    assert figures["rows"] == 5
    assert figures["prompt_tokens"] is figures["cost_high"] is None


def test_the_figures_have_these_names(tmp_path: Path) -> None:
    assert list(Forecast(rows=1).to_json()) == [
        "rows", "answered", "failed", "cut_off", "pending", "duplicate_rows", "skipped", "prompt_tokens",
        "completion_tokens_expected",
        "completion_tokens_upper_bound", "cost_low", "cost_high", "seconds",
    ]  # fmt: skip


@given(st.lists(st.binary(min_size=16, max_size=16), max_size=200))
def test_seen_knows_a_key_the_second_time(keys: list[bytes]) -> None:
    seen, known = KeySet(), set()
    for key in [*keys, *keys]:
        beginning = max(1, int.from_bytes(key[:8], "big"))
        assert seen.add(key) == (beginning in known)
        known.add(beginning)


def test_seen_grows_and_stays_small() -> None:
    chance = random.Random(1)
    seen = KeySet()
    keys = [chance.randbytes(16) for _ in range(20_000)]
    assert not any(seen.add(key) for key in keys)
    assert all(seen.add(key) for key in keys)
    assert len(seen._slots) * 8 <= 20_000 * 32
