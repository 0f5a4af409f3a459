"""Decides what a refusal means: a rate limit, a cap on requests in flight, or nothing.

A gateway that refuses at random looks like a limit for a moment. Three signs tell them apart. A refusal among accepted
requests, at a pace within its span, is isolated: no limit. Unexplained refusals, which the present pace should have
prevented, have another cause than the pace if there are several in a row. And if requests are refused whenever a
certain number is in flight, and never when fewer are, that number is a cap.
"""

import math
from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Generic

from batchllm.limiter.queue import ACCEPTED, OVERLOADED, PENDING, REFUSED, Attempt, QueuedItem
from batchllm.limiter.terms import T

NEARBY = 8
RECENT = 160
MIN_UNEXPLAINED = {True: 2, False: 4}
NEARBY_OVERLOADED = 16
MIN_ACCEPTED_NEARBY = 4
MIN_ACCEPTED_LATER = 2
"""Requests accepted after a refused one, beyond those refused there, that disprove a pause."""
MIN_REFUSED_IN_A_ROW = 6
ACCEPTED_AGAINST_NOISE = 40
"""Requests accepted without a refusal that speak against noise."""
CAP_RESTS_S = 30.0
"""How long a cap is kept after a refusal; while one more is accepted, the next one is tried after ``CAP_RISES_S``."""
CAP_RISES_S = 2.0
CAP_DISPROVED_BY = 3
"""Refusals in a row in spite of a cap that show that there is none."""
MIN_CAPPED = 5
_JUDGED = 100
_MAX_LOAD = 64


class RefusalKind(StrEnum):
    """What a refusal means."""

    LIMIT = "limit"  # all rows wait, and the pace is learned
    CAP = "cap"  # too much was in flight
    ISOLATED = "isolated"  # only its row waits


class Conclusion(StrEnum):
    """What follows from an unexplained refusal."""

    WAIT = "wait"  # too few to say
    LOWER = "lower"  # the pace is measured again
    NOISE = "noise"  # refusals come at random


@dataclass(frozen=True, slots=True)
class PaceBasis:
    """What the refused pace rests on.

    Attributes:
        between_pauses: The estimates were measured from one pause to the next.
        weak: The estimates rest on a few seconds, so fewer refusals are needed for a conclusion.
        lowered: The pace has been lowered already.
    """

    between_pauses: bool
    weak: bool
    lowered: bool


