"""One model's lane: the rows that wait, what its limits allow, and the gate after a refusal.

The states of a lane, and what moves it between them, are on the package's page.
"""

import logging
import math
from collections.abc import Mapping
from typing import Any, Generic

from batchllm.errors import Unavailable
from batchllm.limiter.charge import Charge
from batchllm.limiter.gate import Gate, PauseLimit, RequestedPauses
from batchllm.limiter.headers import Level
from batchllm.limiter.learning import PauseCause, RefusalLearner
from batchllm.limiter.lease import LeasedLane
from batchllm.limiter.limits import LaneLimits
from batchllm.limiter.queue import LOOK_AHEAD, Queue, QueuedItem
from batchllm.limiter.refusals import RefusalKind, Refusals
from batchllm.limiter.terms import REQUESTS, TOKENS, T
from batchllm.records import Pace, Usage
from batchllm.retry import Verdict

log = logging.getLogger("batchllm.limiter")

MAX_OVERTAKEN_S = 10.0
"""How long smaller rows may overtake a head that does not fit."""
COALESCE_S = 0.005
LONGEST_SLEEP_S = 0.5
"""The longest time until the next look while a pace holds rows back: what is known may change without an event."""
ALONE_S = 2.0
"""How long the first request goes alone; a slow answer does not hold the others back."""
UNANSWERED = 8
"""Requests in flight while nothing has been answered yet."""
ROW_WAITS_S = 0.5
_EPSILON_S = 1e-9


