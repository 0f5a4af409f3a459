"""Engines on this machine: of threads, and of plain processes, each of which a test can kill."""

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from threading import Lock
from typing import Any
from uuid import uuid4

from batchllm.cluster.engine import ShardEnd, ShardTask
from batchllm.cluster.lease_service import JobBudget, LeaseService
from batchllm.cluster.shard_run import check_node, run_shard
from batchllm.leases import Lease, LeaseRequest, Leases

ROOT = Path(__file__).parent.parent


class LocalEngine:
    """What engines of one machine share.

    Args:
        workers: How many attempts at a time.
        environs: The environment of each node.

    Attributes:
        running: The attempts that have not ended, by what runs them.
    """

    def __init__(self, workers: int, environs: Sequence[Mapping[str, str]] = (os.environ,)) -> None:
        self.workers = workers
        self.running: dict[Any, ShardTask] = {}
        self._environs = environs

    @property
    def room(self) -> int:
        return self.workers - len(self.running)

    def check(self, task: ShardTask) -> Sequence[ShardEnd]:
        return [check_node(task, environ) for environ in self._environs]


class ThreadEngine(LocalEngine):
    """Runs attempts in threads of the test."""

    def __init__(self, workers: int = 3, environ: dict[str, str] | None = None) -> None:
        super().__init__(workers, [dict(os.environ) if environ is None else environ])
        self.submitted: list[int] = []
        self._pool = ThreadPoolExecutor(workers)
        self._service = LeaseService()
        self._lock = Lock()

    def leases(self, task: ShardTask) -> Leases:
        async def renew(request: LeaseRequest) -> Lease:
            with self._lock:
                return self._service.renew(JobBudget.of(task.job, task.work, task.run), request)

        return Leases(renew=renew, worker=uuid4().hex)

    def submit(self, task: ShardTask) -> None:
        self.submitted.append(task.shard)
        self.running[self._pool.submit(run_shard, task, self._environs[0], self.leases(task))] = task

    def ended(self, timeout_s: float) -> Sequence[tuple[ShardTask, ShardEnd | None]]:
        done, _ = wait(self.running, timeout_s, FIRST_COMPLETED)
        return [(self.running.pop(future), future.result()) for future in done]

    def cancel(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


class ProcessEngine(LocalEngine):
    """Runs attempts in processes of this machine.

    Args:
        workers: How many at a time.
        watch: Called while it waits.
        environs: The environment of each node; attempts go to one after the other.

    Attributes:
        submitted: The shards of all attempts, in order.
    """

    def __init__(
        self,
        workers: int = 2,
        *,
        watch: Callable[["ProcessEngine"], None] = lambda engine: None,
        environs: Sequence[Mapping[str, str]] = (os.environ,),
    ) -> None:
        super().__init__(workers, environs)
        self.submitted: list[int] = []
        self._watch = watch

    def leases(self, task: ShardTask) -> None:
        return None

    def submit(self, task: ShardTask) -> None:
        environ = self._environs[len(self.submitted) % len(self._environs)]
        self.submitted.append(task.shard)
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.cluster_engine"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=environ,
        )
        assert process.stdin is not None
        process.stdin.write(pickle.dumps(task))
        process.stdin.close()
        self.running[process] = task

    def ended(self, timeout_s: float) -> Sequence[tuple[ShardTask, ShardEnd | None]]:
        self._watch(self)
        until = time.monotonic() + timeout_s
        while not (over := [each for each in self.running if each.poll() is not None]):
            if time.monotonic() >= until:
                return []
            time.sleep(0.02)
        return [(self.running.pop(process), _end_of(process)) for process in over]

    def kill_one(self) -> int:
        """Kills a process without warning; returns the number of its shard."""
        process, task = next(iter(self.running.items()))
        process.kill()
        return task.shard

    def cancel(self) -> None:
        for process in self.running:
            process.kill()
            process.wait()


def _end_of(process: "subprocess.Popen[bytes]") -> ShardEnd | None:
    assert process.stdout is not None
    text = process.stdout.read()
    process.stdout.close()
    if process.returncode != 0:
        return None
    end: ShardEnd = pickle.loads(text)
    return end


def main() -> None:
    end = run_shard(pickle.load(sys.stdin.buffer), os.environ)
    sys.stdout.buffer.write(pickle.dumps(end))


if __name__ == "__main__":
    main()
