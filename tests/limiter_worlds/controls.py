"""A plain limiter that is correct where a limit is told or there is none, and bugs that can be seeded into it.

It shows that the judge is neither blind nor impossible to satisfy, without any of the product's laws.
"""

import random
from collections import deque
from collections.abc import Mapping
from heapq import heappop, heappush
from math import inf
from typing import Any

from batchllm.limiter import Cost, Poll
from batchllm.records import Pace

from .endpoint import Row

PROBE_S = 0.5
PAUSE_S = 1.0
CATCH_UP_S = 0.05


class Plain:
    """An even pace where the user tells a limit; a pause for all and one probe after each refusal."""

    def __init__(
        self, pace: Pace, *, charge: str, now: float, learned: Mapping[str, Any] | None = None,
        rng: random.Random | None = None,
    ) -> None:  # fmt: skip
        told = pace.requests_per_minute
        self.interval_s = 60.0 / (0.995 * told) if told else 0.0
        self.slots = pace.concurrency or 256
        self.in_flight = 0
        self.outage = False
        self._queue: deque[Row] = deque()
        self._resting: list[tuple[float, int, Row]] = []
        self._count = 0
        self.due_at = self.closed_until = now
        self.probe_until: float | None = None

    @property
    def waiting(self) -> int:
        return len(self._queue) + len(self._resting)

    def offer(
        self, item: Row, cost: Cost, *, lane: str, again: bool = False, not_before: float = 0.0
    ) -> None:
        if again:
            self._count += 1
            heappush(self._resting, (not_before, self._count, item))
        else:
            self._queue.append(item)

    def poll(self, now: float) -> Poll[Row]:
        while self._resting and self._resting[0][0] <= now:
            self._queue.appendleft(heappop(self._resting)[2])
        grants: list[Row] = []
        while self._queue and self.in_flight < self.slots and self.next_at(now) <= now:
            grants.append(self._queue.popleft())
            self.in_flight += 1
            self.granted(now)
        wake_at = self._resting[0][0] if self._resting else inf
        if self._queue and self.in_flight < self.slots:
            wake_at = min(wake_at, self.wake_at(now))
        return Poll(grants, wake_at if wake_at < inf else None, [])

    def next_at(self, now: float) -> float:
        """When the next row may leave."""
        return max(self.due_at, self.closed_until)

    def wake_at(self, now: float) -> float:
        """When to ask again while a row waits."""
        return self.next_at(now)

    def granted(self, now: float) -> None:
        """A row leaves."""
        self.due_at = max(now - CATCH_UP_S, self.due_at) + self.interval_s
        if self.probe_until == inf:
            self.probe_until = self.closed_until = now + PROBE_S

    def pause_s(self, told_s: float | None) -> float:
        """How long all wait after a refusal."""
        return PAUSE_S if told_s is None else told_s

    def refused(self, now: float, item: Row, verdict: Any, headers: Mapping[str, str]) -> None:
        self.in_flight -= 1
        self._queue.appendleft(item)
        self.closed_until = max(self.closed_until, now + self.pause_s(verdict.retry_after_s))
        self.probe_until = inf

    def answered(self, now: float, item: Row, headers: Mapping[str, str], usage: Any) -> None:
        pass

    def failed(self, now: float, item: Row, verdict: Any, headers: Mapping[str, str]) -> None:
        pass

    def received(self, item: Row) -> None:
        pass

    def released(self, now: float, item: Row) -> None:
        self.in_flight -= 1


class OneASecond(Plain):
    """Sends one request a second where nothing is told."""

    def __init__(self, pace: Pace, **options: Any) -> None:
        super().__init__(pace, **options)
        self.interval_s = self.interval_s or 1.0


class NeverWakes(Plain):
    """Asks for no timer during a pause."""

    def wake_at(self, now: float) -> float:
        return inf if now < self.closed_until else super().wake_at(now)


class IgnoresRetryAfter(Plain):
    """Comes again at once after a refusal."""

    def pause_s(self, told_s: float | None) -> float:
        return 0.0


class BurstsAfterAPause(Plain):
    """Lets a whole look-ahead go, unpaced, when a pause ends."""

    burst = 0

    def next_at(self, now: float) -> float:
        return self.closed_until if self.burst else super().next_at(now)

    def granted(self, now: float) -> None:
        if self.burst:
            self.burst -= 1
        else:
            super().granted(now)

    def refused(self, now: float, item: Row, verdict: Any, headers: Mapping[str, str]) -> None:
        super().refused(now, item, verdict, headers)
        self.burst = self.slots


class DebtAsASum(Plain):
    """What left unpaced before the first answer is a sum, paid at a fiftieth of the pace."""

    answers = 0

    def next_at(self, now: float) -> float:
        return self.closed_until if not self.answers else super().next_at(now)

    def granted(self, now: float) -> None:
        super().granted(now)
        if not self.answers:
            self.due_at += 49.0 * self.interval_s

    def answered(self, now: float, item: Row, headers: Mapping[str, str], usage: Any) -> None:
        self.answers += 1


class PaysAHundredSeconds(Plain):
    """Takes a refused first request for a limit of one in a hundred seconds."""

    def refused(self, now: float, item: Row, verdict: Any, headers: Mapping[str, str]) -> None:
        super().refused(now, item, verdict, headers)
        self.interval_s = max(self.interval_s, 100.0)


class FirstAlone(Plain):
    """Holds every row until the first answer is there, however long that takes."""

    first: Row | None = None
    seen = False

    def next_at(self, now: float) -> float:
        return inf if self.in_flight and not self.seen else super().next_at(now)

    def released(self, now: float, item: Row) -> None:
        super().released(now, item)
        self.seen = True


class DozesOff(Plain):
    """Stands for twenty seconds after every fiftieth row."""

    sent = 0

    def granted(self, now: float) -> None:
        super().granted(now)
        self.sent += 1
        if self.sent % 50 == 0:
            self.closed_until = max(self.closed_until, now + 20.0)


class TwiceThePace(Plain):
    """Sends at twice the pace that the user tells."""

    def __init__(self, pace: Pace, **options: Any) -> None:
        super().__init__(pace, **options)
        self.interval_s /= 2.0


class LosesARow(Plain):
    """Forgets the row that was refused."""

    def refused(self, now: float, item: Row, verdict: Any, headers: Mapping[str, str]) -> None:
        super().refused(now, item, verdict, headers)
        self._queue.popleft()


class NeverRaises(Plain):
    """Halves its pace at every refusal, whoever is to blame, and keeps it."""

    def refused(self, now: float, item: Row, verdict: Any, headers: Mapping[str, str]) -> None:
        super().refused(now, item, verdict, headers)
        self.interval_s = max(0.05, 2.0 * self.interval_s)


BUGS: tuple[type[Plain], ...] = (
    OneASecond, NeverWakes, IgnoresRetryAfter, BurstsAfterAPause, DebtAsASum, PaysAHundredSeconds, FirstAlone,
    DozesOff, TwiceThePace, LosesARow, NeverRaises,
)  # fmt: skip
