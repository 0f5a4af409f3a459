"""What a person sees of a run over real sockets: on a terminal, in a log, in the summary."""

import csv
import json
import math
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from batchllm.simulator import ScriptedResponse, SimulatorSettings, start_in_thread
from tests.batch_jobs import BatchJob, simulated
from tests.bench import Bench
from tests.rotation import rotating
from tests.screen import screen

REFUSAL = {"error": {"message": "Rate limit reached for gpt-4", "type": "requests", "code": None}}
PAUSE = re.compile(
    r"The endpoint asks for a pause of 3 s \(429: Rate limit reached for gpt-4\); "
    r"everything waits until (\d\d \w{3} )?\d\d:\d\d:\d\d\."
)


def write_rows(path: Path, rows: int) -> Path:
    path.write_text("text\n" + "".join(f"kettle {number} boils\n" for number in range(rows)))
    return path


def command(path: Path, base_url: str, *words: str) -> list[str]:
    where = ["--base-url", base_url, "-m", "gpt-4", "--max-tokens", "10"]
    return [sys.executable, "-m", "batchllm", "classify", str(path), *where, *words]


def refuses(number: int) -> Callable[[dict[str, Any]], ScriptedResponse | None]:
    """Refuses everything for three seconds from one request on, and says for how long; else answers with a label."""
    requests = count(1)
    until = math.inf

    def script(body: dict[str, Any]) -> ScriptedResponse | None:
        nonlocal until
        now = time.monotonic()
        if next(requests) == number:
            until = now + 2.9
        if until - 2.9 <= now < until:
            return ScriptedResponse(
                status=429, headers={"retry-after": str(math.ceil(until - now))}, body=REFUSAL
            )
        return None

    return script


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def refusing_url() -> Iterator[str]:
    with start_in_thread(SimulatorSettings(), script=refuses(10)) as server:
        yield server.base_url


@pytest.mark.parametrize("columns", rotating([80, 120]))
def test_a_terminal_says_that_a_pause_runs_and_until_when(
    tmp_path: Path, refusing_url: str, columns: int
) -> None:
    with screen(columns) as terminal, terminal.path.open("w") as stderr:
        rows = write_rows(tmp_path / "in.csv", 20)
        subprocess.run(command(rows, refusing_url, "-c", "2"), stderr=stderr, check=True, timeout=60)
    assert len(PAUSE.findall(" ".join(terminal.states))) == 1
    assert all(len(state) <= columns for state in terminal.states if str(tmp_path) not in state)
    for seconds in (3, 2, 1):
        bars = [state for state in terminal.states if f"waiting {seconds} s for the rate limit" in state]
        assert bars
        assert all("/20" in bar and len(bar) <= columns for bar in bars)


def test_a_log_says_once_that_a_pause_runs(tmp_path: Path, refusing_url: str) -> None:
    words = command(write_rows(tmp_path / "in.csv", 20), refusing_url, "-c", "2")
    said = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    assert len(PAUSE.findall(said.stderr)) == 1
    assert "\r" not in said.stderr


def test_quiet_says_nothing_of_a_pause(tmp_path: Path, refusing_url: str) -> None:
    words = command(write_rows(tmp_path / "in.csv", 20), refusing_url, "-c", "2", "-q")
    said = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    assert (said.stdout, said.stderr) == ("", "")


