"""Runs one job on many machines: plan, first rows, shards, and the output."""

import os
import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from uuid import uuid4

from batchllm.cluster.driver_claim import DriverClaim
from batchllm.cluster.engine import Engine
from batchllm.cluster.fan_out import FanOut
from batchllm.cluster.headers import without_secrets
from batchllm.cluster.job_end import JobEnd, stop_signals
from batchllm.cluster.lease_service import JobBudget
from batchllm.cluster.one_output import OneOutput
from batchllm.cluster.options import check_options
from batchllm.cluster.parts import Parts, parts_of, paths_of, prepared_as
from batchllm.cluster.parts_output import PartsOutput
from batchllm.cluster.plan import Shard, tried
from batchllm.cluster.planner import known_plan, new_plan, plan_of_work
from batchllm.cluster.summaries import JobState
from batchllm.cluster.work import BUDGET, PLAN, RETRIES, open_work
from batchllm.endpoint import reachable
from batchllm.errors import NotNow, UsageError
from batchllm.job import Job
from batchllm.journal import JobLock
from batchllm.prepare.job_paths import JobPaths, check_job_paths, job_paths
from batchllm.prepare.prepared_job import PreparedJob, prepare_job
from batchllm.progress import Progress, Quiet
from batchllm.runner import Confirm, Result, RowFeed
from batchllm.runner.cut_off import check_retry, raised
from batchllm.runner.ending import recorded
from batchllm.stopping import StopSwitch


def connected(job: Job) -> Engine:
    """Connects to the cluster of the job's engine.

    Raises:
        UsageError, Unavailable: There is none.
    """
    from batchllm.cluster.ray_engine import RayEngine

    return RayEngine(job)


def run_cluster(
    job: Job,
    *,
    engine_of: Callable[[Job], Engine] = connected,
    progress: Progress | None = None,
    confirm: Confirm = lambda forecast: None,
    stops: StopSwitch | None = None,
    feed: RowFeed | None = None,
    bring_input: Callable[[], None] = lambda: None,
) -> Result:
    """Runs a job on many machines until it is finished or stopped; the same call again resumes it.

    Args:
        job: The job, with ``work``.
        engine_of: Connects to the cluster.
        progress: Shows the progress of all machines together.
        confirm: Called with the forecast before the first request; raises to stop there.
        stops: What may stop it from outside; by default signals do.
        feed: Hands out the rows at the end.
        bring_input: Called before the input is read; puts it in place.

    Raises:
        JobError: The job could not go on; everything received is in the work folder.
        Interrupted: It was stopped from outside.
    """
    with recorded(job) as record, stop_signals() if stops is None else nullcontext(stops) as stop:
        check_options(job)
        without_secrets(job, os.environ)
        parts = parts_of(job)
        if parts is not None and feed is not None and feed.hands_out:
            raise UsageError(f"the rows of {job.output} are on other machines; name a file as the output")
        paths = job_paths(job) if parts is None else paths_of(parts)
        check_job_paths(job if parts is None else replace(job, output=None), paths)
        record.begin()
        lock = paths.lock.with_name(f"{paths.lock.name}.cluster")
        with JobLock(lock, wait_s=job.wait_lock_s), reachable(_with_raised_limit(job)) as job:
            record.describe(job)
            bring_input()
            result = _Driver(job, paths, parts, engine_of, progress or Quiet(), confirm, stop, feed).run()
        record.figures = result.summary
        return result


@dataclass(eq=False)
class _Driver:
    job: Job
    paths: JobPaths
    parts: Parts | None
    engine_of: Callable[[Job], Engine]
    progress: Progress
    confirm: Confirm
    stops: StopSwitch
    feed: RowFeed | None
    name: str = field(default_factory=lambda: uuid4().hex)

    def __post_init__(self) -> None:
        self._began = time.monotonic()
        self._folder = open_work(str(self.job.work))
        self._work = self._folder.newest(restart=self.job.restart)
        self._end = JobEnd(self.stops, self._work, self.name, max_time_s=self.job.max_time_s)
        self._state: JobState
        self._output: OneOutput | PartsOutput
        self._shards: FanOut

    def run(self) -> Result:
        with ExitStack() as claimed:
            left = self._prepare(claimed)
            if left and self.job.reuse:
                self._shards.adopt(left)
            confirm: Confirm = (lambda forecast: None) if left else self.confirm
            while left:
                self._shards.answer(left)
                self._state = JobState.read(self._work, self._state.plan)
                left = self._output.outdated(self._state)
            return self._output.result(self._state, confirm, lambda: time.monotonic() - self._began)

    def _prepare(self, claimed: ExitStack) -> list[Shard]:
        """Finds or makes the plan; returns the shards that are left, for which the work folder is claimed."""
        job = self.job
        with prepare_job(job if self.parts is None else prepared_as(job, self.parts), self.paths) as prepared:
            check_retry(prepared, is_same=True)
            self._output = output = self._output_of(prepared)
            left = self._known(prepared)
            if left != []:
                self._claim(claimed)
                left = self._known(prepared)  # another command may have gone on with it meanwhile
            if left == []:
                output.begin(self._state, prepared, left, self.confirm)
                return []
            engine = self.engine_of(job)
            new = None
            if left is None:
                new = new_plan(job, prepared, engine.workers)
                self._state = JobState(tried(new, job))
                left = self._state.unfinished
            claimed.enter_context(output.made())
            output.check(self._state, prepared, is_new=new is not None)
            if JobBudget.of(job, str(self._work), self.name).limits.any:
                # Where it is damaged, workers would wait for their share.
                self._work.get_json(BUDGET, "budget")
            self._shards = FanOut(
                job, self._state.plan, self._work, self.name, engine, output, self.progress, self._end
            )
            self._shards.check_nodes()
            output.begin(self._state, prepared, left, self.confirm)
            self._end.check()
            if new is not None:
                self._work.put(PLAN, new.to_json())
            if job.retry_failed or job.retry_cut_off:
                before = self._work.get_json(RETRIES) or {}
                self._work.put_json(RETRIES, {**before, self.name: job.raised_max_tokens})
            return left

    def _output_of(self, prepared: PreparedJob) -> OneOutput | PartsOutput:
        if self.parts is None:
            return OneOutput(self.job, self.paths, self._work, self.name, self.stops, self.feed)
        bad_rows = prepared.statistics.bad_rows
        return PartsOutput(self.job, self.parts.of(prepared), self._work, self.name, bad_rows=bad_rows)

    def _claim(self, claimed: ExitStack) -> None:
        """Claims the work folder for as long as the run goes on."""
        wait_s = self.job.wait_lock_s
        claim = DriverClaim(self._folder, self.name, wait_s=wait_s, check=self._end.check)
        self._end.claim = claimed.enter_context(claim)
        if str(self._folder.newest(restart=self.job.restart)) != str(self._work):
            raise NotNow(f"{self._folder}: another command began the job anew; run this one again")

    def _known(self, prepared: PreparedJob) -> list[Shard] | None:
        """Takes the plan that is there; returns the shards that it has left, or ``None`` without a plan."""
        known = known_plan(self._work, self.job, prepared)
        if known is None:
            return None
        self._state = JobState.read(self._work, tried(known, self.job))
        return self._output.left(self._state)


def _with_raised_limit(job: Job) -> Job:
    """Returns the job of the plan, sent with a higher limit (``--retry-cut-off``)."""
    if not job.retry_cut_off:
        return job
    work = open_work(str(job.work)).newest()
    return raised(job, plan_of_work(work).identity["job"] if work.has(PLAN) else None)
