"""Who waits: rows that go again before rows that are new, each in order, with a bounded look-ahead.

While the endpoint takes nothing, rows that it did not take go behind the others: the probes go through all rows that
wait, and an outage is not one row's many attempts.
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
    """One try of a queued.

    Attributes:
        sent_at: When it left.
        others_in_flight: Requests that were in flight then.
        outcome: ``PENDING``, ``ACCEPTED``, ``REFUSED``, or ``OVERLOADED`` (refused for overload).
    """

    __slots__ = ("others_in_flight", "outcome", "sent_at")

    def __init__(self, sent_at: float, others_in_flight: int) -> None:
        self.sent_at = sent_at
        self.others_in_flight = others_in_flight
        self.outcome = PENDING


class QueuedItem(Generic[T]):
    """One offered item on its way through the limiter.

    Attributes:
        item, cost: As offered.
        number: Order of arrival.
        behind: Its place behind the rows that were not tried in the present outage; 0: it is not there.
        amounts: What it takes of each dimension of its lane, once granted.
        entries: Where it stands in the logs of its lane's dimensions, once granted.
        sent_at: When it was granted.
        positions: Its position in the order of departures of each dimension.
        attempt: Its present try.
        answered: Its outcome is known; only its release is missing.
        received: Its answer has arrived, and its slot may be taken.
        probe: It is the one request that asks whether a pause is over.
        blocked_since: Since when it has been the head that does not fit.
    """

    __slots__ = (
        "amounts",
        "answered",
        "attempt",
        "behind",
        "blocked_since",
        "cost",
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
        self.behind = 0
        self.amounts: tuple[float, ...] = ()
        self.entries: tuple[list[float] | None, ...] = ()
        self.sent_at = 0.0
        self.positions: tuple[float, ...] = ()
        self.attempt = Attempt(0.0, 0)
        self.answered = False
        self.received = False
        self.probe = False
        self.blocked_since: float | None = None

    def __lt__(self, other: "QueuedItem[T]") -> bool:
        return (self.behind, self.number) < (other.behind, other.number)


class Queue(Generic[T]):
    """The waiting queued_items of one lane."""

    __slots__ = ("_again", "_behind", "_fresh", "_later")

    def __init__(self) -> None:
        self._fresh: deque[QueuedItem[T]] = deque()
        self._again: list[QueuedItem[T]] = []  # due retries and refused rows, oldest first
        self._later: list[tuple[float, QueuedItem[T]]] = []  # not before an instant
        self._behind = 0  # the last place given to one of them

    def __len__(self) -> int:
        return len(self._fresh) + len(self._again) + len(self._later)

    def push(self, queued: QueuedItem[T], *, again: bool, not_before: float, behind: bool = False) -> None:
        """Adds a queued: behind the new rows, or among those that go again once their time has come.

        Args:
            queued: The row.
            again: It has been tried.
            not_before: When its time comes.
            behind: An outage took its try: all others go first until ``outage_over``.
        """
        self._behind += behind
        queued.behind = self._behind if behind else 0
        if not_before > 0.0:
            heappush(self._later, (not_before, queued))
        elif again:
            heappush(self._again, queued)
        else:
            self._fresh.append(queued)

    def come_due(self, now: float) -> float:
        """Moves rows whose time has come to the front; returns the next such instant, or infinity."""
        later = self._later
        while later and later[0][0] <= now:
            heappush(self._again, heappop(later)[1])
        return later[0][0] if later else math.inf

    def outage_over(self) -> None:
        """The endpoint takes requests again: rows that it did not take are the first, in order of arrival."""
        if self._behind:
            self._behind = 0
            for queued in [*self._again, *(queued for _, queued in self._later)]:
                queued.behind = 0
            heapify(self._again)
            heapify(self._later)

    def head(self) -> QueuedItem[T] | None:
        """The queued whose turn it is."""
        if self._again and not (self._again[0].behind and self._fresh):
            return self._again[0]
        return self._fresh[0] if self._fresh else None

    def ahead(self) -> Iterator[QueuedItem[T]]:
        """The look-ahead: the head and those behind it."""
        yield from islice((queued for queued in self._again if not queued.behind), LOOK_AHEAD)
        yield from islice(self._fresh, LOOK_AHEAD)
        if self._behind:
            yield from islice(sorted(queued for queued in self._again if queued.behind), LOOK_AHEAD)

    def pop(self) -> QueuedItem[T]:
        """Takes the head out."""
        again = self._again
        return heappop(again) if again and self.head() is again[0] else self._fresh.popleft()

    def remove(self, queued: QueuedItem[T]) -> None:
        """Takes out a queued of the look-ahead."""
        if self.head() is queued:
            self.pop()
        elif queued in self._again:
            self._again.remove(queued)
            self._again.sort()
        else:
            self._fresh.remove(queued)
