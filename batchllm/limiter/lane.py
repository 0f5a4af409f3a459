"""One model's lane: who waits, what its limits allow, and the gate after a refusal."""

import logging
import math
from collections.abc import Mapping
from typing import Any, Generic

from batchllm.errors import Unavailable
from batchllm.limiter.charge import Charge
from batchllm.limiter.gate import Gate
from batchllm.limiter.headers import Level
from batchllm.limiter.limits import LaneLimits
from batchllm.limiter.patience import PauseLimit
from batchllm.limiter.queue import LOOK_AHEAD, Attempt, Queue, QueuedItem
from batchllm.limiter.refusals import Conclusion, RefusalKind, Refusals
from batchllm.limiter.requested_pauses import RequestedPauses
from batchllm.limiter.terms import REQUESTS, TOKENS, T
from batchllm.records import Pace, Usage
from batchllm.retry import Verdict

log = logging.getLogger("batchllm.limiter")

MAX_OVERTAKEN_S = 10.0
COALESCE_S = 0.005
LONGEST_SLEEP_S = 0.5
"""The longest time until the next look while a pace waits: what is known may have changed without an event."""
ALONE_S = 2.0
"""How long the first request goes alone; a slow answer does not hold the others."""
UNANSWERED = 8
"""Requests in flight while nothing has been answered yet."""
ROW_WAITS_S = 0.5
OVERRULED_BY = 3
"""Single refusals that overrule a limit that the user gave; a pause whose probe is refused too does it at once."""
_EPSILON_S = 1e-9


