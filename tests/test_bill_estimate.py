"""The estimate before the bill: its range holds what the server's own ledger charges."""

import json
import random
import re
from pathlib import Path

import pytest

from batchllm.simulator import Simulator
from tests.bill_jobs import bill, read_summary, write_prices
from tests.command import Command

SAMPLES = [
    ("summarize", "articles.csv"),
    ("summarize", "articles.jsonl"),
    ("classify", "reviews.csv"),
    ("classify", "reviews.jsonl"),
    ("classify", "reviews_zh.csv"),
    ("codegen", "tasks.csv"),
    ("codegen", "tasks.jsonl"),
]


def long_tail(path: Path, rows: int = 400) -> Path:
    """A file of which a few rows hold most of the text."""
    chance = random.Random(7)
    with path.open("w", encoding="utf-8") as file:
        file.write("id,text\n")
        for index in range(rows):
            words = " ".join(
                f"word{chance.randint(0, 99)}" for _ in range(int(chance.lognormvariate(2.0, 1.6)) + 1)
            )
            file.write(f"{index},Item {index}: {words}.\n")
    return path


@pytest.mark.parametrize(("task", "name"), SAMPLES)
def test_the_range_holds_the_bill_of_every_sample(
    task: str, name: str, batchllm: Command, samples: Path, tmp_path: Path, server: Simulator
) -> None:
    words = (task, samples / name, "--provider", "simulator", "--base-url", server.base_url, "--prices",
             write_prices(tmp_path))  # fmt: skip
    estimate = json.loads(batchllm(*words, "--dry-run", "--json").out)
    assert server.ledger.requests == 0
    said = batchllm(*words)
    assert said.status == 0, said.err
    assert estimate["cost_low"] <= bill(server) <= estimate["cost_high"]
    assert estimate["prompt_tokens"] == server.ledger.prompt_tokens
    assert server.ledger.completion_tokens <= estimate["completion_tokens_upper_bound"]


def test_the_range_holds_the_bill_of_a_file_with_a_long_tail(
    batchllm: Command, tmp_path: Path, server: Simulator
) -> None:
    source = long_tail(tmp_path / "tail.csv")
    words = ("summarize", source, "--provider", "simulator", "--base-url", server.base_url, "--prices",
             write_prices(tmp_path), "--summary", tmp_path / "s.json")  # fmt: skip
    estimate = json.loads(batchllm(*words, "--dry-run", "--json").out)
    said = batchllm(*words)
    assert said.status == 0, said.err
    assert estimate["cost_low"] <= bill(server) <= estimate["cost_high"]
    assert estimate["prompt_tokens"] == server.ledger.prompt_tokens
    assert read_summary(tmp_path / "s.json")["cost"] == pytest.approx(bill(server))


def test_the_line_before_the_run_holds_the_bill_too(
    batchllm: Command, tmp_path: Path, server: Simulator
) -> None:
    source = long_tail(tmp_path / "tail.csv", 3000)
    words = ("summarize", source, "--provider", "simulator", "--base-url", server.base_url, "--prices",
             write_prices(tmp_path, times=1000))  # fmt: skip
    line = batchllm(*words).err.splitlines()[0]
    low, high = (float(sum_.replace(",", "")) for sum_ in re.findall(r"\$([\d.,]*\d)", line)[:2])
    assert low <= bill(server) * 1000 <= high, line


def test_what_is_left_is_estimated_by_the_answers_that_came(
    batchllm: Command, tmp_path: Path, server: Simulator
) -> None:
    source = long_tail(tmp_path / "tail.csv")
    words = ("summarize", source, "--provider", "simulator", "--base-url", server.base_url, "--prices",
             write_prices(tmp_path))  # fmt: skip
    whole = json.loads(batchllm(*words, "--dry-run", "--json").out)
    assert batchllm(*words, "-n", 150).status == 0
    before = bill(server)
    status = json.loads(batchllm("status", tmp_path / "tail.summarize.simulated.csv", "--json").out)
    left = json.loads(batchllm(*words, "--dry-run", "--json").out)
    assert left["answered"] == 150
    assert status["answered"] == 150
    assert batchllm(*words).status == 0
    for estimate in (left, status):
        assert estimate["cost_low"] <= bill(server) - before <= estimate["cost_high"]
    assert left["cost_high"] - left["cost_low"] < (whole["cost_high"] - whole["cost_low"]) * 250 / 400
    assert left["completion_tokens_expected"] <= left["completion_tokens_upper_bound"] == 250 * 150


def test_a_finished_job_has_nothing_before_it(batchllm: Command, tmp_path: Path, samples: Path) -> None:
    words = ("classify", samples / "reviews.csv", "--provider", "simulator")
    assert batchllm(*words).status == 0
    estimate = json.loads(batchllm(*words, "--dry-run", "--json").out)
    assert (estimate["answered"], estimate["prompt_tokens"], estimate["completion_tokens_upper_bound"]) == (
        11,
        0,
        0,
    )
    status = json.loads(batchllm("status", samples / "reviews.classify.simulated.csv", "--json").out)
    assert (status["answered"], status["prompt_tokens"], status["rows_left"]) == (11, 0, 0)
