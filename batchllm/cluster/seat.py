"""The share of the limits that a process has, over the attempts at shards that it makes."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from threading import Lock
from uuid import uuid4

from batchllm.leases import Lease, LeaseRequest, Share
from batchllm.leases.terms import MARGIN

Ask = Callable[[LeaseRequest], Awaitable[Lease]]

LOOK_S = 0.1
"""How often an attempt that waits for the share asks whether it has it."""


class SeatKeeper:
    """Keeps the share of a process, which one attempt has at a time, and hands it to the next one.

    It goes on when an attempt has sent everything, while the last answers arrive: the next attempt has it at once, also
    where a new holder grants nothing new yet. Without a next one it goes to other processes. What the former attempt
    sends again is leased to it as to a worker of its own. Attempts may run in threads of their own.

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
        lease = await ask(self._of_seat(request, self._held if now < self._until else {}))
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

    def _of_seat(self, request: LeaseRequest, held: dict[str, Share]) -> LeaseRequest:
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
                await ask(replace(self._of_seat(request, {}), leaving=True))
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
