"""Budgets over real HTTP: the server's ledger, real kills, and what is refused before anything is sent."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from batchllm.simulator import Simulator, SimulatorSettings, start_in_thread
from tests.bill_jobs import bill, read_summary, write_prices
from tests.command import Command
from tests.rotation import rotating

FAULTS = {"500": 0.1, "reset": 0.1, "cut": 0.1, "garbage": 0.05}


def texts(path: Path, rows: int = 120) -> Path:
    path.write_text(
        "text\n" + "".join(f"text {row} {'word ' * (row % 30)}\n" for row in range(rows)), "utf-8"
    )
    return path


@pytest.mark.parametrize("seed", rotating(range(3)))
def test_the_ledger_never_exceeds_the_budget_under_faults_and_real_kills(
    seed: int, tmp_path: Path, batchllm: Command
) -> None:
    chance = random.Random(seed)
    source, table = texts(tmp_path / "in.csv"), write_prices(tmp_path)
    settings = SimulatorSettings(seed=seed, error_rate=FAULTS, latency_s=0.05, injected_retry_after_s=0.0)
    with start_in_thread(settings) as server:
        job = ["run", "-p", "{{ text }}", source, "--provider", "simulator", "--base-url", server.base_url,
               "--prices", table, "-o", tmp_path / "o.csv", "-c", 8, "--no-early-stop", "--max-tokens",
               150]  # fmt: skip
        budget = ["--max-cost", "0.02", "--max-requests", 90]
        for _ in range(3):
            words = [sys.executable, "-m", "batchllm", *map(str, [*job, *budget])]
            process = subprocess.Popen(words, stderr=subprocess.DEVNULL, start_new_session=True)
            try:
                process.wait(chance.uniform(0.8, 2.5))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            assert bill(server) <= 0.02
            assert server.ledger.requests <= 90
        said = batchllm(*job, *budget)
        assert said.status == 3, said.err
        assert bill(server) <= 0.02
        assert server.ledger.requests <= 90
        assert batchllm(*job, "--max-cost", "10").status in (0, 1)


def test_a_budget_in_tokens_stops_below_it_and_a_larger_one_goes_on(
    batchllm: Command, tmp_path: Path, server: Simulator
) -> None:
    source = texts(tmp_path / "in.csv")
    words = ("run", "-p", "{{ text }}", source, "--provider", "simulator", "--base-url", server.base_url, "-o",
             tmp_path / "o.csv", "--max-tokens", 20, "--summary", tmp_path / "s.json", "--no-early-stop")  # fmt: skip
    said = batchllm(*words, "--max-total-tokens", 2000)
    assert said.status == 3
    assert "--max-total-tokens 2,000" in said.err
    assert "a larger budget goes on" in said.err
    spent = server.ledger.prompt_tokens + server.ledger.completion_tokens
    assert 1500 < spent <= 2000
    assert read_summary(tmp_path / "s.json")["exit_status"] == 3
    assert not (tmp_path / "o.csv").exists()
    assert batchllm("status", tmp_path / "o.csv").status == 0
    assert batchllm(*words, "--max-total-tokens", 1_000_000).status == 0
    assert server.ledger.requests == 120


def test_earlier_trials_count_and_a_fresh_start_is_a_fresh_budget(
    batchllm: Command, tmp_path: Path, server: Simulator
) -> None:
    source = texts(tmp_path / "in.csv", 20)
    words = ("run", "-p", "{{ text }}", source, "--provider", "simulator", "--base-url", server.base_url, "-o",
             tmp_path / "o.csv")  # fmt: skip
    assert batchllm(*words, "-n", 5).status == 0
    assert batchllm(*words, "--max-requests", 8).status == 3
    assert server.ledger.requests == 8
    assert batchllm(*words, "--max-requests", 8, "--restart", "--force").status == 3
    assert server.ledger.requests == 16


def test_the_bar_says_how_much_of_the_budget_is_gone(
    batchllm: Command, tmp_path: Path, server: Simulator
) -> None:
    source = texts(tmp_path / "in.csv", 40)
    said = batchllm("run", "-p", "{{ text }}", source, "--provider", "simulator", "--base-url", server.base_url,
                    "--prices", write_prices(tmp_path), "--max-cost", "0.0035", "-o", tmp_path / "o.csv",
                    "--max-tokens", 150)  # fmt: skip
    assert said.status == 3
    assert " of $0.0035" in said.err


@pytest.mark.parametrize(
    ("budget", "at", "missing"),
    [
        (("--max-cost", "5"), ("--base-url", "http://127.0.0.1:1/v1", "-m", "any"), "--prices"),
        (("--max-total-tokens", "500"), ("--base-url", "http://127.0.0.1:1/v1", "-m", "any"), "--max-tokens"),
    ],
)
def test_a_budget_that_nothing_bounds_is_refused_with_what_is_missing(
    budget: tuple[str, ...], at: tuple[str, ...], missing: str, batchllm: Command, tmp_path: Path
) -> None:
    template = tmp_path / "mine.toml"
    bound = "[parameters]\nmax_tokens = 10\n" if missing == "--prices" else ""
    template.write_text(f'[[messages]]\nrole = "user"\ncontent = "{{{{ text }}}}"\n{bound}', "utf-8")
    said = batchllm("run", "-t", template, texts(tmp_path / "in.csv"), *at, *budget, "-o", tmp_path / "o.csv")
    assert said.status == 2
    assert missing in said.err
    assert not (tmp_path / "o.csv.journal").exists()


def test_the_one_row_without_a_bound_is_found_before_anything_is_sent(
    batchllm: Command, tmp_path: Path, server: Simulator
) -> None:
    source = tmp_path / "in.jsonl"
    rows = [{"text": f"t{row}", **({} if row == 250 else {"max_tokens": 10})} for row in range(300)]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    body = [{"custom_id": str(i), "body": {"messages": [{"role": "user", "content": row["text"]}],
             **({"max_tokens": 5} if "max_tokens" in row else {})}} for i, row in enumerate(rows)]  # fmt: skip
    source.write_text("".join(json.dumps(line) + "\n" for line in body), "utf-8")
    said = batchllm("run", source, "--provider", "simulator", "--base-url", server.base_url, "-m", "any", "-o",
                    tmp_path / "o.jsonl", "--max-total-tokens", 10**6)  # fmt: skip
    assert said.status == 2
    assert "row 251" in said.err
    assert server.ledger.requests == 0


def test_a_budget_without_a_bound_takes_the_models_own_limit_and_says_what_fits_at_once(
    batchllm: Command, tmp_path: Path, server: Simulator
) -> None:
    words = ("run", "-p", "{{ text }}", texts(tmp_path / "in.csv", 4), "--provider", "simulator", "--base-url",
             server.base_url, "-o", tmp_path / "o.csv", "--max-total-tokens")  # fmt: skip
    said = batchllm(*words, 40_000)
    assert said.status == 0, said.err
    assert "room for 2 requests at once" in said.err
    assert "16,384 tokens; --max-tokens makes room for more" in said.err
    said = batchllm(*words, 10_000, "--restart", "--force")
    assert said.status == 3
    assert "--max-tokens bounds it" in said.err


def test_a_dry_run_refuses_the_budget_that_the_run_would_refuse(batchllm: Command, tmp_path: Path) -> None:
    words = ("run", "-p", "{{ text }}", texts(tmp_path / "in.csv", 4), "-m", "any", "--base-url")
    said = batchllm(*words, "http://127.0.0.1:1/v1", "--max-cost", 5, "--max-tokens", 5, "--dry-run")
    assert said.status == 2
    assert "--max-cost needs a price" in said.err
