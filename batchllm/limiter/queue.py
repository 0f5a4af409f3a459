"""The waiting rows of a lane: retries before new rows, each in order, with a bounded look-ahead.

In an outage or a pause, rows that the endpoint did not take are deferred behind the others. So the probes go through
all waiting rows, and no single row uses up its attempts on the outage.
"""

import math
from collections import deque
from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from itertools import islice
from typing import Generic

from batchllm.limiter.terms import Cost, T

LOOK_AHEAD = 64
PENDING, ACCEPTED, REFUSED, OVERLOADED = 0, 1, 2, 3


class Attempt:
    """One attempt of a queued item.

    Attributes:
        sent_at: When it was sent.
        others_in_flight: Requests that were in flight then.
        outcome: ``PENDING``, ``ACCEPTED``, ``REFUSED``, or ``OVERLOADED`` (refused for overload).
    """

    __slots__ = ("others_in_flight", "outcome", "sent_at")

    def __init__(self, sent_at: float, others_in_flight: int) -> None:
        self.sent_at = sent_at
        self.others_in_flight = others_in_flight
        self.outcome = PENDING


_NOT_SENT = Attempt(0.0, 0)


class QueuedItem(Generic[T]):
    """One offered item on its way through the limiter.

    Attributes:
        item, cost: As offered.
        lane: The name of its lane.
        number: Order of arrival.
        deferred: Its place behind the rows not tried in the present outage; 0 if it is not deferred.
        amounts: What it takes of each dimension of its lane, once granted.
        entries: Its entries in the logs of its lane's dimensions, once granted.
        positions: Its position in the send record of each dimension, once granted.
        sent_at: When it was granted.
        attempt: Its present attempt.
        answered: Whether its outcome is known, so that only its release is missing.
        received: Whether its answer has arrived, so that its slot may be taken.
        probe: Whether it is the one request that finds out whether a pause is over.
        blocked_since: When it became the head that does not fit.
    """

    __slots__ = (
        "amounts",
        "answered",
        "attempt",
        "blocked_since",
        "cost",
        "deferred",
        "entries",
        "item",
        "lane",
        "number",
        "positions",
        "probe",
        "received",
        "sent_at",
    )

    def __init__(self, item: T, cost: Cost, lane: str, number: int) -> None:
        self.item = item
        self.cost = cost
        self.lane = lane
        self.number = number
        self.deferred = 0
        self.amounts: tuple[float, ...] = ()
        self.entries: tuple[list[float] | None, ...] = ()
        self.positions: tuple[float, ...] = ()
        self.sent_at = 0.0
        self.attempt = _NOT_SENT
        self.answered = False
        self.received = False
        self.probe = False
        self.blocked_since: float | None = None

    def __lt__(self, other: "QueuedItem[T]") -> bool:
        return (self.deferred, self.number) < (other.deferred, other.number)


class Queue(Generic[T]):
    """The waiting items of one lane."""

    def __init__(self) -> None:
        self._fresh: deque[QueuedItem[T]] = deque()
        self._again: list[QueuedItem[T]] = []  # heap: retries whose backoff is over, and refused rows
        self._later: list[tuple[float, QueuedItem[T]]] = []  # heap by the end of the backoff
        self._deferred = 0  # the last place given to a deferred item

    def __len__(self) -> int:
        return len(self._fresh) + len(self._again) + len(self._later)

    def push(self, queued: QueuedItem[T], *, again: bool, not_before: float, deferred: bool = False) -> None:
        """Adds an item.

        Args:
            queued: The item.
            again: It has been tried, so it goes before new rows.
            not_before: When its backoff ends; 0 if it has none.
            deferred: All others go first until ``outage_over``.
        """
        self._deferred += deferred
        queued.deferred = self._deferred if deferred else 0
        if not_before > 0.0:
            heappush(self._later, (not_before, queued))
        elif again:
            heappush(self._again, queued)
        else:
            self._fresh.append(queued)

    def come_due(self, now: float) -> float:
        """Moves items whose backoff is over to the front; returns when the next backoff ends, or infinity."""
        later = self._later
        while later and later[0][0] <= now:
            heappush(self._again, heappop(later)[1])
        return later[0][0] if later else math.inf

    def outage_over(self) -> None:
        """Puts deferred items first again, in order of arrival, because the endpoint takes requests."""
        if self._deferred:
            self._deferred = 0
            for queued in [*self._again, *(queued for _, queued in self._later)]:
                queued.deferred = 0
            heapify(self._again)
            heapify(self._later)

    def head(self) -> QueuedItem[T] | None:
        """Returns the item whose turn it is."""
        if self._again and not (self._again[0].deferred and self._fresh):
            return self._again[0]
        return self._fresh[0] if self._fresh else None

    def look_at_tried(self) -> Iterator[QueuedItem[T]]:
        """Yields the items that were tried before."""
        yield from self._again
        yield from (queued for _, queued in self._later)

    def look_ahead(self) -> Iterator[QueuedItem[T]]:
        """Yields the head and the items after it, a bounded number of each kind."""
        if self._again:
            yield from islice((queued for queued in self._again if not queued.deferred), LOOK_AHEAD)
        yield from islice(self._fresh, LOOK_AHEAD)
        if self._deferred:
            yield from islice(sorted(queued for queued in self._again if queued.deferred), LOOK_AHEAD)

    def remove(self, queued: QueuedItem[T]) -> None:
        """Removes an item of the look-ahead."""
        if self._fresh and self._fresh[0] is queued:
            self._fresh.popleft()
        elif self._again and self._again[0] is queued:
            heappop(self._again)
        elif queued in self._again:
            self._again.remove(queued)
            self._again.sort()
        else:
            self._fresh.remove(queued)
