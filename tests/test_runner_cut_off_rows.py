"""``--retry-cut-off`` for rows of several requests: what was cut off is paid again, and what follows from it."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from batchllm.errors import BudgetStop, UsageError
from batchllm.inspect.dry_run import dry_run
from batchllm.inspect.export import export_job
from batchllm.simulator import Simulator, SimulatorSettings, start_in_thread
from tests.batch_jobs import BatchJob, simulated
from tests.cut_off_worlds import FAILURES, HIGH, KINDS, LOW, STEPS, CutOffJob, CuttingEndpoint
from tests.mortal_runs import run_killed

AGAIN = {"max_tokens": 50, "retry_cut_off": True}
PROOFS = [pytest.param(kind, seed, marks=pytest.mark.proof) for kind in KINDS for seed in range(3)]


def with_room(folder: Path, kind: str, seed: int, **flags: Any) -> CutOffJob:
    """The finished job that had room for every answer from the start."""
    job = CutOffJob(folder, kind, CuttingEndpoint(seed), **flags)
    job.run(HIGH)
    return job


def check_nothing_lost(old: list[dict[str, str]], job: CutOffJob) -> None:
    """No row that had an answer has an error."""
    for before, after in zip(old, job.answers, strict=True):
        assert before["error"] or not after["error"], (before, after)


def check_done(job: CutOffJob, right: CutOffJob) -> None:
    """The job has the right answers, and both of its commands send nothing."""
    assert job.answers == right.answers
    job.retry()
    assert job.endpoint.sent == []
    job.run()
    assert job.endpoint.sent == []
    assert job.answers == right.answers


@pytest.mark.parametrize(
    ("kind", "seed"),
    [("steps", 0), *PROOFS],
)
def test_what_was_cut_off_and_what_follows_from_it_is_asked_anew_and_nothing_else(
    tmp_path: Path, kind: str, seed: int
) -> None:
    right = with_room(tmp_path / "right", kind, seed, rows=5)
    job = CutOffJob(tmp_path / "job", kind, CuttingEndpoint(seed), rows=5)
    job.run()
    asked = set(job.endpoint.sent)
    planned = dry_run(job.job(max_tokens=HIGH, retry_cut_off=True)).forecast
    result = job.retry()
    sent = [said for said, _ in job.endpoint.sent]
    new = [said for said in sent if (said, LOW) not in asked]
    assert {limit for _, limit in job.endpoint.sent} == {HIGH}
    for said in set(sent) - set(new):
        assert b'"length"' in job.endpoint.answer(said, LOW, is_json=kind == "re-asks").body  # type: ignore[union-attr]
    assert not new or kind in ("steps", "parts"), "only what read an answer is asked something else"
    forecast = job.forecasts[-1]
    for found in (forecast, planned):
        assert found.cut_off and (found.requests_upper_bound or 0) >= len(sent)
        assert (found.requests, found.cut_off, found.answered) == (
            forecast.requests, forecast.cut_off, forecast.answered
        )  # fmt: skip
    assert result.exit_status == 0 and result.summary.failed == 0
    check_done(job, right)


@pytest.mark.parametrize(("kind", "seed"), [("steps", 1), *PROOFS])
def test_a_row_keeps_its_answers_wherever_its_flow_fails_and_the_next_attempt_pays_for_the_rest(
    tmp_path: Path, kind: str, seed: int
) -> None:
    right = with_room(tmp_path / "right", kind, seed)
    job = CutOffJob(tmp_path / "job", kind, CuttingEndpoint(seed))
    job.run()
    old, chance = job.answers, random.Random(seed)
    job.endpoint.fails = {
        said: chance.choice(FAILURES)() for said, _ in right.endpoint.sent if chance.random() < 0.4
    }
    job.retry()
    check_nothing_lost(old, job)
    failed = any(row["error"] for row in job.answers)
    job.endpoint.fails = {}
    job.run()
    check_nothing_lost(old, job)
    assert failed or job.endpoint.sent == []
    job.retry(retry_failed=True)
    if kind != "samples":  # whose requests are alike
        assert set(job.endpoint.paid.values()) == {1}, "nothing is paid twice"
    check_done(job, right)


@pytest.mark.parametrize(("kind", "seed"), [("steps", 2), *PROOFS])
def test_kills_lose_no_answer_and_pay_only_what_was_in_flight_twice(
    tmp_path: Path, kind: str, seed: int
) -> None:
    right = with_room(tmp_path / "right", kind, seed)
    job = CutOffJob(tmp_path / "job", kind, CuttingEndpoint(seed))
    job.run()
    old, chance, kills = job.answers, random.Random(seed), 3
    for _ in range(kills):
        again = job.retry if chance.random() < 0.7 else job.run
        run_killed(job.endpoint, chance.randrange(6), after=chance.random() < 0.5, work=again)
    job.endpoint.dies_at = job.endpoint.journal = None
    if chance.random() < 0.5:
        job.run()
        check_nothing_lost(old, job)
    job.retry()
    if kind != "samples":
        assert sum(job.endpoint.paid.values()) - len(job.endpoint.paid) <= 4 * kills
    check_done(job, right)


@pytest.mark.proof
def test_rows_that_a_budget_leaves_out_keep_what_they_had(tmp_path: Path) -> None:
    right = with_room(tmp_path / "right", "steps", 3)
    job = CutOffJob(tmp_path / "job", "steps", CuttingEndpoint(3))
    job.run()
    spent = len(job.endpoint.sent)
    with pytest.raises(BudgetStop):
        job.retry(max_requests=spent + 3, concurrency=1)
    assert len(job.endpoint.sent) == 3
    export_job(tmp_path / "job" / "out.csv", to=tmp_path / "so-far.csv", force=True)
    assert len((tmp_path / "so-far.csv").read_text().splitlines()) >= 8, "rows that were not tried are whole"
    job.retry()
    check_done(job, right)


@pytest.mark.proof
def test_equal_rows_share_what_is_asked_again(tmp_path: Path) -> None:
    job = CutOffJob(tmp_path / "job", "steps", CuttingEndpoint(0), rows=3)
    table = tmp_path / "job" / "rows.csv"
    head, *rows = table.read_text().splitlines()
    table.write_text("\n".join([head, *rows, *rows]))
    job.run(dedupe=True)
    job.retry(dedupe=True)
    assert set(job.endpoint.paid.values()) == {1}
    assert job.answers[:3] == job.answers[3:]
    assert "length" not in {row["finish_reason"] for row in job.answers}


def test_the_limit_of_the_command_holds_for_steps_that_set_a_lower_one(tmp_path: Path) -> None:
    job = CutOffJob(tmp_path / "job", "steps", CuttingEndpoint(0), rows=4)
    file = tmp_path / "job" / "job.toml"
    file.write_text(STEPS.replace('name = "topic"', f'name = "topic"\nmax_tokens = {LOW - 1}'))
    job.run()
    assert {limit for said, limit in job.endpoint.sent if "What is" in said} == {LOW - 1}
    with pytest.raises(
        UsageError, match=r"higher than the one that answers were cut off at \(19, 20 tokens\)"
    ):
        job.retry(LOW - 1)
    job.retry()
    assert {limit for _, limit in job.endpoint.sent} == {HIGH}
    assert {len(row["topic"]) for row in job.answers} == {len("answer 0123456789ab")}


def test_a_conversation_is_refused_with_the_reason(tmp_path: Path) -> None:
    job = CutOffJob(tmp_path / "job", "single", CuttingEndpoint(0), rows=2)
    with pytest.raises(UsageError, match="changes what every later turn was asked; .* --accept-change"):
        job.retry(conversation="name")


def test_answers_in_batches_that_are_not_ready_are_not_asked_for_a_third_time(tmp_path: Path) -> None:
    with simulated(seconds=1000.0) as server:
        job = BatchJob(tmp_path, server.base_url, rows=2, task="run", prompt="{{ text }}")
        job.call(via="online", max_tokens=3)
        for _ in range(3):
            job.begin(**AGAIN)
        assert server.ledger.batches == 1


@pytest.mark.proof
@pytest.mark.parametrize("kind", ["samples", "steps"])
def test_by_batch_each_step_that_is_asked_anew_is_one_more_wave(tmp_path: Path, kind: str) -> None:
    flags: dict[str, Any] = {"task": "run", "prompt": "{{ text }}", "samples": 2}
    if kind == "steps":
        text = (
            STEPS.replace('input = "rows.csv"', "")
            .replace('schema = "n int"', "")
            .replace("name }}", "id }}")
        )
        (tmp_path / "job.toml").write_text(text)
        flags = {"task": "run", "job_file": str(tmp_path / "job.toml")}
    with simulated() as server:
        jobs = []
        for name in ("right", "job"):
            (tmp_path / name).mkdir()
            jobs.append(BatchJob(tmp_path / name, server.base_url, rows=4, **flags))
        right, job = jobs
        right.until_done(max_tokens=50)
        needed = server.ledger.batch_requests
        job.until_done(max_tokens=3)
        assert job.until_done(**AGAIN).exit_status == 0
        assert server.ledger.batch_requests == 3 * needed, "every answer had been cut off"
        job.until_done(**AGAIN)
        assert server.ledger.batch_requests == 3 * needed
        for name in ("response", "topic", "reply", "check"):
            assert [row.get(name) for row in job.answers] == [row.get(name) for row in right.answers]


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(2))
def test_a_killed_process_has_paid_for_nothing_in_vain(tmp_path: Path, seed: int) -> None:
    """The command itself, killed by SIGKILL, against a server that counts what it is asked."""
    with start_in_thread(SimulatorSettings(latency_s=0.02)) as server:
        kill_and_go_on(tmp_path, server, random.Random(seed))


def kill_and_go_on(tmp_path: Path, server: Simulator, chance: random.Random) -> None:
    """Finishes a job with a low limit, and asks again with a high one in a process that is killed several times."""
    rows, concurrency, kills = 40, 4, 3
    text = STEPS.replace('schema = "n int"', "").replace("no_early_stop", "concurrency = 4\nno_early_stop")
    (tmp_path / "job.toml").write_text(text)
    (tmp_path / "rows.csv").write_text(
        "text,name\n" + "".join(f"thing {n} is good,n{n}\n" for n in range(rows))
    )
    words = ["run", "job.toml", "-o", "out.csv", "--base-url", server.base_url, "-m", "simulator", "-y"]
    command = [sys.executable, "-m", "batchllm", *words]
    environ = {**os.environ, "OPENAI_API_KEY": "k"}
    subprocess.run(
        [*command, "--max-tokens", "3"], cwd=tmp_path, env=environ, check=True, capture_output=True
    )
    before = server.ledger.requests
    again = [*command, "--max-tokens", "50", "--retry-cut-off"]
    for _ in range(kills):
        paid = server.ledger.requests
        process = subprocess.Popen(again, cwd=tmp_path, env=environ, stderr=subprocess.DEVNULL)
        until = paid + chance.randint(1, rows // 2)
        while server.ledger.requests < until and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(again, cwd=tmp_path, env=environ, check=True, capture_output=True)
    assert 3 * rows <= server.ledger.requests - before <= 3 * rows + kills * concurrency
    done = server.ledger.requests
    subprocess.run(again, cwd=tmp_path, env=environ, check=True, capture_output=True)
    assert server.ledger.requests == done
    assert "length" not in (tmp_path / "out.csv").read_text()
