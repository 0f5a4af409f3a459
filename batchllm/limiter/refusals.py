"""What a refusal means: a limit, a cap of requests in flight, or nothing.

A gateway that refuses at random looks like a limit for a moment. Three things tell them apart. A refusal right behind
which others were let in, at a pace that is believed, is nobody's limit. Refusals that a lower pace should have
prevented, several times in a row, come from something else than the pace. And what refuses whenever as many are in
flight as before, and never when fewer are, is a cap.
"""

import math
from collections import deque
from enum import StrEnum
from typing import Generic

from batchllm.limiter.queue import ACCEPTED, OVERLOADED, PENDING, REFUSED, Attempt, QueuedItem
from batchllm.limiter.terms import T

NEARBY = 8
RECENT = 160
MIN_UNEXPLAINED = {True: 2, False: 4}
NEARBY_OVERLOADED = 16
MIN_ACCEPTED_NEARBY = 4
MIN_ACCEPTED_LATER = 2
"""Requests let in behind a refused one, beyond those refused there, that say that a pause is not everybody's."""
MIN_REFUSED_IN_A_ROW = 6
ACCEPTED_AGAINST_NOISE = 40
"""Requests let in without a refusal that speak against noise."""
CAP_RESTS_S = 30.0
"""How long a cap is believed once it has refused; while one more is let in, the next one is tried soon."""
CAP_RISES_S = 2.0
CAP_DISPROVED_BY = 3
"""Refusals in a row although a cap was kept: it is none."""
MIN_CAPPED = 5
_JUDGED = 100
_MAX_LOAD = 64


class RefusalKind(StrEnum):
    """What a refusal means."""

    LIMIT = "limit"  # everybody waits, and the pace is learned
    CAP = "cap"  # too much was in flight
    NOTHING = "nothing"  # only its row waits


class Conclusion(StrEnum):
    """What follows from refusals."""

    WAIT = "wait"  # too few to say
    LOWER = "lower"  # the pace is learned anew
    NOISE = "noise"  # they mean nothing


