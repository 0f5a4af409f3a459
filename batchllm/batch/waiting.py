"""Whether and how long a run waits for its batches, and what it shows meanwhile."""

from dataclasses import dataclass

from batchllm import presets
from batchllm.counters import RunCounters
from batchllm.errors import ExitStatus, UsageError
from batchllm.job import Job
from batchllm.journal import Journal
from batchllm.progress import Progress

SESSION = "batch_session"
"""The journal's key for the first attempt of the session, which is a series of runs; see ``batch.loop``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """How a run waits for batches.

    Attributes:
        wait: Wait until every row is finished; otherwise say "not ready" at once.
        first_s, most_s: Seconds between two polls; each pause is half as long again as the one before.
        unknown_s: Seconds after which a batch that the endpoint does not list was not created.
        ephemeral: The endpoint forgets its batches when the run ends, and bills nothing.
    """

    wait: bool = False
    first_s: float = 2.0
    most_s: float = 300.0
    unknown_s: float = 60.0
    ephemeral: bool = False


IN_PROCESS = Waiting(wait=True, first_s=0.2, most_s=2.0, unknown_s=0.0, ephemeral=True)


def waiting_for(job: Job, *, wait: bool) -> Waiting:
    """Returns how a run of a job waits for its batches.

    Args:
        job: The job, before its endpoint is started if that is the simulator.
        wait: ``--wait``.

    Raises:
        UsageError: The batches would be gone before they could be collected.
    """
    if job.endpoint.preset != presets.SIMULATOR or job.endpoint.base_url:
        return Waiting(wait=wait)
    if job.via == "batch" and not wait:
        raise UsageError(
            "--via batch with the simulator of this run needs --wait, because its batches end with the run; to "
            "rehearse both calls, start 'batchllm simulate' beside it and add --base-url http://127.0.0.1:8080/v1"
        )
    return IN_PROCESS


def session_since(journal: Journal) -> int | None:
    """Returns the first attempt of the session that goes on: the last run ended "not ready"; ``None``: one begins."""
    runs = journal.reader().runs()
    if len(runs) < 2 or runs[-2]["exit_status"] != int(ExitStatus.NOT_NOW):
        return None
    since: int | None = journal.get(SESSION)
    return since


class WaitingDisplay:
    """Shows the progress while a run waits for batches.

    Args:
        progress: The display.
        journal: Knows the finished rows.
        counters: The run's counters.
    """

    def __init__(self, progress: Progress, journal: Journal, counters: RunCounters) -> None:
        self._progress = progress
        self._journal = journal
        self._counters = counters
        self._open = False

    def show(self, done: int) -> None:
        """Shows the finished rows, and ``done`` more in live batches."""
        counts = self._journal.reader().counts()
        failed = counts.failed + counts.unsendable + counts.unanswered
        finished = counts.answered + counts.skipped + failed
        if not self._open:
            self._progress.start(self._counters.rows, finished)
            self._open = True
            self._counters.log.write(
                "waiting", reason="batches", message="waiting for batches", finished=finished
            )
        rows = min(self._counters.rows, finished + done)
        self._progress.show(rows, failed, self._counters.tokens, "waiting for batches")

    def close(self) -> None:
        """Removes the display until it is shown again."""
        if self._open:
            self._progress.close()
        self._open = False
