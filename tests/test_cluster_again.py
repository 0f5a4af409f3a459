"""A job on many machines that is tried first, begun anew, retried, or that takes the answers of another one."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batchllm.cluster.driver import run_cluster
from batchllm.cluster.plan import chosen_in, tried
from batchllm.cluster.planner import cut
from batchllm.errors import BudgetStop, UsageError
from batchllm.plan.chosen import chosen_rows
from batchllm.runner import Result, run_job
from batchllm.simulator import ScriptedResponse
from tests.cluster_engine import ThreadEngine
from tests.command import Command
from tests.fakes import chat_body
from tests.test_cluster_plan import plan_for
from tests.test_cluster_run import Asked, asked, job_of, no_cluster, table, url

__all__ = ["asked", "url"]

ROWS = 90
TEXTS = [f"text {number:03}" for number in range(ROWS)]


@pytest.fixture(autouse=True)
def rows(tmp_path: Path) -> None:
    table(tmp_path / "rows.csv", ROWS, TEXTS)


def on_cluster(folder: Path, url: str, engine: Any = None, **flags: Any) -> Result:
    return run_cluster(job_of(folder, url, **flags), engine_of=lambda job: engine or ThreadEngine())


def cells(path: Path, column: str) -> list[str]:
    with path.open(newline="") as file:
        return [row[column] for row in csv.DictReader(file, delimiter=";")]


def test_a_trial_pays_for_its_rows_and_the_whole_job_for_the_others(
    tmp_path: Path, url: str, asked: Asked
) -> None:
    engine = ThreadEngine()
    trial = on_cluster(tmp_path, url, engine, limit=30)
    assert (trial.summary.rows, trial.summary.attempts) == (30, 30) == (asked.texts.total(),) * 2
    assert len(engine.submitted) > 1, "the rows of the trial are cut for all workers"
    assert trial.output is not None and cells(trial.output, "text") == TEXTS[:30]
    assert on_cluster(tmp_path, url, limit=25).summary.attempts == 0
    sample = on_cluster(tmp_path, url, sample=12)
    among = chosen_rows(job_of(tmp_path, url, sample=12), ROWS)
    assert isinstance(among, frozenset) and sample.summary.rows == 12
    assert asked.texts.total() == len(among | set(range(30)))
    assert sample.output is not None and cells(sample.output, "text") == [TEXTS[row] for row in sorted(among)]
    whole = on_cluster(tmp_path, url)
    assert (whole.exit_status, whole.summary.answered) == (0, ROWS)
    assert asked.texts.total() == ROWS and max(asked.texts.values()) == 1
    again = run_cluster(job_of(tmp_path, url, sample=5, seed=9), engine_of=no_cluster)
    assert again.summary.attempts == 0 and again.summary.rows == 5
    assert whole.output is not None and cells(whole.output, "text") == TEXTS


def test_rows_that_were_answered_before_are_counted_as_rows_and_not_as_requests(
    tmp_path: Path, url: str, asked: Asked
) -> None:
    on_cluster(tmp_path, url, limit=20, samples=3)
    whole = on_cluster(tmp_path, url, samples=3)
    assert (whole.summary.answered, whole.summary.answered_before, whole.summary.answers) == (
        ROWS,
        20,
        3 * 70,
    )


@pytest.mark.parametrize("flags", [{"limit": 33}, {"sample": 20}, {"sample": 90}, {"limit": 500}])
def test_shards_of_a_trial_have_its_rows(tmp_path: Path, flags: dict[str, int]) -> None:
    job = job_of(tmp_path, "http://127.0.0.1:1", **flags)
    plan = plan_for(tmp_path / "rows.csv")
    found = []
    for shard in tried(plan, job).shards:
        chosen = chosen_in(shard, job, ROWS)
        rows = range(shard.rows) if chosen is None else sorted(chosen)
        assert len(rows) == shard.wanted
        found += [shard.first_row + row for row in rows]
    wanted = chosen_rows(job, ROWS)
    assert found == sorted(range(ROWS) if wanted is None else wanted)


@pytest.mark.proof
def test_a_sample_begins_with_twenty_rows_on_this_machine(tmp_path: Path, url: str, asked: Asked) -> None:
    """So that a wrong key and the early stop end it before it fans out, wherever its rows are."""
    rows = 400
    table(tmp_path / "rows.csv", rows, [f"text {number:03}" for number in range(rows)])
    job = job_of(tmp_path, url, sample=60)
    samples = ((seed, chosen_rows(replace(job, seed=seed), rows)) for seed in range(1000))
    seed = next(seed for seed, among in samples if among and min(among) >= 20)
    asked.answer = lambda text: ScriptedResponse(body=chat_body("none of them"))
    engine = ThreadEngine(1)
    with pytest.raises(BudgetStop):
        on_cluster(tmp_path, url, engine, sample=60, seed=seed)
    assert engine.submitted == [] and asked.texts.total() == 20
    asked.answer = lambda text: None
    result = on_cluster(tmp_path, url, ThreadEngine(1), sample=60, seed=seed, retry_failed=True)
    assert (result.summary.rows, result.summary.answered, result.summary.attempts) == (60, 60, 60)
    assert asked.texts.total() == 80 and len(asked.texts) == 60


@pytest.mark.proof
def test_a_retry_that_is_stopped_keeps_what_it_paid(tmp_path: Path, url: str, asked: Asked) -> None:
    refusal = ScriptedResponse(status=400, body={"error": {"message": "no"}})
    asked.answer = lambda text: refusal if int(text.split()[-1]) >= 20 else None
    assert on_cluster(tmp_path, url, max_attempts=1).summary.failed == ROWS - 20
    asked.answer = lambda text: None

    class Stopped(ThreadEngine):
        def ended(self, timeout_s: float) -> Any:
            if ended := super().ended(timeout_s):
                raise ConnectionError("the cluster is gone")
            return ended

    engine = Stopped()
    with pytest.raises(ConnectionError):
        on_cluster(tmp_path, url, engine, retry_failed=True)
    engine._pool.shutdown()
    retried = asked.texts.total() - ROWS
    assert 0 < retried < ROWS - 20
    run_cluster(job_of(tmp_path, url), engine_of=no_cluster)
    assert sum(map(bool, cells(tmp_path / "out.csv", "error"))) == ROWS - 20 - retried
    assert on_cluster(tmp_path, url, retry_failed=True).summary.answered == ROWS
    assert asked.texts.total() == ROWS + ROWS - 20


def test_rows_that_are_tried_are_cut_for_all_workers() -> None:
    ranges = cut(10_000, 4, trial=400)
    assert 400 in {each.start for each in ranges} and sum(each.start < 400 for each in ranges) > 8
    assert [row for each in ranges for row in each] == list(range(10_000))


@pytest.mark.proof
def test_a_job_that_begins_anew_pays_again_and_keeps_what_was(
    tmp_path: Path, url: str, asked: Asked, batchllm: Command
) -> None:
    on_cluster(tmp_path, url)
    questions: list[Any] = []
    job = job_of(tmp_path, url, restart=True, model="n")
    anew = run_cluster(
        job,
        engine_of=lambda job: ThreadEngine(),
        confirm=lambda forecast: questions.append(forecast.requests),
    )
    assert questions == [ROWS] and anew.summary.attempts == ROWS and asked.texts.total() == 2 * ROWS
    assert (tmp_path / "out.csv.journal.1").exists()
    assert run_cluster(job_of(tmp_path, url, model="n"), engine_of=no_cluster).summary.attempts == 0
    assert json.loads(batchllm("status", tmp_path / "work", "--json").out)["done"] == ROWS
    with pytest.raises(UsageError, match="plan of another job"):
        run_cluster(job_of(tmp_path, url), engine_of=no_cluster)


@pytest.mark.proof
def test_a_restart_that_is_refused_at_the_question_changes_nothing(
    tmp_path: Path, url: str, asked: Asked
) -> None:
    on_cluster(tmp_path, url, limit=20)

    def refuse(forecast: Any) -> None:
        raise UsageError("nothing was sent")

    with pytest.raises(UsageError, match="nothing was sent"):
        run_cluster(job_of(tmp_path, url, restart=True), engine_of=lambda job: ThreadEngine(), confirm=refuse)
    assert on_cluster(tmp_path, url).summary.answered == ROWS == asked.texts.total()


@pytest.mark.proof
def test_answers_of_another_job_are_taken_before_anything_is_sent(
    tmp_path: Path, url: str, asked: Asked
) -> None:
    run_job(job_of(tmp_path, url, output=str(tmp_path / "other.csv"), engine=None, work=None, limit=50))
    assert asked.texts.total() == 50
    flags = {"reuse": str(tmp_path / "other.csv")}
    result = on_cluster(tmp_path, url, **flags)
    assert (result.summary.answered, result.summary.attempts, asked.texts.total()) == (ROWS, ROWS - 50, ROWS)
    assert max(asked.texts.values()) == 1 and cells(tmp_path / "out.csv", "text") == TEXTS
    assert run_cluster(job_of(tmp_path, url, **flags), engine_of=no_cluster).summary.attempts == 0


@pytest.mark.proof
def test_rows_that_failed_are_asked_again_on_all_machines(tmp_path: Path, url: str, asked: Asked) -> None:
    fails = set(range(40, 60))
    asked.answer = lambda text: (
        ScriptedResponse(body=chat_body("none of them")) if int(text.split()[-1]) in fails else None
    )
    assert on_cluster(tmp_path, url, max_attempts=1).summary.failed == 20
    fails -= set(range(40, 55))
    engine = ThreadEngine()
    result = on_cluster(tmp_path, url, engine, max_attempts=1, retry_failed=True)
    assert engine.submitted and (result.summary.failed, result.summary.attempts) == (5, 20)
    assert result.possibly_billed_rows == ()
    assert asked.texts.total() == ROWS + 20
    assert run_cluster(job_of(tmp_path, url), engine_of=no_cluster).summary.failed == 5
    assert sum(map(bool, cells(tmp_path / "out.csv", "error"))) == 5


@pytest.mark.proof
def test_rows_that_were_cut_off_are_asked_again_on_all_machines_with_a_higher_limit(
    tmp_path: Path, url: str, asked: Asked
) -> None:
    cut_off = chat_body("positive", finish_reason="length")
    asked.answer = lambda text: (
        ScriptedResponse(body=cut_off) if int(text.split()[-1]) % 9 == 0 and asked.texts[text] == 1 else None
    )
    on_cluster(tmp_path, url, max_tokens=20)
    again = {"retry_cut_off": True, "max_tokens": 40}
    engine = ThreadEngine()
    result = on_cluster(tmp_path, url, engine, **again)
    assert result.possibly_billed_rows == ()
    assert engine.submitted and result.summary.attempts == 10 and asked.texts.total() == ROWS + 10
    assert set(cells(tmp_path / "out.csv", "finish_reason")) == {"stop"}
    assert run_cluster(job_of(tmp_path, url, **again), engine_of=no_cluster).summary.attempts == 0
    assert run_cluster(job_of(tmp_path, url, max_tokens=20), engine_of=no_cluster).summary.attempts == 0
    (tmp_path / "out.csv.journal").unlink()
    (tmp_path / "out.csv").unlink()
    assert run_cluster(job_of(tmp_path, url, max_tokens=20), engine_of=no_cluster).summary.attempts == 0
    assert set(cells(tmp_path / "out.csv", "finish_reason")) == {"stop"}
