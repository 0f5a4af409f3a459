"""Deadlines of many attempts with one timer.

All attempts have the same timeout, so the oldest expires first and one timer is enough.

The task of a late attempt is cancelled. This is safe because a task is registered only while it is inside ``send``,
so the cancellation is delivered there and nowhere else.
"""

import asyncio


class Deadlines:
    """Cancels the task of an attempt that takes longer than ``timeout_s``.

    Args:
        timeout_s: Seconds of each attempt.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._started: dict[asyncio.Task[object], float] = {}
        self._late: set[asyncio.Task[object]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, task: "asyncio.Task[object]", now: float) -> None:
        """Registers an attempt in ``task``."""
        self._started[task] = now
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(now + self._timeout_s, self._ring, loop)

    def end(self, task: "asyncio.Task[object]") -> None:
        """Unregisters the attempt in ``task``."""
        self._started.pop(task, None)

    def was_late(self, task: "asyncio.Task[object]") -> bool:
        """Returns whether the cancellation that ``task`` caught is only the deadline's; if so, undoes it."""
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
