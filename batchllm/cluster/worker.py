"""A process of a cluster that answers shards: it begins the next one while the last answers of the former arrive."""

import os
import time
from collections.abc import Callable
from threading import Lock
from uuid import uuid4

from batchllm.cluster.answer_log import ShardProgress
from batchllm.cluster.engine import ShardEnd, ShardTask
from batchllm.cluster.seat import Ask, SeatKeeper
from batchllm.cluster.shard_run import run_shard
from batchllm.leases import Leases

SIDE_BY_SIDE = 2
"""Attempts that run at the same time: one that sends, and one that begins or ends."""
LOOK_S = 0.1


class Worker:
    """Makes attempts at shards, each in a thread of its caller.

    Args:
        ask_of: Returns what takes requests for leases of a task to the service.
    """

    def __init__(self, ask_of: Callable[[ShardTask], Ask]) -> None:
        self._ask_of = ask_of
        self._seat = SeatKeeper()
        self._lock = Lock()
        self._begun = 0
        self._running: list[ShardProgress] = []

    def ready(self, begun: int = 0) -> None:
        """Returns when another attempt may begin: none runs, or the one that does is near its end.

        Args:
            begun: Attempts that were given to it, and that may not have begun.
        """
        while True:
            with self._lock:
                running = list(self._running)
                has_begun = self._begun >= begun
            if has_begun and len(running) < SIDE_BY_SIDE and all(each.ends_soon for each in running):
                return
            time.sleep(LOOK_S)

    def run(self, task: ShardTask) -> ShardEnd:
        """Makes an attempt at a shard; see ``run_shard``.

        With ``--concurrency`` no request of it leaves before the former attempt is over.
        """
        ask, alone = self._ask_of(task), task.job.pace.concurrency is not None
        leases = Leases(
            renew=lambda request: self._seat.renew(request, ask, to_the_end=alone), worker=uuid4().hex
        )
        progress = ShardProgress()
        with self._lock:
            self._running.append(progress)
            self._begun += 1
        try:
            return run_shard(task, os.environ, leases, progress)
        finally:
            with self._lock:
                self._running.remove(progress)
