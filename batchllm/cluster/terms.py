"""What keeps a job from running on many machines, and what stops it there."""

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from batchllm.cluster.driver_claim import DriverClaim
from batchllm.cluster.shard_run import ShardEnd
from batchllm.cluster.work import WorkFolder, stop_name
from batchllm.errors import (
    INTERNAL_ERROR,
    STOPPING,
    BudgetStop,
    CannotWrite,
    InputError,
    Interrupted,
    JobError,
    NotNow,
    NotReady,
    StorageFailure,
    Unavailable,
    UsageError,
)
from batchllm.job import Job
from batchllm.job.connection import API_KEY
from batchllm.job.endpoints import endpoints_of
from batchllm.presets import SIMULATOR
from batchllm.stopping import StopSwitch


def check_options(job: Job) -> None:
    """Refuses what a job on many machines cannot have.

    Raises:
        UsageError: An option does not go with ``--engine``.
    """
    if job.work is None:
        raise UsageError(
            "--engine needs --work: a folder that all machines see, or the URL of an object store"
        )
    if job.into_parts and job.output is not None and job.output.absolute() == job.work.absolute():
        raise UsageError("-o and --work name the same folder; give each its own")
    if job.via == "batch":
        raise UsageError(
            "--via batch does not go with --engine: one machine is enough for the upload of a batch; leave out --engine"
        )
    if not job.inputs:
        raise UsageError("--engine needs an input that every machine can read, which standard input is not")
    if job.endpoint.preset == SIMULATOR and not job.endpoint.base_url:
        raise UsageError(
            "--provider simulator is on this machine alone; run `batchllm simulate` and name it with --base-url"
        )
    if API_KEY in (each.key_source for each in endpoints_of(job)):
        raise UsageError(
            "api_key= stays in this process; with --engine every node has the key in an environment variable, or in "
            "the file of --api-key-file"
        )
    if job.shard is not None:
        raise UsageError(
            "--shard is for schedulers without --engine, which cuts the job into shards itself: leave out one of them"
        )
    of_one_output = {
        "-n": job.limit,
        "--sample": job.sample,
        "--retry-cut-off": job.retry_cut_off,
        "--journal": "journal" in job.sources,
        "--gold": job.gold,
    }
    for flag, given in of_one_output.items() if job.into_parts else ():
        if given:
            raise UsageError(f"{flag} does not go with a folder of parts; name a file with -o")


_ERRORS: dict[int, type[JobError]] = {
    int(kind.exit_status): kind
    for kind in (UsageError, BudgetStop, Unavailable, CannotWrite, StorageFailure, NotNow)
}


def error_of(end: ShardEnd, where: str = "") -> JobError | RuntimeError:
    """Returns the error of a worker as this process's own, with its exit status; an internal one is no ``JobError``."""
    text = f"{where}{end.error}"
    if end.exit_status == INTERNAL_ERROR:
        return RuntimeError(text)
    if end.exit_status == InputError.exit_status:
        return InputError(end.node, str(end.error))
    return _ERRORS.get(end.exit_status, JobError)(text)


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
    if threading.current_thread() is not threading.main_thread():
        yield stops
        return
    numbers: list[int] = []

    def received(number: int, frame: object) -> None:
        numbers.append(number)
        if len(numbers) > 1:
            stops.abort()
        else:
            stops.stop(Interrupted(number))

    before = {number: signal.getsignal(number) for number in STOPPING}
    for number in STOPPING:
        if before[number] != signal.SIG_IGN:
            signal.signal(number, received)
    try:
        yield stops
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
