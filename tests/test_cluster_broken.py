"""A job on many machines whose work folder is damaged or fails, whose rows are deadly, or whose user is in a hurry."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from batchllm.cluster.driver import run_cluster
from batchllm.cluster.engine import ShardEnd, ShardTask
from batchllm.cluster.fan_out import MOST_DEATHS
from batchllm.cluster.inspection import cluster_status
from batchllm.cluster.journal_from_logs import check_logs
from batchllm.cluster.plan import Shard
from batchllm.cluster.planner import plan_of_work
from batchllm.cluster.progress import FiguresReader
from batchllm.cluster.summaries import JobState
from batchllm.cluster.work import open_work
from batchllm.errors import CannotWrite, Interrupted, StorageFailure, Unavailable
from batchllm.simulator import ScriptedResponse
from batchllm.stopping import StopSwitch
from tests.cluster_engine import ThreadEngine
from tests.test_cluster_run import Asked, asked, job_of, no_cluster, table, url

__all__ = ["asked", "url"]

TEXTS = [f"text {number}" for number in range(60)]


def test_logs_that_a_finished_shard_needs_are_missed() -> None:
    shard = Shard(0, 0, 10, "", None)
    plan = SimpleNamespace(shards=(shard,))

    def check(there: tuple[int, ...], wanted: tuple[int, ...]) -> None:
        found = SimpleNamespace(frames={0: there})
        check_logs(found, JobState(plan, {0: {"frames": wanted}}), open_work("work"))  # type: ignore[arg-type]

    check((3, 2), (3, 2))
    check((4, 2, 1), (3, 2))  # what a worker that was thought dead wrote later
    for there in ((3, 1), (2, 2), (3,), ()):
        with pytest.raises(StorageFailure, match="rows 1 to 10 is asked again"):
            check(there, (3, 2))


def finished(folder: Path, url: str, asked: Asked) -> Path:
    """A job that is finished; returns its work folder, and removes what is beside the output."""
    table(folder / "rows.csv", 60, TEXTS)
    run_cluster(job_of(folder, url), engine_of=lambda job: ThreadEngine())
    for path in folder.glob("out.csv*"):
        path.unlink()
    assert asked.texts.total() == 60
    return folder / "work"


@pytest.mark.proof
def test_a_log_that_is_not_whole_on_this_machine_is_waited_for_and_not_paid_again(
    tmp_path: Path, url: str, asked: Asked
) -> None:
    work = finished(tmp_path, url, asked)
    shard = plan_of_work(open_work(str(work))).shards[1]
    log = work / f"shards/{shard.name}/log-0001"
    content = log.read_bytes()
    for late in (b"", content[:-1]):
        log.write_bytes(late)
        with pytest.raises(StorageFailure, match=r"log-0001 has . of . pieces") as refused:
            run_cluster(job_of(tmp_path, url), engine_of=no_cluster)
        assert f"done/{shard.name}.json" in str(refused.value) and f"rows {shard.first_row + 1} to" in str(
            refused.value
        )
    log.write_bytes(content)
    assert run_cluster(job_of(tmp_path, url), engine_of=no_cluster).summary.attempts == 0
    assert asked.texts.total() == 60
    (tmp_path / "out.csv").unlink()
    (tmp_path / "out.csv.journal").unlink()
    log.unlink()
    (work / f"done/{shard.name}.json").unlink()
    again = run_cluster(job_of(tmp_path, url), engine_of=lambda job: ThreadEngine())
    assert again.summary.attempts == shard.rows and again.summary.answered == 60


@pytest.mark.proof
@pytest.mark.parametrize("name", ["done/000001.json", "shards/000001/state-0001"])
def test_a_damaged_file_of_the_work_folder_is_named_and_can_be_removed(
    tmp_path: Path, url: str, asked: Asked, name: str
) -> None:
    path = finished(tmp_path, url, asked) / name
    for damaged in (path.read_bytes()[:-7], b"", b"[]", b'{"of": "another version"}'):
        path.write_bytes(damaged)
        with pytest.raises(StorageFailure, match=f"{name} is damaged; restore it from a copy, or remove it"):
            run_cluster(job_of(tmp_path, url), engine_of=no_cluster)
            cluster_status(open_work(str(tmp_path / "work")))  # it alone reads the state of a finished shard
    path.unlink()
    result = run_cluster(job_of(tmp_path, url), engine_of=lambda job: ThreadEngine())
    assert result.summary.answered == 60 == asked.texts.total()


def test_a_damaged_budget_ends_the_job_before_anything_is_sent(
    tmp_path: Path, url: str, asked: Asked
) -> None:
    table(tmp_path / "rows.csv", 30)
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "budget.json").write_bytes(b"")
    with pytest.raises(
        StorageFailure, match=r"budget\.json is damaged; restore it from a copy, or remove it"
    ):
        run_cluster(job_of(tmp_path, url, max_requests=100), engine_of=lambda job: ThreadEngine())
    assert asked.texts.total() == 0


@pytest.mark.proof
def test_a_shard_whose_workers_die_is_left_out_and_named_and_the_others_are_finished(
    tmp_path: Path, url: str, asked: Asked
) -> None:
    table(tmp_path / "rows.csv", 60, TEXTS)

    class Poisoned(ThreadEngine):
        deaths = 0

        def ended(self, timeout_s: float) -> Sequence[tuple[ShardTask, ShardEnd | None]]:
            dead = [future for future, task in self.running.items() if task.shard == 1]
            self.deaths += len(dead)
            return [(self.running.pop(future), None) for future in dead] or super().ended(timeout_s)

        def submit(self, task: ShardTask) -> None:
            if task.shard != 1:
                return super().submit(task)
            self.submitted.append(1)
            self.running[Future()] = task
            return None

    engines: list[Poisoned] = []

    def engine_of(job: Any) -> Poisoned:
        engines.append(Poisoned(2))
        return engines[-1]

    with pytest.raises(Unavailable) as stopped:
        run_cluster(job_of(tmp_path, url), engine_of=engine_of)
    plan = plan_of_work(open_work(str(tmp_path / "work")))
    deadly = plan.shards[1]
    rows = f"{deadly.first_row + 1} to {deadly.first_row + deadly.rows}"
    assert (
        f"shard 1 died 5 times, perhaps of one of the rows {rows}:" in str(stopped.value)
        and engines[0].deaths == MOST_DEATHS
    )
    assert asked.texts.total() == 60 - deadly.rows, "every other row is answered"
    assert {*engines[0].submitted} == {shard.number for shard in plan.shards[1:]}
    assert run_cluster(job_of(tmp_path, url), engine_of=lambda job: ThreadEngine()).summary.answered == 60
    assert asked.texts.total() == 60


@pytest.mark.proof
def test_a_command_whose_work_folder_fails_waits_for_its_workers(
    tmp_path: Path, url: str, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    table(tmp_path / "rows.csv", 60, TEXTS)
    engine = ThreadEngine(2)
    read = FiguresReader.read

    def failing(self: FiguresReader, among: Any = None) -> Any:
        if engine.submitted:
            raise CannotWrite("the work folder is unreachable")
        return read(self, among)

    with monkeypatch.context() as patched, pytest.raises(CannotWrite, match="is unreachable"):
        patched.setattr(FiguresReader, "read", failing)
        run_cluster(job_of(tmp_path, url), engine_of=lambda job: engine)
    assert not engine.running, "nothing is sent any more"
    assert run_cluster(job_of(tmp_path, url), engine_of=lambda job: ThreadEngine()).summary.answered == 60
    assert asked.texts.total() == 60


@pytest.mark.proof
def test_a_second_interrupt_during_the_first_rows_does_not_wait_for_the_grace_period(
    tmp_path: Path, url: str, asked: Asked
) -> None:
    table(tmp_path / "rows.csv", 60, TEXTS)
    stops = StopSwitch()

    def answer(text: str) -> ScriptedResponse | None:
        if asked.texts.total() <= 5:
            return None
        threading.Timer(0.1, stops.stop, [Interrupted(2)]).start()
        threading.Timer(0.3, stops.abort).start()
        return ScriptedResponse(delay_s=60.0)

    asked.answer = answer
    began = time.monotonic()
    with pytest.raises(Interrupted):
        run_cluster(job_of(tmp_path, url, grace=60), engine_of=lambda job: ThreadEngine(), stops=stops)
    assert time.monotonic() - began < 20
