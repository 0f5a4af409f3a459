"""How long a call of the command waits for batches, and whether it waits at all."""

from dataclasses import dataclass, field

from batchllm import presets
from batchllm.errors import UsageError
from batchllm.job import Job


@dataclass(frozen=True, slots=True, kw_only=True)
class PollIntervals:
    """How long what takes.

    Attributes:
        first_s, most_s: Seconds between two looks at the batches, growing by half each time.
        unknown_s: Seconds after which a creation that the list does not show did not happen.
    """

    first_s: float = 30.0
    most_s: float = 300.0
    unknown_s: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """How a call waits for batches.

    Attributes:
        wait: Until every row has its end; otherwise it says "not ready" at once.
        patience: How long what takes.
        ephemeral: The endpoint forgets its batches when the run ends, and has no bill.
    """

    wait: bool = False
    patience: PollIntervals = field(default_factory=PollIntervals)
    ephemeral: bool = False


IN_PROCESS = Waiting(
    wait=True, patience=PollIntervals(first_s=0.2, most_s=2.0, unknown_s=0.0), ephemeral=True
)


def waiting_for(job: Job, *, wait: bool) -> Waiting:
    """How a call of a job waits for its batches.

    Args:
        job: Before its endpoint is started, where it is the simulator.
        wait: ``--wait``.

    Raises:
        UsageError: The batches would be gone before anybody could collect them.
    """
    if job.endpoint.preset != presets.SIMULATOR or job.endpoint.base_url:
        return Waiting(wait=wait)
    if job.via == "batch" and not wait:
        raise UsageError(
            "--via batch with the simulator of this run needs --wait, because its batches end with the run; to "
            "rehearse both calls, start 'batchllm simulate' beside it and add --base-url http://127.0.0.1:8080/v1"
        )
    return IN_PROCESS