class Refusals(Generic[T]):
    """The outcomes of a lane's last attempts, in the order in which they were sent.

    Attributes:
        noise: The share of requests refused at random; 0 if none are known to be.
        unexplained: Unexplained refusals since the last conclusion.
        cap: How many requests the endpoint takes at once; ``None`` if refusals show no cap.
        cap_at: When the cap was found or last raised.
    """

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
        """Records that a request is sent."""
        queued.attempt = Attempt(queued.sent_at, others_in_flight)
        self._last.append(queued.attempt)

    def accepted(self, queued: QueuedItem[T]) -> None:
        """Records that a request was accepted."""
        queued.attempt.outcome = ACCEPTED
        self._accepted_by_load[min(queued.attempt.others_in_flight, _MAX_LOAD)] += 1

    def refused(self, now: float, queued: QueuedItem[T], *, within_span: bool, quiet_s: float) -> RefusalKind:
        """Records a refusal for a rate limit; returns what it means.

        Args:
            now: When.
            queued: The request.
            within_span: The request was not sent at a pace raised in search of a higher one.
            quiet_s: Seconds after which a request that has not been refused counts as accepted.
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
                self.noise = min(self.noise, _upper(known, 2.0))
            return RefusalKind.ISOLATED
        outcomes = [_outcome(other, now, quiet_s) for other in self._last]
        place = self._place_of(queued.attempt)
        before, after = outcomes[max(0, place - NEARBY) : place], outcomes[place + 1 :]
        alone = REFUSED not in before and REFUSED not in after
        if within_span and alone and before.count(ACCEPTED) >= 3:
            return RefusalKind.ISOLATED
        return RefusalKind.LIMIT

    def overloaded(self, queued: QueuedItem[T]) -> bool:
        """Records a refusal for overload; returns whether most requests around it were accepted."""
        queued.attempt.outcome = OVERLOADED
        first = max(0, self._place_of(queued.attempt) - NEARBY_OVERLOADED)
        near = [other.outcome for other in islice(self._last, first, None)]
        accepted = near.count(ACCEPTED)
        return accepted >= MIN_ACCEPTED_NEARBY and accepted > near.count(REFUSED) + near.count(OVERLOADED)

    def _place_of(self, attempt: Attempt) -> int:
        """Returns the place of an attempt among the last ones; 0 where it is none of them."""
        return next((i for i, other in enumerate(self._last) if other is attempt), 0)

    def later_accepted(self, refused: Attempt) -> bool:
        """Returns whether requests sent after a refused one were accepted, and fewer were refused."""
        missing = MIN_ACCEPTED_LATER
        for other in reversed(self._last):
            if other is refused:
                break
            missing += (other.outcome == REFUSED) - (other.outcome == ACCEPTED)
        return missing <= 0

    def _known(self, now: float, quiet_s: float) -> list[int]:
        """Returns the outcomes of attempts that were sent so long ago that a refusal would have arrived."""
        return [other.outcome or ACCEPTED for other in self._last if now - other.sent_at > quiet_s]

    def _in_a_row(self, queued: QueuedItem[T]) -> int:
        """Returns how many attempts sent one after another were refused, up to this one."""
        count = 0
        for other in reversed(self._last):
            if other.outcome == REFUSED:
                count += 1
            elif count or other is queued.attempt:
                break
        return count

    def _is_more(self, known: list[int]) -> bool:
        """Returns whether more is refused than chance explains."""
        count = len(known)
        if count < 20:
            return False
        share, noise = known.count(REFUSED) / count, self.noise
        return share > noise + 3.0 * math.sqrt(noise * (1.0 - noise) / count) + 0.01

    def judge_pause(
        self, now: float, basis: PaceBasis, *, contradicted: bool, accepted: float, quiet_s: float
    ) -> Conclusion:
        """Decides, after a pause, between noise and a pace to measure again.

        Noise stays noise, and its share rises if the pace was contradicted. Otherwise only a contradicted pace counts
        as an unexplained refusal, and enough accepted requests without one reset that count.

        Args:
            now: When.
            basis: What the pace rests on.
            contradicted: The refusal contradicts the estimate in force.
            accepted: Requests accepted since the pause before.
            quiet_s: Seconds after which a request that has not been refused counts as accepted.
        """
        if self.noise:
            if contradicted:
                known = self._known(now, quiet_s)[-_JUDGED:]
                assert known, "a pause is longer than a refusal takes"
                self.noise = max(self.noise, _upper(known, 1.0))
            return Conclusion.LOWER
        if contradicted:
            verdict = self.judge_unexplained(now, basis, quiet_s=quiet_s)
            return verdict if verdict is Conclusion.NOISE else Conclusion.LOWER
        if not self._unexplained_since_pause and accepted >= ACCEPTED_AGAINST_NOISE:
            self.unexplained = 0
            self._lowered = False
        self._unexplained_since_pause = False
        return Conclusion.LOWER

    def judge_unexplained(self, now: float, basis: PaceBasis, *, quiet_s: float) -> Conclusion:
        """Counts an unexplained refusal, and decides whether there are enough for a conclusion.

        A pace a little too high is refused now and then too, so the first conclusion is to lower it. If refusals come
        as before then, and no more than half of the requests are refused, the next conclusion is noise.

        Args:
            now: When.
            basis: What the pace rests on.
            quiet_s: Seconds after which a request that has not been refused counts as accepted.
        """
        self.unexplained += 1
        self._unexplained_since_pause = True
        known = self._known(now, quiet_s)[-_JUDGED:]
        if self.unexplained < MIN_UNEXPLAINED[basis.weak] or len(known) < 8:
            return Conclusion.WAIT
        self.unexplained = 0
        lowered = basis.lowered or (basis.between_pauses and self._lowered)
        if not lowered or known.count(REFUSED) > 0.5 * len(known):
            self._lowered = basis.between_pauses
            return Conclusion.LOWER
        self.noise = _upper(known, 1.0)
        self._lowered = False
        self._forget_cap()
        return Conclusion.NOISE

    def _capped(self, now: float, queued: QueuedItem[T]) -> bool:
        """Returns whether requests are refused when, and only when, a certain number is in flight."""
        if self.noise:
            return False
        if self.cap is not None:
            disproved = queued.sent_at > self.cap_at and self._in_a_row(queued) >= CAP_DISPROVED_BY
            if queued.attempt.others_in_flight == 0 or disproved:
                self._forget_cap()
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
                self._forget_cap()
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
        """Returns how many more requests fit under the cap, which rises now and then; ``None`` if no cap is known."""
        if self.cap is None:
            return None
        if now - self.cap_at > self._cap_rests_s and in_flight >= self.cap:
            if self.cap == _MAX_LOAD:
                self.cap = None  # loads above are not told apart: concurrency decides
                return None
            self.cap, self.cap_at, self._cap_rests_s = self.cap + 1, now, CAP_RISES_S
        return self.cap - in_flight

    def _forget_cap(self) -> None:
        self.cap = None
        self._forget()

    def _forget(self) -> None:
        self._accepted_by_load = [0] * (_MAX_LOAD + 1)
        self._refused_by_load = [0] * (_MAX_LOAD + 1)


def _upper(known: list[int], deviations: float) -> float:
    """Returns the share of refusals plus some of its standard deviations."""
    share = max(0.02, known.count(REFUSED) / len(known))
    return min(0.5, share + deviations * math.sqrt(share * (1.0 - share) / len(known)))


def _outcome(attempt: Attempt, now: float, quiet_s: float) -> int:
    """Returns an outcome; refusals come back fast, so an attempt pending for long counts as accepted."""
    return ACCEPTED if attempt.outcome == PENDING and now - attempt.sent_at > quiet_s else attempt.outcome
