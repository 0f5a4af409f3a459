"""What a run says of itself is true: rows are rows, what is unknown is unknown, and a refusal leaves no trace."""

import json
from pathlib import Path
from typing import Any

import pytest

from batchllm.budget.forecast import Forecast
from batchllm.errors import Interrupted, UsageError
from batchllm.inspect.dry_run import dry_run
from batchllm.job import Job, assemble
from batchllm.progress import compact
from batchllm.records import ChatRequest, Response
from batchllm.runner import run_job
from tests.fakes import FakeClient, Outcome, Script, answered, rows_with, status


def job_of(folder: Path, texts: str = "one two three four", **more: Any) -> Job:
    path = folder / "rows.csv"
    path.write_text("\n".join(["text", *texts.split()]) + "\n")
    flags = {
        "input": str(path),
        "prompt": "{{ text }}",
        "provider": "simulator",
        "output": str(folder / "out.csv"),
    }
    return assemble("run", {**flags, "concurrency": 1, "no_early_stop": True, **more}, {})


def fine(request: ChatRequest, attempt: int) -> Outcome:
    return answered()


def run(job: Job, script: Script = fine, **more: Any) -> Any:
    return run_job(job, client=FakeClient(script, latency_s=0), **more)


def refuse(forecast: Forecast) -> None:
    raise UsageError("nothing was sent")


def without_usage(request: ChatRequest, attempt: int) -> Outcome:
    reply = answered()
    body = {name: value for name, value in json.loads(reply.body).items() if name != "usage"}
    return Response(200, reply.headers, json.dumps(body).encode(), reply.latency_s)


def test_a_restart_that_is_refused_at_the_question_leaves_the_journal_where_it_was(tmp_path: Path) -> None:
    run(job_of(tmp_path))
    journal = tmp_path / "out.csv.journal"
    before = journal.read_bytes(), (tmp_path / "out.csv").read_bytes()
    with pytest.raises(UsageError, match="nothing was sent"):
        run(job_of(tmp_path, restart=True), confirm=refuse)
    assert (journal.read_bytes(), (tmp_path / "out.csv").read_bytes()) == before
    assert not list(tmp_path.glob("*.journal.*"))
    client = FakeClient(latency_s=0)
    run_job(job_of(tmp_path), client=client)
    assert client.sent == []
    run(job_of(tmp_path, restart=True))
    assert (tmp_path / "out.csv.journal.1").exists(), "one that goes on sets it aside"


def test_only_answers_are_called_paid(tmp_path: Path) -> None:
    result = run(job_of(tmp_path, max_attempts=1), rows_with([1, 2], status(400, "no")))
    assert (result.summary.requests, result.summary.answers) == (4, 2)
    assert "paid: 2 answers, " in repr(result)


def test_unknown_usage_is_unknown_everywhere(tmp_path: Path) -> None:
    summary = tmp_path / "summary.json"
    result = run(job_of(tmp_path, summary=str(summary)), without_usage)
    figures = json.loads(summary.read_text())
    for name in ("prompt_tokens", "completion_tokens", "total_tokens", "tokens_per_minute", "cost"):
        assert figures[name] is None, name
    assert "unknown tokens" in repr(result)
    assert compact(None) == "unknown"


def test_the_summary_of_a_stopped_run_counts_rows(tmp_path: Path) -> None:
    summary = tmp_path / "summary.json"
    job = job_of(tmp_path, "one one one two three", dedupe=True, summary=str(summary))

    def script(request: ChatRequest, attempt: int) -> Outcome:
        if request.row_index == 3:
            raise Interrupted(15)
        return answered()

    with pytest.raises(Interrupted, match="3 of 5 rows are kept"):
        run(job, script)
    figures = json.loads(summary.read_text())
    assert (figures["rows"], figures["answered"], figures["failed"]) == (5, 3, 0)
    assert (figures["requests"], figures["answers"]) == (2, 1)


def test_equal_rows_take_the_one_answer_that_another_job_has(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    run(job_of(first, "one two"))
    job = job_of(second, "one one two three one", reuse=str(first / "out.csv"))
    assert dry_run(job).forecast.requests == 1
    client = FakeClient(latency_s=0)
    result = run_job(job, client=client)
    assert [row for _, row in client.sent] == [3]
    assert (result.summary.answered, result.summary.answers) == (5, 1)


def test_no_job_that_has_answers_is_told_that_nothing_was_answered(tmp_path: Path) -> None:
    """A plain request that is answered decides nothing about a job of which requests were answered before."""
    run(job_of(tmp_path, "one two three"))

    def fails(request: ChatRequest, attempt: int) -> Outcome:
        return answered() if request.max_tokens == 5 else status(500, "broken")

    changed = job_of(tmp_path, "four five six", max_attempts=2)
    result = run(changed, fails)
    assert result.exit_status == 1
    assert result.summary.failed == 3
