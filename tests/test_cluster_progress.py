"""The figures of a job, while its shards change hands."""

import json
import time
from pathlib import Path
from typing import Any

from batchllm.cluster.plan import ClusterPlan, Shard
from batchllm.cluster.progress import FiguresReader, begun_rows
from batchllm.cluster.work import WorkFolder, claim_name, done_name, open_work, state_name
from batchllm.formats import InputStatistics

SHARDS = tuple(Shard(number, 100 * number, 100, "", None) for number in range(3))
PLAN = ClusterPlan("in", InputStatistics(300, 0, "", ("text",), ()), (), "/", None, {}, SHARDS, {})


def attempt(work: WorkFolder, shard: int, number: int, done: int, **state: Any) -> None:
    """Writes how far an attempt is."""
    at = {"time": time.time(), "began": time.time() - 10, "node": "n", "pid": 1, "waits": ""}
    counted = {"failed": 0, "tokens": done, "sent": done, "answers": done, "rate_limited": 0}
    work.create(claim_name(PLAN.shards[shard], number), b"{}")
    text = json.dumps({"done": done, **at, **counted, **state})
    work.put(state_name(PLAN.shards[shard], number), text.encode())


def test_the_bar_never_goes_back_when_a_command_goes_on_with_what_others_have_begun(tmp_path: Path) -> None:
    work = open_work(str(tmp_path))
    attempt(work, 1, 1, 60, time=0.0)
    attempt(work, 2, 1, 40, time=0.0)
    reader = FiguresReader(work, PLAN)
    assert reader.read().done == 100
    assert reader.read(set()).done == 100, "nothing has begun again"
    attempt(work, 1, 2, 0)
    assert reader.read({1}).done == 100, "the next attempt has not read the logs yet"
    attempt(work, 1, 2, 75)
    assert reader.read({1}).done == 115
    done = {"run": "one", "attempt": 2, "exit_status": 0, "frames": [0], "summary": {"failed": 0}}
    work.create(done_name(PLAN.shards[1]), json.dumps(done).encode())
    assert reader.read({1}).done == 140 == reader.read(set()).done


def test_a_process_that_ends_a_shard_and_begins_the_next_one_is_one_worker(tmp_path: Path) -> None:
    work = open_work(str(tmp_path))
    attempt(work, 0, 1, 99)
    attempt(work, 1, 1, 0)
    attempt(work, 2, 1, 5, pid=2)
    figures = FiguresReader(work, PLAN).read()
    assert "2 workers" in figures.note() and sorted(figures.workers) == [0, 1, 2]


def test_the_rate_is_that_since_the_last_break_between_two_commands(tmp_path: Path) -> None:
    work, now = open_work(str(tmp_path)), time.time()
    attempt(work, 0, 1, 90, began=now - 36_100, time=now - 36_000)
    attempt(work, 1, 1, 90, began=now - 36_050, time=now - 36_000)
    attempt(work, 1, 2, 95, began=now - 20, time=now - 10, answers=5)
    attempt(work, 2, 1, 15, began=now - 10, time=now)
    figures = FiguresReader(work, PLAN).read()
    assert figures.per_minute is not None and abs(figures.per_minute - 60) < 1, "20 answers in 20 s"
    assert figures.to_text("work").startswith("work: running now\n")


def test_what_was_at_work_hours_ago_is_not_running(tmp_path: Path) -> None:
    work = open_work(str(tmp_path))
    attempt(work, 0, 1, 30, began=time.time() - 3700, time=time.time() - 3600)
    attempt(work, 0, 2, 45, failed=5, began=time.time() - 3600, time=time.time() - 3500)
    attempt(work, 2, 1, 250, began=time.time() - 3600, time=time.time() - 3500)
    assert FiguresReader(work, PLAN).read().to_text("work").startswith("work: not finished\n")
    assert begun_rows(work, SHARDS) == 40 + 100, "without those that failed"
