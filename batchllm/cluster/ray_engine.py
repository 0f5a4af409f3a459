"""The engine of Ray: workers are actors on the nodes of a cluster that exists.

It never starts a cluster: Ray listens on all interfaces and has no authentication. Everybody who sees the cluster can
see the arguments of its tasks, so the job has no key in it; each node reads the key from its own environment.
"""

import logging
import os
import socket
from collections import Counter
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from batchllm.cluster.engine import ShardEnd, ShardTask
from batchllm.cluster.lease_service import JobBudget, LeaseService
from batchllm.cluster.shard_run import check_node
from batchllm.cluster.worker import SIDE_BY_SIDE, Ask, Worker
from batchllm.errors import INTERNAL_ERROR, Unavailable, UsageError
from batchllm.extras import install_command
from batchllm.job import Job
from batchllm.leases import Lease, LeaseRequest, Leases
from batchllm.stopping import stopping_signals

try:
    import ray
    from ray import exceptions
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
except ImportError:
    raise UsageError(
        f"--engine ray needs Ray, here and on every node; install with: {install_command('ray')}"
    ) from None

NAMESPACE = "batchllm"
LEASES = "batchllm leases"
"""The name of the actor that leases limits."""
ANSWER_S, TOGETHER_S = 120.0, 10.0
"""How long the first worker, and the check of a node, may take; and how long the other workers are waited for."""

CONNECT_S = 10.0
"""How long the head of the cluster may take to accept a connection."""

_NO_CLUSTER = (
    "there is no Ray cluster at {} ({}); start one with `ray start --head`, or name it with --ray-address"
)
_SILENT = "it did not answer; see `ray status`, and the logs of Ray there"


