"""A worker begins the next shard while the last answers of the former arrive."""

import csv
import time
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import Any

import pytest

from batchllm.cluster.answer_log import ShardProgress
from batchllm.cluster.driver import run_cluster
from batchllm.job import assemble
from batchllm.simulator import SimulatorSettings, start_in_thread
from tests.cluster_workers import WorkerEngine


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_shard_is_near_its_end_by_its_rate_and_the_time_that_the_next_one_needs() -> None:
    clock = Clock()
    progress = ShardProgress(clock)
    clock.now += 2.0  # reading logs and input
    progress.start(100, 0)
    near = []
    for done in range(100):
        clock.now += 1.0
        progress.show(done, 0, None, "")
        near.append(progress.ends_soon)
    assert near.index(True) == 95, "three seconds and two before its end"
    clock.now += 600.0
    progress.show(99, 0, None, "")
    assert progress.ends_soon, "also where its last answer is late"


def test_rows_that_the_logs_have_say_nothing_of_the_rate() -> None:
    clock = Clock()
    progress = ShardProgress(clock)
    progress.start(1000, 0)
    for tick in range(40):
        clock.now += 0.5
        progress.show(900 + tick // 2, 0, None, "")
        assert not progress.ends_soon


@pytest.mark.proof
@pytest.mark.parametrize("concurrency", [None, 3])
def test_the_limit_is_used_also_while_shards_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, concurrency: int | None
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    texts = [f"row {number}" for number in range(160)]
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["text"], *([text] for text in texts)])
    sent: list[tuple[float, int]] = []
    lock = Lock()

    def asked(body: Any) -> None:
        with lock:
            sent.append((time.monotonic(), int(body["messages"][-1]["content"].split()[-1])))

    with start_in_thread(SimulatorSettings(latency_s=0.2), script=asked) as simulator:
        given = {
            "input": str(tmp_path / "rows.csv"), "prompt": "{{ text }}", "model": "m", "engine": "ray",
            "base_url": simulator.base_url, "output": str(tmp_path / "out.csv"), "work": str(tmp_path / "work"),
            "rpm": 1800, "concurrency": concurrency,
        }  # fmt: skip
        job = assemble("run", {name: value for name, value in given.items() if value is not None}, {})
        engine = WorkerEngine(1)
        result = run_cluster(job, engine_of=lambda job: engine)
    with (tmp_path / "out.csv").open(newline="") as file:
        assert [row["text"] for row in csv.DictReader(file)] == texts
    assert result.exit_status == 0 and len(sent) == 160
    assert engine.most_side_by_side == 2
    if concurrency is None:
        times = [at for at, row in sent if row >= 20]
        assert (len(times) - 1) / 30.0 / (times[-1] - times[0]) >= 0.8
    else:  # no request of the next shard leaves before the last answer of the former one
        rows = [row for _, row in sent]
        assert max(row - later for row, later in pairwise(rows)) <= concurrency
