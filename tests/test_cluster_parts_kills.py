"""Parts under kills: workers and commands die at random moments, and no part is half there."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from batchllm.cluster.planner import plan_of_work
from batchllm.cluster.work import open_work
from batchllm.simulator import SimulatorSettings, start_in_thread
from tests.cluster_engine import ROOT
from tests.test_cluster_run import Asked, table

pytestmark = [pytest.mark.proof, pytest.mark.timeout(300)]

ROWS, IN_FLIGHT, LATENCY_S, WORKERS = 500, 12, 0.15, 3
LIVES_S = (2.0, 7.0)
"""How long a command lives before it is killed."""


def children_of(pid: int) -> list[int]:
    with suppress(OSError):
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def kill(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False


@contextmanager
def watched(folder: Path, work: Path) -> Iterator[list[str]]:
    """Looks at the parts all the time; yields what is wrong with one of them."""
    wrong: list[str] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.01):
            if not (work / "plan.json").exists():
                continue
            shards = plan_of_work(open_work(str(work))).shards
            for shard in shards:
                path = folder / f"part-{shard.number + 1:06}.csv"
                if path.exists() and len(path.read_text().splitlines()) != shard.rows + 1:
                    wrong.append(path.name)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield wrong
    finally:
        over.set()
        thread.join()


@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers of a command in /proc")
@pytest.mark.parametrize("seed", [1])
def test_every_row_is_in_one_part_and_few_are_paid_twice_whatever_is_killed(
    tmp_path: Path, asked: Asked, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    chance = random.Random(seed)
    texts = [f"text {number}" for number in range(ROWS)]
    table(tmp_path / "rows.csv", ROWS, texts)
    out, work = tmp_path / "out", tmp_path / "work"
    deaths = 0
    with (
        start_in_thread(SimulatorSettings(latency_s=LATENCY_S), script=asked) as simulator,
        watched(out, work) as wrong,
    ):
        flags = {
            "input": str(tmp_path / "rows.csv"), "base_url": simulator.base_url, "model": "m", "output": f"{out}/",
            "engine": "ray", "work": str(work), "concurrency": IN_FLIGHT, "wait_lock": 60,
        }  # fmt: skip
        command = [sys.executable, "-m", "tests.cluster_driver", json.dumps(flags)]
        for lives in (True, False):
            driver = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
            dies_at = time.monotonic() + (chance.uniform(*LIVES_S) if lives else 1e9)
            while driver.poll() is None:
                time.sleep(chance.uniform(0.3, 1.5))
                if time.monotonic() > dies_at:
                    deaths += kill(driver.pid) * WORKERS
                elif deaths < 8 and (living := children_of(driver.pid)):
                    deaths += kill(chance.choice(living))
            said, _ = driver.communicate()
            if driver.returncode == 0:
                break
        assert driver.returncode == 0 and deaths >= WORKERS
        paid = asked.texts.total()
        again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert again.returncode == 0 and asked.texts.total() == paid, again.stderr
    assert not wrong
    rows = [line.split(";") for path in sorted(out.iterdir()) for line in path.read_text().splitlines()[1:]]
    assert [row[1] for row in rows] == texts and all(row[2] for row in rows)
    assert {path.name[:5] for path in out.iterdir()} == {"part-"}, "nothing else is left"
    twice = {int(text.split()[-1]) + 1 for text, count in asked.texts.items() if count > 1}
    flush = IN_FLIGHT / WORKERS / LATENCY_S * 1.5
    assert len(twice) <= deaths * (IN_FLIGHT / WORKERS + flush), (len(twice), deaths)
    assert twice <= set(json.loads(said.splitlines()[-1])), "the summary names them"


@pytest.fixture
def asked() -> Asked:
    return Asked()
