"""The one dispatcher of a run: it owns the pace, and computes the next instant.

The invariant, which ``tests/limiter_worlds`` holds in random worlds: while a row waits, the endpoint would accept it,
no pause that the endpoint asked for runs, and fewer than eight requests are in flight (or than the user allows, where
that is less), a row leaves within the longest of

- one second, or three where neither a limit nor a header has said anything, and until the first answer;
- two intervals of the pace that the endpoint grants;
- a tenth of the time for which it had refused everything.

So every wait has a reason that ``view`` names, and ends by itself: a pace is looked at again within half a second, a
pause ends with a probe, and where nothing tells when there is room again, one request goes to see.
"""

import logging
import math
import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Generic

from batchllm.errors import Unavailable
from batchllm.limiter import headers as limit_headers
from batchllm.limiter.breaker import Breaker
from batchllm.limiter.concurrency import Concurrency
from batchllm.limiter.lane import Lane
from batchllm.limiter.queue import QueuedItem
from batchllm.limiter.terms import MINUTE_S, REQUESTS, TOKENS, Cost, Poll, T, View
from batchllm.records import Pace, Usage
from batchllm.retry import Disposition, Verdict

log = logging.getLogger("batchllm.limiter")

_NO_CONNECTION = frozenset({"connect", "dns", "unknown_host", "tls", "proxy"})
_FAULTS = frozenset({Disposition.OVERLOADED, Disposition.TRANSIENT, Disposition.UNKNOWN})


