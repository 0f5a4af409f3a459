"""Answers the shards of a plan on the machines of an engine: the first rows alone, then all others side by side."""

import math
import os
import time
from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from batchllm.cluster.engine import Engine, ShardEnd, ShardTask, error_of
from batchllm.cluster.headers import without_secrets
from batchllm.cluster.job_end import JobEnd
from batchllm.cluster.journal_from_logs import unanswered
from batchllm.cluster.one_output import OneOutput
from batchllm.cluster.parts_output import PartsOutput
from batchllm.cluster.plan import ClusterPlan, Shard, first_of
from batchllm.cluster.progress import FiguresReader
from batchllm.cluster.shard_run import run_shard
from batchllm.cluster.summaries import done_of
from batchllm.cluster.work import WorkFolder, run_name
from batchllm.errors import BudgetStop, Interrupted, JobError, NotNow, Unavailable
from batchllm.job import Job
from batchllm.progress import Progress
from batchllm.records import Endpoint, Pace
from batchllm.stopping import StopSwitch

SHOW_EVERY_S = 1.0
MOST_DEATHS = 5
"""Workers that may die over one shard; then it is left out, and the others are finished."""
MOST_LEFT_OUT = 3
"""Shards that are left out; with so many it is not their rows that workers die of, and the job ends."""
STOP_GRACE_S = 15.0
"""Seconds beyond ``--grace`` that workers get to end in order."""


