"""What the driver and the engine of a job say to each other: tasks, how they ended, and the engine itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from batchllm import __version__
from batchllm.cluster.parts import Parts
from batchllm.cluster.plan import Trial
from batchllm.errors import (
    INTERNAL_ERROR,
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
from batchllm.leases import Leases

_ERRORS: dict[int, type[JobError]] = {
    int(kind.exit_status): kind
    for kind in (UsageError, BudgetStop, Unavailable, CannotWrite, StorageFailure, NotNow)
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardTask:
    """What a worker is told. There is no key in it.

    Attributes:
        job: The job.
        work: The path or URL of the work folder.
        shard: The number of the shard.
        run: The name of the run of the whole job.
        trial: The rows of the shard that are wanted; ``None`` for all.
        has_worked: Other rows of the job have been answered.
        adopts: Only take what ``--reuse`` names, and send nothing.
        parts: The folder of parts that the job writes; ``None`` for one output.
        version: The version of the program that tells.
    """

    job: Job
    work: str
    shard: int
    run: str
    trial: Trial | None = None
    has_worked: bool = False
    adopts: bool = False
    parts: Parts | None = None
    version: str = __version__


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardEnd:
    """How an attempt ended.

    Attributes:
        shard: The number of the shard.
        node: The machine.
        exit_status: As of a single run: 0, or 1 where rows failed.
        error: What stopped the attempt; ``None``: the shard is finished.
    """

    shard: int
    node: str
    exit_status: int
    error: str | None = None


def error_of(end: ShardEnd, where: str = "") -> JobError | RuntimeError:
    """Returns the error of a worker as this process's own, with its exit status; an internal one is no ``JobError``."""
    text = f"{where}{end.error}"
    if end.exit_status == INTERNAL_ERROR:
        return RuntimeError(text)
    if end.exit_status == InputError.exit_status:
        return InputError(end.node, str(end.error))
    return _ERRORS.get(end.exit_status, JobError)(text)


class Engine(Protocol):
    """Runs attempts at shards on the machines of a cluster.

    Attributes:
        workers: How many shards it answers side by side.
    """

    workers: int

    @property
    def room(self) -> int:
        """How many attempts can begin at this moment."""

    def check(self, task: ShardTask) -> Sequence[ShardEnd]:
        """Calls ``check_node`` once on each machine; returns what each said."""

    def leases(self, task: ShardTask) -> Leases | None:
        """Returns the leases of an attempt that this process makes itself; ``None``: it shares no limit."""

    def submit(self, task: ShardTask) -> None:
        """Begins an attempt at a shard: ``run_shard`` somewhere."""

    def ended(self, timeout_s: float) -> Sequence[tuple[ShardTask, ShardEnd | None]]:
        """Waits for attempts to end, and returns them; ``None`` for one whose worker died.

        Args:
            timeout_s: The longest time to wait.
        """

    def cancel(self) -> None:
        """Gives up the attempts that have not ended."""
