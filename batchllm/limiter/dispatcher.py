"""The limiter of a run: decides which rows may be sent now, and when to ask again.

The invariant, which ``tests/limiter_worlds`` holds in random worlds: while a row waits, the endpoint would accept it,
no pause that the endpoint asked for runs, and fewer than eight requests are in flight (or than the user allows, where
that is less), a row leaves within the longest of

- one second, or three where neither a limit nor a header has said anything, and until the first answer;
- two intervals of the pace that the endpoint grants;
- a tenth of the time for which it had refused everything.

So every wait has a reason, which ``view`` names, and an end: a pace is computed again within half a second, a pause
ends with a probe, and where nothing says when there is room again, one request is sent to find out.
"""

import logging
import math
import random
from collections.abc import Callable, Mapping
from typing import Any, Generic

from batchllm.errors import Unavailable
from batchllm.limiter import headers as limit_headers
from batchllm.limiter.breaker import Breaker
from batchllm.limiter.concurrency import Concurrency
from batchllm.limiter.lane import Lane
from batchllm.limiter.lease import NO_LEASE, LaneDemand, LaneLease, LeasedLane, demand_of
from batchllm.limiter.queue import Queue, QueuedItem
from batchllm.limiter.terms import Cost, Poll, T, View
from batchllm.limiter.view import view_of
from batchllm.records import Pace, Usage
from batchllm.retry import Disposition, Verdict

log = logging.getLogger("batchllm.limiter")

_NO_CONNECTION = frozenset({"connect", "dns", "unknown_host", "tls", "proxy"})
_FAULTS = frozenset({Disposition.OVERLOADED, Disposition.TRANSIENT, Disposition.UNKNOWN})


