"""A process of a cluster that answers shards: it begins the next one while the last answers of the former arrive."""

import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from threading import Lock
from uuid import uuid4

from batchllm.cluster.answer_log import ShardProgress
from batchllm.cluster.engine import ShardEnd, ShardTask
from batchllm.cluster.shard_run import run_shard
from batchllm.leases import Lease, LeaseRequest, Leases, Share
from batchllm.leases.messages import MARGIN

SIDE_BY_SIDE = 2
"""Attempts that run at the same time: one that sends, and one that begins or ends."""

LOOK_S = 0.1
"""How often it is looked whether an attempt may begin, or has the lease of the process."""

Ask = Callable[[LeaseRequest], Awaitable[Lease]]


class Worker:
    """Makes attempts at shards, each in a thread of its caller.

    Args:
        ask_of: Returns what takes requests for leases of a task to the service.
    """

    def __init__(self, ask_of: Callable[[ShardTask], Ask]) -> None:
        self._ask_of = ask_of
        self._lease = ProcessLease()
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
            renew=lambda request: self._lease.renew(request, ask, to_the_end=alone), worker=uuid4().hex
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


class ProcessLease:
    """Keeps the share of the limits that a process has; one of its attempts at shards has it at a time.

    The share goes to the next attempt when one has sent everything, while the last answers arrive. So the next one has
    it at once, also where a new holder grants nothing new yet. Without a next attempt it goes to other processes. What
    the former attempt sends again is leased to it as to a worker of its own. Attempts may run in threads.

    Args:
        clock: Tells the time, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._name = uuid4().hex
        self._number = 0
        self._lock = Lock()
        self._owner: str | None = None
        self._waiting: set[str] = set()
        self._former: set[str] = set()
        self._held: dict[str, Share] = {}
        self._until = 0.0

    async def renew(self, request: LeaseRequest, ask: Ask, *, to_the_end: bool = False) -> Lease:
        """Asks for the lease of an attempt; one that has to wait for the share gets an empty one.

        Args:
            request: What the attempt needs.
            ask: Takes a request to the service.
            to_the_end: The share goes on only when the run of the attempt is over.
        """
        if request.worker in self._former:
            if request.leaving:
                self._former.discard(request.worker)
            return await ask(request)
        if not self._is_owner(request):
            return Lease(number=request.number, renew_s=LOOK_S)
        if request.leaving:
            return await self._leave(request, ask)
        if self._waiting and _has_sent_all(request) and not to_the_end:
            nothing = {key: Share(rpm=0.0, tpm=0.0) for key in request.uses}
            lease = await self._with_budget(Lease(number=request.number, shares=nothing), request, ask)
            self._former.add(request.worker)
            self._owner = None
            return lease
        now = self._clock()
        lease = await ask(self._of_process(request, self._held if now < self._until else {}))
        if lease.shares:
            self._held, self._until = {**self._held, **lease.shares}, now + lease.ttl_s * (1.0 - MARGIN)
        return await self._with_budget(lease, request, ask)

    def _is_owner(self, request: LeaseRequest) -> bool:
        """Returns whether an attempt has the share, which it takes if nobody has."""
        with self._lock:
            if self._owner is None and not request.leaving:
                self._owner = request.worker
            is_owner = self._owner == request.worker
            if is_owner or request.leaving:
                self._waiting.discard(request.worker)
            else:
                self._waiting.add(request.worker)
            return is_owner

    def _of_process(self, request: LeaseRequest, held: dict[str, Share]) -> LeaseRequest:
        """Returns a request for the rates alone, by the process: with what it holds where the attempt does not know."""
        uses = {
            key: replace(use, holds_rpm=held[key].rpm or 0.0, holds_tpm=held[key].tpm or 0.0)
            if key in held and use.holds_rpm == use.holds_tpm == 0.0 and held[key].requests is None
            else use
            for key, use in request.uses.items()
        }
        self._number += 1
        return LeaseRequest(worker=self._name, number=self._number, uses=uses)

    async def _leave(self, request: LeaseRequest, ask: Ask) -> Lease:
        try:
            if not self._waiting:
                self._held = {}
                await ask(replace(self._of_process(request, {}), leaving=True))
            return await self._with_budget(Lease(number=request.number), request, ask)
        finally:
            self._owner = None

    async def _with_budget(self, lease: Lease, request: LeaseRequest, ask: Ask) -> Lease:
        """Returns a lease of the rates as the attempt's own, with what it may spend."""
        budget = None if request.budget is None else (await ask(replace(request, uses={}))).budget
        return replace(lease, number=request.number, budget=budget)


def _has_sent_all(request: LeaseRequest) -> bool:
    return bool(request.uses) and all(
        use.demand_rpm == use.demand_tpm == 0.0 for use in request.uses.values()
    )
