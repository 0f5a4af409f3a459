"""Runs one job on many machines: plan, first rows, shards, and the output."""

import json
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from uuid import uuid4

from batchllm.budget.estimate import forecast_job
from batchllm.budget.forecast import Forecast
from batchllm.cluster.collect import Collected, done_of, plan_of_work, rebuild_all
from batchllm.cluster.engine import Engine
from batchllm.cluster.figures import FiguresReader, summed
from batchllm.cluster.plan import ClusterPlan, Shard, cut, hashed, spans_of
from batchllm.cluster.shard_run import ShardEnd, ShardTask, run_shard
from batchllm.cluster.terms import StopAsked, check_options, error_of, stop_signals
from batchllm.cluster.work import PLAN, open_work
from batchllm.endpoint import reachable
from batchllm.errors import (
    Interrupted,
    NotNow,
    UsageError,
)
from batchllm.flows.conversation import conversation_of
from batchllm.job import Job
from batchllm.journal import JobLock, JournalReader, remove, store_value
from batchllm.prepare.job_paths import JobPaths, check_output, check_places, job_paths
from batchllm.prepare.prepared_job import PreparedJob, prepare_job
from batchllm.prepare.saved_job import saved
from batchllm.progress import Progress, Quiet
from batchllm.records import Pace
from batchllm.runner import Result, run_job
from batchllm.runner.ending import recorded

WORK = "work"
"""The journal's key for the plan that its answers come from."""

SHOW_EVERY_S = 1.0
STOP_GRACE_S = 15.0
"""Seconds beyond ``--grace`` that workers get to end in order."""


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
    confirm: Callable[[Forecast], None] = lambda forecast: None,
) -> Result:
    """Runs a job on many machines until it is finished or stopped; the same call again resumes it.

    Args:
        job: The job, with ``work``.
        engine_of: Connects to the cluster.
        progress: Shows the progress of all machines together.
        confirm: Called with the forecast before the first request; raises to stop there.

    Raises:
        JobError: The job could not go on; everything received is in the work folder.
        Interrupted: A signal stopped it.
    """
    with recorded(job) as record, stop_signals() as stop:
        check_options(job)
        paths = job_paths(job)
        check_places(job, paths)
        record.begin()
        lock = paths.lock.with_name(f"{paths.lock.name}.cluster")
        with JobLock(lock, wait_s=job.wait_lock_s), reachable(job) as job:
            record.describe(job)
            result = _Driver(job, paths, engine_of, progress or Quiet(), confirm, stop).run()
        record.figures = result.summary
        return result


