"""Both modes before a run, and what rows cost in either."""

import os
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from batchllm.batch.errors import job_error
from batchllm.batch.waiting import Waiting
from batchllm.budget.forecast import Forecast
from batchllm.budget.modes import compare_modes
from batchllm.cli.dry_run import to_text
from batchllm.cli.terminal import line_before
from batchllm.client.batches import CallFailed
from batchllm.inspect.dry_run import dry_run
from batchllm.job import Job, assemble
from batchllm.records import Response
from batchllm.retry import classify
from tests.batch_jobs import BatchJob, simulated

FORECAST = Forecast(
    rows=120_000,
    requests=120_000,
    prompt_tokens=9_000_000,
    cost_low=Decimal(2),
    cost_high=Decimal(4),
    seconds=7200.0,
)


def job(tmp_path: Path, **flags: object) -> Job:
    path = tmp_path / "in.csv"
    path.write_text("id,text\n1,it is great\n")
    return assemble(
        "classify", {"input": str(path), "provider": "openai", **flags}, os.environ, needs_key=False
    )


def test_the_line_before_a_run_names_both_modes(tmp_path: Path) -> None:
    line = line_before(job(tmp_path), FORECAST)
    assert line.endswith(
        "$2.00 to $4.00, 2 h 0 min at the limits known; $1.00 to $2.00 in batch mode, up to 24h (--via batch)"
    )


def test_in_batch_mode_the_forecast_is_the_price_of_batches(tmp_path: Path) -> None:
    line = line_before(job(tmp_path, via="batch"), FORECAST)
    assert line.endswith(
        "$2.00 to $4.00 in batch mode, up to 24h; online $4.00 to $8.00, 2 h 0 min at the limits known"
    )
    offer = compare_modes(job(tmp_path, via="batch"), FORECAST)
    assert offer is not None
    assert offer.batches == 3


def test_what_costs_nothing_is_not_offered_at_half_price(tmp_path: Path) -> None:
    free = replace(FORECAST, cost_low=Decimal(0), cost_high=Decimal(0))
    assert line_before(job(tmp_path), free).endswith("$0, 2 h 0 min at the limits known")


def test_an_unknown_price_is_a_share_of_it(tmp_path: Path) -> None:
    line = line_before(job(tmp_path), Forecast(rows=5, requests=5))
    assert line.endswith("price unknown; 50% of that in batch mode, up to 24h (--via batch)")


def test_there_is_one_mode_without_a_batch_api(tmp_path: Path) -> None:
    one = job(tmp_path, provider="deepseek")
    assert compare_modes(one, FORECAST) is None
    assert "batch" not in line_before(one, FORECAST)
    assert compare_modes(job(tmp_path, conversation="id"), FORECAST) is None
    assert compare_modes(job(tmp_path), Forecast(rows=5, requests=0)) is None


def test_batches_are_not_offered_to_a_job_with_several_endpoints(tmp_path: Path) -> None:
    several = job(tmp_path, base_url=["http://127.0.0.1:9/v1", "http://127.0.0.1:10/v1"])
    assert compare_modes(several, FORECAST) is None


def test_a_dry_run_shows_both_modes_and_halves_the_price_of_batches(tmp_path: Path) -> None:
    online = dry_run(job(tmp_path))
    batch = dry_run(job(tmp_path, via="batch"))
    assert online.forecast.cost_high
    assert batch.forecast.cost_high == online.forecast.cost_high / 2
    assert any(
        line.startswith("In batch mode: ") and "1 batch, up to 24h" in line
        for line in to_text(online, every_option=False)
    )
    assert any(
        line.startswith("Mode: batch (1 batch, up to 24h); online ")
        for line in to_text(batch, every_option=False)
    )


PRICES = '{"simulator": {"input_cost_per_token": 0.001, "output_cost_per_token": 0.002}}'


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "prices.json"
    path.write_text(PRICES)
    return path


def test_rows_of_a_batch_cost_its_share_and_the_budget_counts_them_so(tmp_path: Path, table: Path) -> None:
    with simulated() as server:
        one = BatchJob(tmp_path, server.base_url, rows=6, prices=str(table), add="cost")
        assert one.call(via="online", limit=2).exit_status == 0
        paid = one.until_done().summary.cost
    costs = [Decimal(row["cost"]) for row in one.answers]
    full = [
        Decimal(row["prompt_tokens"]) / 1000 + Decimal(row["completion_tokens"]) / 500 for row in one.answers
    ]
    assert costs == [*full[:2], *(cost / 2 for cost in full[2:])]
    assert paid == sum(costs[2:])


def test_batches_of_any_url_are_offered_to_nobody_who_did_not_ask(tmp_path: Path) -> None:
    custom = job(tmp_path, provider=None, base_url="http://127.0.0.1:9/v1", model="m")
    assert custom.endpoint.preset == "custom"
    assert "batch" not in line_before(custom, FORECAST)
    asked = job(tmp_path, provider=None, base_url="http://127.0.0.1:9/v1", model="m", via="batch")
    assert "batch mode" in line_before(asked, FORECAST)


@pytest.mark.parametrize("status", [404, 405, 501])
def test_an_endpoint_without_batches_is_said_in_a_sentence(status: int) -> None:
    verdict = classify(Response(status, {}, b'{"detail":"Not Found"}', 0.1))
    error = job_error(CallFailed(verdict, status), what="a file of requests was refused", paid=False)
    assert "seems to have no Batch API: leave out --via batch" in str(error)


def test_batches_are_looked_at_soon_and_then_less_often() -> None:
    waiting = Waiting(wait=True)
    assert waiting.first_s <= 2.0
    assert waiting.most_s >= 300.0


def test_the_line_before_a_run_and_the_dry_run_name_every_model_with_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    chat = '{"messages": [{"role": "user", "content": "a"}]'
    path.write_text(f'{chat}}}\n{chat}, "model": "b"}}\n{chat}, "model": "b"}}\n')
    flags = {"input": str(path), "base_url": "http://127.0.0.1:9/v1", "model": "x"}
    mixed = assemble("run", flags, os.environ, needs_key=False)
    found = dry_run(mixed)
    assert found.forecast.models == {"b": 2, "x": 1}
    assert "Models: b (2 rows), x (1 row)" in list(to_text(found, every_option=False))
    assert "b (2 rows), x (1 row) at http://127.0.0.1:9/v1, " in line_before(
        mixed, replace(found.forecast, exact=True)
    )


def test_a_dry_run_says_how_many_batches_come_one_after_the_other(tmp_path: Path) -> None:
    long = {"on_long": "split", "max_input_tokens": 40}
    for via in ("online", "batch"):
        split = job(tmp_path, via=via, **long)
        (tmp_path / "in.csv").write_text("text\n" + " ".join(f"word{number}" for number in range(400)) + "\n")
        found = dry_run(split)
        parts = found.forecast.parts
        assert parts is not None and found.forecast.waves == 1 + parts.levels_upper_bound > 1
        waves = f"at most {found.forecast.waves} waves of batches, each up to 24h"
        assert any(waves in line for line in to_text(found, every_option=False)), via
