"""The one output of a job on many machines: written on the machine of the command, from a journal of all rows."""

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from batchllm.budget.estimate import forecast_job
from batchllm.cluster.journal_from_logs import Collected, check_logs, rebuild_all
from batchllm.cluster.plan import ClusterPlan, Shard, first_of
from batchllm.cluster.progress import begun_rows
from batchllm.cluster.summaries import Done, JobState, asked_again, done_of, finished_by, summed
from batchllm.cluster.work import WorkFolder
from batchllm.errors import UsageError
from batchllm.job import Job
from batchllm.journal import JournalReader, remove, set_aside, store_value
from batchllm.plan.chosen import chosen_rows
from batchllm.prepare.existing_output import check_output, known_files
from batchllm.prepare.job_paths import JobPaths
from batchllm.prepare.prepared_job import PreparedJob
from batchllm.runner import Confirm, Result, RowFeed, run_job
from batchllm.runner.trial import OUTPUT, TRIAL_OUTPUT, destination_of
from batchllm.stopping import StopSwitch

WORK = "work"
"""The journal's key for the plan that its answers come from, how far that was, and its last attempt of it."""


@dataclass(eq=False)
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
        parts: There are none.
    """

    job: Job
    paths: JobPaths
    work: WorkFolder
    run: str
    stop: StopSwitch
    feed: RowFeed | None
    parts: None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._notes: dict[str, Any] = {}
        self._known: dict[str, Any] = {}

    def left(self, state: JobState) -> list[Shard]:
        """Returns the shards that are not finished, or have rows that are asked again."""
        return [shard for shard in state.plan.shards if self._is_left(state.done.get(shard.number))]

    def is_finished(self, shard: Shard) -> bool:
        """Whether nothing more is asked for a shard."""
        return not self._is_left(done_of(self.work, shard))

    def _is_left(self, done: Done | None) -> bool:
        return done is None or asked_again(done, self.job, self.run) > 0

    def outdated(self, state: JobState) -> list[Shard]:
        """Returns no shard: the output is written of all of them at the end."""
        return []

    def made(self) -> AbstractContextManager[None]:
        """Makes nothing."""
        return nullcontext()

    def check(self, state: JobState, prepared: PreparedJob, *, is_new: bool) -> None:
        """Refuses an output that is not this job's, and answers of a run on this machine alone.

        Raises:
            UsageError: There are such.
        """
        journal = self.paths.journal
        if self.job.restart:
            with known_files(journal) as known:
                self._notes = {
                    key: value for key in (OUTPUT, TRIAL_OUTPUT) if (value := known(key)) is not None
                }
        elif journal.exists():
            with JournalReader.open(journal) as reader:
                if is_new or not is_of(state.plan, reader):
                    raise UsageError(
                        f"{journal} has answers of a run without --work, which this one would not use; name another "
                        "output with -o, or leave out --engine"
                    )
                self._notes, self._known = reader.file_notes(), reader.get(WORK)
        job = self.job
        chosen = chosen_rows(job, state.plan.rows)
        destination = destination_of(job, self.paths.output, chosen, self._notes.get(OUTPUT))
        if destination.path is not None:
            check_output(destination.path, written=self._notes.get(destination.key), force=job.force)

    def begin(self, state: JobState, prepared: PreparedJob, left: Sequence[Shard], confirm: Confirm) -> None:
        """Asks whether the rows of the shards that are left are to be sent; without any, the end asks."""
        if left:
            rows = sum(self._asked(shard, state.done.get(shard.number)) for shard in left)
            begun = begun_rows(self.work, state.unfinished)
            confirm(forecast_job(prepared, rows=state.plan.wanted, left=rows - begun))
        journal = self.paths.journal
        if self.job.restart:
            set_aside(journal)
        elif left and journal.exists():  # it lacks what this run brings, also if the run is stopped
            store_value(journal, WORK, {**self._known, "state": None})

    def _asked(self, shard: Shard, done: Done | None) -> int:
        """Returns how many rows of a shard are asked, at most."""
        return shard.wanted if done is None else min(shard.wanted, asked_again(done, self.job, self.run))

    def result(self, state: JobState, confirm: Confirm, seconds: Callable[[], float]) -> Result:
        """Makes the job's journal of the answer logs, unless it is there, and writes the output.

        Args:
            state: What the job has finished.
            confirm: Called before the output is written.
            seconds: Returns the duration of the run.
        """
        found = self._collect(state)
        # The ordinary run finds every answer in the journal.
        job = replace(
            self.job, summary=None, log_file=None, reuse=(), restart=False, retry_failed=False, retry_cut_off=False,
            raised_max_tokens=None,
        )  # fmt: skip
        finished = run_job(
            job, confirm=confirm, stops=self.stop, feed=self.feed, sha256=state.plan.whole.sha256
        )
        lost = () if found is None else tuple(row + 1 for row in sorted(found.lost))
        dead = [] if found is None else [each for each in found.dead if each.run == self.run]
        summary = summed(
            finished.summary,
            finished_by(self.run, self._all_done(state)),
            dead,
            lost,
            seconds(),
        )
        return replace(finished, summary=summary, possibly_billed_rows=lost, job=self.job)

    def _all_done(self, state: JobState) -> list[Done]:
        """Returns the summaries of shards, and of the first rows of a trial."""
        first = first_of(state.plan)
        begun = None if first in state.plan.shards else done_of(self.work, first)
        return [*state.done.values(), *([] if begun is None else [begun])]

    def _collect(self, state: JobState) -> Collected | None:
        """Makes the job's journal of the answer logs, unless it is there and has all of them.

        Raises:
            UsageError: It has answers that the logs do not have.
        """
        journal = self.paths.journal
        ends = [(each["run"], each["attempt"]) for each in state.done.values()]
        digest = hashlib.sha256(json.dumps([state.plan.digest, ends]).encode()).hexdigest()
        if journal.exists():
            with JournalReader.open(journal) as reader:
                known: Any = (
                    reader.get(WORK) if is_of(state.plan, reader) else {"state": None, "last_attempt": -1}
                )
                if known["state"] == digest:
                    return None
                if reader.last_attempt > known["last_attempt"]:
                    raise UsageError(
                        f"{journal} has answers that {self.work} does not have; leave out --engine, or name another "
                        "output with -o"
                    )
                self._notes = reader.file_notes()
        building = journal.with_name(f"{journal.name}.collecting")
        remove(building)
        found = rebuild_all(building, state.plan, self.work)
        check_logs(found, state, self.work)
        of_work = {"plan": state.plan.digest, "state": digest, "last_attempt": found.found.last_attempt}
        for key, value in {WORK: of_work, **self._notes}.items():
            store_value(building, key, value)
        remove(journal)
        building.rename(journal)
        return found


def is_of(plan: ClusterPlan, reader: JournalReader) -> bool:
    """Whether a journal was made of the answer logs of a plan."""
    known = reader.get(WORK)
    return isinstance(known, dict) and known["plan"] == plan.digest
