"""Runs one job on many machines: plan, first rows, shards, and the output."""

import json
import math
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from uuid import uuid4

from batchllm.cluster.collect import done_of, plan_of_work
from batchllm.cluster.driver_claim import DriverClaim
from batchllm.cluster.engine import Engine
from batchllm.cluster.figures import FiguresReader
from batchllm.cluster.headers import without_secrets
from batchllm.cluster.one_output import Confirm, OneOutput
from batchllm.cluster.parts import Parts, parts_of, paths_of
from batchllm.cluster.parts_output import PartsOutput
from batchllm.cluster.plan import ClusterPlan, Shard
from batchllm.cluster.planning import known_plan, new_plan
from batchllm.cluster.shard_run import ShardEnd, ShardTask, run_shard
from batchllm.cluster.terms import check_options, error_of, stop_signals
from batchllm.cluster.trial import first_of, tried
from batchllm.cluster.work import PLAN, RETRIES, open_work, run_name, stop_name
from batchllm.endpoint import reachable
from batchllm.errors import BudgetStop, Interrupted, JobError, NotNow, NotReady, Unavailable, UsageError
from batchllm.job import Job
from batchllm.journal import JobLock
from batchllm.prepare.job_paths import JobPaths, check_job_paths, job_paths
from batchllm.prepare.prepared_job import PreparedJob, prepare_job
from batchllm.progress import Progress, Quiet
from batchllm.records import Pace
from batchllm.runner import Result, RowFeed
from batchllm.runner.cut_off import check_retry, raised
from batchllm.runner.ending import recorded
from batchllm.stopping import StopSwitch

SHOW_EVERY_S = 1.0
MOST_DEATHS = 5
"""Workers that may die over one shard."""
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


