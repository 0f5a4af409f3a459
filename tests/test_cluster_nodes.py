"""What each machine of a cluster has to have, and what may not travel to it."""

import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batchllm.cluster.driver import run_cluster
from batchllm.cluster.engine import ShardTask, error_of
from batchllm.cluster.headers import with_own_headers, without_secrets
from batchllm.cluster.shard_run import check_node, run_shard
from batchllm.errors import CannotWrite, UsageError
from batchllm.job import Job, assemble
from tests.cluster_engine import ProcessEngine, ThreadEngine
from tests.test_cluster_run import Asked, asked, job_of, table, url

__all__ = ["asked", "url"]


def test_one_node_without_the_key_stops_the_job_before_the_first_request(
    tmp_path: Path, url: str, asked: Asked
) -> None:
    table(tmp_path / "rows.csv")
    job = pickle.loads(pickle.dumps(job_of(tmp_path, url)))
    nodes = [dict(os.environ), {name: value for name, value in os.environ.items() if "API_KEY" not in name}]
    with pytest.raises(UsageError, match="on node .*OPENAI_API_KEY"):
        run_cluster(job, engine_of=lambda job: ProcessEngine(environs=nodes))
    assert asked.texts.total() == 0 and not (tmp_path / "work" / "plan.json").exists()


@pytest.mark.parametrize("step", [check_node, pytest.param(run_shard, marks=pytest.mark.proof)])
def test_a_node_without_a_temporary_folder_cannot_write(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch, step: Any
) -> None:
    table(tmp_path / "rows.csv", 30)
    if step is run_shard:
        run_cluster(job_of(tmp_path, url), engine_of=lambda job: ThreadEngine())
        (tmp_path / "work" / "done" / "000001.json").unlink()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "unmounted"))
    task = ShardTask(job=job_of(tmp_path, url), work=str(tmp_path / "work"), shard=1, run="r")
    end = step(task, os.environ)
    error = error_of(end)
    assert isinstance(error, CannotWrite) and error.exit_status == 73
    assert f"on {end.node}" in str(error) and "unmounted" in str(error) and "TMPDIR" in str(error)


def with_header(environ: dict[str, str], **flags: Any) -> Job:
    given = {"input": "rows.csv", "base_url": "http://127.0.0.1:1", "model": "m", **flags}
    return assemble("classify", given, {"OPENAI_API_KEY": "k", **environ})


def test_a_header_of_the_environment_travels_by_its_name() -> None:
    environ = {"BATCHLLM_HEADER": "X-Tenant=abcdef123"}
    job = with_header(environ, header={"X-Title": "reviews"}, base_url=["http://a:1", "http://b:1"])
    told = without_secrets(job, environ)
    data = pickle.dumps(ShardTask(job=told, work="w", shard=0, run="r"))
    assert b"abcdef123" not in data and b"reviews" in data
    other = with_own_headers(pickle.loads(data).job, {"BATCHLLM_HEADER": "X-Tenant=of-node"})
    for each in (other.endpoint, *(several.endpoint for several in other.endpoints)):
        assert each.headers == {"X-Title": "reviews", "X-Tenant": "of-node"}
    with pytest.raises(UsageError, match="BATCHLLM_HEADER has no X-Tenant"):
        with_own_headers(told, {"BATCHLLM_HEADER": "X-Other=1"})


def test_a_secret_header_that_every_node_would_be_told_is_refused_before_anything_is_sent(
    tmp_path: Path,
) -> None:
    table(tmp_path / "rows.csv")
    job = job_of(tmp_path, "http://127.0.0.1:1", header={"X-Token": "123456"})
    with pytest.raises(UsageError, match=r"--header X-Token: .* BATCHLLM_HEADER='X-Token=…'") as refused:
        run_cluster(job, engine_of=lambda job: pytest.fail("it connects to no cluster"))
    assert "123456" not in str(refused.value) and not (tmp_path / "work").exists()


def test_workers_are_told_the_whole_path_of_the_input(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker has another working directory: that of its node."""
    monkeypatch.chdir(tmp_path)
    table(tmp_path / "rows.csv", 30)
    told: set[Path] = set()

    class Listening(ThreadEngine):
        def submit(self, task: ShardTask) -> None:
            told.update(task.job.inputs)
            super().submit(task)

    job = replace(job_of(tmp_path, url), inputs=(Path("rows.csv"),))
    assert run_cluster(job, engine_of=lambda job: Listening()).exit_status == 0
    assert told == {tmp_path / "rows.csv"}
