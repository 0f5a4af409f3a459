"""The figures of a job, while its shards change hands."""

import json
import time
from pathlib import Path
from typing import Any

from batchllm.cluster.figures import FiguresReader
from batchllm.cluster.plan import ClusterPlan, Shard
from batchllm.cluster.work import WorkFolder, claim_name, done_name, open_work, state_name
from batchllm.formats import InputStatistics

SHARDS = tuple(Shard(number, 100 * number, 100, "", None) for number in range(3))
PLAN = ClusterPlan("in", InputStatistics(300, 0, "", ("text",), ()), (), "/", None, {}, SHARDS, {})


def attempt(work: WorkFolder, shard: int, number: int, done: int, **state: Any) -> None:
    """Writes how far an attempt is."""
    at = {
        "time": time.time(),
        "began": time.time() - 10,
        "node": "n",
        "pid": 1,
        "waits": "",
        "attempt": number,
    }
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
    work.create(done_name(PLAN.shards[1]), json.dumps({"summary": {"failed": 0}}).encode())
    assert reader.read({1}).done == 140 == reader.read(set()).done


def test_a_process_that_ends_a_shard_and_begins_the_next_one_is_one_worker(tmp_path: Path) -> None:
    work = open_work(str(tmp_path))
    attempt(work, 0, 1, 99)
    attempt(work, 1, 1, 0)
    attempt(work, 2, 1, 5, pid=2)
    figures = FiguresReader(work, PLAN).read()
    assert "2 workers" in figures.note() and sorted(figures.workers) == [0, 1, 2]


def test_the_rate_is_that_of_the_processes_at_work_also_after_a_night_and_whatever_their_clocks_say(
    tmp_path: Path,
) -> None:
    work = open_work(str(tmp_path))
    now = time.time()
    attempt(work, 0, 1, 50, run="1", time=now - 36_000, began=now - 36_010)  # yesterday's command
    attempt(work, 0, 2, 60, run="2", answers=10)
    attempt(work, 1, 1, 20, run="2", pid=2, time=now + 3600, began=now + 3590)  # its clock is an hour ahead
    reader = FiguresReader(work, PLAN)
    figures = reader.read()
    assert sorted(figures.workers) == [0] and round(figures.per_minute or 0) == 60
    attempt(work, 1, 1, 25, run="2", pid=2, time=now + 3602, began=now + 3590)
    figures = reader.read()
    assert sorted(figures.workers) == [0, 1], "it reports"
    assert round(figures.per_minute or 0) == 60 + 125
