"""What keeps a job from running on many machines, and what stops it there."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from batchllm.cluster.shard_run import ShardEnd
from batchllm.errors import (
    INTERNAL_ERROR,
    STOPPING,
    BudgetStop,
    CannotWrite,
    InputError,
    JobError,
    NotNow,
    StorageFailure,
    Unavailable,
    UsageError,
)
from batchllm.job import Job
from batchllm.presets import SIMULATOR

_NOT_WITH_IT = (
    ("limit", "-n tries a job on this machine: leave out --engine for that"),
    ("sample", "--sample tries a job on this machine: leave out --engine for that"),
    ("shard", "--shard runs a part of a job on this machine: leave out --engine for that"),
    ("restart", "--restart does not go with --engine: name another folder with --work instead"),
    ("reuse", "--reuse does not go with --engine: its journals are on this machine"),
    (
        "retry_cut_off",
        "--retry-cut-off does not go with --engine: run it on the finished job without --engine",
    ),
)


def check_options(job: Job) -> None:
    """Refuses what a job on many machines cannot have.

    Raises:
        UsageError: An option does not go with ``--engine``.
    """
    if job.work is None:
        raise UsageError(
            "--engine needs --work: a folder that all machines see, or the URL of an object store"
        )
    if job.via == "batch":
        raise UsageError("--via batch does not go with --engine: a batch needs one machine alone")
    if not job.inputs:
        raise UsageError("--engine needs an input that every machine can read, which standard input is not")
    if job.endpoint.preset == SIMULATOR and not job.endpoint.base_url:
        raise UsageError(
            "--provider simulator is on this machine alone; run `batchllm simulate` and name it with --base-url"
        )
    if any(each.headers for each in (job.endpoint, *(each.endpoint for each in job.endpoints))):
        raise UsageError("--header does not go with --engine: the dashboard of the cluster would show it")
    for name, reason in _NOT_WITH_IT:
        if getattr(job, name):
            raise UsageError(reason)


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


@dataclass(slots=True)
class StopAsked:
    """A signal that asked the job to stop."""

    number: int | None = None


@contextmanager
def stop_signals() -> Iterator[StopAsked]:
    """Notes the signals that stop a job inside the ``with`` block."""
    stop = StopAsked()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def received(number: int, frame: object) -> None:
        stop.number = stop.number or number

    before = {number: signal.getsignal(number) for number in STOPPING}
    for number in STOPPING:
        if before[number] != signal.SIG_IGN:
            signal.signal(number, received)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
