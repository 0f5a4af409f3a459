"""Runs a job in a thread of its own, and hands what it reports to the caller's thread or event loop.

So a call works wherever Python runs, also under a running event loop. The caller's thread only waits, and calls
``on_row`` and the progress while it does. An interrupt, a cancelled task or an exception of those stops the job in
order: nothing new is sent, what is in flight gets the grace period, and everything received is kept.
"""

import asyncio
import atexit
import contextvars
import os
import signal
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable
from typing import Any

from batchllm.errors import Interrupted, KeyboardInterrupted
from batchllm.runner import Result
from batchllm.stopping import StopSwitch

Report = Callable[[], Any]
"""What the run reports: called in the caller's thread."""

TURN_EVERY_S = 0.2
"""How often a waiting event loop turns: Python handles a signal, such as a notebook's interrupt, when it does."""

MOST_REPORTS = 1_000
"""Reports that wait for the caller; while there are more, rows stay in the journal."""


class Running:
    """A job that runs.

    Args:
        work: Runs the job, given this object; in the thread of the job.
    """

    def __init__(self, work: "Callable[[Running], Result]") -> None:
        self.switch = StopSwitch()
        self._reports: deque[Report | None] = deque()
        self._ready = threading.Condition()
        self._listener: Callable[[], None] = lambda: None
        self._is_deaf = False
        self._result: Result | None = None
        self._error: BaseException | None = None
        context = contextvars.copy_context()
        self._thread = threading.Thread(
            target=context.run, args=(self._run, work), name="batchllm", daemon=True
        )

    def report(self, report: Report) -> None:
        """Hands something to the caller; called by the job's thread."""
        if not self._is_deaf:
            self._put(report)

    def has_room(self) -> bool:
        """Whether the caller keeps up with what is reported."""
        return self._is_deaf or len(self._reports) < MOST_REPORTS

    def wait(self) -> Result:
        """Starts the job and waits for its end, in the caller's thread.

        Raises:
            KeyboardInterrupted: Ctrl-C stopped it.
            BaseException: What else was raised in the caller's thread, after the job was stopped; or by the job.
        """
        self._start()
        try:
            while (report := self._take()) is not None:
                report()
        except BaseException as error:
            self._stop()
            self._wait_for_end()
            if isinstance(error, KeyboardInterrupt):
                raise KeyboardInterrupted from None
            raise
        return self.outcome()

    async def reports(self) -> AsyncGenerator[Report, None]:
        """Starts the job and yields what it reports, until its end; then ``outcome`` has its result.

        If the caller is cancelled, or goes away, the job is stopped. The first cancellation waits for its end, a
        further one leaves it to end by itself within the grace period.
        """
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()

        def listen() -> None:
            try:
                loop.call_soon_threadsafe(changed.set)
            except RuntimeError:  # the loop is closed
                self._is_deaf = True

        timer: asyncio.TimerHandle | None = None

        def turn() -> None:
            nonlocal timer
            timer = loop.call_later(TURN_EVERY_S, turn)

        self._listener = listen
        turn()
        self._start()
        is_ended = False
        try:
            while not is_ended:
                changed.clear()
                while self._reports and not is_ended:
                    report = self._reports.popleft()
                    if report is None:
                        is_ended = True
                    else:
                        yield report
                if not is_ended:
                    await changed.wait()
        finally:
            try:
                if not is_ended:
                    self._stop()
                while not is_ended and self._thread.is_alive() and None not in self._reports:
                    changed.clear()
                    await changed.wait()
            finally:
                if timer is not None:
                    timer.cancel()

    def outcome(self) -> Result:
        """Returns the result of a job that has ended, or raises what ended it."""
        if self._error is not None:
            raise self._error
        assert self._result is not None, "a job that has ended has a result or an error"
        return self._result

    def _start(self) -> None:
        self._pid = os.getpid()
        atexit.register(self._end_with_program)
        self._thread.start()

    def _run(self, work: "Callable[[Running], Result]") -> None:
        try:
            self._result = work(self)
        except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
            self._error = error
        finally:
            atexit.unregister(self._end_with_program)
            self._put(None)

    def _put(self, report: Report | None) -> None:
        with self._ready:
            self._reports.append(report)
            self._ready.notify()
        self._listener()

    def _take(self) -> Report | None:
        with self._ready:
            while not self._reports:
                self._ready.wait()
            return self._reports.popleft()

    def _stop(self) -> None:
        self._is_deaf = True
        self.switch.stop(Interrupted(signal.SIGINT))

    def _wait_for_end(self) -> None:
        """Waits for the end of a job that is stopped; a further interrupt ends its grace period."""
        while True:
            try:
                while self._take() is not None:
                    pass
                return
            except KeyboardInterrupt:
                self.switch.abort()

    def _end_with_program(self) -> None:
        """Stops the job in order when the program ends, which would kill its thread."""
        if os.getpid() == self._pid:  # a fork has the callback, and not the thread
            self._stop()
            self._thread.join()
