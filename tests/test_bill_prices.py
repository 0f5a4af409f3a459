"""Prices where the bill is shown: applied when the output is written, and null everywhere where they are unknown."""

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from batchllm import prices
from batchllm.answer import Reader
from batchllm.api import run
from batchllm.budget.costs import Pricing
from batchllm.budget.estimate import RequestTotals
from batchllm.budget.usage import LEARNED, UsageEstimator
from batchllm.counters import RunCounters
from batchllm.job import assemble
from batchllm.journal import JournalReader
from batchllm.records import AnswerSpec, Pace, Usage
from batchllm.simulator import ScriptedResponse, Simulator, SimulatorSettings, start_in_thread
from tests.batch_jobs import BatchJob, simulated
from tests.bill_jobs import cost_of, read_summary, write_prices
from tests.command import Command
from tests.fakes import Notes, chat_body
from tests.tables import column

MONEY = ("cost", "saved_by_cache", "saved_by_journal", "duplicate_rows_cost", "saved_by_dedupe")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Six rows, one of which equals another."""
    path = tmp_path / "in.csv"
    texts = ["good kettle", "bad kettle", "good kettle", "a kettle", "good lid", "bad lid"]
    path.write_text("text\n" + "\n".join(texts) + "\n", "utf-8")
    return path


@pytest.mark.parametrize(
    ("base_url", "looked_up"),
    [
        ("http://localhost:8000/v1", ""),
        ("http://10.1.2.3:8000/v1", ""),
        ("http://vllm:8000/v1", ""),
        ("https://api.openai.com/v1", "https://api.openai.com/v1"),
    ],
)
def test_no_price_is_looked_up_for_what_runs_here_or_next_door(
    base_url: str, looked_up: str, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls: list[str] = []
    monkeypatch.setattr("batchllm.prices._model_info", lambda url, model: urls.append(url))
    flags = {"prompt": "{{ text }}", "input": str(source), "base_url": base_url, "model": "gpt-4o-mini"}
    assert Pricing(assemble("run", flags, {"OPENAI_API_KEY": "k"})).price_of("gpt-4o-mini") is None
    assert urls == [looked_up]


def test_an_unknown_price_is_null_in_every_place(
    batchllm: Command, source: Path, tmp_path: Path, server: Simulator
) -> None:
    at = ("--base-url", server.base_url, "-m", "any")
    words = ("classify", source, *at, "--add", "cost", "--summary", tmp_path / "s.json")
    output = tmp_path / "in.classify.csv"

    estimate = json.loads(batchllm(*words, "--dry-run", "--json").out)
    assert estimate["cost_low"] is estimate["cost_high"] is None
    assert "Price: unknown\n" in batchllm(*words, "--dry-run").out

    first = batchllm(*words, "--max-requests", 3)
    assert first.status == 3
    assert "price unknown" in first.err.splitlines()[0]
    assert "$0" not in first.err
    assert all(read_summary(tmp_path / "s.json")[name] is None for name in MONEY)

    status = json.loads(batchllm("status", output, "--json").out)
    assert status["cost_low"] is status["cost_high"] is None

    whole = batchllm(*words)
    assert whole.status == 0
    assert "price unknown" in whole.err
    assert "$0" not in whole.err
    assert all(read_summary(tmp_path / "s.json")[name] is None for name in MONEY)
    assert column(output, "cost") == [""] * 6

    assert batchllm("export", output, "-o", tmp_path / "e.csv").status == 0
    assert column(tmp_path / "e.csv", "cost") == [""] * 6

    again = batchllm(*words)
    assert again.status == 0
    assert "$" not in again.err
    assert all(read_summary(tmp_path / "s.json")[name] is None for name in MONEY)
    finished = json.loads(batchllm("status", output, "--json").out)
    assert finished["cost_low"] is finished["cost_high"] is None
    assert "$" not in batchllm("status", output).out

    lines = (*words, "-o", tmp_path / "out.jsonl", "--dedupe")
    assert batchllm(*lines).status == 0
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()]
    assert [row["cost"] for row in rows] == [None] * 6
    assert all(read_summary(tmp_path / "s.json")[name] is None for name in MONEY)

    bar = Notes()
    result = run(
        str(source),
        "classify",
        progress=bar,
        base_url=server.base_url,
        model="any",
        output=str(tmp_path / "l.csv"),
    )
    assert all(getattr(result.summary, name) is None for name in MONEY)

    assert bar.notes
    assert all("cost unknown" in note and "$" not in note for note in bar.notes)

    refused = batchllm(*words, "-o", tmp_path / "b.csv", "--max-cost", "5")
    assert refused.status == 2
    assert "none is known for any" in refused.err
    assert not (tmp_path / "b.csv.journal").exists()


def test_the_cost_column_adds_up_to_the_bill(
    batchllm: Command, source: Path, tmp_path: Path, server: Simulator
) -> None:
    words = ("classify", source, "--provider", "simulator", "--base-url", server.base_url, "--prices",
             write_prices(tmp_path), "--add", "cost", "--summary", tmp_path / "s.json",
             "-o", tmp_path / "o.csv")  # fmt: skip
    assert batchllm(*words).status == 0
    bill = float(cost_of(server.ledger.prompt_tokens, server.ledger.completion_tokens))
    assert sum(map(float, column(tmp_path / "o.csv", "cost"))) == pytest.approx(bill)
    summary = read_summary(tmp_path / "s.json")
    assert summary["cost"] == pytest.approx(bill)
    assert summary["saved_by_journal"] == 0
    assert summary["duplicate_rows"] == 1
    assert summary["duplicate_rows_cost"] == pytest.approx(float(column(tmp_path / "o.csv", "cost")[2]))


def test_a_corrected_table_needs_no_new_run(
    batchllm: Command, source: Path, tmp_path: Path, server: Simulator
) -> None:
    words = ("classify", source, "--provider", "simulator", "--base-url", server.base_url, "--add", "cost", "-o",
             tmp_path / "o.csv", "--summary", tmp_path / "s.json")  # fmt: skip
    assert batchllm(*words, "--prices", write_prices(tmp_path)).status == 0
    before, requests = column(tmp_path / "o.csv", "cost"), server.ledger.requests
    assert batchllm(*words, "--prices", write_prices(tmp_path, times=3)).status == 0
    assert server.ledger.requests == requests
    assert [float(cost) for cost in column(tmp_path / "o.csv", "cost")] == pytest.approx(
        [3 * float(cost) for cost in before]
    )
    summary = read_summary(tmp_path / "s.json")
    assert summary["cost"] == 0
    assert summary["saved_by_journal"] == pytest.approx(3 * sum(map(float, before)))


def test_an_answer_that_was_asked_for_once_more_is_paid_twice(batchllm: Command, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"text": "one"}\n', "utf-8")
    answers = iter(['{"n": "no number"}', '{"n": 3}'])
    with start_in_thread(
        SimulatorSettings(), script=lambda body: ScriptedResponse(body=chat_body(next(answers)))
    ) as server:
        words = ("run", "-p", "{{ text }}", source, "--schema", "n int", "--provider", "simulator", "--base-url",
                 server.base_url, "--prices", write_prices(tmp_path), "--add", "cost",
                 "-o", tmp_path / "o.csv")  # fmt: skip
        said = batchllm(*words)
        assert said.status == 0, said.err
        assert server.ledger.requests == 2
    assert column(tmp_path / "o.csv", "n") == ["3"]
    assert float(column(tmp_path / "o.csv", "cost")[0]) == pytest.approx(2 * float(cost_of(5, 3)))


def test_an_output_is_exported_when_its_price_table_is_gone(
    batchllm: Command, source: Path, tmp_path: Path
) -> None:
    table = write_prices(tmp_path)
    words = ("classify", source, "--provider", "simulator", "--prices", table, "-o", tmp_path / "o.csv")
    assert batchllm(*words).status == 0
    table.unlink()
    assert batchllm("export", tmp_path / "o.csv", "-o", tmp_path / "e.csv").status == 0
    assert json.loads(batchllm("status", tmp_path / "o.csv", "--json").out)["cost_low"] is None


CACHED_PRICES = {
    "any": {"input_cost_per_token": 2e-6, "output_cost_per_token": 6e-6, "cache_read_input_token_cost": 5e-7}
}
DIALECTS: list[dict[str, object]] = [
    {"prompt_tokens_details": {"cached_tokens": 60}},
    {"prompt_tokens_details": {"audio_tokens": 0}, "prompt_cache_hit_tokens": 60},
    {"prompt_tokens_details": None, "cached_tokens": 60},
    {"num_cached_tokens": 60},
    {"cache_read_input_tokens": 60, "cache_creation_input_tokens": 0},
    {"input_tokens_details": {"cached_tokens": 60}},
    {"cached_content_token_count": 60},
]


def cached_body(dialect: dict[str, object]) -> bytes:
    found = json.loads(chat_body("positive", prompt=100, completion=2))
    return json.dumps({**found, "usage": {**found["usage"], **dialect}}).encode()


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: "+".join(dialect))
def test_cached_tokens_cost_their_own_price_in_every_dialect(dialect: dict[str, object]) -> None:
    answer = Reader(AnswerSpec("response")).read(200, cached_body(dialect))
    assert answer.usage.cached_tokens == 60
    price = prices.load_table(CACHED_PRICES)["any"]
    assert prices.cost(answer.usage, price) == Decimal("0.000122")
    assert prices.saved_by_cache(answer.usage, price) == Decimal("0.00009")
    assert prices.saved_by_cache(answer.usage, None) is None


def test_what_the_cache_saved_is_unknown_where_its_price_is() -> None:
    price = replace(prices.FREE, rates=(prices.Rates(input=Decimal(2), output=Decimal(6)),))
    assert prices.saved_by_cache(Usage(100, 2, cached_tokens=60), price) is None
    assert prices.saved_by_cache(Usage(100, 2), price) == 0


@pytest.mark.parametrize("known", [True, False])
def test_the_summary_says_what_the_cache_saved(
    batchllm: Command, source: Path, tmp_path: Path, known: bool
) -> None:
    table = tmp_path / "prices.json"
    table.write_text(json.dumps(CACHED_PRICES if known else {"other": CACHED_PRICES["any"]}))
    with start_in_thread(
        SimulatorSettings(), script=lambda body: ScriptedResponse(body=cached_body(DIALECTS[0]))
    ) as server:
        said = batchllm("classify", source, "--base-url", server.base_url, "-m", "any", "--prices", table,
                        "-o", tmp_path / "o.csv", "--summary", tmp_path / "s.json")  # fmt: skip
    assert said.status == 0, said.err
    summary = read_summary(tmp_path / "s.json")
    assert summary["cached_tokens"] == 360
    assert summary["saved_by_cache"] == (pytest.approx(6 * 0.00009) if known else None)
    saved = "$0.00054" if known else "price unknown"
    assert f"Saved by the endpoint's cache: 360 prompt tokens (60%), {saved}" in said.err


def test_no_more_tokens_come_from_the_cache_than_a_prompt_has() -> None:
    counters = RunCounters()
    counters.count_answer(Usage(10, 1, cached_tokens=1000))
    assert counters.cached_tokens == 10


def test_the_estimate_takes_the_share_that_came_from_the_cache_so_far() -> None:
    learned = UsageEstimator()
    learned.add(Usage(100, 2, cached_tokens=60))
    learned = UsageEstimator(learned.to_json())
    job = assemble("classify", {"input": "in.csv", "base_url": "http://localhost:1/v1", "model": "any",
                                "prices": CACHED_PRICES}, {})  # fmt: skip
    sums = RequestTotals(Pricing(job), "max_tokens", learned)
    sums.add("any", 100, 2)
    found = sums.forecast(rows=1, exact=True, pace=Pace(), seen=None)
    assert found.cost_expected == Decimal("0.000122")
    assert found.cost_high == Decimal("0.000212")


def test_the_estimate_learns_from_batches_too(tmp_path: Path) -> None:
    with simulated() as server:
        job = BatchJob(tmp_path, server.base_url, rows=4)
        job.until_done()
        sums = server.ledger.prompt_tokens, server.ledger.completion_tokens
    with JournalReader.open(job.output.with_name("out.csv.journal")) as reader:
        learned = UsageEstimator(reader.get(LEARNED))
    assert (learned.answers, learned.prompt_tokens, learned.completion_tokens) == (4, *sums)