def test_an_endpoint_that_is_down_is_named_with_the_reason_and_the_time(tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/v1"
    words = command(write_rows(tmp_path / "in.csv", 20), url, "--max-outage", "3")
    said = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert said.returncode == 69
    reason = re.escape(f"Cannot reach {url} (no connection to 127.0.0.1:{port}: connection refused); ")
    assert len(re.findall(reason + r"trying until (\d\d \w{3} )?\d\d:\d\d:\d\d\.", said.stderr)) == 1


def test_a_terminal_says_until_when_an_endpoint_is_tried(tmp_path: Path) -> None:
    words = command(
        write_rows(tmp_path / "in.csv", 20), f"http://127.0.0.1:{free_port()}/v1", "--max-outage", "3"
    )
    with screen(80) as terminal, terminal.path.open("w") as stderr:
        ended = subprocess.run(words, stderr=stderr, check=False, timeout=60)
    assert ended.returncode == 69
    bars = [
        state for state in terminal.states if re.search(r"endpoint unreachable, trying for [23] s", state)
    ]
    assert bars
    assert all(len(bar) <= 80 for bar in bars)


def test_ctrl_c_says_what_is_waited_for_how_much_is_kept_and_how_to_go_on(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "in.csv", 5_000)
    with start_in_thread(SimulatorSettings(latency_s=0.2)) as server, screen(80) as terminal:
        with terminal.path.open("w") as stderr:
            words = command(rows, server.base_url, "-c", "16")
            run = subprocess.Popen(words, stderr=stderr)
            deadline = time.monotonic() + 20
            while not re.search(r"[1-9]\d+/5,000", terminal.text) and time.monotonic() < deadline:
                time.sleep(0.02)
            run.send_signal(signal.SIGINT)
            assert run.wait(30) == 130
    said = " ".join(terminal.lines)
    waited_for = re.search(
        r"Stopping: (\d+) requests? in flight gets? up to 30 s; Ctrl-C again ends it at once\.", said
    )
    assert waited_for is not None and 1 <= int(waited_for[1]) <= 16
    how = r"run the same command to go on, or batchllm export to write them"
    kept = re.search(rf"Stopped\. (\d+) of 5,000 rows are kept; {how}\.$", said)
    assert kept is not None and f" {kept[1]}/5,000" in said


def test_a_budget_that_ends_says_how_much_is_kept(bench: Bench) -> None:
    rows = write_rows(bench.folder / "in.csv", 30)
    assert (
        "10 of 30 rows are kept; batchllm export writes them.\n"
        in bench.run("classify", rows, "--max-requests", "10", status=3).err
    )


def test_failures_come_with_the_words_of_the_endpoint_and_what_to_do(bench: Bench) -> None:
    rows = bench.file("in.csv", "text\nfine\nbad one\nbad two\n")
    blocked = ScriptedResponse(status=400, body={"error": {"message": "Blocked by our filter."}})
    bench.answers = lambda body: blocked if "bad" in str(body) else None
    said = bench.run("classify", rows, "-c", "1", status=1).err
    output = bench.folder / "in.classify.csv"
    assert said.split("temperature 0")[1].split("\n", 1)[1].startswith("1 of 3 rows answered")
    assert "Failed: 2 (HTTP 400 2)\n  row 2: HTTP 400: Blocked by our filter.\n" in said
    assert "  to ask again: the same command with --retry-failed\n" in said
    look = re.search(r"  to look: batchllm (.*)\n", said)
    assert look is not None
    assert "bad one" in bench.command(*shlex.split(look[1])).out
    bench.answers = lambda body: None
    assert "3 of 3 rows answered" in bench.run("classify", rows, "--retry-failed").err
    assert "Failed" not in bench.run("classify", rows).err
    assert output.exists()


def test_the_summary_says_the_pace_that_was_held(bench: Bench) -> None:
    rows = write_rows(bench.folder / "in.csv", 30)
    said = bench.run("classify", rows, "--rpm", "300", "--summary", bench.folder / "sum.json")
    figures = json.loads((bench.folder / "sum.json").read_text())
    assert figures["requests_per_minute"] == pytest.approx(300, rel=0.05)
    with (bench.folder / "in.classify.csv").open(newline="") as file:
        tokens = sum(int(row["total_tokens"]) for row in csv.DictReader(file))
    each = tokens / 30
    assert figures["tokens_per_minute"] == pytest.approx(each * figures["requests_per_minute"], rel=0.01)
    assert f"Pace: {figures['requests_per_minute']:,.0f} requests/min, " in said.err


def test_the_pace_is_that_of_this_run_only(bench: Bench) -> None:
    rows = write_rows(bench.folder / "in.csv", 30)
    bench.run("classify", rows, "--max-requests", "20", status=3)
    bench.run(
        "classify", rows, "--rpm", "300", "--max-requests", "30", "--summary", bench.folder / "sum.json"
    )
    figures = json.loads((bench.folder / "sum.json").read_text())
    assert figures["attempts"] == 10
    assert figures["requests_per_minute"] == pytest.approx(300, rel=0.1)


def test_a_run_that_sends_nothing_or_takes_no_time_has_no_pace(bench: Bench) -> None:
    rows = write_rows(bench.folder / "in.csv", 3)
    for _ in range(2):
        said = bench.run("classify", rows, "--summary", bench.folder / "sum.json")
        figures = json.loads((bench.folder / "sum.json").read_text())
        assert figures["requests_per_minute"] is figures["tokens_per_minute"] is None
        assert "Pace:" not in said.err


def test_batches_have_no_pace(tmp_path: Path) -> None:
    with simulated(seconds=1.5) as server:
        result = BatchJob(tmp_path, server.base_url, rows=30).call(wait=True)
    assert result.summary.attempts == 30
    assert result.summary.requests_per_minute is None
    assert result.pace == ""
