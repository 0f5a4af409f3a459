"""What stops a run, for whatever reason: ``RunStop`` keeps the reason and the grace period.

==============================================  =====================================  ===============
reason                                          where it is noticed                    exit status
==============================================  =====================================  ===============
a signal, Ctrl-C or a cancelled task            ``Stops``                              128 + n
``--max-time``                                  ``limit_reached``                      75
a budget has no room                            ``budget.budget.BudgetMeter``          3
the first answers are all unusable              ``budget.early_stop.EarlyStop``        3
an outage, a pause or a quota beyond the limit  ``limiter``                            69
a refusal of key, model or URL                  ``online.outcome``, ``batch.loop``     2, or 69
==============================================  =====================================  ===============
"""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from batchllm.errors import STOPPING, Interrupted, JobError, NotReady
from batchllm.job import Job

CHECK_EVERY_S = 1.0
"""How often the limits are checked while nothing else happens."""


def limit_reached(job: Job, elapsed_s: float) -> JobError | None:
    """Returns why an option of the job ends its run; ``None`` while the run may go on.

    Args:
        job: The job.
        elapsed_s: Seconds since the input was read.
    """
    if job.max_time_s is not None and elapsed_s >= job.max_time_s:
        return NotReady(f"--max-time ({job.max_time_s:g} s) is over; the same command goes on")
    return None


class RunStop:
    """Stops one run. Make it while the event loop runs.

    Args:
        grace_s: Seconds that requests in flight get, whatever stops the run.
        limit: Takes the seconds since the run began, and returns why it has to end.
        stops: What may stop the run from outside; by default nothing does.

    Attributes:
        grace_s: Seconds that requests in flight get.
        reason: The first reason to stop; ``None`` while the run goes on.
        aborted: What is in flight is given up, because the grace period is over or a second signal came.
    """

    def __init__(
        self,
        grace_s: float = 30.0,
        limit: Callable[[float], JobError | None] = lambda elapsed_s: None,
        stops: "Stops | None" = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.grace_s = grace_s
        self._limit = limit
        self._began = self._loop.time()
        self._subscribers: list[tuple[Callable[[], object], Callable[[], object]]] = []
        self._stops = stops or Stops()
        self._timer: asyncio.TimerHandle
        self.reason: BaseException | None = None
        self.aborted = False

    def subscribe(self, stopped: Callable[[], object], aborted: Callable[[], object]) -> None:
        """Calls ``stopped`` when the run is to send nothing more, and ``aborted`` when it is to wait no longer."""
        self._subscribers.append((stopped, aborted))

    def stop(self, error: BaseException) -> None:
        """Stops the run in order: nothing new leaves, and what is in flight gets the grace period.

        The first reason counts, also for the exit status.
        """
        if self.reason is not None:
            return
        self.reason = error
        self._loop.call_later(self.grace_s, self.abort)
        for stopped, _ in self._subscribers:
            stopped()

    def abort(self) -> None:
        """Ends the grace period: requests in flight are cancelled, replies already received are kept."""
        self.aborted = True
        for _, aborted in self._subscribers:
            aborted()

    def check(self) -> BaseException | None:
        """Checks the limits, and returns the reason to stop; ``None`` while the run goes on."""
        if self.reason is None and (error := self._limit(self._loop.time() - self._began)) is not None:
            self.stop(error)
        return self.reason

    def raise_reason(self) -> None:
        """Raises the reason to stop, if there is one."""
        if self.reason is not None:
            raise self.reason

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Heeds ``stops`` and the limits inside the ``with`` block; at its end the reason is raised."""
        self._tick()
        try:
            with self._stops.attached(self):
                yield
        finally:
            self._timer.cancel()
        self.raise_reason()

    def _tick(self) -> None:
        self.check()
        self._timer = self._loop.call_later(CHECK_EVERY_S, self._tick)


def run_stop(job: Job, stops: "Stops | None" = None) -> RunStop:
    """Makes what stops a run of a job; call it while the event loop runs."""
    return RunStop(job.grace_s, partial(limit_reached, job), stops)


class Stops:
    """Stops a run from outside; this one never does."""

    @contextmanager
    def attached(self, run: RunStop) -> Iterator[None]:
        """Stops ``run`` inside the ``with`` block, which is entered in the thread of its event loop."""
        yield

    def check(self) -> None:
        """Raises what asked the run to stop, if anything did; called between the steps of a run."""


class SignalStops(Stops):
    """Signals stop the run, for the command line: the library leaves the signals of its host alone."""

    @contextmanager
    def attached(self, run: RunStop) -> Iterator[None]:
        """Handles signals inside the ``with`` block: the second one ends the grace period."""
        numbers: list[int] = []

        def received(number: int) -> None:
            numbers.append(number)
            run.stop(Interrupted(number))
            if len(numbers) > 1:
                run.abort()

        loop = asyncio.get_running_loop()
        with stopping_signals() as handled:
            for number in handled:
                loop.add_signal_handler(number, received, number)
            try:
                yield
            finally:
                for number in handled:
                    loop.remove_signal_handler(number)


class StopSwitch(Stops):
    """Another thread stops the run, at any moment: a stop that comes early holds for everything that follows.

    Attributes:
        is_aborted: The grace period is over.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal handler may interrupt its own thread here
        self._error: BaseException | None = None
        self.is_aborted = False
        self._attached: tuple[asyncio.AbstractEventLoop, RunStop] | None = None

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
            self.is_aborted = True
            if self._attached is not None:
                loop, run = self._attached
                loop.call_soon_threadsafe(run.abort)

    @contextmanager
    def attached(self, run: RunStop) -> Iterator[None]:
        """Stops ``run`` inside the ``with`` block; see ``Stops``."""
        with self._lock:
            self._attached = asyncio.get_running_loop(), run
            if self._error is not None:
                run.stop(self._error)
            if self.is_aborted:
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


@contextmanager
def stopping_signals() -> Iterator[list[int]]:
    """Yields the signals that may be handled inside the ``with`` block; their handlers are put back at its end.

    There are none outside the main thread, and ignored ones stay ignored (nohup).
    """
    is_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in STOPPING if is_main}
    try:
        yield [number for number, handler in before.items() if handler != signal.SIG_IGN]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
