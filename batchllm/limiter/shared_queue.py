"""The waiting rows of one model that several endpoints share: each takes the first one that it may have.

An item that an endpoint refused, or failed to answer, is kept away from it for a while, so that a retry prefers another
endpoint; one that it can never take is kept away from it for good. Other endpoints may take the item meanwhile.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, Protocol, TypeVar

from batchllm.limiter.queue import LOOK_AHEAD, Queue, QueuedItem
from batchllm.limiter.terms import Cost

PREFER_S = 1.0
"""How long a retry waits for another endpoint than the one that did not answer it."""
REJECTED = math.inf
"""``Routable.away`` where an endpoint rejected the item."""
TOO_LARGE = 1e300
"""``Routable.away`` where the item exceeds an endpoint's limit."""


class Routable(Protocol):
    """An item that may go to one of several endpoints.

    Attributes:
        endpoint: The number of the endpoint that its present or last attempt went to.
        away: By the number of an endpoint, until when the item is not for it.
    """

    endpoint: int
    away: Mapping[int, float]

    @property
    def cost(self) -> Cost:
        """What it takes of the limits."""

    @property
    def lane(self) -> str:
        """Its model."""


R = TypeVar("R", bound=Routable)


class QueueView(Queue[R]):
    """What one endpoint sees of a shared queue.

    Args:
        shared: The queue of all endpoints.
        endpoint: The number of this one.
        has_others: Whether another endpoint may take an item.
        is_spared: Whether this endpoint does not take an item that has failed, though it may.
    """

    def __init__(
        self,
        shared: Queue[R],
        endpoint: int,
        has_others: Callable[[R, int], bool],
        is_spared: Callable[[R, int], bool],
    ) -> None:
        self._shared: Any = shared
        self._fresh, self._again, self._later = shared._fresh, shared._again, shared._later
        self._endpoint = endpoint
        self._has_others = has_others
        self._is_spared = is_spared
        self._now = -math.inf

    def push(self, queued: QueuedItem[R], *, again: bool, not_before: float, deferred: bool = False) -> None:
        """Puts back an item that the endpoint refused; other endpoints may take it at once."""
        item = queued.item
        if self._has_others(item, self._endpoint):
            item.away = {**item.away, self._endpoint: max(not_before, self._now + PREFER_S)}
            not_before, deferred = 0.0, False
        self._shared.push(queued, again=again, not_before=not_before, deferred=deferred)

    def come_due(self, now: float) -> float:
        """Moves items whose backoff is over to the front; returns when there may be one for this endpoint."""
        self._now = now
        wake = super().come_due(now)
        if self._again and self.head() is None:
            untils = [queued.item.away.get(self._endpoint, 0.0) for queued in self._again]
            wake = min([wake, *(until if until > now else now + PREFER_S for until in untils)])
        return wake

    def outage_over(self) -> None:
        """Puts deferred items first again."""
        self._shared.outage_over()

    def head(self) -> QueuedItem[R] | None:
        """Returns the item whose turn it is."""
        again = self._again
        first = None
        if again:
            first = again[0] if self._may_have(again[0]) else min(filter(self._may_have, again), default=None)
        if first is not None and not (first.deferred and self._fresh):
            return first
        return self._fresh[0] if self._fresh else None

    def look_ahead(self) -> Iterator[QueuedItem[R]]:
        """Yields the head and the items after it, a bounded number of each kind."""
        if not self._again:
            yield from islice(self._fresh, LOOK_AHEAD)
            return
        mine = [queued for queued in self._again if self._may_have(queued)]
        yield from islice((queued for queued in mine if not queued.deferred), LOOK_AHEAD)
        yield from islice(self._fresh, LOOK_AHEAD)
        yield from islice(sorted(queued for queued in mine if queued.deferred), LOOK_AHEAD)

    def _may_have(self, queued: QueuedItem[R]) -> bool:
        away = queued.item.away
        if not away:
            return True
        return away.get(self._endpoint, 0.0) <= self._now and not self._is_spared(queued.item, self._endpoint)