class _Driver:
    def __init__(
        self,
        job: Job,
        paths: JobPaths,
        parts: Parts | None,
        engine_of: Callable[[Job], Engine],
        progress: Progress,
        confirm: Confirm,
        stop: StopSwitch,
        feed: RowFeed | None,
    ) -> None:
        self.job = job
        self.paths = paths
        self.engine_of = engine_of
        self.progress = progress
        self.confirm = confirm
        self.stop = stop
        self.name = uuid4().hex
        self._began = time.monotonic()
        self._asked_to_stop = False
        self._deaths: Counter[int] = Counter()
        self._claim: DriverClaim | None = None
        self._folder = open_work(str(job.work))
        self._work = self._folder.newest(restart=job.restart)
        self._place = str(self._work)
        self._has_worked = False
        self._output = (
            OneOutput(job, paths, self._work, self.name, stop, feed)
            if parts is None
            else PartsOutput(job, parts, self._work, self.name)
        )
        self._plan: ClusterPlan
        self._engine: Engine

    def run(self) -> Result:
        with ExitStack() as claimed:
            left = self._prepare(claimed)
            if left and self.job.reuse:
                self._adopt(left)
            confirm: Confirm = (lambda forecast: None) if left else self.confirm
            while left:
                self._answer(self._engine, left)
                left = self._output.outdated(self._plan)
            return self._output.result(self._plan, confirm, lambda: time.monotonic() - self._began)

    def _prepare(self, claimed: ExitStack) -> list[Shard]:
        """Finds or makes the plan; returns the shards that are left, for which the work folder is claimed."""
        output = self._output
        with prepare_job(output.prepared_as, self.paths) as prepared:
            check_retry(prepared, is_same=True)
            output.prepare(prepared)
            left = self._known(prepared)
            if left == []:
                output.begin(self._plan, prepared, left, self.confirm)
                return []
            check = self._raise_if_over
            claim = DriverClaim(self._folder, self.name, wait_s=self.job.wait_lock_s, check=check)
            self._claim = claimed.enter_context(claim)
            if str(self._folder.newest(restart=self.job.restart)) != self._place:
                raise NotNow(f"{self._folder}: another command began the job anew; run this one again")
            left = self._known(prepared)  # another command may have gone on with it meanwhile
            if left == []:
                output.begin(self._plan, prepared, left, self.confirm)
                return []
            self._engine = self.engine_of(self.job)
            self._workers = self._engine.workers
            new = None
            if left is None:
                new = new_plan(self.job, prepared, self._workers)
                self._plan = tried(new, self.job)
                left = list(self._plan.shards)
            claimed.enter_context(output.made())
            output.check(self._plan, prepared, is_new=new is not None)
            self._check_nodes(self._engine)
            output.begin(self._plan, prepared, left, self.confirm)
            self._raise_if_over()
            if new is not None:
                self._work.put(PLAN, new.to_json())
            if self.job.retry_failed or self.job.retry_cut_off:
                before = json.loads(self._work.get(RETRIES) or b"{}")
                runs = {**before, self.name: self.job.raised_max_tokens}
                self._work.put(RETRIES, json.dumps(runs).encode())
            return left

    def _known(self, prepared: PreparedJob) -> list[Shard] | None:
        """Takes the plan that is there; returns the shards that it has left, or ``None`` without a plan."""
        known = known_plan(self._work, self.job, prepared)
        if known is None:
            return None
        self._plan = tried(known, self.job)
        return self._output.left(self._plan)

    def _check_nodes(self, engine: Engine) -> None:
        self._work.create(run_name(self.name), self.name.encode())
        ends = engine.check(self._task(self._plan.shards[0]))
        for end in ends:
            if end.error is not None:
                raise error_of(end, f"on node {end.node}: ")

    def _adopt(self, left: Sequence[Shard]) -> None:
        """Takes the answers of other jobs into the answer logs (``--reuse``), before anything is sent."""
        for shard in left:
            self._raise_if_over()
            end = run_shard(replace(self._task(shard), adopts=True), os.environ)
            if end.error is not None:
                raise error_of(end)

    def _task(self, shard: Shard) -> ShardTask:
        job, workers = without_secrets(self.job, os.environ), self._workers
        several = tuple(replace(each, pace=_share_of(each.pace, workers)) for each in job.endpoints)
        pace = _share_of(job.pace, workers)
        inputs = tuple(path.absolute() for path in job.inputs)
        job = replace(
            job, inputs=inputs, work=None, sources={}, max_time_s=None, pace=pace, endpoints=several
        )
        parts = self._output.parts
        return ShardTask(
            job=job, work=self._place, shard=shard.number, run=self.name, trial=shard.trial,
            has_worked=self._has_worked, parts=parts,
        )  # fmt: skip

    def _answer(self, engine: Engine, left: list[Shard]) -> None:
        """Answers the shards that are left; the first rows before anything else, on this machine."""
        self._figures = FiguresReader(self._work, self._plan)
        self.progress.start(self._plan.wanted, self._figures.read().done)
        first = first_of(self._plan)
        try:
            if left[0].number == first.number:
                self._answer_first(engine, first)
                if left[0] == first:
                    left = left[1:]
            done = done_of(self._work, first)
            self._has_worked = done is not None and done["summary"]["answered"] > 0
            self._fan_out(engine, left)
        finally:
            self.progress.close()

    def _answer_first(self, engine: Engine, first: Shard) -> None:
        task = self._task(first)
        with ThreadPoolExecutor(1, thread_name_prefix="first-rows") as pool:
            future = pool.submit(run_shard, task, os.environ, engine.leases(task))
            while not future.done():
                self._heed_stop()
                time.sleep(0.05)
        end = future.result()
        self._raise_if_over()
        if end.error is not None:
            raise error_of(end)

    def _fan_out(self, engine: Engine, left: list[Shard]) -> None:
        waiting = deque(left)
        running: set[int] = set()
        changed = {self._plan.shards[0].number}  # shards whose figures are not known, or not final
        reason: BaseException | None = None
        give_up_at = math.inf
        shown = 0.0
        while (waiting and reason is None) or running:
            self._heed_stop()
            reason = reason or self._over()
            if reason is not None and give_up_at == math.inf:
                self._ask_to_stop()
                give_up_at = time.monotonic() + self.job.grace_s + STOP_GRACE_S
            while waiting and reason is None and engine.room > 0:
                shard = waiting.popleft()
                running.add(shard.number)
                changed.add(shard.number)
                engine.submit(self._task(shard))
            for task, end in engine.ended(0.5):
                running.discard(task.shard)
                reason = reason or self._after(task, end, waiting)
            if reason is not None and (self.stop.is_aborted or time.monotonic() >= give_up_at):
                engine.cancel()
                break
            if time.monotonic() - shown >= SHOW_EVERY_S:
                self._show(changed)
                shown = time.monotonic()
        self._show(changed)
        if reason is not None:
            raise reason

    def _after(self, task: ShardTask, end: ShardEnd | None, waiting: deque[Shard]) -> Exception | None:
        """Puts a shard back whose attempt did not finish it, or returns why the job has to end."""
        shard = self._plan.shard(task.shard)
        if end is None:
            self._deaths[task.shard] += 1
            if self._deaths[task.shard] >= MOST_DEATHS:
                return Unavailable(
                    f"the worker of shard {task.shard} died {MOST_DEATHS} times; see the logs of the cluster, and the "
                    "memory of its nodes"
                )
            self.progress.tell(f"the worker of shard {task.shard} died; another one goes on with it")
            waiting.appendleft(shard)
        elif end.exit_status == NotNow.exit_status:
            if not self._output.is_finished(shard):
                waiting.append(shard)
        elif end.error is not None:
            is_of_all = end.exit_status == BudgetStop.exit_status
            return error_of(end, "" if is_of_all else f"shard {end.shard}, on node {end.node}: ")
        return None

    def _raise_if_over(self) -> None:
        if (over := self._over()) is not None:
            raise over

    def _over(self) -> JobError | Interrupted | None:
        """Returns why the job ends from outside."""
        try:
            self.stop.check()
        except (JobError, Interrupted) as error:
            return error
        if self._claim is not None and self._claim.failure is not None:
            return self._claim.failure
        limit = self.job.max_time_s
        if limit is not None and time.monotonic() - self._began >= limit:
            return NotReady(f"--max-time ({limit:g} s) is over; the same command goes on")
        return None

    def _show(self, changed: set[int]) -> None:
        figures = self._figures.read(changed)
        self.progress.show(figures.done, figures.failed, figures.tokens, figures.note(), figures.waits)

    def _heed_stop(self) -> None:
        if self._over() is not None and not self._asked_to_stop:
            self._asked_to_stop = True
            self._ask_to_stop()

    def _ask_to_stop(self) -> None:
        self._work.create(stop_name(self.name), b"stop")


def _with_raised_limit(job: Job) -> Job:
    """Returns the job of the plan, sent with a higher limit (``--retry-cut-off``)."""
    if not job.retry_cut_off:
        return job
    work = open_work(str(job.work)).newest()
    return raised(job, plan_of_work(work).identity["job"] if work.has(PLAN) else None)


def _share_of(pace: Pace, workers: int) -> Pace:
    """Returns the pace of one of several workers: limits are leased, and ``--concurrency`` is for all together."""
    slots = pace.concurrency
    return pace if slots is None else replace(pace, concurrency=max(1, slots // workers))