@dataclass(eq=False)
class FanOut:
    """Answers shards; one that a dead worker leaves goes to another.

    Args:
        job: The job.
        plan: Its shards.
        work: Its work folder.
        run: The name of the run.
        engine: Runs attempts at shards on machines.
        output: What the answers are written to; it knows which shards are finished.
        progress: Shows the progress of all machines together.
        end: What ends the job from outside.
    """

    job: Job
    plan: ClusterPlan
    work: WorkFolder
    run: str
    engine: Engine
    output: OneOutput | PartsOutput
    progress: Progress
    end: JobEnd

    def __post_init__(self) -> None:
        self._has_worked = False
        self._deaths: Counter[int] = Counter()
        self._left_out: list[Shard] = []

    def check_nodes(self) -> None:
        """Checks that each machine can take part.

        Raises:
            JobError: One cannot.
        """
        self.work.create(run_name(self.run), self.run.encode())
        for end in self.engine.check(self._task(self.plan.shards[0])):
            if end.error is not None:
                raise error_of(end, f"on node {end.node}: ")

    def adopt(self, left: Sequence[Shard]) -> None:
        """Takes the answers of other jobs into the answer logs (``--reuse``), before anything is sent."""
        for shard in left:
            self.end.check()
            end = run_shard(replace(self._task(shard), adopts=True), os.environ)
            if end.error is not None:
                raise error_of(end)

    def answer(self, left: Sequence[Shard]) -> None:
        """Answers the shards that are left; the first rows before anything else, on this machine.

        Raises:
            JobError: The job cannot go on.
            Interrupted: It was stopped from outside.
        """
        self._figures = FiguresReader(self.work, self.plan)
        self.progress.start(self.plan.wanted, self._figures.read().done)
        first = first_of(self.plan)
        try:
            if left[0].number == first.number:
                self._answer_first(first)
                if left[0] == first:
                    left = left[1:]
            done = done_of(self.work, first)
            self._has_worked = done is not None and done["summary"]["answered"] > 0
            self._answer_all(deque(left))
        finally:
            self.progress.close()

    def _answer_first(self, first: Shard) -> None:
        task = self._task(first)
        switch = StopSwitch()  # its own: what stops the attempt is not always what stops the job
        with ThreadPoolExecutor(1, thread_name_prefix="first-rows") as pool:
            future = pool.submit(run_shard, task, os.environ, self.engine.leases(task), stops=switch)
            while not future.done():
                if self.end.reason() is not None:
                    switch.stop(Interrupted(2))
                if self.end.is_aborted and not switch.is_aborted:
                    switch.abort()
                time.sleep(0.05)
        end = future.result()
        self.end.check()
        if end.error is not None:
            raise error_of(end)

    def _answer_all(self, waiting: deque[Shard]) -> None:
        running: set[int] = set()
        changed = {self.plan.shards[0].number}  # shards whose figures are not known, or not final
        reason: BaseException | None = None
        give_up_at = math.inf
        shown = 0.0
        while (waiting and reason is None) or running:
            reason = reason or self.end.reason()
            if reason is not None and give_up_at == math.inf:
                with suppress(JobError):  # where the folder fails for workers too, they stop by themselves
                    self.end.tell_workers()
                give_up_at = time.monotonic() + self.job.grace_s + STOP_GRACE_S
            while waiting and reason is None and self.engine.room > 0:
                shard = waiting.popleft()
                running.add(shard.number)
                changed.add(shard.number)
                self.engine.submit(self._task(shard))
            ends = self.engine.ended(0.5)
            running.difference_update(task.shard for task, _ in ends)
            if reason is not None and (self.end.is_aborted or time.monotonic() >= give_up_at):
                self.engine.cancel()
                break
            try:
                for task, end in ends:
                    reason = reason or self._after(task, end, waiting)
                if time.monotonic() - shown >= SHOW_EVERY_S:
                    shown = time.monotonic()
                    self._show(changed)
            except JobError as error:  # the work folder cannot be read; workers end in order first
                reason = reason or error
        if reason is None:
            self._show(changed)
        if reason is not None or self._left_out:
            raise reason or self._deadly()

    def _after(self, task: ShardTask, end: ShardEnd | None, waiting: deque[Shard]) -> Exception | None:
        """Puts a shard back whose attempt did not finish it, or returns why the job has to end."""
        shard = self.plan.shard(task.shard)
        if end is None:
            self._deaths[task.shard] += 1
            if self._deaths[task.shard] >= MOST_DEATHS:
                self._left_out.append(shard)
                return self._deadly() if len(self._left_out) >= MOST_LEFT_OUT else None
            self.progress.tell(f"the worker of shard {task.shard} died; another one goes on with it")
            if self._deaths[task.shard] == 1:
                waiting.appendleft(shard)
            else:  # it may be its rows: the others first
                waiting.append(shard)
        elif end.exit_status == NotNow.exit_status:
            if not self.output.is_finished(shard):
                waiting.append(shard)
        elif end.error is not None:
            is_of_all = end.exit_status == BudgetStop.exit_status
            return error_of(end, "" if is_of_all else f"shard {end.shard}, on node {end.node}: ")
        return None

    def _deadly(self) -> Unavailable:
        """Returns the error that names the rows of the shards that are left out."""
        found = [
            unanswered(self.work, shard) or range(shard.first_row, shard.first_row + shard.rows)
            for shard in self._left_out
        ]
        rows = " or ".join(f"{each[0] + 1:,} to {each[-1] + 1:,}" for each in found)
        numbers = " and ".join(str(shard.number) for shard in self._left_out)
        return Unavailable(
            f"the workers of shard {numbers} died {MOST_DEATHS} times, perhaps of one of the rows {rows}: see the logs "
            "of the cluster, and the memory of its nodes. The same command tries them again; "
            f"`batchllm export {self.work} -o FILE` takes the rows that are finished"
        )

    def _show(self, changed: set[int]) -> None:
        figures = self._figures.read(changed)
        self.progress.show(figures.done, figures.failed, figures.tokens, figures.note(), figures.waits)

    def _task(self, shard: Shard) -> ShardTask:
        job, workers = without_secrets(self.job, os.environ), self.engine.workers
        job = replace(
            job,
            endpoint=_from_everywhere(job.endpoint),
            endpoints=tuple(
                replace(each, endpoint=_from_everywhere(each.endpoint), pace=_share_of(each.pace, workers))
                for each in job.endpoints
            ),
            pace=_share_of(job.pace, workers),
            inputs=tuple(path.absolute() for path in job.inputs),
            media_root=job.media_root and job.media_root.absolute(),
            prices=job.prices.absolute() if isinstance(job.prices, Path) else job.prices,
            work=None,
            sources={},
            max_time_s=None,
        )
        parts = self.output.parts
        return ShardTask(
            job=job, work=str(self.work), shard=shard.number, run=self.run, trial=shard.trial,
            has_worked=self._has_worked, parts=parts,
        )  # fmt: skip


def _from_everywhere(endpoint: Endpoint) -> Endpoint:
    """Returns an endpoint whose key file has a path that does not depend on the folder that a worker runs in."""
    source = endpoint.key_source
    if source is None or source in os.environ:
        return endpoint
    return replace(endpoint, key_source=str(Path(source).absolute()))


def _share_of(pace: Pace, workers: int) -> Pace:
    """Returns the pace of one of several workers: limits are leased, and ``--concurrency`` is for all together."""
    slots = pace.concurrency
    return pace if slots is None else replace(pace, concurrency=max(1, slots // workers))
