"""An engine of plain processes: each attempt at a shard is one that a test can kill."""

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from batchllm.cluster.shard_run import ShardEnd, ShardTask, check_node, run_shard

ROOT = Path(__file__).parent.parent


class ProcessEngine:
    """Runs attempts in processes of this machine.

    Args:
        workers: How many at a time.
        watch: Called while it waits.
        environs: The environment of each node; attempts go to one after the other.

    Attributes:
        living: The attempts that have not ended, by process.
        submitted: The shards of all attempts, in order.
    """

    def __init__(
        self,
        workers: int = 2,
        *,
        watch: Callable[["ProcessEngine"], None] = lambda engine: None,
        environs: Sequence[Mapping[str, str]] = (os.environ,),
    ) -> None:
        self.workers = workers
        self.living: dict[subprocess.Popen[bytes], ShardTask] = {}
        self.submitted: list[int] = []
        self._watch = watch
        self._environs = environs

    @property
    def room(self) -> int:
        return self.workers - len(self.living)

    def check(self, task: ShardTask) -> Sequence[ShardEnd]:
        return [check_node(task, environ) for environ in self._environs]

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
        self.living[process] = task

    def ended(self, timeout_s: float) -> Sequence[tuple[ShardTask, ShardEnd | None]]:
        self._watch(self)
        until = time.monotonic() + timeout_s
        while not (over := [each for each in self.living if each.poll() is not None]):
            if time.monotonic() >= until:
                return []
            time.sleep(0.02)
        return [(self.living.pop(process), _end_of(process)) for process in over]

    def kill_one(self) -> int:
        """Kills a process without warning; returns the number of its shard."""
        process, task = next(iter(self.living.items()))
        process.kill()
        return task.shard

    def cancel(self) -> None:
        for process in self.living:
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
