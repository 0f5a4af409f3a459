"""What the peers do, reduced to their algorithms, behind the face of the real limiter.

Each paces by the limit it is told, and treats a refusal the way its original does. Nothing of them reads
headers of an answer or looks for a limit.
"""

import math
from collections import deque
from collections.abc import Mapping
from heapq import heappop, heappush
from typing import Any

from batchllm.limiter import Cost, Poll
from batchllm.records import Usage
from batchllm.retry import Verdict


class Peer:
    """The common part: a line, slots, and polling at fixed steps."""

    step_s = 0.01

    def __init__(self, rpm: float, concurrency: int) -> None:
        self.rpm, self.concurrency = rpm, concurrency
        self.outage, self.flying = False, 0
        self.line: deque[tuple[Any, Cost]] = deque()
        self.costs: dict[int, Cost] = {}

    @property
    def waiting(self) -> int:
        return len(self.line)

    def offer(self, item: Any, cost: Cost, **_: Any) -> None:
        self.line.append((item, cost))

    def answered(self, now: float, item: Any, headers: Mapping[str, str], usage: Usage | None) -> None:
        """Nothing is learned from an answer."""

    def failed(self, now: float, item: Any, verdict: Verdict, headers: Mapping[str, str]) -> None:
        """Nothing is learned from a failure."""

    def released(self, now: float, item: Any) -> None:
        self.flying -= 1

    def refused(self, now: float, item: Any, verdict: Verdict, headers: Mapping[str, str]) -> None:
        """At the end of the line, at once."""
        self.flying -= 1
        self.line.append((item, Cost(0, None)))

    def at(self, now: float) -> float:
        """When the next may go."""
        raise NotImplementedError

    def took(self, now: float) -> None:
        raise NotImplementedError

    def poll(self, now: float) -> Poll[Any]:
        grants: list[Any] = []
        while self.line and self.flying < self.concurrency:
            at = self.at(now)
            if at > now:
                return Poll(grants, max(at, now + self.step_s), [])
            self.took(now)
            self.flying += 1
            grants.append(self.line.popleft()[0])
        return Poll(grants, None, [])


class Cookbook(Peer):
    """OpenAI's cookbook script, and bespokelabs-curator after it: a bucket of a minute that starts full and is
    polled; after a refusal, requeue at once and stand still for 15 s."""

    step_s = 0.001

    def __init__(self, rpm: float, concurrency: int, pause_s: float = 15.0) -> None:
        super().__init__(rpm, concurrency)
        self.pause_s, self._room, self._at, self._until = pause_s, rpm, 0.0, 0.0

    def at(self, now: float) -> float:
        self._room = min(self.rpm, self._room + (now - self._at) * self.rpm / 60.0)
        self._at = now
        if now < self._until:
            return self._until
        return now if self._room >= 1.0 else now + (1.0 - self._room) * 60.0 / self.rpm

    def took(self, now: float) -> None:
        self._room -= 1.0

    def refused(self, now: float, item: Any, verdict: Verdict, headers: Mapping[str, str]) -> None:
        super().refused(now, item, verdict, headers)
        self._until = now + self.pause_s


class Curator(Cookbook):
    """bespokelabs-curator: the same bucket, a refused row requeued at once, polled every 100 ms."""

    step_s = 0.1

    def __init__(self, rpm: float, concurrency: int) -> None:
        super().__init__(rpm, concurrency, pause_s=10.0)


class AioLimiter(Peer):
    """aiolimiter (as in GABRIEL): a leaky bucket of a full minute that starts empty, so twice the limit fits
    into the first minute; its user backs off each row for itself."""

    def __init__(self, rpm: float, concurrency: int) -> None:
        super().__init__(rpm, concurrency)
        self._level, self._at = 0.0, 0.0
        self._later: list[tuple[float, int, Any]] = []
        self._count = 0

    def at(self, now: float) -> float:
        self._level = max(0.0, self._level - (now - self._at) * self.rpm / 60.0)
        self._at = now
        return (
            now if self._level + 1.0 <= self.rpm else now + (self._level + 1.0 - self.rpm) * 60.0 / self.rpm
        )

    def took(self, now: float) -> None:
        self._level += 1.0

    def refused(self, now: float, item: Any, verdict: Verdict, headers: Mapping[str, str]) -> None:
        self.flying -= 1
        self._count += 1
        item.refusals += 1
        heappush(self._later, (now + 1.5 * 2.0 ** min(5, item.refusals), self._count, item))

    def poll(self, now: float) -> Poll[Any]:
        while self._later and self._later[0][0] <= now:
            self.line.appendleft((heappop(self._later)[2], Cost(0, None)))
        found = super().poll(now)
        wake = min(found.wake_at or math.inf, self._later[0][0] if self._later else math.inf)
        return Poll(found.grants, None if wake == math.inf else wake, [])


class ReferenceRateLimiter(Peer):
    """The ``RateLimiter`` of many a tutorial: a list of the last minute's times, checked once, with the time
    noted from before the sleep. With several workers each sleeps on its own and goes without looking again."""

    def __init__(self, rpm: float, concurrency: int) -> None:
        super().__init__(rpm, concurrency)
        self._times: deque[float] = deque()
        self._asleep: list[float] = []

    def poll(self, now: float) -> Poll[Any]:
        grants = []
        while self._asleep and self._asleep[0] <= now and self.line:
            heappop(self._asleep)
            grants.append(self.line.popleft()[0])
        while len(self.line) > len(self._asleep) and self.flying < self.concurrency:
            self.flying += 1
            while self._times and now - self._times[0] >= 60.0:
                self._times.popleft()
            wait = 60.0 - (now - self._times[0]) if len(self._times) >= self.rpm else 0.0
            self._times.append(now)
            if wait > 0.0:
                heappush(self._asleep, now + wait)
            else:
                grants.append(self.line.popleft()[0])
        return Poll(grants, max(now + 1e-4, self._asleep[0]) if self._asleep else None, [])


PEERS = {
    "cookbook": Cookbook,
    "curator": Curator,
    "aiolimiter": AioLimiter,
    "tutorial RateLimiter": ReferenceRateLimiter,
}
