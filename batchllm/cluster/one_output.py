"""The one output of a job on many machines: written on the machine of the command, from a journal of all rows."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from batchllm.budget.estimate import forecast_job
from batchllm.cluster.collect import Collected, done_of, rebuild_all
from batchllm.cluster.figures import FiguresReader, summed
from batchllm.cluster.plan import ClusterPlan, Shard
from batchllm.cluster.work import WorkFolder
from batchllm.errors import UsageError
from batchllm.job import Job
from batchllm.journal import JournalReader, remove, store_value
from batchllm.prepare.job_paths import JobPaths, check_output
from batchllm.prepare.prepared_job import PreparedJob
from batchllm.runner import Forecast, Result, RowFeed, run_job
from batchllm.stopping import StopSwitch

WORK = "work"
"""The journal's key for the plan that its answers come from."""

Confirm = Callable[[Forecast], None]


class OneOutput:
    """One file, or standard output; its attributes and methods are those of ``PartsOutput``.

    Args:
        job: The job.
        paths: Its files.
        work: Its work folder.
        run: The name of the run.
        stop: Stops the run from outside.
        feed: Hands out the rows at the end.

    Attributes:
        prepared_as: The job as its input is prepared.
        parts: There are none.
    """

    parts = None

    def __init__(
        self, job: Job, paths: JobPaths, work: WorkFolder, run: str, stop: StopSwitch, feed: RowFeed | None
    ) -> None:
        self.prepared_as = job
        self._job = job
        self._paths = paths
        self._work = work
        self._run = run
        self._stop = stop
        self._feed = feed

    def prepare(self, prepared: PreparedJob) -> None:
        """Needs nothing of the input."""

    def left(self, plan: ClusterPlan) -> list[Shard]:
        """Returns the shards that are not finished."""
        return [shard for shard in plan.shards if not self.is_finished(shard)]

    def is_finished(self, shard: Shard) -> bool:
        """Whether a shard is finished."""
        return done_of(self._work, shard) is not None

    def outdated(self, plan: ClusterPlan) -> list[Shard]:
        """Returns no shard: the output is written of all of them at the end."""
        return []

    def made(self) -> AbstractContextManager[None]:
        """Makes nothing."""
        return nullcontext()

    def check(self, plan: ClusterPlan, prepared: PreparedJob, *, is_new: bool) -> None:
        """Refuses an output that is not this job's, and answers of a run on this machine alone.

        Raises:
            UsageError: There are such.
        """
        journal, output = self._paths.journal, self._paths.output
        if not journal.exists():
            if output is not None:
                check_output(output, written=None, force=self._job.force)
            return
        with JournalReader.open(journal) as reader:
            if is_new or reader.get(WORK) != plan.digest:
                raise UsageError(
                    f"{journal} has answers of a run without --work, which this one would not use; name another output "
                    "with -o, or leave out --engine"
                )
        remove(journal)

    def begin(
        self, plan: ClusterPlan, prepared: PreparedJob, left: Sequence[Shard], confirm: Confirm
    ) -> None:
        """Asks whether the rows of the shards that are left are to be sent; without any, the end asks."""
        if left:
            confirm(forecast_job(prepared, rows=plan.rows, left=sum(shard.rows for shard in left)))

    def result(self, plan: ClusterPlan, confirm: Confirm, seconds: Callable[[], float]) -> Result:
        """Makes the job's journal of the answer logs, unless it is there, and writes the output.

        Args:
            plan: The shards.
            confirm: Called before the output is written.
            seconds: Returns the duration of the run.
        """
        found = self._collect(plan)
        # The ordinary run finds every answer in the journal.
        job = replace(self._job, summary=None, log_file=None)
        finished = run_job(job, confirm=confirm, stops=self._stop, feed=self._feed, sha256=plan.whole.sha256)
        lost = () if found is None else tuple(row + 1 for row in sorted(found.lost))
        dead = [] if found is None else [each for each in found.dead if each.run == self._run]
        summary = summed(
            finished.summary,
            FiguresReader(self._work, plan).of_run(self._run),
            dead,
            possibly_billed=len(lost) if dead else 0,
            seconds=seconds(),
        )
        return replace(finished, summary=summary, possibly_billed_rows=lost, job=self._job)

    def _collect(self, plan: ClusterPlan) -> Collected | None:
        journal = self._paths.journal
        if journal.exists():
            return None
        building = journal.with_name(f"{journal.name}.collecting")
        remove(building)
        found = rebuild_all(building, plan, self._work)
        store_value(building, WORK, plan.digest)
        building.rename(journal)
        return found
