"""What ends a job on many machines from outside, and how its workers hear of it."""

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from batchllm.cluster.driver_claim import DriverClaim
from batchllm.cluster.work import WorkFolder, stop_name
from batchllm.errors import Interrupted, JobError, NotReady
from batchllm.stopping import StopSwitch, stopping_signals


class JobEnd:
    """What ends a job from outside: a signal, another command that has its work folder, or ``--max-time``.

    Args:
        stops: What signals stop.
        work: The work folder of the job.
        run: The name of the run.
        max_time_s: How long the run may take; ``None`` is for ever.

    Attributes:
        claim: The claim of the command on the work folder, once it has one.
    """

    def __init__(self, stops: StopSwitch, work: WorkFolder, run: str, *, max_time_s: float | None) -> None:
        self._stops = stops
        self._work = work
        self._run = run
        self._max_time_s = math.inf if max_time_s is None else max_time_s
        self._began = time.monotonic()
        self._told = False
        self.claim: DriverClaim | None = None

    @property
    def is_aborted(self) -> bool:
        """Whether the grace period is over."""
        return self._stops.is_aborted

    def reason(self) -> JobError | Interrupted | None:
        """Returns why the job ends; ``None`` if it goes on."""
        try:
            self._stops.check()
        except (JobError, Interrupted) as error:
            return error
        if self.claim is not None and self.claim.failure is not None:
            return self.claim.failure
        if time.monotonic() - self._began >= self._max_time_s:
            return NotReady(f"--max-time ({self._max_time_s:g} s) is over; the same command goes on")
        return None

    def check(self) -> None:
        """Raises why the job ends, if it does."""
        if (reason := self.reason()) is not None:
            raise reason

    def tell_workers(self) -> None:
        """Tells all workers of the run to stop."""
        if not self._told:
            self._told = True
            self._work.create(stop_name(self._run), b"stop")


@contextmanager
def stop_signals() -> Iterator[StopSwitch]:
    """Yields what the signals that stop a job stop inside the ``with`` block; the second one ends the grace period."""
    stops = StopSwitch()
    numbers: list[int] = []

    def received(number: int, frame: object) -> None:
        numbers.append(number)
        if len(numbers) > 1:
            stops.abort()
        else:
            stops.stop(Interrupted(number))

    with stopping_signals() as handled:
        for number in handled:
            signal.signal(number, received)
        yield stops