class Lane(Generic[T]):
    """The requests of one model.

    Args:
        name: The model.
        pace: The user's settings.
        charge: What the endpoint takes off a token limit: ``Endpoint.charge``.
        now: The present.
        learned: What ``learned()`` returned in an earlier run.
        queue: What waits.

    Attributes:
        answered: Whether the endpoint has accepted a request, so that key and model are right.
        in_flight: Requests granted whose slot is not free again.
        binding: What held the next request back at the last poll, as in ``View.limits``.
        refused_requests, pauses: Requests refused, and how often the gate has closed.
        leased: What it may do, if its limits are leased; else ``None``.
    """

    def __init__(
        self, name: str, pace: Pace, charge: str, now: float, learned: Mapping[str, Any], queue: Queue[T]
    ) -> None:
        self.name = name
        self.queue = queue
        self.gate = Gate()
        self.refusals: Refusals[T] = Refusals()
        self.charge = Charge(charge)
        if isinstance(factor := learned.get("charge_factor"), float) and 0.1 <= factor <= 10.0:
            self.charge.factor = factor
        self.limits = LaneLimits(pace, now, learned)
        self.answered = False
        self.binding = "nothing"
        self.in_flight = self.refused_requests = self.pauses = 0
        self.leased: LeasedLane | None = None
        self._alone_until = math.inf
        self._pause_limit = PauseLimit(name, pace)
        self._requested_pauses = RequestedPauses()
        self._cause = PauseCause()
        self._learner = RefusalLearner(self.limits, self.refusals, self.gate, self._requested_pauses)
        self._blocked_until = -math.inf  # nothing in the look-ahead fits before

    def look_again(self) -> None:
        """Looks at what waits with the next ``grant``, because it has changed."""
        self._blocked_until = -math.inf

    def grant(
        self, now: float, room: int, grants: list[QueuedItem[T]], too_large: list[tuple[T, str]]
    ) -> float:
        """Moves what may be sent now from the queue to ``grants``; returns when to ask again, or infinity.

        Raises:
            Unavailable: The endpoint requests a longer pause than is allowed, or a daily limit is spent.
        """
        queue = self.queue
        wake = queue.come_due(now)
        if len(queue):
            self._pause_limit.check(now, self.gate, self._cause.reason)
        if queue.head() is None:
            self.binding = "nothing"
            return wake
        if (spent := self.limits.spent(now, self._pause_limit.max_wait_s)) is not None:
            raise Unavailable(f"{self.name}: {spent.to_text(now)}")
        if not self.answered:
            room = min(room, UNANSWERED - self.in_flight)
        if (under_cap := self.refusals.room(now, self.in_flight)) is not None:
            room = min(room, under_cap)
        while (head := queue.head()) is not None:
            if (waits := self._waits(now)) is not None:
                return min(wake, waits)
            if room <= 0:
                self.binding = "concurrency"
                return wake
            at, queued = self._admit(now, head, too_large)
            if queued is None:
                if at is None:
                    continue
                return min(wake, at, now + LONGEST_SLEEP_S)
            self._send(now, queued)
            room -= 1
            grants.append(queued)
        self.binding = "nothing"
        return wake

    @property
    def gives_up_at(self) -> float | None:
        """When the pause will have lasted too long; ``None`` if there is none."""
        closed_at = self.gate.closed_at
        return None if closed_at is None else closed_at + self._pause_limit.longest_s(self._cause.reason)

    def _waits(self, now: float) -> float | None:
        """Returns until when all rows wait, whatever their size.

        Before the first answer, and while the gate is closed, one request goes alone.

        Returns:
            ``None`` if a request may be sent now, else when to ask again (infinity: only an event changes it).
        """
        gate = self.gate
        if self.leased is not None and (leased_at := self.leased.waits_until(now)) is not None:
            self.binding = "lease"
            return leased_at
        if gate.closed:
            self.binding = "pause"
            quiet_at = gate.quiet_at()
            if quiet_at is not None:
                if quiet_at > now:
                    return quiet_at
                self.resume(now)
            elif gate.until > now + _EPSILON_S:
                return gate.until
        if not self.answered and self.in_flight:
            self.binding = "concurrency"
            if now < self._alone_until - _EPSILON_S:
                return self._alone_until
        return None

    def _admit(
        self, now: float, head: QueuedItem[T], too_large: list[tuple[T, str]]
    ) -> tuple[float | None, QueuedItem[T] | None]:
        """Takes all limits together for the first item in the look-ahead that fits, or takes none.

        Returns:
            The item, or when to ask again; neither if an item was given back as too large.
        """
        limits = self.limits
        ready = now + _EPSILON_S
        at, name = limits.paced_until(now)
        probing = self.gate.closed
        if not probing:
            if at > ready:
                self.binding = REQUESTS if name == REQUESTS else TOKENS
                return max(at, now + COALESCE_S), None
            if self._blocked_until > ready:
                return self._blocked_until, None
        earliest = math.inf
        for queued in self.queue.look_ahead():
            amounts = tuple([self.charge.amount(d.name, queued.cost) for d in limits.dimensions])
            why = limits.never_fits(amounts)
            if why:
                self.queue.remove(queued)
                too_large.append((queued.item, why))
                return None, None
            fits, name = (
                (limits.day_fits_at(now, amounts), "day") if probing else limits.fits_at(now, amounts)
            )
            if fits <= ready:
                self.queue.remove(queued)
                queued.amounts = amounts
                queued.entries, queued.positions = limits.take(now, amounts)
                return None, queued
            earliest = min(earliest, fits)
            self.binding = REQUESTS if name == REQUESTS else TOKENS
            if name == REQUESTS or name == "day":
                break  # the next one takes just as much of it
            if queued is head:
                if head.blocked_since is None:
                    head.blocked_since = now
                elif now - head.blocked_since > MAX_OVERTAKEN_S:
                    break
        self._blocked_until = min(max(earliest, now + COALESCE_S), now + LONGEST_SLEEP_S)
        return self._blocked_until, None

    def push(self, queued: QueuedItem[T], *, again: bool, not_before: float, deferred: bool = False) -> None:
        """Adds an item to the queue."""
        if again or len(self.queue) < LOOK_AHEAD:
            self._blocked_until = -math.inf  # it may fit where the others do not
        self.queue.push(queued, again=again, not_before=not_before, deferred=deferred)

    def _send(self, now: float, queued: QueuedItem[T]) -> None:
        queued.sent_at = now
        queued.answered = False
        if self.leased is not None:
            self.leased.sent()
        self.refusals.sent(queued, self.in_flight)
        self.in_flight += 1
        if self._alone_until == math.inf:
            self._alone_until = now + ALONE_S
        queued.probe = self.gate.closed
        if queued.probe:
            self.gate.probing(now)

    def observe(self, now: float, queued: QueuedItem[T], levels: list[Level], *, accepted: bool) -> None:
        """Records what the headers of a response show."""
        if levels:
            self.limits.observe(now, queued.sent_at, levels, queued.positions, accepted=accepted)
        if levels or (accepted and self.limits.forget_outdated(queued.sent_at)):
            self._blocked_until = -math.inf

    def accepted(self, now: float, queued: QueuedItem[T]) -> None:
        """Records that a request was accepted, whatever its answer."""
        self.answered = True
        self.refusals.accepted(queued)
        if self.gate.closed and (queued.probe or self._disproves_pause(queued)):
            self._requested_pauses.over(unneeded=not queued.probe)
            self.resume(now)

    def _disproves_pause(self, queued: QueuedItem[T]) -> bool:
        """Returns whether an accepted request was sent after the refused one, so that nothing has to wait."""
        cause = self._cause
        if self._requested_pauses.requested and (
            self.limits.known or not self.refusals.later_accepted(cause.attempt)
        ):
            return False
        return cause.reason == "rate_limit" and queued.sent_at > cause.attempt.sent_at

    def correct_charge(self, now: float, queued: QueuedItem[T], usage: Usage) -> None:
        """Learns from the usage, and gives back what was not used if the endpoint does so too."""
        self.charge.learn(queued.cost, usage)
        if not self.charge.settles:
            return
        limits = self.limits
        for dimension, amount, entry, position in zip(
            limits.dimensions, queued.amounts, queued.entries, queued.positions, strict=False
        ):
            used = self.charge.used(dimension.name, usage)
            if used is not None:
                rate = dimension.rate(now, limits.latency_s)
                dimension.give_back(position, queued.sent_at, entry, amount - used, rate)
        self._blocked_until = -math.inf

    def refused(self, now: float, queued: QueuedItem[T], verdict: Verdict, levels: list[Level]) -> None:
        """Records a refusal, and puts the item back first in line.

        The gate closes, unless the refusal concerns this row only (noise, a cap, or an isolated refusal).
        """
        limits, gate = self.limits, self.gate
        self.refused_requests += 1
        limits.refused(queued.sent_at, queued.amounts, queued.positions, queued.entries)
        self.learn_charge(queued, verdict)
        gate.observe_latency(now - queued.sent_at)
        if (pause_s := verdict.retry_after_s) is None:
            pause_s = limits.pause_of(levels, queued.amounts)
        row_may_wait = (requested_s := pause_s or 0.0) <= self._pause_limit.max_wait_s
        searching = not limits.known and row_may_wait
        if searching and self._requested_pauses.ignored:
            pause_s = None
        if verdict.reason == "overloaded":
            isolated_overload = self.refusals.overloaded(queued)
            if isolated_overload and row_may_wait and not gate.closed:
                self.push(queued, again=True, not_before=now + max(ROW_WAITS_S, requested_s))
                return
        kind = RefusalKind.LIMIT
        if verdict.reason == "rate_limit":
            kind = self.refusals.refused(
                now, queued, within_span=limits.within_span(now), quiet_s=gate.quiet_s
            )
        row_only = not requested_s or searching or kind is RefusalKind.CAP or self.refusals.noise
        if row_only and kind is not RefusalKind.LIMIT and not (queued.probe and gate.closed):
            self._delay_row(now, queued, kind, requested_s)
            return
        closed = gate.refused(now, queued.sent_at, pause_s, probe=queued.probe, limit_known=limits.known)
        if closed:
            self.pauses += 1
            self._requested_pauses.requested = pause_s is not None
            self._cause = PauseCause(
                verdict.reason,
                limits.dimension_of(verdict.message),
                queued.attempt,
                isolated=kind is not RefusalKind.LIMIT,
                contradicted=limits.contradicts(now),
            )
        elif queued.probe:
            self._requested_pauses.probe_refused()
        deferred = gate.closed and verdict.reason != "rate_limit"
        self.push(queued, again=True, not_before=now + (verdict.retry_after_s or 0.0), deferred=deferred)
        log.debug(
            "%s: refused (%s, %s) at %.3f, sent at %.3f, %s; closed until %.3f",
            self.name, verdict.reason, kind, now, queued.sent_at, "a new pause" if closed else "nothing new", gate.until
        )  # fmt: skip

    def _delay_row(self, now: float, queued: QueuedItem[T], kind: RefusalKind, requested_s: float) -> None:
        """Lets only the refused row wait."""
        log.debug("%s: refused at %.3f: %s", self.name, now, kind)
        if kind is RefusalKind.CAP:
            if self.gate.closed:
                self._cause.isolated = True
                self.resume(now)
            self.push(queued, again=True, not_before=now + ROW_WAITS_S / 10.0)
            return
        if self.leased is None:
            self._learner.isolated(now, self._cause.dimension)
        self.push(queued, again=True, not_before=now + max(ROW_WAITS_S, requested_s))

    def learn_charge(self, queued: QueuedItem[T], verdict: Verdict) -> None:
        """Learns from "Requested N" what the endpoint charges."""
        if verdict.requested_tokens:
            self.charge.correct(queued.cost, verdict.requested_tokens)

    def resume(self, now: float) -> None:
        """Ends the pause, learns from it, and goes on at the pace without catching up."""
        closed_at, reason = self.gate.closed_at, self._cause.reason
        assert closed_at is not None, "only a closed gate opens"
        self.gate.open(now)
        self.queue.outage_over()
        self._blocked_until = -math.inf
        if reason == "slow_down":
            self.limits.slow_down(now)
        elif self.leased is not None:
            self.limits.start_stretch(now)
        elif reason == "rate_limit" and self._cause.isolated:
            self._learner.isolated(now, self._cause.dimension)
        elif reason == "rate_limit":
            self._learner.pause(now, closed_at, self._cause)
        self.limits.restart(now)
        log.debug("%s: resumed at %.3f after %d refusals", self.name, now, self.gate.refusals)

    def learned(self) -> dict[str, float]:
        """Returns what the next run should know."""
        learned = self.limits.learned()
        if self.charge.factor != 1.0:
            learned["charge_factor"] = self.charge.factor
        return learned
