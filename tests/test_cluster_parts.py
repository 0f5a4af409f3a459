"""A folder of parts as the output of a job on many machines."""

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas
import polars
import pyarrow.dataset
import pyarrow.parquet
import pytest

from batchllm.cluster.collect import plan_of_work
from batchllm.cluster.driver import run_cluster
from batchllm.cluster.work import open_work
from batchllm.errors import UsageError
from batchllm.job import Job
from batchllm.runner import Result, run_job
from batchllm.simulator import ScriptedResponse, SimulatorSettings, start_in_thread
from tests.fakes import chat_body
from tests.test_cluster_run import Asked, ThreadEngine, job_of, no_cluster, table

ROWS = 120


@pytest.fixture
def asked() -> Asked:
    return Asked()


@pytest.fixture
def url(asked: Asked, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with start_in_thread(SimulatorSettings(latency_s=0.005), script=asked) as simulator:
        yield simulator.base_url


def parts_job(folder: Path, url: str, **flags: Any) -> Job:
    return job_of(folder, url, **{"output": f"{folder / 'out'}/", **flags})


def run(job: Job) -> Result:
    return run_cluster(job, engine_of=lambda job: ThreadEngine())


def parts_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def test_the_parts_in_order_are_the_output_and_a_second_run_leaves_them_alone(
    tmp_path: Path, url: str, asked: Asked
) -> None:
    table(tmp_path / "rows.csv")
    job = parts_job(tmp_path, url)
    result = run(job)
    shards = plan_of_work(open_work(str(tmp_path / "work"))).shards
    parts = parts_in(tmp_path / "out")
    assert [path.name for path in parts] == [f"part-{shard.number + 1:06}.csv" for shard in shards]
    assert set((tmp_path / "out").iterdir()) == set(parts), "no marker, lock or journal is left"
    assert set(tmp_path.iterdir()) == {tmp_path / name for name in ("rows.csv", "out", "work", "state")}

    alone = run_job(job_of(tmp_path, url, output=str(tmp_path / "alone.csv")))
    assert alone.output is not None
    header, *rows = alone.output.read_text().splitlines()
    found = [path.read_text().splitlines() for path in parts]
    assert all(lines[0] == header for lines in found)
    assert [line for lines in found for line in lines[1:]] == rows
    for name in ("rows", "answered", "skipped", "failed", "requests", "attempts", "answers", "labels", "total_tokens",
                 "answered_before", "duplicate_rows", "finish_reasons", "cost"):  # fmt: skip
        assert getattr(result.summary, name) == getattr(alone.summary, name), name
    assert result.exit_status == 0 and result.output == tmp_path / "out"

    paid, times = asked.texts.total(), [path.stat().st_mtime_ns for path in parts]
    again = run_cluster(job, engine_of=no_cluster)
    assert asked.texts.total() == paid and [path.stat().st_mtime_ns for path in parts] == times
    assert again.summary.attempts == 0 and again.summary.answered == again.summary.answered_before == 100
