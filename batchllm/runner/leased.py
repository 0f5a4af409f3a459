"""A run under leases: it asks for them, obeys them, and gives back what it holds at its end."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from batchllm.budget.budget import Budget
from batchllm.errors import Unavailable
from batchllm.leases import Lease, Leases, Share, Use
from batchllm.leases.client import LeaseClient
from batchllm.leases.demand import DemandMeter
from batchllm.leases.leased_budget import LeasedBudget
from batchllm.leases.messages import RENEW_S, TTL_S, key_of
from batchllm.limiter import Limiter
from batchllm.limiter.lease import LaneLease
from batchllm.printable import one_line
from batchllm.records import Pace
from batchllm.stopping import RunStop

log = logging.getLogger("batchllm.leases")

SOON_S = 0.1
"""When to ask again while a model has no lease yet, and the shortest time between two requests."""
MOST_WORDS = 200
"""Characters of the error of what carries the requests."""
LEAVE_S = 2.0
"""How long giving back may take at the end of a run."""


class LeaseLoop:
    """Renews the leases of one run.

    Args:
        leases: How to reach the holder.
        limiters: By the name of an endpoint, its limiter, made with ``leased``, and its whole limits.
        budget: The run's budget.
        wake: Called when a lease has come.
        run_stop: Stops the run where the holder has not answered for longer than ``--max-outage``.
    """

    def __init__(
        self,
        leases: Leases,
        limiters: Mapping[str, tuple[Limiter[Any], Pace]],
        budget: Budget,
        wake: Callable[[], object],
        run_stop: RunStop,
    ) -> None:
        self._renew = leases.renew
        self._limiters = limiters
        self._budget = budget if isinstance(budget, LeasedBudget) else None
        self._wake = wake
        self._stop = run_stop
        self._client = LeaseClient(leases.worker)
        self._loop = asyncio.get_running_loop()
        self._meters: dict[str, DemandMeter] = {}
        self._hurry = asyncio.Event()
        self._has_all = False
        self._answered_at = self._loop.time()
        self._ttl_s = TTL_S
        self._expiry: asyncio.TimerHandle | None = None
        self._trouble = ""
        if self._budget is not None:
            self._budget.when_short = self._hurry.set

    async def run(self) -> None:
        """Renews the leases until it is cancelled."""
        while True:
            self._hurry.clear()
            await self._ask()
            await asyncio.sleep(SOON_S)
            known = all(key in self._client.shares for key in self._uses(self._loop.time()))
            if known and not self._hurry.is_set():
                timer = self._loop.call_later(max(0.0, self._client.renew_s - SOON_S), self._hurry.set)
                await self._hurry.wait()
                timer.cancel()

    def all_sent(self) -> None:
        """Gives the rates to others: every row was sent. What is to be sent again asks for a share anew."""
        if not self._has_all:
            self._has_all = True
            self._hurry.set()

    async def leave(self) -> None:
        """Gives everything back; what is not heard ends by itself."""
        if self._expiry is not None:
            self._expiry.cancel()
        budget = None if self._budget is None else self._budget.ask()
        request = self._client.ask(self._loop.time(), {}, budget, leaving=True)
        try:
            async with asyncio.timeout(LEAVE_S):
                await self._renew(request)
        except Exception as error:  # noqa: BLE001 - whatever carries the request; the lease ends by itself
            log.warning("the lease is not given back: %s", _words(error))

    def ended(self, task: "asyncio.Task[None]") -> None:
        """Stops the run with the error that ended ``run``, since nothing would leave without leases."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._stop.stop(error)

    def _uses(self, now: float) -> dict[str, tuple[str, str]]:
        """Returns the endpoint and the model of each key in use."""
        return {
            key_of(name, model): (name, model)
            for name, (limiter, _) in self._limiters.items()
            for model in limiter.demands(now)
        }

    async def _ask(self) -> None:
        now = self._loop.time()
        uses: dict[str, Use] = {}
        for name, (limiter, pace) in self._limiters.items():
            for model, demand in limiter.demands(now).items():
                key = key_of(name, model)
                meter = self._meters.setdefault(key, DemandMeter())
                uses[key] = meter.use(now, demand, pace, self._client, key, last=self._has_all)
        budget = None if self._budget is None else self._budget.ask()
        request = self._client.ask(now, uses, budget)
        try:
            # Before Python 3.12, wait_for forgets that the task was cancelled when the answer comes at the same moment.
            async with asyncio.timeout(max(RENEW_S, self._ttl_s / 3.0)):
                lease = await self._renew(request)
        except Exception as error:  # noqa: BLE001 - whatever carries the request; it is asked again
            self._not_answered(error)
            return
        self._trouble = ""
        self._take(lease)

    def _not_answered(self, error: Exception) -> None:
        words = _words(error)
        if words != self._trouble:
            log.warning("the holder of the leases does not answer: %s", words)
            self._trouble = words
        silent_s = self._loop.time() - self._answered_at
        longest_s = max(pace.max_outage_s for _, pace in self._limiters.values())
        if silent_s > longest_s:
            self._stop.stop(
                Unavailable(
                    f"the holder of the leases has not answered for {silent_s:,.0f} s ({words}); the same command "
                    "goes on later"
                )
            )

    def _take(self, lease: Lease) -> None:
        now = self._answered_at = self._loop.time()
        held = dict(self._client.shares)
        if not self._client.take(lease):
            return
        if any(_is_less(share, held.get(key)) for key, share in lease.shares.items()):
            self._hurry.set()  # others wait to hear that this one goes more slowly
        self._ttl_s = lease.ttl_s
        for key, (name, model) in self._uses(now).items():
            if (share := lease.shares.get(key)) is not None:
                leased = LaneLease(
                    until=self._client.until[key], requests_per_minute=share.rpm, tokens_per_minute=share.tpm,
                    tokens_limit=share.limit_tpm, requests=share.requests, paused_until=now + share.pause_s,
                )  # fmt: skip
                self._limiters[name][0].lease(now, model, leased)
        if self._budget is not None and lease.budget is not None:
            self._budget.take(lease.budget)
            if self._expiry is not None:
                self._expiry.cancel()
            until = max(self._client.until.values(), default=now)
            self._expiry = self._loop.call_at(until, self._budget.suspend)
        self._wake()


@asynccontextmanager
async def leased(loop: LeaseLoop | None) -> AsyncIterator[None]:
    """Renews leases inside the ``with`` block, and gives them back at its end; without a loop nothing happens."""
    if loop is None:
        yield
        return
    task = asyncio.create_task(loop.run())
    task.add_done_callback(loop.ended)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await loop.leave()


def _is_less(share: Share, before: Share | None) -> bool:
    return before is not None and any(
        new is not None and (old is None or new < old)
        for new, old in ((share.rpm, before.rpm), (share.tpm, before.tpm))
    )


def _words(error: Exception) -> str:
    last = str(error).strip().rpartition("\n")[2]  # errors of other processes begin with a traceback
    return one_line(f"{type(error).__name__}: {last}", MOST_WORDS).rstrip(": ")