class _Driver:
    def __init__(
        self,
        job: Job,
        paths: JobPaths,
        engine_of: Callable[[Job], Engine],
        progress: Progress,
        confirm: Callable[[Forecast], None],
        stop: StopAsked,
    ) -> None:
        self.job = job
        self.paths = paths
        self.engine_of = engine_of
        self.progress = progress
        self.confirm = confirm
        self.stop = stop
        self.name = uuid4().hex
        self._asked_to_stop = False
        self._plan: ClusterPlan

    def run(self) -> Result:
        began = time.monotonic()
        assert self.job.work is not None, "it was checked"
        work = open_work(str(self.job.work))
        self._work, self._place = work, str(work)
        with prepare_job(self.job, self.paths) as prepared:
            engine: Engine | None = None
            plan = self._known_plan(prepared)
            if plan is None:
                self._check_journal(None)
                engine = self.engine_of(self.job)
                plan = self._new_plan(prepared, engine.workers)
            self._plan = plan
            left = [shard for shard in plan.shards if done_of(work, shard) is None]
            if left:
                self._check_journal(plan)
                engine = engine or self.engine_of(self.job)
                self._workers = engine.workers
                rows = sum(shard.rows for shard in left)
                self._check_nodes(engine)
                self.confirm(forecast_job(prepared, rows=plan.rows, left=rows))
        if left and engine is not None:
            self._answer(engine, left)
        found = self._collect()
        finished = self._finish(self.confirm if not left else lambda forecast: None)
        summaries, dead = FiguresReader(work, plan).of_run(self.name)
        seconds = time.monotonic() - began
        summary = summed(finished.summary, summaries, dead, found, seconds=seconds)
        rows_lost = () if found is None else tuple(row + 1 for row in sorted(found.in_flight | found.after))
        return replace(finished, summary=summary, possibly_billed_rows=rows_lost, job=self.job)

    def _known_plan(self, prepared: PreparedJob) -> ClusterPlan | None:
        """Returns the plan that there is.

        Raises:
            UsageError: It is that of another job.
        """
        if not self._work.has(PLAN):
            return None
        plan = plan_of_work(self._work)
        if plan.input_sha256 != prepared.statistics.sha256:
            raise UsageError(
                f"{self._work} has the plan of another input than {self.job.input_name} is now; name another folder "
                "with --work, and another output with -o"
            )
        if plan.identity != _identity(self.job):
            raise UsageError(
                f"{self._work} has the plan of another job: model, prompt or parameters differ; name another folder "
                "with --work, and another output with -o"
            )
        return plan

    def _new_plan(self, prepared: PreparedJob, workers: int) -> ClusterPlan:
        job, source = self.job, prepared.source
        spans: Sequence[tuple[int, int]] = ()
        if job.conversation is not None:
            column = job.conversation
            spans = spans_of(conversation_of(row, column) for row in source.rows())
        ranges = cut(prepared.statistics.rows, workers, spans)
        plan = ClusterPlan(
            input=job.input_name,
            input_sha256=prepared.statistics.sha256,
            output=None if job.output is None else str(job.output.absolute()),
            rows=prepared.statistics.rows,
            identity=_identity(job),
            shards=hashed(source, ranges),
            job=saved(job),
        )
        self._work.create(PLAN, plan.to_json())
        return plan_of_work(self._work)

    def _check_journal(self, plan: ClusterPlan | None) -> None:
        """Refuses an output that is not this job's, and answers of a run on this machine alone.

        Raises:
            UsageError: There are such.
        """
        journal, output = self.paths.journal, self.paths.output
        if not journal.exists():
            if output is not None:
                check_output(output, written=None, force=self.job.force)
            return
        with JournalReader.open(journal) as reader:
            if plan is None or reader.get(WORK) != plan.digest:
                raise UsageError(
                    f"{journal} has answers of a run without --work, which this one would not use; name another output "
                    "with -o, or leave out --engine"
                )
        remove(journal)

    def _check_nodes(self, engine: Engine) -> None:
        ends = engine.check(self._task(0))
        for end in ends:
            if end.error is not None:
                raise error_of(end, f"on node {end.node}: ")

    def _task(self, shard: int) -> ShardTask:
        job = replace(self.job, work=None, sources={}, pace=_share_of(self.job.pace, self._workers))
        return ShardTask(job=job, work=self._place, shard=shard, run=self.name)

    def _answer(self, engine: Engine, left: list[Shard]) -> None:
        """Answers the shards that are left; the first rows before anything else, on this machine."""
        self._figures = FiguresReader(self._work, self._plan)
        self.progress.start(self._plan.rows, self._figures.read().done)
        try:
            if left[0].number == 0:
                self._answer_first()
            self._fan_out(engine, [shard for shard in left if shard.number > 0])
        finally:
            self.progress.close()

    def _answer_first(self) -> None:
        with ThreadPoolExecutor(1, thread_name_prefix="first-rows") as pool:
            future = pool.submit(run_shard, self._task(0), os.environ)
            while not future.done():
                self._heed_stop()
                time.sleep(0.05)
        self._raise_stop()
        end = future.result()
        if end.error is not None:
            raise error_of(end)

    def _fan_out(self, engine: Engine, left: list[Shard]) -> None:
        waiting = deque(left)
        running: set[int] = set()
        failed: ShardEnd | None = None
        give_up_at: float | None = None
        shown = 0.0
        changed: set[int] = set()  # shards whose figures are not final
        while waiting or running:
            self._heed_stop()
            ending = failed is not None or self._asked_to_stop
            if ending:
                waiting.clear()
                self._ask_to_stop()
                give_up_at = give_up_at or time.monotonic() + self.job.grace_s + STOP_GRACE_S
            while waiting and len(running) < engine.workers:
                shard = waiting.popleft()
                running.add(shard.number)
                changed.add(shard.number)
                engine.submit(self._task(shard.number))
            for task, end in engine.ended(0.5) if running else ():
                running.discard(task.shard)
                shard = self._plan.shards[task.shard]
                if end is None:
                    self.progress.tell(f"the worker of shard {task.shard} died; another one goes on with it")
                    waiting.appendleft(shard)
                elif end.exit_status == NotNow.exit_status and not ending:
                    if done_of(self._work, shard) is None:
                        waiting.append(shard)
                elif end.error is not None and failed is None and not ending:
                    failed = end
            if give_up_at is not None and time.monotonic() >= give_up_at:
                engine.cancel()
                break
            if time.monotonic() - shown >= SHOW_EVERY_S:
                self._show(changed)
                shown = time.monotonic()
        self._show(changed)
        self._raise_stop()
        if failed is not None:
            raise error_of(failed, f"shard {failed.shard}, on node {failed.node}: ")

    def _show(self, changed: set[int]) -> None:
        figures = self._figures.read(changed)
        self.progress.show(figures.done, figures.failed, figures.tokens, figures.note(), figures.waits)

    def _heed_stop(self) -> None:
        if self.stop.number is not None and not self._asked_to_stop:
            self._asked_to_stop = True
            self._ask_to_stop()

    def _ask_to_stop(self) -> None:
        self._work.create(f"stop-{self.name}", b"{}")

    def _raise_stop(self) -> None:
        if self.stop.number is not None:
            raise Interrupted(self.stop.number)

    def _collect(self) -> Collected | None:
        """Makes the job's journal of the answer logs, unless it is there."""
        journal = self.paths.journal
        if journal.exists():
            return None
        building = journal.with_name(f"{journal.name}.collecting")
        remove(building)
        found = rebuild_all(building, self._plan, self._work)
        store_value(building, WORK, self._plan.digest)
        building.rename(journal)
        return found

    def _finish(self, confirm: Callable[[Forecast], None]) -> Result:
        """Writes the output with the ordinary run, which finds every answer in the journal."""
        job = replace(self.job, summary=None, log_file=None)
        return run_job(job, confirm=confirm)


def _share_of(pace: Pace, workers: int) -> Pace:
    """Returns what one of several workers may use of the limits that the job gives for all together."""
    rpm, tpm, slots = pace.requests_per_minute, pace.tokens_per_minute, pace.concurrency
    return replace(
        pace,
        requests_per_minute=None if rpm is None else rpm / workers,
        tokens_per_minute=None if tpm is None else tpm / workers,
        concurrency=None if slots is None else max(1, slots // workers),
    )


def _identity(job: Job) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps({"job": job.fingerprint(), "dedupe": job.dedupe}))
    return plain
