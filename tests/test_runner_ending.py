"""Every ending of a run has its line in ``--summary`` and its event in ``--log-file``."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from batchllm.errors import INTERNAL_ERROR
from batchllm.simulator import ScriptedResponse, SimulatorSettings, start_in_thread
from tests.batch_jobs import BatchJob, simulated
from tests.bench import Bench
from tests.command import Command
from tests.fakes import chat_body

KEY = "sk-very-secret-4711"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture
def files(tmp_path: Path) -> list[object]:
    """Words that name a summary and a log."""
    return ["--summary", tmp_path / "runs.jsonl", "--log-file", tmp_path / "run.log"]


def last(tmp_path: Path) -> dict[str, Any]:
    """The only line of the summary, which is the last event of the log too."""
    (line,) = lines(tmp_path / "runs.jsonl")
    end = lines(tmp_path / "run.log")[-1]
    assert (end.pop("event"), end.pop("began"), end.pop("time") >= line["time"]) == (
        "end",
        line["time"],
        True,
    )
    assert end == {name: value for name, value in line.items() if name != "time"}
    return line


def test_a_finished_run_says_what_ran_where_and_when(bench: Bench, files: list[object]) -> None:
    rows = bench.file("rows.csv", "text\ngood\nbad\n")
    bench.run("classify", rows, *files)
    line = last(bench.folder)
    assert line["time"].endswith("Z")
    assert (line["job"], line["input"]) == ("classify", str(rows))
    assert line["output"] == str(rows.with_name("rows.classify.csv"))
    assert (line["endpoint"], line["model"]) == (bench.server.base_url, "gpt-4")
    assert (line["version"][0].isdigit(), line["exit_status"], line["error"]) == (True, 0, None)
    assert (line["rows"], line["answered"], line["answers"], line["attempts"]) == (2, 2, 2, 2)


def test_a_run_with_failed_rows_ends_1(bench: Bench, files: list[object]) -> None:
    rows = bench.file("rows.csv", "text\ngood\nbad\n")
    bench.answers = lambda body: (
        ScriptedResponse(status=400, body=b'{"error": {"message": "no bad words"}}')
        if "bad" in str(body)
        else None
    )
    bench.command("run", "-p", "{{ text }}", rows, "--base-url", bench.server.base_url, "-m", "m", *files)
    line = last(bench.folder)
    assert (line["exit_status"], line["failed"], line["answered"], line["answers"]) == (1, 1, 1, 1)
    (failed,) = [event for event in lines(bench.folder / "run.log") if event["event"] == "failed"]
    assert (failed["row"], failed["reason"], failed["final"]) == (2, "http_400", True)
    assert "no bad words" in failed["message"]


REFUSED: dict[str, tuple[list[object], int, str]] = {
    "an option that there is not": (["classify", "rows.csv", "--nope"], 2, "--nope"),
    "an option given twice": (["classify", "rows.csv", "-m", "a", "-m", "b"], 2, "twice"),
    "a wrong value": (["classify", "rows.csv", "--provider", "simulator", "--rpm", "-1"], 2, "--rpm"),
    "no key": (["classify", "rows.csv"], 2, "no key"),
    "no input": (["classify", "none.csv", "--provider", "simulator"], 65, "none.csv"),
    "no folder for the output": (
        ["classify", "rows.csv", "--provider", "simulator", "-o", "none/out.csv"],
        73,
        "none",
    ),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_is_refused_has_a_line_and_unknown_is_null(
    batchllm: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: list[object], why: str
) -> None:
    words, status, named = REFUSED[why]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.csv").write_text("text\ngood\n")
    assert batchllm(*words, *files).status == status
    line = last(tmp_path)
    assert (line["exit_status"], line["job"], line["input"]) == (status, "classify", words[1])
    assert named in line["error"]
    assert all(line[name] is None for name in ("rows", "answered", "failed", "saved_by_journal"))
    assert all(line[name] == 0 for name in ("requests", "attempts", "answers", "cost")), "nothing was sent"


def test_a_job_file_names_the_summary_of_its_own_refusal(
    batchllm: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = tmp_path / "night.toml"
    job.write_text(
        '[job]\ntask = "classify"\ninput = "rows.csv"\nsummary = "runs.jsonl"\nprovider = "nobody"\n'
    )
    assert batchllm("run", job).status == 2
    (line,) = lines(tmp_path / "runs.jsonl")
    assert (line["job"], line["provider"], line["exit_status"]) == (str(job), "nobody", 2)
    monkeypatch.setenv("BATCHLLM_SUMMARY", str(tmp_path / "other.jsonl"))
    assert batchllm("classify", "rows.csv").status == 2
    assert lines(tmp_path / "other.jsonl")[0]["error"].startswith("there is no key")


def test_help_and_a_dry_run_are_no_runs(batchllm: Command, tmp_path: Path, files: list[object]) -> None:
    (tmp_path / "rows.csv").write_text("text\ngood\n")
    assert batchllm("classify", *files, "--help").status == 0
    assert batchllm("classify", tmp_path / "rows.csv", "--dry-run", *files).status == 0
    assert batchllm("classify", tmp_path / "none.csv", "--dry-run", *files).status == 65
    assert not (tmp_path / "runs.jsonl").exists()
    assert not (tmp_path / "run.log").exists()


def test_a_key_that_the_endpoint_refuses_ends_2_and_is_in_no_file(
    bench: Bench, files: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    bench.answers = lambda body: ScriptedResponse(
        status=401, body=json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}"}}).encode()
    )
    rows = bench.file("rows.csv", "text\ngood\n")
    bench.command("run", "-p", "{{ text }}", rows, "--base-url", bench.server.base_url, "-m", "m", *files)
    line = last(bench.folder)
    assert (line["exit_status"], line["attempts"], line["answers"]) == (2, 1, 0)
    assert "Incorrect API key" in line["error"]
    for name in ("runs.jsonl", "run.log"):
        assert KEY not in (bench.folder / name).read_text()


def test_refusals_and_errors_of_the_server_are_events_and_not_answers(
    bench: Bench, files: list[object]
) -> None:
    left = [
        ScriptedResponse(
            status=429, headers={"retry-after": "0.1"}, body=b'{"error": {"message": "slow down"}}'
        ),
        ScriptedResponse(status=500, body=b'{"error": {"message": "oops"}}'),
    ]
    bench.answers = lambda body: left.pop(0) if left else None
    rows = bench.file("rows.csv", "text\ngood\n")
    bench.run("run", "-p", "{{ text }}", rows, *files)
    line = last(bench.folder)
    assert (line["requests"], line["attempts"], line["answers"], line["rate_limited"]) == (1, 3, 1, 1)
    events = lines(bench.folder / "run.log")
    assert [event["event"] for event in events] == ["start", "plan", "refused", "retried", "end"]
    refused, retried = events[2:4]
    assert (refused["row"], refused["retry_after_s"], "slow down" in refused["message"]) == (1, 0.1, True)
    assert (retried["row"], retried["reason"], "oops" in retried["message"]) == (1, "http_500", True)


def test_unknown_usage_is_null_and_not_nothing(bench: Bench, files: list[object]) -> None:
    body = json.loads(chat_body("fine"))
    del body["usage"]
    left = [ScriptedResponse(body=json.dumps(body).encode())]
    bench.answers = lambda body: left.pop(0) if left else None
    rows = bench.file("rows.csv", "text\ngood\nbad\n")
    said = bench.run("run", "-p", "{{ text }}", rows, *files)
    line = last(bench.folder)
    assert line["answers"] == 2
    assert [line[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")] == [None] * 3
    assert "unknown tokens" in said.err


def test_another_run_at_the_job_ends_75_with_a_line(
    batchllm: Command, tmp_path: Path, files: list[object]
) -> None:
    from batchllm.journal import JobLock

    (tmp_path / "rows.csv").write_text("text\ngood\n")
    with JobLock(tmp_path / "rows.classify.simulated.csv.lock"):
        assert batchllm("classify", tmp_path / "rows.csv", "--provider", "simulator", *files).status == 75
    line = last(tmp_path)
    assert (line["exit_status"], line["rows"]) == (75, None)


def test_a_fault_of_ours_ends_70_with_a_line(
    batchllm: Command, tmp_path: Path, files: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    import batchllm.runner.run as run

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by us")

    monkeypatch.setattr(run, "write_if_changed", broken)
    (tmp_path / "rows.csv").write_text("text\ngood\n")
    assert (
        batchllm("classify", tmp_path / "rows.csv", "--provider", "simulator", *files).status
        == INTERNAL_ERROR
    )
    line = last(tmp_path)
    assert (line["exit_status"], line["error"]) == (INTERNAL_ERROR, "by us")


def test_a_budget_ends_3_with_a_line(bench: Bench, files: list[object]) -> None:
    rows = bench.file("rows.csv", "text\ngood\nbad\n")
    bench.command(
        *("run", "-p", "{{ text }}", rows, "--base-url", bench.server.base_url, "-m", "m"),
        *("--max-requests", "1", *files),
    )
    line = last(bench.folder)
    assert (line["exit_status"], line["answered"], line["rows"]) == (3, 1, 2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_has_a_line(tmp_path: Path, files: list[object], number: signal.Signals) -> None:
    (tmp_path / "rows.csv").write_text("text\ngood\n")
    with start_in_thread(SimulatorSettings(latency_s=60)) as server:
        words = ["classify", "rows.csv", "--base-url", server.base_url, "-m", "m", "--grace", "0", *files]
        command = [sys.executable, "-m", "batchllm", *map(str, words)]
        with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE) as run:
            until = time.monotonic() + 30
            while not server.ledger.requests:
                assert time.monotonic() < until
                time.sleep(0.02)
            run.send_signal(number)
            run.communicate(timeout=30)
    line = last(tmp_path)
    assert run.returncode == line["exit_status"] == 128 + number
    assert (line["attempts"], line["answers"], line["rows"]) == (1, 0, 1)


@pytest.mark.parametrize(("name", "content"), [("rows.csv", "id,text\n"), ("rows.jsonl", "")])
def test_an_input_without_rows_says_so_in_a_line_and_ends_0(
    batchllm: Command, tmp_path: Path, files: list[object], name: str, content: str
) -> None:
    rows = tmp_path / name
    rows.write_text(content)
    words = ["run", "-p", "{{ text }}", rows, "--provider", "simulator", *files]
    said = batchllm(*words)
    assert said.status == 0
    assert f"{rows} has no rows: nothing is sent" in said.err.splitlines()
    line = last(tmp_path)
    assert (line["rows"], line["answered"], line["attempts"]) == (0, 0, 0)
    assert Path(line["output"]).read_text().startswith("id,text,response," if content else "")
    assert batchllm(*words, "--quiet").err == ""


def test_a_batch_logs_what_it_retries_and_gives_up_and_each_call_has_its_line(
    tmp_path: Path, files: list[object]
) -> None:
    with simulated(failure_rate=1.0) as server:
        job = BatchJob(tmp_path, server.base_url, rows=2, summary=str(files[1]), log_file=str(files[3]))
        job.until_done(max_attempts="2")
    runs = lines(tmp_path / "runs.jsonl")
    assert [run["exit_status"] for run in runs] == [75] * (len(runs) - 1) + [1]
    assert runs[0]["error"]
    events = [event for event in lines(tmp_path / "run.log") if event["event"] in ("retried", "failed")]
    assert [event["event"] for event in events] == ["retried"] * 2 + ["failed"] * 2
    assert {(event["reason"], event["attempts"]) for event in events} == {("http_500", 1), ("http_500", 2)}
