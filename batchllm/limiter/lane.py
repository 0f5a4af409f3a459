"""One model's lane: who waits, what its limits allow, and the gate after a refusal."""

import logging
import math
from collections.abc import Mapping
from typing import Any, Generic

from batchllm.errors import Unavailable
from batchllm.limiter.charge import Charge
from batchllm.limiter.gate import Gate
from batchllm.limiter.headers import Level
from batchllm.limiter.limits import Limits
from batchllm.limiter.queue import LOOK_AHEAD, Queue, Ticket
from batchllm.limiter.terms import REQUESTS, TOKENS, T
from batchllm.records import Pace, Usage
from batchllm.retry import Verdict

log = logging.getLogger("batchllm.limiter")

PATIENCE_S = 10.0
COALESCE_S = 0.005
_EPSILON_S = 1e-9


class Lane(Generic[T]):
    """The requests of one model.

    Attributes:
        answered: The endpoint has taken one request, so key and model are right.
        binding: What held the next request back at the last poll, as in ``View.limits``.
    """

    def __init__(self, name: str, pace: Pace, charge: str, now: float, learned: Mapping[str, Any]) -> None:
        self.name = name
        self.queue: Queue[T] = Queue()
        self.gate = Gate()
        self.charge = Charge(charge)
        factor = learned.get("charge_factor")
        if isinstance(factor, float) and 0.1 <= factor <= 10.0:
            self.charge.factor = factor
        self.limits = Limits(pace, now, learned)
        self.answered = False
        self.in_flight = 0
        self.binding = "nothing"
        self._max_wait_s = pace.max_wait_s
        self._max_outage_s = pace.max_outage_s
        self._ramp = False
        self._blocked_until = -math.inf  # nothing of the look-ahead fits before
        self._unit: str | None = None

    def grant(
        self, now: float, room: int, dry: bool, grants: list[Ticket[T]], too_large: list[tuple[T, str]]
    ) -> float:
        """Moves what may go now from the queue to ``grants``; returns when to ask again, or infinity.

        Raises:
            Unavailable: The endpoint asks for a longer pause than is allowed, or a day's grant is spent.
        """
        queue = self.queue
        wake = queue.come_due(now)
        if queue.head() is None:
            self.binding = "nothing"
            return wake
        self._give_up(now)
        self.limits.govern(now)
        while (head := queue.head()) is not None:
            single = not self.answered or self.gate.closed
            if single and (waits := self._waits(now)) is not None:
                return min(wake, waits)
            if room <= 0:
                self.binding = "concurrency"
                return wake
            at, ticket = self._admit(now, head, dry, too_large)
            if ticket is None:
                if at is None:
                    continue
                return min(wake, at)
            self._send(now, ticket)
            room -= 1
            grants.append(ticket)
        self.binding = "nothing"
        return wake

    def _give_up(self, now: float) -> None:
        gate = self.gate
        if gate.closed_at is not None and gate.until > now:
            pause = gate.until - now
            longest = self._max_wait_s if self._unit is not None else self._max_outage_s
            if pause > self._max_wait_s:
                raise Unavailable(
                    f"the endpoint asks for a pause of {pause:,.0f} s for {self.name}, and --max-wait is "
                    f"{self._max_wait_s:,.0f} s; the same command goes on later"
                )
            if now - gate.closed_at > longest:
                raise Unavailable(
                    f"the endpoint has refused every request for {self.name} for {now - gate.closed_at:,.0f} s; "
                    "the same command goes on later"
                )
        spent = self.limits.spent(now, self._max_wait_s)
        if spent is not None:
            raise Unavailable(f"{self.name}: {spent.sentence(now)}")

    def _waits(self, now: float) -> float | None:
        """Before the first answer, and while the gate is closed, one request goes alone.

        Returns:
            ``None`` when one may go now, else when to ask again (infinity: only an event changes it).
        """
        gate = self.gate
        if gate.closed:
            self.binding = "endpoint"
            quiet_at = gate.quiet_at()
            if quiet_at is not None:
                if quiet_at > now:
                    return quiet_at
                self.resume(now)
            elif gate.until > now + _EPSILON_S:
                return gate.until
        if not self.answered and self.in_flight:
            self.binding = "concurrency"
            return math.inf
        return None

    def _admit(
        self, now: float, head: Ticket[T], dry: bool, too_large: list[tuple[T, str]]
    ) -> tuple[float | None, Ticket[T] | None]:
        """Takes all limits together for the first ticket of the look-ahead that fits, or none of them.

        Returns:
            The ticket, or the instant to ask again; neither when one was given back as too large.
        """
        limits = self.limits
        if not limits.dimensions and not limits.budgets:
            return None, self.queue.pop()
        ready = now + _EPSILON_S
        at, name = limits.paced_until(now, len(self.queue) if dry else None)
        if at > ready and not self.gate.closed:
            self.binding = REQUESTS if name == REQUESTS else TOKENS
            return max(at, now + COALESCE_S), None
        if self._blocked_until > ready:
            return self._blocked_until, None
        earliest = math.inf
        for ticket in self.queue.ahead():
            amounts = tuple([self.charge.amount(d.name, ticket.cost) for d in limits.dimensions])
            words = self._never_fits(amounts)
            if words:
                self.queue.remove(ticket)
                too_large.append((ticket.item, words))
                return None, None
            fits, name = limits.fits_at(now, amounts)
            if fits <= ready:
                self.queue.remove(ticket)
                ticket.amounts = amounts
                ticket.entries = limits.take(now, amounts)
                return None, ticket
            earliest = min(earliest, fits)
            self.binding = REQUESTS if name == REQUESTS else TOKENS
            if name == REQUESTS:
                break  # the next one takes just as much of it
            if ticket is head:
                if head.blocked_since is None:
                    head.blocked_since = now
                elif now - head.blocked_since > PATIENCE_S:
                    break
        self._blocked_until = max(earliest, now + COALESCE_S)
        return self._blocked_until, None

    def push(self, ticket: Ticket[T], *, again: bool, not_before: float) -> None:
        """Adds a ticket to the line."""
        if again or len(self.queue) < LOOK_AHEAD:
            self._blocked_until = -math.inf  # it may fit where the others do not
        self.queue.push(ticket, again=again, not_before=not_before)

    def _never_fits(self, amounts: tuple[float, ...]) -> str | None:
        for dimension, amount in zip(self.limits.dimensions, amounts, strict=True):
            if amount > dimension.limit:
                return (
                    f"the request takes {amount:,.0f} {dimension.name.replace('_', ' ')}, more than the "
                    f"{dimension.limit:,.0f} a minute that the endpoint grants; shorten the row or lower max_tokens"
                )
        return None

    def _send(self, now: float, ticket: Ticket[T]) -> None:
        sent = self.limits.sent
        ticket.sent_at = now
        ticket.answered = False
        ticket.tokens = self.charge.amount(TOKENS, ticket.cost)
        sent[REQUESTS].add(now, 1.0)
        sent[TOKENS].add(now, ticket.tokens)
        ticket.marks = {REQUESTS: sent[REQUESTS].total, TOKENS: sent[TOKENS].total}
        self.in_flight += 1
        ticket.probe = self.gate.closed
        if ticket.probe:
            self.gate.probing(now)

    def observe(self, now: float, ticket: Ticket[T], levels: list[Level]) -> None:
        """Takes note of what headers show."""
        if levels:
            self.limits.observe(now, ticket.sent_at, levels, ticket.marks, self.binding)
            self._blocked_until = -math.inf

    def accepted(self, now: float, ticket: Ticket[T]) -> None:
        """A request was let in, whatever came of it."""
        self.answered = True
        if ticket.probe and self.gate.closed:
            self.resume(now)

    def settle(self, ticket: Ticket[T], usage: Usage) -> None:
        """Corrects what was taken by what was used, where the endpoint does."""
        self.charge.learn(ticket.cost, usage)
        if not self.charge.settles:
            return
        for dimension, amount, entry in zip(
            self.limits.dimensions, ticket.amounts, ticket.entries, strict=False
        ):
            used = self.charge.used(dimension.name, usage)
            if used is not None:
                dimension.settle(entry, amount - used)
        self._blocked_until = -math.inf

    def refused(self, now: float, ticket: Ticket[T], verdict: Verdict, levels: list[Level]) -> None:
        """The endpoint asked for a pause; the ticket goes back, first in line."""
        sent = self.limits.sent
        sent[REQUESTS].refused(ticket.sent_at, 1.0)
        sent[TOKENS].refused(ticket.sent_at, ticket.tokens)
        self.correct(ticket, verdict)
        pause = verdict.retry_after_s
        if pause is None:
            pause = self.limits.pause_of(levels, ticket.tokens)
        opened = self.gate.refused(now, ticket.sent_at, pause, probe=ticket.probe)
        if opened:
            self.limits.pause(now)
            self._ramp = verdict.reason == "slow_down"
            self._unit = self.limits.unit_of(verdict.message) if verdict.reason == "rate_limit" else None
        self.push(ticket, again=True, not_before=0.0)
        log.debug(
            "%s: refused (%s) at %.3f, sent at %.3f, %s; closed until %.3f",
            self.name, verdict.reason, now, ticket.sent_at, "a new epoch" if opened else "nothing new",
            self.gate.until,
        )  # fmt: skip

    def correct(self, ticket: Ticket[T], verdict: Verdict) -> None:
        """Learns from "Requested N" what the endpoint charges."""
        if verdict.requested_tokens:
            self.charge.correct(ticket.cost, verdict.requested_tokens)

    def resume(self, now: float) -> None:
        """The pause is over: learn from it, and go on at the pace, without catching up."""
        closed_at = self.gate.closed_at
        assert closed_at is not None
        self.gate.accepted(now)
        self._blocked_until = -math.inf
        if self._ramp or self._unit is not None:
            self.limits.refused(closed_at, now, self.gate.refusals, self._unit or REQUESTS, ramp=self._ramp)
        self.limits.resume(now)
        log.debug("%s: resumed at %.3f after %d refusals", self.name, now, self.gate.refusals)

    def requests_per_s(self, now: float, dry: bool) -> float | None:
        """The requests a second that may go: what waits, where all of it fits into what is shown as remaining."""
        rate = self.limits.requests_per_s()
        if dry and rate is not None and self.limits.paced_until(now, len(self.queue))[0] == -math.inf:
            return max(rate, float(len(self.queue)))
        return rate

    def learned(self) -> dict[str, float]:
        """What the next run should know."""
        found = self.limits.learned()
        if self.charge.factor != 1.0:
            found["charge_factor"] = self.charge.factor
        return found
