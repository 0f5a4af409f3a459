"""Leases over real processes: three workers, one limit, and a holder that is killed."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from batchllm.simulator import Simulator, SimulatorSettings, start_in_thread

pytestmark = pytest.mark.proof


class Cluster:
    """A simulator, a holder and workers; whatever is left of them is killed at the end."""

    def __init__(self, folder: Path, server: Simulator, budget: dict[str, Any], ttl_s: float) -> None:
        self.folder = folder
        self.server = server
        self.budget = budget
        self.ttl_s = ttl_s
        self.port = 0
        self.processes: list[subprocess.Popen[str]] = []
        self.holder = self.hold()

    def _start(self, *words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.lease_processes", *words],
            cwd=Path(__file__).parent.parent, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.processes.append(process)
        return process

    def hold(self) -> subprocess.Popen[str]:
        """Starts a holder, on the port of the one before."""
        state = str(self.folder / "state.json")
        self.holder = self._start("holder", str(self.port), state, json.dumps(self.budget), str(self.ttl_s))
        assert self.holder.stdout is not None
        self.port = int(self.holder.stdout.readline().split()[1])
        return self.holder

    def kill(self) -> None:
        """Kills whatever is left."""
        for process in self.processes:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()

    def work(self, name: str, rows: int, **flags: Any) -> subprocess.Popen[str]:
        """Starts a worker on rows of its own."""
        path = self.folder / f"{name}.csv"
        path.write_text("text\n" + "".join(f"{name} {row}\n" for row in range(rows)))
        flags = {
            "input": str(path),
            "prompt": "{{ text }}",
            "base_url": self.server.base_url,
            "model": "m",
            **flags,
        }
        return self._start("worker", str(self.port), name, json.dumps(flags))


@contextmanager
def cluster(
    folder: Path, *, ttl_s: float, budget: dict[str, Any] | None = None, **settings: Any
) -> Iterator[Cluster]:
    """Yields a cluster; nothing of it is left behind."""
    with start_in_thread(SimulatorSettings(**settings)) as server:
        found = Cluster(folder, server, budget or {}, ttl_s)
        try:
            yield found
        finally:
            found.kill()


@pytest.mark.timeout(240)
def test_three_workers_hold_one_limit_while_one_and_the_holder_are_killed(tmp_path: Path) -> None:
    with cluster(tmp_path, ttl_s=10.0, requests_per_minute=600, latency_s=0.3, headers=False) as found:
        ledger = found.server.ledger
        workers = [found.work(name, 1500, rpm=600) for name in "abc"]
        while not ledger.requests:
            time.sleep(0.05)
        began = time.monotonic()
        time.sleep(30.0)
        workers[0].kill()
        time.sleep(30.0)
        found.holder.kill()
        time.sleep(3.0)
        found.hold()
        time.sleep(47.0)
        sent, seconds = ledger.requests, time.monotonic() - began
    assert ledger.refused <= 0.001 * sent
    assert sent >= 0.93 * 10.0 * seconds
    assert sent <= 10.0 * seconds + 3


@pytest.mark.timeout(120)
def test_a_budget_holds_over_real_workers_although_one_and_the_holder_are_killed(tmp_path: Path) -> None:
    with cluster(tmp_path, ttl_s=2.0, budget={"requests": 400}, latency_s=0.1) as found:
        ledger = found.server.ledger
        workers = [found.work(name, 400, concurrency=4, max_requests=400) for name in "abc"]
        while ledger.requests < 100:
            time.sleep(0.02)
        workers[0].kill()
        found.holder.kill()
        time.sleep(0.5)
        found.hold()
        ends = [worker.wait(60) for worker in workers[1:]]
        said = [worker.stdout.read() for worker in workers[1:] if worker.stdout is not None]
    assert ends == [3, 3]
    assert all("--max-requests 400" in text for text in said)
    assert ledger.requests <= 400
    assert ledger.requests >= 400 - 400 // 10, "what the dead worker may have spent counts as spent"