class Lane(Generic[T]):
    """The requests of one model.

    Attributes:
        answered: The endpoint has taken one request, so key and model are right.
        in_flight: Requests granted whose slot is not free again.
        binding: What held the next request back at the last poll, as in ``View.limits``.
    """

    def __init__(self, name: str, pace: Pace, charge: str, now: float, learned: Mapping[str, Any]) -> None:
        self.name = name
        self.queue: Queue[T] = Queue()
        self.gate = Gate()
        self.refusals: Refusals[T] = Refusals()
        self.charge = Charge(charge)
        factor = learned.get("charge_factor")
        if isinstance(factor, float) and 0.1 <= factor <= 10.0:
            self.charge.factor = factor
        self.limits = LaneLimits(pace, now, learned)
        self.answered = False
        self.in_flight = 0
        self.binding = "nothing"
        self._alone_until = math.inf
        self._pause_limit = PauseLimit(name, pace)
        self._reason = ""
        self._dimension = REQUESTS
        self._requested_pauses = RequestedPauses()
        self._refusal_isolated = False
        self._contradicted = False
        self._single_refusals = 0
        self._first_refused = Attempt(-math.inf, 0)
        self._blocked_until = -math.inf  # nothing of the look-ahead fits before

    def set_limits(self, now: float, limits: Mapping[str, float | None]) -> None:
        """Replaces what the user gave of the limits, by the names of the dimensions."""
        self.limits.tell(now, limits)
        self._blocked_until = -math.inf

    def grant(
        self, now: float, room: int, grants: list[QueuedItem[T]], too_large: list[tuple[T, str]]
    ) -> float:
        """Moves what may go now from the queue to ``grants``; returns when to ask again, or infinity.

        Raises:
            Unavailable: The endpoint asks for a longer pause than is allowed, or a day's limit is spent.
        """
        queue = self.queue
        wake = queue.come_due(now)
        if queue.head() is None:
            self.binding = "nothing"
            return wake
        self._pause_limit.check(now, self.gate, self._reason)
        if (spent := self.limits.spent(now, self._pause_limit.max_wait_s)) is not None:
            raise Unavailable(f"{self.name}: {spent.sentence(now)}")
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
        """When the pause has lasted too long; ``None``: there is none."""
        closed_at = self.gate.closed_at
        return None if closed_at is None else closed_at + self._pause_limit.longest_s(self._reason)

    def _waits(self, now: float) -> float | None:
        """Before the first answer, and while the gate is closed, one request goes alone.

        Returns:
            ``None`` when one may go now, else when to ask again (infinity: only an event changes it).
        """
        gate = self.gate
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
        """Takes all limits together for the first queued of the look-ahead that fits, or none of them.

        Returns:
            The queued, or the instant to ask again; neither when one was given back as too large.
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
        for queued in self.queue.ahead():
            amounts = tuple([self.charge.amount(d.name, queued.cost) for d in limits.dimensions])
            words = limits.never_fits(amounts)
            if words:
                self.queue.remove(queued)
                too_large.append((queued.item, words))
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

    def push(self, queued: QueuedItem[T], *, again: bool, not_before: float, behind: bool = False) -> None:
        """Adds a queued to the line."""
        if again or len(self.queue) < LOOK_AHEAD:
            self._blocked_until = -math.inf  # it may fit where the others do not
        self.queue.push(queued, again=again, not_before=not_before, behind=behind)

    def _send(self, now: float, queued: QueuedItem[T]) -> None:
        queued.sent_at = now
        queued.answered = False
        self.refusals.sent(queued, self.in_flight)
        self.in_flight += 1
        if self._alone_until == math.inf:
            self._alone_until = now + ALONE_S
        queued.probe = self.gate.closed
        if queued.probe:
            self.gate.probing(now)

    def observe(self, now: float, queued: QueuedItem[T], levels: list[Level], *, accepted: bool) -> None:
        """Takes note of what headers show."""
        if levels:
            self.limits.observe(now, queued.sent_at, levels, queued.positions, accepted=accepted)
        if levels or (accepted and self.limits.forget_outdated(queued.sent_at)):
            self._blocked_until = -math.inf

    def accepted(self, now: float, queued: QueuedItem[T]) -> None:
        """A request was let in, whatever came of it."""
        self.answered = True
        self.refusals.accepted(queued)
        if self.gate.closed and (queued.probe or self._sent_after_refusal(queued)):
            self._requested_pauses.over(contradicted=not queued.probe)
            self.resume(now)

    def _sent_after_refusal(self, queued: QueuedItem[T]) -> bool:
        """It left after the request whose refusal closed the gate, and was let in: nothing to wait for."""
        if self._requested_pauses.asked and (
            self.limits.known or not self.refusals.later_accepted(self._first_refused)
        ):
            return False
        return self._reason == "rate_limit" and queued.sent_at > self._first_refused.sent_at

    def settle(self, now: float, queued: QueuedItem[T], usage: Usage) -> None:
        """Corrects what was taken by what was used, where the endpoint does."""
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
                dimension.settle(position, queued.sent_at, entry, amount - used, rate)
        self._blocked_until = -math.inf

    def refused(self, now: float, queued: QueuedItem[T], verdict: Verdict, levels: list[Level]) -> None:
        """The endpoint asked for a pause; the queued goes back, first in line."""
        limits, gate = self.limits, self.gate
        limits.refused(queued.sent_at, queued.amounts, queued.positions, queued.entries)
        self.correct(queued, verdict)
        gate.observe_latency(now - queued.sent_at)
        if (pause_s := verdict.retry_after_s) is None:
            pause_s = limits.pause_of(levels, queued.amounts)
        row_may_wait = (requested_s := pause_s or 0.0) <= self._pause_limit.max_wait_s
        searching = not limits.known and row_may_wait
        if searching and self._requested_pauses.ignored:
            pause_s = None
        meaning = RefusalKind.LIMIT
        if (
            verdict.reason == "overloaded"
            and self.refusals.refused_for_overload(queued)
            and row_may_wait
            and not gate.closed
        ):
            self.push(queued, again=True, not_before=now + max(ROW_WAITS_S, requested_s))
            return
        if verdict.reason == "rate_limit":
            meaning = self.refusals.refused(now, queued, believed=limits.believed(now), quiet_s=gate.quiet_s)
        alone = not requested_s or searching or meaning is RefusalKind.CAP or self.refusals.noise
        if alone and meaning is not RefusalKind.LIMIT and not (queued.probe and gate.closed):
            self._row_waits(now, queued, meaning, requested_s)
            return
        opened = gate.refused(now, queued.sent_at, pause_s, probe=queued.probe, limit_known=limits.known)
        if opened:
            self._reason, self._requested_pauses.asked = verdict.reason, pause_s is not None
            self._dimension = limits.dimension_of(verdict.message)
            self._refusal_isolated = meaning is not RefusalKind.LIMIT
            self._contradicted = limits.contradicts(now)
            self._first_refused = queued.attempt
        elif queued.probe:
            self._requested_pauses.probe_refused()
        behind = gate.closed and verdict.reason != "rate_limit"
        self.push(queued, again=True, not_before=now + (verdict.retry_after_s or 0.0), behind=behind)
        log.debug(
            "%s: refused (%s, %s) at %.3f, sent at %.3f, %s; closed until %.3f",
            self.name, verdict.reason, meaning, now, queued.sent_at, ("nothing new", "a new pause")[opened], gate.until
        )  # fmt: skip

    def _row_waits(self, now: float, queued: QueuedItem[T], meaning: RefusalKind, requested_s: float) -> None:
        """The refusal is nobody's but its row's."""
        log.debug("%s: refused at %.3f: %s", self.name, now, meaning)
        if meaning is RefusalKind.CAP:
            if self.gate.closed:
                self._refusal_isolated = True
                self.resume(now)
            self.push(queued, again=True, not_before=now + ROW_WAITS_S / 10.0)
            return
        self._learn_from_isolated(now)
        self.push(queued, again=True, not_before=now + max(ROW_WAITS_S, requested_s))

    def _learn_from_isolated(self, now: float) -> None:
        """One was refused among many that were let in: a given limit is held a little too closely, or it is noise."""
        limits, refusals = self.limits, self.refusals
        if refusals.noise or limits.widen(now, self._dimension):
            return
        lowered = limits.is_given(self._dimension)  # by its margin
        match refusals.unexplained_refusal(
            now,
            between_pauses=limits.between_pauses,
            weak=limits.weak,
            lowered=lowered,
            quiet_s=self.gate.quiet_s,
        ):
            case Conclusion.NOISE:
                limits.noisy(now, quickly=self._requested_pauses.unneeded > 0)
            case Conclusion.LOWER:
                limits.learn(now, self._dimension, now, refusals=1, noisy=False)

    def correct(self, queued: QueuedItem[T], verdict: Verdict) -> None:
        """Learns from "Requested N" what the endpoint charges."""
        if verdict.requested_tokens:
            self.charge.correct(queued.cost, verdict.requested_tokens)

    def resume(self, now: float) -> None:
        """The pause is over: learn from it, and go on at the pace, without catching up."""
        limits, closed_at = self.limits, self.gate.closed_at
        assert closed_at is not None, "only a closed gate opens"
        self.gate.open(now)
        self.queue.outage_over()
        self._blocked_until = -math.inf
        if self._reason == "slow_down":
            limits.slow_down(now)
        elif self._reason == "rate_limit" and self._refusal_isolated:
            self._learn_from_isolated(now)
        elif self._reason == "rate_limit":
            single = self.gate.probes_refused == 0 and limits.is_given(self._dimension)
            if single and (self.refusals.noise or limits.widen(now, self._dimension)):
                limits.restart(now)
                return
            self._single_refusals = self._single_refusals + 1 if single else 0
            if not limits.known:
                self._requested_pauses.over(contradicted=self._contradicted)
                if self._requested_pauses.may_be_rounded(now - closed_at, self.gate.probes_refused):
                    limits.paused(now - closed_at)
            verdict = self.refusals.judge(
                now,
                contradicted=self._contradicted,
                accepted=limits.of(REQUESTS).sent.accepted,
                weak=limits.weak,
                lowered=not limits.doubted,
                quiet_s=self.gate.quiet_s,
            )
            if verdict is Conclusion.NOISE:
                limits.noisy(now, quickly=self._requested_pauses.unneeded > 0)
            elif not single or self._single_refusals >= OVERRULED_BY:
                noisy = self.refusals.noise > 0.0
                limits.learn(now, self._dimension, closed_at, refusals=self.gate.refusals, noisy=noisy)
        limits.restart(now)
        log.debug("%s: resumed at %.3f after %d refusals", self.name, now, self.gate.refusals)

    def learned(self) -> dict[str, float]:
        """What the next run should know."""
        found = self.limits.learned()
        if self.charge.factor != 1.0:
            found["charge_factor"] = self.charge.factor
        return found