class RayEngine:
    """Runs attempts at shards in actors, each one attempt at a time, and the next one while the last one ends.

    One that died is replaced, and not restarted by Ray, so that its shard goes to the next free one.

    Args:
        job: The job, with ``ray_address`` and ``workers``.

    Attributes:
        workers: How many shards are answered side by side: ``--workers``, or one for each node.

    Raises:
        Unavailable: There is no cluster at that address, or it runs no actor.
        UsageError: The address is none.
    """

    def __init__(self, job: Job) -> None:
        _connect(job.ray_address)
        nodes = ray.nodes()  # type: ignore[no-untyped-call]
        self._nodes = [node for node in nodes if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
        if not self._nodes:
            raise Unavailable(f"no node of the Ray cluster at {job.ray_address} has a CPU for a worker")
        self.workers = job.workers or len(self._nodes)
        self._given: dict[Any, int] = {}  # to each worker that lives, how many attempts
        self._free: set[Any] = set()
        self._running: dict[Any, tuple[ShardTask, Any]] = {}
        self._awaited: dict[Any, Any] = {}  # what becomes ready, and the worker
        for _ in range(self.workers):
            self._begin_worker()
        leases = _lease_actor().ready.remote()
        known, _ = ray.wait([leases], timeout=ANSWER_S)
        ray.wait(list(self._awaited), timeout=ANSWER_S)
        ray.wait(list(self._awaited), num_returns=self.workers, timeout=TOGETHER_S)
        if not known or not self.room:
            raise Unavailable(
                f"the Ray cluster at {job.ray_address} begins no worker within {ANSWER_S:g} s: see `ray status` for "
                "free CPUs, and the logs of Ray on its nodes"
            )

    @property
    def room(self) -> int:
        """How many attempts can begin at this moment: actors that are ready for one."""
        self._look()
        return len(self._free)

    def check(self, task: ShardTask) -> Sequence[ShardEnd]:
        """Calls ``check_node`` on each node; see ``Engine``."""
        checks = {}
        for node in self._nodes:
            here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            options = {"scheduling_strategy": here, "num_cpus": 0, "max_retries": 0, "name": "batchllm check"}
            checks[_check.options(**options).remote(task)] = node["NodeName"]
        done, _ = ray.wait(list(checks), num_returns=len(checks), timeout=ANSWER_S)
        return [
            (ref in done and _end_of(ref, task))
            or ShardEnd(shard=0, node=node, exit_status=int(Unavailable.exit_status), error=_SILENT)
            for ref, node in checks.items()
        ]

    def leases(self, task: ShardTask) -> Leases:
        """Returns the leases of an attempt in this process; see ``Engine``."""
        return Leases(renew=_asking(task), worker=uuid4().hex)

    def submit(self, task: ShardTask) -> None:
        """Begins an attempt at a shard; see ``Engine``."""
        busy = Counter(worker for _, worker in self._running.values())
        worker = min(self._free, key=busy.__getitem__)
        self._free.discard(worker)
        self._running[worker.run.options(name=f"batchllm shard {task.shard}").remote(task)] = task, worker
        self._given[worker] += 1
        self._awaited[worker.ready.remote(self._given[worker])] = worker

    def ended(self, timeout_s: float) -> Sequence[tuple[ShardTask, ShardEnd | None]]:
        """Waits for attempts to end, or for room; see ``Engine``."""
        self._look()
        ray.wait([*self._running, *self._awaited], num_returns=1, timeout=timeout_s)
        done, _ = ray.wait(list(self._running), num_returns=max(1, len(self._running)), timeout=0)
        ends = []
        for ref in done:
            task, worker = self._running.pop(ref)
            end = _end_of(ref, task)
            if end is None:
                self._replace(worker)
            ends.append((task, end))
        return ends

    def cancel(self) -> None:
        """Kills the attempts that have not ended."""
        for _, worker in self._running.values():
            ray.kill(worker)
        self._running.clear()

    def _look(self) -> None:
        """Looks which workers have become ready."""
        done, _ = ray.wait(list(self._awaited), num_returns=max(1, len(self._awaited)), timeout=0)
        for ref in done:
            worker = self._awaited.pop(ref)
            try:
                ray.get(ref)
            except exceptions.RayError:
                self._replace(worker)
            else:
                self._free.add(worker)

    def _begin_worker(self) -> None:
        worker = ShardWorker.options(  # type: ignore[attr-defined]
            scheduling_strategy="SPREAD", num_cpus=1, max_restarts=0, max_concurrency=SIDE_BY_SIDE + 1
        ).remote()
        self._given[worker] = 0
        self._awaited[worker.ready.remote(0)] = worker

    def _replace(self, worker: Any) -> None:
        """Begins another worker in the place of one that died; each of its calls says that it did."""
        if self._given.pop(worker, None) is not None:
            self._free.discard(worker)
            self._begin_worker()


def _connect(address: str) -> None:
    """Connects to a cluster.

    Raises:
        Unavailable: There is none at that address.
        UsageError: Ray would start one.
    """
    if ray.is_initialized():
        return
    if address == "local" or (address == "auto" and os.environ.get("RAY_ADDRESS") == "local"):
        raise UsageError(
            "--ray-address names a cluster that exists, and 'local' starts one; see `ray start --help`"
        )
    _refuse_silent(address)
    try:
        with stopping_signals():  # Ray takes SIGTERM, which stops a job in order
            ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise Unavailable(_NO_CLUSTER.format(address, reason)) from None


def _refuse_silent(address: str) -> None:
    """Refuses an address at which nothing listens, which Ray would try for minutes."""
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", "auto")
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if not (colon and port.isdigit() and 0 < int(port) < 65536):
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
    except OSError as error:
        raise Unavailable(_NO_CLUSTER.format(address, error.strerror or error)) from None


@ray.remote
class ShardWorker(Worker):
    """A worker as an actor, in a process of its own; its methods run in threads, so attempts are side by side."""

    def __init__(self) -> None:
        from batchllm.client import Client  # noqa: F401 - it takes a second to load, which the first shard does not wait

        super().__init__(_asking)


@ray.remote
class LeaseActor(LeaseService):
    """The service of the leases, as an actor that Ray starts again when it dies."""

    def __init__(self) -> None:
        super().__init__(restarted=ray.get_runtime_context().was_current_actor_reconstructed)

    def ready(self) -> None:
        """Returns when it can answer."""


def _lease_actor() -> Any:
    """Returns the one actor of the cluster; all jobs share it, since they may share an endpoint.

    It is on the head where that has room, with which the cluster ends anyway.
    """
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    head = [node["NodeID"] for node in nodes if "node:__internal_head__" in node["Resources"]]
    where = NodeAffinitySchedulingStrategy(head[0], soft=True) if head else "DEFAULT"
    return LeaseActor.options(  # type: ignore[attr-defined]
        name=LEASES,
        scheduling_strategy=where,
        namespace=NAMESPACE,
        get_if_exists=True,
        lifetime="detached",
        max_restarts=-1,
        max_task_retries=0,  # the run asks again itself
        num_cpus=0,
    ).remote()


def _asking(task: ShardTask) -> Ask:
    """Returns what takes requests for the leases of a task to the actor."""
    actor, budget = _lease_actor(), JobBudget.of(task.job, task.work, task.run)

    async def ask(request: LeaseRequest) -> Lease:
        lease: Lease = await actor.renew.remote(budget, request)
        return lease

    return ask


@ray.remote
def _check(task: ShardTask) -> ShardEnd:
    return check_node(task, os.environ)


def _end_of(ref: Any, task: ShardTask) -> ShardEnd | None:
    """Returns how a task ended; ``None`` if its worker died."""
    try:
        end: ShardEnd = ray.get(ref)
    except exceptions.RayTaskError as error:
        text = f"Ray could not run it: {error.cause!r}"
        return ShardEnd(shard=task.shard, node="a node", exit_status=INTERNAL_ERROR, error=text)
    except exceptions.RayError:
        return None
    return end