class Limiter(Generic[T]):
    """Decides when each item may be sent. It is given the time and the events, and never waits itself.

    A run has one. Items wait in lanes, one for each model; the number in flight is counted over all lanes.
    The order of calls for an item: ``offer``, a ``poll`` that grants it, exactly one of ``answered``,
    ``refused`` and ``failed``, then ``released`` (not after ``refused``, which frees the slot and puts the
    item back). An item that is cancelled in flight is only ``released``.

    Args:
        pace: The user's settings.
        charge: How the endpoint counts tokens: ``Endpoint.charge``.
        now: The time now, in seconds, on the monotonic clock of every later ``now``.
        learned: What an earlier run of the job returned from ``learned()``.
        rng: Source of jitter; give a seeded one to repeat a run.
        queue_of: Makes the queue of a lane; limiters of several endpoints share what waits (``routing``).
        gives_up: Whether an outage of ``--max-outage`` ends the run; otherwise it is probed for ever.
        leased: The limits are leased: a lane grants nothing without a lease.
        has_worked: The endpoint has answered others of the job's requests, so the first one does not go alone.

    Attributes:
        breaker, concurrency: What knows of outages, and of slots and latencies; to look at.
    """

    def __init__(
        self,
        pace: Pace,
        *,
        charge: str,
        now: float,
        learned: Mapping[str, Any] | None = None,
        rng: random.Random | None = None,
        queue_of: Callable[[str], Queue[T]] = lambda lane: Queue(),
        gives_up: bool = True,
        leased: bool = False,
        has_worked: bool = False,
    ) -> None:
        self._pace = pace
        self._charge = charge
        self._now = now
        self._learned = dict(learned or {})
        self._leased = leased
        self._has_worked = has_worked
        self._lanes: dict[str, Lane[T]] = {}
        self._in_flight: dict[int, QueuedItem[T]] = {}
        self._received = 0
        self.concurrency = Concurrency(pace.concurrency, now)
        self.breaker = Breaker(rng or random.Random(), pace.max_outage_s if gives_up else math.inf)
        self._queue_of = queue_of
        self._offered = 0
        self._granted = 0
        self._refused = 0
        self._turn = 0
        self._rate_at = -math.inf

    @property
    def waiting(self) -> int:
        """The number of items that are offered and not granted."""
        return sum([len(lane.queue) for lane in self._lanes.values()])

    @property
    def in_flight(self) -> int:
        """The number of granted items whose slot is not free yet."""
        return len(self._in_flight)

    @property
    def outage(self) -> bool:
        """Whether the endpoint is down; a failure then does not count as an attempt of its row."""
        return self.breaker.opened_at is not None

    def outage_of(self, item: T) -> bool:
        """The same for the endpoint of an item, of which there is one."""
        return self.outage

    @property
    def paused(self) -> bool:
        """Whether a refusal holds up all rows of a model."""
        return any(lane.gate.closed for lane in self._lanes.values())

    def silent_s(self, now: float, since: float) -> float:
        """Returns for how long, from ``since`` on, something has been in flight, in seconds."""
        oldest = next(iter(self._in_flight.values()), None)
        return 0.0 if oldest is None else now - max(oldest.sent_at, since)

    @property
    def load(self) -> float:
        """The share of the slots that is taken, the next request included."""
        return (len(self._in_flight) - self._received + 1) / self.concurrency.cap

    def offer(self, item: T, cost: Cost, *, lane: str, again: bool = False, not_before: float = 0.0) -> None:
        """Queues an item.

        Args:
            item: Any object; identified by ``id()`` until it is released.
            cost: What it is expected to take of the limits.
            lane: Its model.
            again: It was tried before: it goes before new items, or in an outage behind those not tried in it.
            not_before: When its backoff ends.
        """
        self._offered += 1
        queued = QueuedItem(item, cost, lane, self._offered)
        deferred = again and self.outage
        self.lane(lane).push(queued, again=again, not_before=not_before, deferred=deferred)

    def lease(self, now: float, lane: str, lease: LaneLease) -> None:
        """Lets a lane go at a part of a limit that many runs share, until the lease ends or the next one comes."""
        self._now = now
        leased = self.lane(lane)
        if leased.leased is None:
            leased.leased = LeasedLane(leased.limits)
        leased.leased.obey(now, lease)
        leased.look_again()

    def demands(self, now: float) -> dict[str, LaneDemand]:
        """Returns what each lane needs of its limits."""
        return {name: demand_of(lane, now) for name, lane in self._lanes.items()}

    def poll(self, now: float, most: int | None = None) -> Poll[T]:
        """Returns which items may be sent now, and when to ask again.

        Args:
            now: The time now.
            most: The most items to grant; ``None`` is any number.

        Raises:
            Unavailable: The endpoint asks for a longer pause than ``--max-wait``, a day's quota is spent, or the
                endpoint is down for longer than ``--max-outage``.
        """
        self._now = now
        queued_items: list[QueuedItem[T]] = []
        too_large: list[tuple[T, str]] = []
        room, wake = self._room(now)
        if most is not None:
            room = min(room, most)
        slots_taken = len(self._in_flight) - self._received
        for lane in self._in_turn():
            try:
                wake = min(wake, lane.grant(now, room - len(queued_items), queued_items, too_large))
            except Unavailable:
                if not (queued_items or too_large):
                    raise
                wake = now  # what other lanes have granted goes first
                break
            is_full = slots_taken + len(queued_items) >= self.concurrency.cap
            if is_full and lane.answered and lane.binding == "concurrency":
                self.concurrency.saturated(now)
        opens_at = self.concurrency.taken(slots_taken + len(queued_items))
        if self.breaker.opened_at is None and room <= len(queued_items):
            wake = min(wake, opens_at)
        grants = []
        for queued in queued_items:
            self._in_flight[id(queued.item)] = queued
            grants.append(queued.item)
        self._granted += len(grants)
        if grants and self.breaker.opened_at is not None:
            self.breaker.probing = True
            queued_items[0].probe = True
        return Poll(grants, None if wake == math.inf else wake, too_large)

    def _room(self, now: float) -> tuple[int, float]:
        """Returns how many items may be granted now, and when that number changes without an event."""
        breaker = self.breaker
        if breaker.opened_at is None:
            return self.concurrency.room(len(self._in_flight) - self._received, now), math.inf
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
        """Records that an answer has arrived and is not read yet; its slot may be granted to another item.

        The answer and the intent of that item then become durable in one write. A probe and the first request of a
        lane keep their slots until their answers are read.
        """
        queued = self._in_flight[id(item)]
        if not queued.probe and self._lanes[queued.lane].answered:
            queued.received = True
            self._received += 1

    def answered(self, now: float, item: T, headers: Mapping[str, str], usage: Usage | None) -> None:
        """Records that an item got a response of status 2xx."""
        queued = self._in_flight[id(item)]
        lane = self._lanes[queued.lane]
        queued.answered = True
        lane.observe(now, queued, limit_headers.read(headers), accepted=True)
        if usage is not None:
            lane.correct_charge(now, queued, usage)
        lane.accepted(now, queued)
        tokens = 1.0 if usage is None or usage.completion_tokens is None else float(usage.completion_tokens)
        self._end_outage(now, queued.sent_at, probe=queued.probe)
        self.concurrency.answered(now, now - queued.sent_at, tokens)
        lane.limits.latency_s = self.concurrency.slow_s
        self._update_rate(now)

    def refused(self, now: float, item: T, verdict: Verdict, headers: Mapping[str, str]) -> None:
        """Records that the endpoint refused an item for a limit. All items wait, and this one is granted first."""
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
            self.concurrency.overloaded(now)
        self._end_outage(now, queued.sent_at, probe=queued.probe)

    def failed(self, now: float, item: T, verdict: Verdict, headers: Mapping[str, str]) -> None:
        """Records that an attempt brought no answer and was not refused; the caller decides what becomes of the item.

        Read ``outage`` afterwards: while it is true, the attempt does not count.
        """
        queued = self._in_flight[id(item)]
        lane = self._lanes[queued.lane]
        queued.answered = True
        lane.learn_charge(queued, verdict)
        if verdict.disposition is Disposition.REJECTED:
            lane.accepted(now, queued)
            self._end_outage(now, queued.sent_at, probe=queued.probe)
            return
        if queued.probe and lane.gate.closed:
            lane.gate.probe_gone()
        if verdict.disposition in _FAULTS:
            if verdict.disposition is Disposition.OVERLOADED:
                self.concurrency.overloaded(now, alone=queued.probe and self.outage)
            connection = verdict.reason in _NO_CONNECTION
            self.breaker.failed(
                now, queued.sent_at, verdict.message, connection=connection, probe=queued.probe
            )

    def released(self, now: float, item: T) -> None:
        """Frees an item's slot: its answer is durable, or it will be offered again, or it was cancelled."""
        queued = self._in_flight.pop(id(item), None)
        if queued is None:
            return
        lane = self._lanes[queued.lane]
        lane.in_flight -= 1
        self._received -= queued.received
        if queued.probe and not queued.answered:
            if lane.gate.closed:
                lane.gate.probe_gone()
            if self.breaker.probing:
                self.breaker.probe_gone(now)

    def view(self, now: float) -> View:
        """Returns the state of the limiter at ``now``; of several lanes, that of the busiest."""
        lane = max(self._lanes.values(), key=lambda lane: len(lane.queue) + lane.in_flight, default=None)
        return view_of(
            now,
            lane,
            self.breaker,
            concurrency=self.concurrency.cap,
            in_flight=self.in_flight,
            waiting=self.waiting,
            granted=self._granted,
            refused=self._refused,
        )

    def learned(self) -> dict[str, Any]:
        """Returns what the job's next run should know; JSON-able."""
        lanes = {name: found for name, lane in self._lanes.items() if (found := lane.learned())}
        return {**self._learned, "lanes": {**self._learned.get("lanes", {}), **lanes}}

    def lane(self, name: str) -> Lane[T]:
        """Returns the lane of a model; makes it where there is none."""
        lane = self._lanes.get(name)
        if lane is None:
            learned = {} if self._leased else self._learned.get("lanes", {}).get(name, {})
            lane = Lane(name, self._pace, self._charge, self._now, learned, self._queue_of(name))
            lane.answered = self._has_worked
            self._lanes[name] = lane
            if self._leased:
                self.lease(self._now, name, NO_LEASE)
        return lane

    def recovered(self, now: float, item: T) -> None:
        """A request beside the queue, about an item, was answered, so the endpoint is not down."""
        self._end_outage(now, now, probe=True)

    def _end_outage(self, now: float, sent_at: float, *, probe: bool) -> None:
        """Ends an outage, if there is one, because the endpoint answered a request."""
        if self.breaker.succeeded(now, sent_at, probe=probe):
            self.concurrency.recover(now)
            for lane in self._lanes.values():
                if not lane.gate.closed:
                    lane.queue.outage_over()

    def _update_rate(self, now: float) -> None:
        """Passes the rate that the limits allow to the concurrency, at most twice a second."""
        if now - self._rate_at < 0.5:
            return
        self._rate_at = now
        limits = [lane.limits for lane in self._lanes.values() if lane.answered]
        self.concurrency.behind([(each.requests_per_s(now), each.told_per_s()) for each in limits])