class Limiter(Generic[T]):
    """Decides when each item may be sent. Told the time and the events; never waits and never sleeps.

    One per run. Items wait in lanes, one a model; the number in flight is counted over all of them.
    The order of calls for an item: ``offer``, a ``poll`` that grants it, exactly one of ``answered``,
    ``refused`` and ``failed``, then ``released`` (not after ``refused``, which frees the slot and puts the
    item back by itself). An item that is cancelled in flight is just ``released``.

    Args:
        pace: The user's settings.
        charge: What the endpoint takes off a token limit: ``Endpoint.charge``.
        now: The present, on the clock of every later ``now``; a monotonic one.
        learned: What an earlier run of the job returned from ``learned()``.
        rng: Source of jitter; give a seeded one to repeat a run.
    """

    def __init__(
        self,
        pace: Pace,
        *,
        charge: str,
        now: float,
        learned: Mapping[str, Any] | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._pace = pace
        self._charge = charge
        self._now = now
        self._learned = dict(learned or {})
        self._valid_until = math.inf
        self._lanes: dict[str, Lane[T]] = {}
        self._in_flight: dict[int, QueuedItem[T]] = {}
        self._received = 0
        self._concurrency = Concurrency(pace.concurrency, now)
        self._breaker = Breaker(rng or random.Random(), pace.max_outage_s)
        self._offered = 0
        self._granted = 0
        self._refused = 0
        self._turn = 0
        self._rate_at = -math.inf

    @property
    def waiting(self) -> int:
        """Items offered and not granted."""
        return sum([len(lane.queue) for lane in self._lanes.values()])

    @property
    def in_flight(self) -> int:
        """Items granted whose slot is not free again."""
        return len(self._in_flight)

    @property
    def outage(self) -> bool:
        """The endpoint is judged to be down: what fails now is no attempt of its row."""
        return self._breaker.opened_at is not None

    def offer(self, item: T, cost: Cost, *, lane: str, again: bool = False, not_before: float = 0.0) -> None:
        """Puts an item in line.

        Args:
            item: Any object; it is known by its identity until it is released.
            cost: What it takes of the grant.
            lane: Its model.
            again: It has been tried before, and goes before new ones; in an outage, behind those not tried in it.
            not_before: When its backoff ends.
        """
        self._offered += 1
        queued = QueuedItem(item, cost, lane, self._offered)
        deferred = again and self.outage
        self._lane(lane).push(queued, again=again, not_before=not_before, deferred=deferred)

    def set_limits(
        self,
        now: float,
        *,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        valid_until: float | None = None,
    ) -> None:
        """Replaces what the user gave of the limits, at any time; they hold from the next grant on.

        Args:
            now: The present.
            requests_per_minute, tokens_per_minute: The limits of each lane; ``None``: not given.
            valid_until: When they end. From then on nothing is granted until there are new ones; ``None``: never.
        """
        self._now = now
        self._valid_until = math.inf if valid_until is None else valid_until
        self._pace = replace(
            self._pace, requests_per_minute=requests_per_minute, tokens_per_minute=tokens_per_minute
        )
        for lane in self._lanes.values():
            lane.set_limits(now, {REQUESTS: requests_per_minute, TOKENS: tokens_per_minute})

    def poll(self, now: float) -> Poll[T]:
        """What may go now, and when to ask again.

        Raises:
            Unavailable: The endpoint asks for a longer pause than is allowed, a day's grant is spent, or the
                endpoint stays down for too long.
        """
        self._now = now
        queued_items: list[QueuedItem[T]] = []
        too_large: list[tuple[T, str]] = []
        if now >= self._valid_until:
            return Poll([], None, [])
        room, wake = self._room(now)
        slots_taken = len(self._in_flight) - self._received
        for lane in self._in_turn():
            wake = min(wake, lane.grant(now, room - len(queued_items), queued_items, too_large))
            if (
                lane.binding == "concurrency"
                and lane.answered
                and slots_taken + len(queued_items) >= self._concurrency.cap
            ):
                self._concurrency.saturated()
        opens_at = self._concurrency.taken(slots_taken + len(queued_items))
        if self._breaker.opened_at is None and room <= len(queued_items):
            wake = min(wake, opens_at)
        grants = []
        for queued in queued_items:
            self._in_flight[id(queued.item)] = queued
            grants.append(queued.item)
        self._granted += len(grants)
        if grants and self._breaker.opened_at is not None:
            self._breaker.probing = True
            queued_items[0].probe = True
        return Poll(grants, None if wake == math.inf else wake, too_large)

    def _room(self, now: float) -> tuple[int, float]:
        """How many may be granted now, and when that changes by itself."""
        breaker = self._breaker
        if breaker.opened_at is None:
            return self._concurrency.room(len(self._in_flight) - self._received, now), math.inf
        if breaker.given_up:
            raise Unavailable(
                f"the endpoint has been down for {now - breaker.opened_at:,.0f} s ({breaker.last_failure}); "
                "no row was marked as failed because of it, and the same command goes on later"
            )
        if breaker.probing:
            return 0, math.inf
        return (1, math.inf) if breaker.probe_at <= now else (0, breaker.probe_at)

    def _in_turn(self) -> list[Lane[T]]:
        lanes = list(self._lanes.values())
        if len(lanes) > 1:
            self._turn = (self._turn + 1) % len(lanes)
            return lanes[self._turn :] + lanes[: self._turn]
        return lanes

    def received(self, item: T) -> None:
        """An answer has arrived, unread: its slot may be taken by an item that leaves once the answer is durable.

        So one wait for the disk serves both, the answer and the intent that follows it. A probe, and the first
        request of a lane, keep their slots until they have been read.
        """
        queued = self._in_flight[id(item)]
        if not queued.probe and self._lanes[queued.lane].answered:
            queued.received = True
            self._received += 1

    def answered(self, now: float, item: T, headers: Mapping[str, str], usage: Usage | None) -> None:
        """A 2xx arrived for an item."""
        queued = self._in_flight[id(item)]
        lane = self._lanes[queued.lane]
        queued.answered = True
        lane.observe(now, queued, limit_headers.read(headers), accepted=True)
        if usage is not None:
            lane.correct_charge(now, queued, usage)
        lane.accepted(now, queued)
        tokens = 1.0 if usage is None or usage.completion_tokens is None else float(usage.completion_tokens)
        self._worked(now, queued)
        self._concurrency.answered(now, now - queued.sent_at, tokens)
        lane.limits.latency_s = self._concurrency.slow_s
        self._update_rate(now)

    def refused(self, now: float, item: T, verdict: Verdict, headers: Mapping[str, str]) -> None:
        """The endpoint asked for a pause: everybody waits, and the item is granted again first."""
        queued = self._in_flight.pop(id(item))
        lane = self._lanes[queued.lane]
        lane.in_flight -= 1
        self._received -= queued.received
        queued.received = False
        self._refused += 1
        levels = limit_headers.read(headers)
        lane.observe(now, queued, levels, accepted=False)
        lane.refused(now, queued, verdict, levels)
        if verdict.reason == "overloaded":
            self._concurrency.overloaded(now)
        self._worked(now, queued)

    def failed(self, now: float, item: T, verdict: Verdict, headers: Mapping[str, str]) -> None:
        """An attempt brought no answer and was not refused; the caller decides what becomes of the item.

        Ask ``outage`` afterwards: while it is true, the attempt does not count against the row.
        """
        queued = self._in_flight[id(item)]
        lane = self._lanes[queued.lane]
        queued.answered = True
        lane.learn_charge(queued, verdict)
        if verdict.disposition is Disposition.REJECTED:
            lane.accepted(now, queued)
            self._worked(now, queued)
            return
        if queued.probe and lane.gate.closed:
            lane.gate.probe_gone()
        if verdict.disposition in _FAULTS:
            if verdict.disposition is Disposition.OVERLOADED:
                self._concurrency.overloaded(now)
            connection = verdict.reason in _NO_CONNECTION
            self._breaker.failed(
                now, queued.sent_at, verdict.message, connection=connection, probe=queued.probe
            )

    def released(self, now: float, item: T) -> None:
        """An item's slot is free: its answer is durable, or it will be offered again, or it was cancelled."""
        queued = self._in_flight.pop(id(item), None)
        if queued is None:
            return
        lane = self._lanes[queued.lane]
        lane.in_flight -= 1
        self._received -= queued.received
        if queued.probe and not queued.answered:
            if lane.gate.closed:
                lane.gate.probe_gone()
            if self._breaker.probing:
                self._breaker.probe_gone(now)

    def view(self, now: float) -> View:
        """The limiter at this instant; of several lanes, the busiest speaks."""
        lane = max(self._lanes.values(), key=lambda lane: len(lane.queue) + lane.in_flight, default=None)
        dimensions = lane.limits.dimensions if lane is not None else []
        rates = {d.name: d.rate(now, 0.0) * MINUTE_S for d in dimensions}
        pace = {
            name: rate if (rate := rates.get(name, math.inf)) < math.inf else None
            for name in (REQUESTS, TOKENS)
        }
        breaker = self._breaker
        limits = "nothing" if lane is None else lane.binding
        resumes_at = gives_up_at = None
        trouble = ""
        if now >= self._valid_until:
            limits = "lease"
        elif breaker.opened_at is not None:
            limits, resumes_at, gives_up_at = "outage", breaker.probe_at, breaker.gives_up_at
            trouble = " ".join(breaker.last_failure.split())
        elif lane is not None and lane.gate.closed:
            limits, resumes_at, gives_up_at = "pause", lane.gate.until, lane.gives_up_at
        return View(
            limits=limits,
            requests_per_minute=pace[REQUESTS],
            tokens_per_minute=pace[TOKENS],
            concurrency=self._concurrency.cap,
            in_flight=self.in_flight,
            waiting=self.waiting,
            granted=self._granted,
            refused=self._refused,
            resumes_at=resumes_at,
            searching=any(d.estimate is not None for d in dimensions),
            gives_up_at=gives_up_at,
            trouble=trouble,
        )

    def learned(self) -> dict[str, Any]:
        """What the job's next run should know, as JSON."""
        lanes = {name: found for name, lane in self._lanes.items() if (found := lane.learned())}
        return {**self._learned, "lanes": {**self._learned.get("lanes", {}), **lanes}}

    def _lane(self, name: str) -> Lane[T]:
        lane = self._lanes.get(name)
        if lane is None:
            learned = self._learned.get("lanes", {}).get(name, {})
            lane = self._lanes[name] = Lane(name, self._pace, self._charge, self._now, learned)
        return lane

    def _worked(self, now: float, queued: QueuedItem[T]) -> None:
        """The endpoint answered, so it is not down."""
        if self._breaker.succeeded(now, queued.sent_at, probe=queued.probe):
            self._outage_over(now)

    def recovered(self, now: float) -> None:
        """A request beside the queue was answered, so the endpoint is not down."""
        if self._breaker.succeeded(now, now, probe=True):
            self._outage_over(now)

    def _outage_over(self, now: float) -> None:
        self._concurrency.recover(now)
        for lane in self._lanes.values():
            if not lane.gate.closed:
                lane.queue.outage_over()

    def _update_rate(self, now: float) -> None:
        """Tells the concurrency law what the limits allow."""
        if now - self._rate_at < 0.5:
            return
        self._rate_at = now
        rates = [lane.limits.requests_per_s(now) for lane in self._lanes.values() if lane.answered]
        known = [rate for rate in rates if rate is not None]
        self._concurrency.behind(sum(known) if known and len(known) == len(rates) else None)
