"""The one dispatcher of a run: it owns the pace, computes the next instant, and never polls."""

import logging
from collections.abc import Mapping
from typing import Any, Generic

from batchllm.errors import Unavailable
from batchllm.limiter.concurrency import Concurrency
from batchllm.limiter.lane import Lane, _sooner
from batchllm.limiter.queue import Ticket
from batchllm.limiter.terms import MINUTE_S, REQUESTS, TOKENS, Cost, Poll, T, View
from batchllm.records import Pace, Usage
from batchllm.retry import Fate, Verdict

log = logging.getLogger("batchllm.limiter")


class Limiter(Generic[T]):
    """Decides when each item may be sent. Told the time and the events; never waits and never sleeps.

    One per run. Items wait in lanes, one a model; the number in flight is counted over all of them.
    The order of calls for an item: ``offer``, a ``poll`` that grants it, exactly one of ``answered``,
    ``refused`` and ``failed``, then ``released`` (not after ``refused``, which frees the slot and puts the
    item back by itself).

    Args:
        pace: The user's settings.
        charge: What the endpoint takes off a token limit: ``Endpoint.charge``.
        now: The present, on the clock of every later ``now``; a monotonic one.
        learned: What an earlier run of the job returned from ``learned()``.
    """

    def __init__(
        self, pace: Pace, *, charge: str, now: float, learned: Mapping[str, Any] | None = None
    ) -> None:
        self._pace = pace
        self._charge = charge
        self._now = now
        self._learned = dict(learned or {})
        self._lanes: dict[str, Lane[T]] = {}
        self._flights: dict[int, Ticket[T]] = {}
        self._concurrency = Concurrency(pace.concurrency)
        self._offered = 0
        self._granted = 0
        self._refused = 0
        self._turn = 0

    @property
    def waiting(self) -> int:
        """Items offered and not granted."""
        return sum(len(lane.queue) for lane in self._lanes.values())

    @property
    def in_flight(self) -> int:
        """Items granted whose slot is not free again."""
        return len(self._flights)

    @property
    def outage(self) -> bool:
        """The endpoint is judged to be down: a failure now is no attempt of its row."""
        return False

    def offer(self, item: T, cost: Cost, *, lane: str, again: bool = False, not_before: float = 0.0) -> None:
        """Puts an item in line.

        Args:
            item: Any object; it is known by its identity until it is released.
            cost: What it takes of the grant.
            lane: Its model.
            again: It has been tried before, and goes before new ones.
            not_before: When its backoff ends.
        """
        self._offered += 1
        home = self._lane(lane)
        home.queue.push(Ticket(item, cost, lane, self._offered), again=again, not_before=not_before)

    def withdraw_all(self) -> list[T]:
        """Takes out everything that waits; nothing was reserved for it, so nothing is left behind."""
        return [ticket.item for lane in self._lanes.values() for ticket in lane.queue.drain()]

    def poll(self, now: float) -> Poll[T]:
        """What may go now, and when to ask again.

        Raises:
            Unavailable: The endpoint asks for a longer pause than is allowed, or stays down for too long.
        """
        self._now = now
        tickets: list[Ticket[T]] = []
        too_large: list[tuple[T, str]] = []
        wake: float | None = None
        lanes = list(self._lanes.values())
        if len(lanes) > 1:
            self._turn += 1
            start = self._turn % len(lanes)
            lanes = lanes[start:] + lanes[:start]
        for lane in lanes:
            if lane.gate.closed and lane.gate.until - now > self._pace.max_wait_s:
                raise Unavailable(self._pause_sentence(lane, lane.gate.until - now))
            room = self._concurrency.cap - len(self._flights) - len(tickets)
            wake = _sooner(wake, lane.grant(now, room, tickets, too_large))
        grants = []
        for ticket in tickets:
            self._flights[id(ticket.item)] = ticket
            grants.append(ticket.item)
        self._granted += len(grants)
        return Poll(grants, wake, too_large)

    def answered(self, now: float, item: T, headers: Mapping[str, str], usage: Usage | None) -> None:
        """A 2xx came for an item."""
        ticket = self._flights[id(item)]
        lane = self._lanes[ticket.lane]
        ticket.answered = True
        self._accepted(now, lane, ticket)
        if usage is not None:
            self._settle(lane, ticket, usage)

    def refused(self, now: float, item: T, verdict: Verdict, headers: Mapping[str, str]) -> None:
        """The endpoint asked for a pause: everybody waits, and the item is granted again first."""
        ticket = self._flights.pop(id(item))
        lane = self._lanes[ticket.lane]
        lane.in_flight -= 1
        self._refused += 1
        if verdict.requested_tokens:
            lane.charge.correct(ticket.cost, verdict.requested_tokens)
        opened = lane.gate.refused(now, ticket.sent_at, verdict.retry_after_s, probe=ticket.probe)
        lane.queue.push(ticket, again=True, not_before=0.0)
        log.debug(
            "%s: refused (%s) at %.3f, sent at %.3f, new epoch %s, closed until %.3f",
            lane.name, verdict.reason, now, ticket.sent_at, opened, lane.gate.until,
        )  # fmt: skip

    def failed(self, now: float, item: T, verdict: Verdict, headers: Mapping[str, str]) -> None:
        """An attempt brought no answer and was not refused; the caller decides what becomes of the item."""
        ticket = self._flights[id(item)]
        lane = self._lanes[ticket.lane]
        ticket.answered = True
        if verdict.fate is Fate.REJECTED:
            self._accepted(now, lane, ticket)
            if verdict.requested_tokens:
                lane.charge.correct(ticket.cost, verdict.requested_tokens)
        elif ticket.probe and lane.gate.closed:
            lane.gate.probe_gone()

    def released(self, now: float, item: T) -> None:
        """An item's slot is free: its answer is durable, or it will be offered again, or it was cancelled."""
        ticket = self._flights.pop(id(item), None)
        if ticket is None:
            return
        lane = self._lanes[ticket.lane]
        lane.in_flight -= 1
        if ticket.probe and not ticket.answered and lane.gate.closed:
            lane.gate.probe_gone()

    def view(self, now: float) -> View:
        """The limiter at this instant; of several lanes, the busiest speaks."""
        lane = max(self._lanes.values(), key=lambda lane: len(lane.queue) + lane.in_flight, default=None)
        rates = {d.name: d.pacer.rate * MINUTE_S for d in lane.dimensions} if lane else {}
        return View(
            limits=lane.limits if lane else "nothing",
            requests_per_minute=rates.get(REQUESTS),
            tokens_per_minute=rates.get(TOKENS),
            concurrency=self._concurrency.cap,
            in_flight=self.in_flight,
            waiting=self.waiting,
            granted=self._granted,
            refused=self._refused,
            resumes_at=lane.gate.until if lane and lane.gate.closed else None,
            searching=False,
        )

    def learned(self) -> dict[str, Any]:
        """What the job's next run should know, as JSON."""
        return dict(self._learned)

    def _lane(self, name: str) -> Lane[T]:
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = Lane(name, self._pace, self._charge, self._now)
        return lane

    def _accepted(self, now: float, lane: Lane[T], ticket: Ticket[T]) -> None:
        lane.answered = True
        if ticket.probe and lane.gate.closed:
            lane.resume(now)

    def _settle(self, lane: Lane[T], ticket: Ticket[T], usage: Usage) -> None:
        lane.charge.learn(ticket.cost, usage)
        if not lane.charge.settles:
            return
        for dimension, amount, entry in zip(lane.dimensions, ticket.amounts, ticket.entries, strict=False):
            used = lane.charge.used(dimension.name, usage)
            if used is not None:
                dimension.pacer.give_back(amount - used)
                if dimension.log is not None and entry is not None:
                    dimension.log.settle(entry, amount - used)

    def _pause_sentence(self, lane: Lane[T], pause_s: float) -> str:
        return (
            f"the endpoint asks for a pause of {pause_s:,.0f} s for {lane.name}, more than --max-wait "
            f"{self._pace.max_wait_s:,.0f} s; the same command goes on later"
        )