class Refusals(Generic[T]):
    """The outcomes of the last departures of a lane, in the order in which they left.

    Attributes:
        noise: The share of refusals that mean nothing; 0 where none are known to.
        unexplained: Refusals in a row that a lower pace should have prevented.
        cap: The requests that the endpoint takes at once; ``None`` where refusals show no such cap.
    """

    __slots__ = (
        "_accepted_by_load",
        "_below_cap",
        "_cap_rests_s",
        "_last",
        "_lowered",
        "_refused_by_load",
        "_unexplained_since_pause",
        "cap",
        "cap_at",
        "noise",
        "unexplained",
    )

    def __init__(self) -> None:
        self._last: deque[Attempt] = deque(maxlen=RECENT)
        self.unexplained = 0
        self._unexplained_since_pause = False
        self._lowered = False
        self._accepted_by_load = [0] * (_MAX_LOAD + 1)
        self._refused_by_load = [0] * (_MAX_LOAD + 1)
        self.noise = 0.0
        self.cap: int | None = None
        self.cap_at = 0.0
        self._cap_rests_s = CAP_RESTS_S
        self._below_cap = 0

    def sent(self, queued: QueuedItem[T], others_in_flight: int) -> None:
        """A request leaves beside so many others."""
        queued.attempt = Attempt(queued.sent_at, others_in_flight)
        self._last.append(queued.attempt)

    def accepted(self, queued: QueuedItem[T]) -> None:
        """A request was let in."""
        queued.attempt.outcome = ACCEPTED
        self._accepted_by_load[min(queued.attempt.others_in_flight, _MAX_LOAD)] += 1

    def refused(self, now: float, queued: QueuedItem[T], *, within_span: bool, quiet_s: float) -> RefusalKind:
        """A request was refused.

        Args:
            now: When.
            queued: The request.
            within_span: The pace it left at is no attempt to find a higher one.
            quiet_s: After how long a request that was not refused counts as let in.
        """
        queued.attempt.outcome = REFUSED
        self._refused_by_load[min(queued.attempt.others_in_flight, _MAX_LOAD)] += 1
        if self._capped(now, queued):
            return RefusalKind.CAP
        if self.noise:
            in_a_row = max(MIN_REFUSED_IN_A_ROW, math.ceil(-9.0 / math.log(self.noise)))
            if self._in_a_row(queued) >= in_a_row:
                self.noise = 0.0
                self.unexplained = 0
                return RefusalKind.LIMIT
            known = self._known(now, quiet_s)[-_JUDGED:]
            if self._is_more(known):
                return RefusalKind.LIMIT
            if len(known) >= _JUDGED // 2:
                self.noise = min(
                    self.noise, _upper(known, 2.0)
                )  # whatever is refused, noise is no more than that
            return RefusalKind.NOTHING
        outcomes = [_outcome(other, now, quiet_s) for other in self._last]
        place = next((i for i, other in enumerate(self._last) if other is queued.attempt), 0)
        before, after = outcomes[max(0, place - NEARBY) : place], outcomes[place + 1 :]
        alone = REFUSED not in before and REFUSED not in after
        if within_span and alone and before.count(ACCEPTED) >= 3:
            return RefusalKind.NOTHING
        return RefusalKind.LIMIT

    def overloaded(self, queued: QueuedItem[T]) -> bool:
        """A request was refused for overload; ``True``: more of those right before and behind it were let in."""
        queued.attempt.outcome = OVERLOADED
        last = list(self._last)
        place = next((i for i, other in enumerate(last) if other is queued.attempt), 0)
        near = [other.outcome for other in last[max(0, place - NEARBY_OVERLOADED) :]]
        accepted = near.count(ACCEPTED)
        return accepted >= MIN_ACCEPTED_NEARBY and accepted > near.count(REFUSED) + near.count(OVERLOADED)

    def later_accepted(self, refused: Attempt) -> bool:
        """Others that left behind a refused request were let in, and fewer were refused."""
        missing = MIN_ACCEPTED_LATER
        for other in reversed(self._last):
            if other is refused:
                break
            missing += (other.outcome == REFUSED) - (other.outcome == ACCEPTED)
        return missing <= 0

    def _known(self, now: float, quiet_s: float) -> list[int]:
        """Refusals come back fast and answers slowly, so only what left long enough ago is counted."""
        return [other.outcome or ACCEPTED for other in self._last if now - other.sent_at > quiet_s]

    def _in_a_row(self, queued: QueuedItem[T]) -> int:
        """Refusals of requests that left one after another, up to this one."""
        count = 0
        for other in reversed(self._last):
            if other.outcome == REFUSED:
                count += 1
            elif count or other is queued.attempt:
                break
        return count

    def _is_more(self, known: list[int]) -> bool:
        """More is refused than chance explains."""
        count = len(known)
        if count < 20:
            return False
        share, noise = known.count(REFUSED) / count, self.noise
        return share > noise + 3.0 * math.sqrt(noise * (1.0 - noise) / count) + 0.01

    def judge_pause(
        self, now: float, *, contradicted: bool, accepted: float, weak: bool, lowered: bool, quiet_s: float
    ) -> Conclusion:
        """A pause is over: whether its refusals turn out to mean nothing.

        Args:
            now: When.
            contradicted: The pace that was refused had been let in before for as long as it is believed now.
            accepted: Requests that were let in since the pause before.
            weak: What is believed rests on a few seconds.
            lowered: What the last pause taught has lowered it.
            quiet_s: After how long a request that was not refused counts as let in.
        """
        if self.noise:
            if contradicted:
                known = self._known(now, quiet_s)[-_JUDGED:]
                assert known, "a pause is longer than a refusal takes"
                self.noise = max(self.noise, _upper(known, 1.0))
            return Conclusion.LOWER
        if contradicted:
            verdict = self.judge_unexplained(
                now, between_pauses=True, weak=weak, lowered=lowered, quiet_s=quiet_s
            )
            return verdict if verdict is Conclusion.NOISE else Conclusion.LOWER
        if not self._unexplained_since_pause and accepted >= ACCEPTED_AGAINST_NOISE:
            self.unexplained = 0
            self._lowered = False
        self._unexplained_since_pause = False
        return Conclusion.LOWER

    def judge_unexplained(
        self, now: float, *, between_pauses: bool, weak: bool, lowered: bool, quiet_s: float
    ) -> Conclusion:
        """A refusal came that the present pace should have prevented.

        A pace a little too high is refused now and then too, so a lower one is tried first. What refuses as before
        then is noise.

        Args:
            now: When.
            between_pauses: The present pace is one that was let in from one pause to another.
            weak: What is believed rests on a few seconds, so that little is needed against it.
            lowered: The pace has been lowered already.
            quiet_s: After how long a request that was not refused counts as let in.
        """
        self.unexplained += 1
        self._unexplained_since_pause = True
        known = self._known(now, quiet_s)[-_JUDGED:]
        if self.unexplained < MIN_UNEXPLAINED[weak] or len(known) < 8:
            return Conclusion.WAIT
        self.unexplained = 0
        if not (lowered or (between_pauses and self._lowered)) or known.count(REFUSED) > 0.5 * len(known):
            self._lowered = between_pauses
            return Conclusion.LOWER
        self.noise = _upper(known, 1.0)
        self._lowered = False
        self.cap = None
        self._forget()
        return Conclusion.NOISE

    def _capped(self, now: float, queued: QueuedItem[T]) -> bool:
        """Whether refusals come when, and only when, a number of requests is in flight."""
        if self.noise:
            return False
        if self.cap is not None:
            disproved = queued.sent_at > self.cap_at and self._in_a_row(queued) >= CAP_DISPROVED_BY
            if queued.attempt.others_in_flight == 0 or disproved:
                self.cap = None
                self._forget()
                return False
            if queued.attempt.others_in_flight >= self.cap:
                self._cap_rests_s = CAP_RESTS_S
                return True
            below = self.cap - 1
            if queued.attempt.others_in_flight == below and self._refused_by_load[below] > max(
                2, self._accepted_by_load[below]
            ):
                self.cap = max(1, below)
                self._forget()
                return True
            self._below_cap += 1
            if self._below_cap >= 3:
                self.cap = None
                self._forget()
            return False
        total = sum(self._refused_by_load)
        fewer = 0
        for cap in range(1, _MAX_LOAD):
            fewer += self._refused_by_load[cap - 1]
            refused = total - fewer
            if fewer > 0.05 * total or refused < MIN_CAPPED:
                return False
            if (
                refused > 5 * sum(self._accepted_by_load[cap:])
                and sum(self._accepted_by_load[:cap]) >= MIN_CAPPED
            ):
                self.cap, self.cap_at, self._cap_rests_s = cap, now, CAP_RESTS_S
                self._below_cap = 0
                self._forget()
                return True
        return False

    def room(self, now: float, in_flight: int) -> int | None:
        """How many more the endpoint takes at once; now and then one more is tried. ``None``: no cap is known."""
        if self.cap is None:
            return None
        if now - self.cap_at > self._cap_rests_s and in_flight >= self.cap:
            if self.cap == _MAX_LOAD:
                self.cap = None  # more is not told apart, so it is left to what buys throughput
                return None
            self.cap, self.cap_at, self._cap_rests_s = self.cap + 1, now, CAP_RISES_S
        return self.cap - in_flight

    def _forget(self) -> None:
        self._accepted_by_load = [0] * (_MAX_LOAD + 1)
        self._refused_by_load = [0] * (_MAX_LOAD + 1)


def _upper(known: list[int], deviations: float) -> float:
    """The share of refusals, and some standard deviations of what chance does to it."""
    share = max(0.02, known.count(REFUSED) / len(known))
    return min(0.5, share + deviations * math.sqrt(share * (1.0 - share) / len(known)))


def _outcome(attempt: Attempt, now: float, quiet_s: float) -> int:
    """Refusals come back fast and answers slowly, so what is out for long counts as let in."""
    return ACCEPTED if attempt.outcome == PENDING and now - attempt.sent_at > quiet_s else attempt.outcome
