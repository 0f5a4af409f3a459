"""An engine whose workers are objects of the test; each begins a shard while the last one ends, as Ray's do."""

import os
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from threading import Lock
from typing import Any
from uuid import uuid4

from batchllm.cluster.engine import ShardEnd, ShardTask
from batchllm.cluster.lease_service import JobBudget, LeaseService
from batchllm.cluster.shard_run import check_node
from batchllm.cluster.worker import Ask, Worker
from batchllm.leases import Lease, LeaseRequest, Leases


class WorkerEngine:
    """Runs attempts in workers, which share the leases of one service."""

    def __init__(self, workers: int = 1) -> None:
        self.workers = workers
        self._service, self._lock = LeaseService(), Lock()
        self._pool = ThreadPoolExecutor(4 * workers + 4)
        self._given = {Worker(self._asking): 0 for _ in range(workers)}
        self._free = set(self._given)
        self._awaited: dict[Future[Any], Worker] = {}
        self._running: dict[Future[ShardEnd], ShardTask] = {}
        self.most_side_by_side = 0

    @property
    def room(self) -> int:
        for future in [each for each in self._awaited if each.done()]:
            self._free.add(self._awaited.pop(future))
        return len(self._free)

    def check(self, task: ShardTask) -> Sequence[ShardEnd]:
        return [check_node(task, os.environ)]

    def leases(self, task: ShardTask) -> Leases:
        return Leases(renew=self._asking(task), worker=uuid4().hex)

    def submit(self, task: ShardTask) -> None:
        worker = self._free.pop()
        self._given[worker] += 1
        self._running[self._pool.submit(worker.run, task)] = task
        self._awaited[self._pool.submit(worker.ready, self._given[worker])] = worker
        self.most_side_by_side = max(self.most_side_by_side, len(self._running))

    def ended(self, timeout_s: float) -> Sequence[tuple[ShardTask, ShardEnd | None]]:
        _ = self.room
        wait({*self._running, *self._awaited}, timeout_s, FIRST_COMPLETED)
        over = [future for future in self._running if future.done()]
        return [(self._running.pop(future), future.result()) for future in over]

    def cancel(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _asking(self, task: ShardTask) -> Ask:
        budget = JobBudget.of(task.job, task.work, task.run)

        async def ask(request: LeaseRequest) -> Lease:
            with self._lock:
                return self._service.renew(budget, request)

        return ask
