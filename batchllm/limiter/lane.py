"""One model's lane: who waits, what the grant allows, and the gate after a refusal."""

import logging
from typing import Generic

from batchllm.limiter.charge import Charge
from batchllm.limiter.gate import Gate
from batchllm.limiter.pace import CATCH_UP_S, MARGIN, Pacer, WindowLog
from batchllm.limiter.queue import Queue, Ticket
from batchllm.limiter.terms import MINUTE_S, REQUESTS, TOKENS, T
from batchllm.records import Pace

log = logging.getLogger("batchllm.limiter")

TOKEN_CATCH_UP_S = 2.0
PATIENCE_S = 10.0
COALESCE_S = 0.005
_EPSILON_S = 1e-9


class Dimension:
    """One limit of a lane: requests or tokens a minute.

    Attributes:
        name: ``requests``, ``tokens``, ``input_tokens`` or ``output_tokens``.
        limit: The grant per minute.
        pacer, log: What holds it.
    """

    __slots__ = ("limit", "log", "name", "pacer")

    def __init__(self, name: str, limit: float, now: float) -> None:
        self.name = name
        self.limit = limit
        requests = name == REQUESTS
        rate = limit * (1.0 - MARGIN) / MINUTE_S
        self.pacer = Pacer(rate, now=now, catch_up_s=CATCH_UP_S if requests else TOKEN_CATCH_UP_S)
        self.log = None if requests else WindowLog(limit)


class Lane(Generic[T]):
    """The requests of one model."""

    def __init__(self, name: str, pace: Pace, charge: str, now: float) -> None:
        self.name = name
        self.queue: Queue[T] = Queue()
        self.gate = Gate()
        self.charge = Charge(charge)
        self.answered = False
        self.in_flight = 0
        self.limits = "nothing"
        told = ((REQUESTS, pace.requests_per_minute), (TOKENS, pace.tokens_per_minute))
        self.dimensions = [Dimension(name, limit, now) for name, limit in told if limit]

    def grant(
        self, now: float, room: int, grants: list[Ticket[T]], too_large: list[tuple[T, str]]
    ) -> float | None:
        """Moves what may go now from the queue to ``grants``; returns when to ask again."""
        queue = self.queue
        wake = queue.come_due(now)
        while True:
            head = queue.head()
            if head is None:
                self.limits = "nothing"
                return wake
            single = not self.answered or self.gate.closed
            if single and (waits := self._waits(now)) is not None:
                return _sooner(wake, waits)
            if room <= 0:
                self.limits = "concurrency"
                return wake
            if self.dimensions:
                at, ticket = self._admit(now, head, too_large)
                if ticket is None:
                    if at is None:
                        continue
                    return _sooner(wake, at)
            else:
                ticket = queue.pop()
            ticket.sent_at = now
            ticket.probe = False
            self.in_flight += 1
            room -= 1
            grants.append(ticket)
            if single and self.gate.closed:
                ticket.probe = True
                self.gate.probing(now)

    def _waits(self, now: float) -> float | None:
        """Before the first answer, and while the gate is closed, one request goes alone.

        Returns:
            ``None`` when one may go now, else when to ask again (infinity: only an event changes it).
        """
        gate = self.gate
        if gate.closed:
            self.limits = "endpoint"
            quiet_at = gate.quiet_at()
            if quiet_at is not None:
                if quiet_at > now:
                    return quiet_at
                self.resume(now)
            elif gate.until > now + _EPSILON_S:
                return gate.until
        if not self.answered and self.in_flight:
            self.limits = "concurrency"
            return float("inf")
        return None

    def _admit(
        self, now: float, head: Ticket[T], too_large: list[tuple[T, str]]
    ) -> tuple[float | None, Ticket[T] | None]:
        """Takes all dimensions together for the first ticket of the look-ahead that fits, or none of them.

        Returns:
            The ticket, or the instant to ask again; neither when the head was given back as too large.
        """
        ready = now + _EPSILON_S
        for dimension in self.dimensions:
            at = dimension.pacer.ready_at()
            if at > ready:
                self.limits = "requests" if dimension.name == REQUESTS else "tokens"
                return max(at, now + COALESCE_S), None
        earliest = float("inf")
        for ticket in self.queue.ahead():
            amounts = tuple(self.charge.amount(d.name, ticket.cost) for d in self.dimensions)
            fits = now
            for dimension, amount in zip(self.dimensions, amounts, strict=True):
                if amount > dimension.limit:
                    self.queue.remove(ticket)
                    too_large.append((ticket.item, _too_large(dimension, amount)))
                    return None, None
                if dimension.log is not None:
                    fits = max(fits, dimension.log.fits_at(now, amount))
            if fits <= ready:
                self._take(now, ticket, amounts)
                return None, ticket
            earliest = min(earliest, fits)
            if ticket is head:
                if head.blocked_since is None:
                    head.blocked_since = now
                elif now - head.blocked_since > PATIENCE_S:
                    break
        self.limits = "tokens"
        return earliest, None

    def _take(self, now: float, ticket: Ticket[T], amounts: tuple[float, ...]) -> None:
        self.queue.remove(ticket)
        entries = []
        for dimension, amount in zip(self.dimensions, amounts, strict=True):
            dimension.pacer.take(now, amount)
            entries.append(dimension.log.take(now, amount) if dimension.log is not None else None)
        ticket.amounts = amounts
        ticket.entries = tuple(entries)

    def resume(self, now: float) -> None:
        """The pause is over: go on at the pace, without catching up."""
        self.gate.accepted(now)
        for dimension in self.dimensions:
            dimension.pacer.restart(now)
        log.debug("%s: resumed at %.3f after %d refusals", self.name, now, self.gate.refusals)


def _too_large(dimension: Dimension, amount: float) -> str:
    unit = dimension.name.replace("_", " ")
    return (
        f"the request takes {amount:,.0f} {unit}, more than the {dimension.limit:,.0f} a minute that the endpoint "
        "grants; shorten the row or lower max_tokens"
    )


def _sooner(first: float | None, second: float | None) -> float | None:
    if second is None or second == float("inf"):
        return first
    return second if first is None else min(first, second)
