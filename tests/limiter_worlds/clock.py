"""Virtual time: a heap of events."""

import random
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any


class Clock:
    """The present, what is to come, and the source of chance."""

    def __init__(self, seed: int) -> None:
        self.now = 0.0
        self.rng = random.Random(seed)
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0

    def at(self, when: float, action: Callable[..., None], *args: Any) -> None:
        """Calls ``action`` at the instant ``when``."""
        self._count += 1
        heappush(self._heap, (when, self._count, action, args))

    def run(self, until: float, finished: Callable[[], bool], most_events: int) -> bool:
        """Lets time pass; ``False`` where too many events say that something spins."""
        heap = self._heap
        for _ in range(most_events):
            if not heap or heap[0][0] > until or finished():
                return True
            self.now, _, action, args = heappop(heap)
            action(*args)
        return False
