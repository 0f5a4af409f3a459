"""What keeps a job from running on many machines, and what stops it there."""

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from batchllm.cluster.collect import plan_of_work, unanswered
from batchllm.cluster.plan import Shard
from batchllm.cluster.shard_run import ShardEnd
from batchllm.cluster.work import PLAN, WorkFolder, open_work
from batchllm.errors import (
    INTERNAL_ERROR,
    STOPPING,
    BudgetStop,
    CannotWrite,
    InputError,
    Interrupted,
    JobError,
    NotNow,
    StorageFailure,
    Unavailable,
    UsageError,
)
from batchllm.job import Job
from batchllm.job.connection import API_KEY
from batchllm.job.endpoints import endpoints_of
from batchllm.presets import SIMULATOR
from batchllm.records import Pace
from batchllm.runner.cut_off import raised
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
    for given, flag in ((job.limit, "-n"), (job.sample, "--sample"), (job.retry_cut_off, "--retry-cut-off")):
        if given and job.into_parts:
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


def deadly(work: WorkFolder, shards: Sequence[Shard], deaths: int) -> Unavailable:
    """Returns the error that names the rows of shards whose workers died so often."""
    found = [
        unanswered(work, shard) or range(shard.first_row, shard.first_row + shard.rows) for shard in shards
    ]
    rows = " or ".join(f"{each[0] + 1:,} to {each[-1] + 1:,}" for each in found)
    numbers = " and ".join(str(shard.number) for shard in shards)
    return Unavailable(
        f"the workers of shard {numbers} died {deaths} times, perhaps of one of the rows {rows}: see the logs of the "
        "cluster, and the memory of its nodes. The same command tries them again; "
        f"`batchllm export {work} -o FILE` takes the rows that are finished"
    )


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


def with_raised_limit(job: Job) -> Job:
    """Returns the job of the plan, sent with a higher limit (``--retry-cut-off``)."""
    if not job.retry_cut_off:
        return job
    work = open_work(str(job.work)).newest()
    return raised(job, plan_of_work(work).identity["job"] if work.has(PLAN) else None)


def share_of(pace: Pace, workers: int) -> Pace:
    """Returns the pace of one of several workers: limits are leased, and ``--concurrency`` is for all together."""
    slots = pace.concurrency
    return pace if slots is None else replace(pace, concurrency=max(1, slots // workers))
