"""What stops a run in order: signals at the command line, a call in a program.

The first stop lets what is in flight land within the grace period, the second ends the run at once. The library never
touches the signals of its host; only the command line passes ``SignalStops``.
"""

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from batchllm.errors import STOPPING, Interrupted


class Stoppable(Protocol):
    """A run that can be stopped."""

    def stop(self, error: BaseException) -> None:
        """Sends nothing more, and waits for what is in flight."""

    def abort(self) -> None:
        """Gives up what is in flight."""


class Stops:
    """Nothing stops the run from outside."""

    @contextmanager
    def attached(self, run: Stoppable) -> Iterator[None]:
        """Stops ``run`` inside the ``with`` block, which is entered in the thread of its event loop."""
        yield

    def check(self) -> None:
        """Raises what asked the run to stop, if anything did; called between the steps of a run."""


class SignalStops(Stops):
    """Signals stop the run; in the main thread only."""

    @contextmanager
    def attached(self, run: Stoppable) -> Iterator[None]:
        """Handles signals inside the ``with`` block; ignored signals stay ignored (nohup)."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        received: list[int] = []

        def handle(number: int) -> None:
            received.append(number)
            run.stop(Interrupted(received[0]))
            if len(received) > 1:
                run.abort()

        before = {number: signal.getsignal(number) for number in STOPPING}
        numbers = [number for number in STOPPING if before[number] != signal.SIG_IGN]
        for number in numbers:
            loop.add_signal_handler(number, handle, number)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)
                signal.signal(number, before[number] or signal.SIG_DFL)


class StopSwitch(Stops):
    """Another thread stops the run, at any moment: a stop that comes early holds for everything that follows."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._error: BaseException | None = None
        self._is_aborted = False
        self._attached: tuple[asyncio.AbstractEventLoop, Stoppable] | None = None

    def stop(self, error: BaseException) -> None:
        """Stops the run in order; the first reason counts. Any thread may call it."""
        with self._lock:
            self._error = self._error or error
            if self._attached is not None:
                loop, run = self._attached
                loop.call_soon_threadsafe(run.stop, self._error)

    def abort(self) -> None:
        """Ends the grace period of a run that is stopped. Any thread may call it."""
        with self._lock:
            self._is_aborted = True
            if self._attached is not None:
                loop, run = self._attached
                loop.call_soon_threadsafe(run.abort)

    @property
    def is_stopped(self) -> bool:
        """Whether the run was asked to stop."""
        return self._error is not None

    @contextmanager
    def attached(self, run: Stoppable) -> Iterator[None]:
        """Stops ``run`` inside the ``with`` block; see ``Stops``."""
        with self._lock:
            self._attached = asyncio.get_running_loop(), run
            if self._error is not None:
                run.stop(self._error)
            if self._is_aborted:
                run.abort()
        try:
            yield
        finally:
            with self._lock:
                self._attached = None

    def check(self) -> None:
        """Raises what asked the run to stop; see ``Stops``."""
        if self._error is not None:
            raise self._error
