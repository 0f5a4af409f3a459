"""What the driver of a job needs of an engine, which runs workers on machines."""

from collections.abc import Sequence
from typing import Protocol

from batchllm.cluster.shard_run import ShardEnd, ShardTask
from batchllm.leases import Leases


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
