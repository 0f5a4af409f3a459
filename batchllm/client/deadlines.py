"""Deadlines of many attempts with one timer.

All attempts have the same time, so the one that began first ends first: one timer for the oldest is enough, where
a timer an attempt costs a tenth of what sending a request costs.

An attempt that is late has its task cancelled. That is safe only because an attempt is in the book exactly while
its task waits inside ``send``: the cancellation is delivered there, and nowhere else.
"""

import asyncio


class Deadlines:
    """Cancels the task of an attempt that takes longer than ``timeout_s``.

    Args:
        timeout_s: Seconds that every attempt has.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._started: dict[asyncio.Task[object], float] = {}
        self._late: set[asyncio.Task[object]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, task: "asyncio.Task[object]", now: float) -> None:
        """An attempt begins in ``task``."""
        self._started[task] = now
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(now + self._timeout_s, self._ring, loop)

    def end(self, task: "asyncio.Task[object]") -> None:
        """The attempt in ``task`` is over."""
        self._started.pop(task, None)

    def was_late(self, task: "asyncio.Task[object]") -> bool:
        """Whether the cancellation that ``task`` has just caught is ours alone; if so, it is taken back."""
        if task not in self._late:
            return False
        self._late.discard(task)
        return task.uncancel() == 0

    def close(self) -> None:
        """Stops the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        self._timer = None
        for task, started in list(self._started.items()):
            if started + self._timeout_s > now:
                self._timer = loop.call_at(started + self._timeout_s, self._ring, loop)
                return
            del self._started[task]
            self._late.add(task)
            task.cancel()
