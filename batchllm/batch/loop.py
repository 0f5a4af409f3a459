"""The batch loop: poll live batches, submit rows that are in none, wait.

A *session* is a series of runs of which all but the last ended "not ready". A row that is given up is not sent again
in the same session; otherwise a row that always fails would keep the job from ever ending.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from batchllm import presets
from batchllm.batch.collect import Collector
from batchllm.batch.errors import is_queue_full, job_error, read_rejection
from batchllm.batch.steps import GONE, Steps
from batchllm.batch.submit import BatchSubmitter
from batchllm.batch.waiting import SESSION, Waiting, WaitingDisplay, session_since
from batchllm.budget.account import Account
from batchllm.client.batches import CallFailed
from batchllm.counters import RunCounters
from batchllm.endpoint import LazyClient
from batchllm.errors import BudgetStop, ExitStatus, JobError, NotReady, Unavailable, UsageError
from batchllm.job import Job
from batchllm.journal import BatchRecord, BatchState, Journal
from batchllm.plan.job_plan import plan_of
from batchllm.plan.reuse import Reuse
from batchllm.plan.work_item import WorkItem
from batchllm.prepare.prepared_job import PreparedJob
from batchllm.presets import BatchFacts
from batchllm.printable import counted
from batchllm.progress import Progress
from batchllm.records import Chosen
from batchllm.stopping import RunStop

T = TypeVar("T")

MAX_EMPTY_BATCHES = 3
"""Batches of a session that may end, one after the other, without finishing a single row."""


def facts_of(job: Job) -> BatchFacts:
    """Returns the limits of an endpoint's Batch API; those of any compatible one if nothing is known."""
    facts = presets.load(job.endpoint.preset).batch or presets.load(presets.CUSTOM).batch
    assert facts is not None, "the preset for any URL has a Batch API"
    return facts


class BatchLoop:
    """The batches of one run.

    Args:
        prepared: The job and its input.
        journal: The job's journal.
        client: Opens the endpoint at the first call.
        counters: The run's counters.
        account: Budget and prices.
        progress: Shown while the run waits.
        chosen: The only rows wanted (``-n``, ``--sample``), or ``None`` for all.
        reuse: Answers of other jobs.
        online: Sends what is in no batch as single requests (``--via online``); ``None`` makes batches of it.
        waiting: How the run waits.
        run_stop: Says when the run has to end.
    """

    def __init__(
        self,
        prepared: PreparedJob,
        journal: Journal,
        *,
        client: LazyClient,
        counters: RunCounters,
        account: Account,
        progress: Progress,
        chosen: Chosen,
        reuse: Reuse | None,
        online: Callable[[], Awaitable[None]] | None,
        waiting: Waiting,
        run_stop: RunStop,
    ) -> None:
        job, facts = prepared.job, facts_of(prepared.job)
        self._prepared = prepared
        self._journal = journal
        self._store = journal.batches
        self._counters = counters
        self._collected = RunCounters()
        self._chosen = chosen
        self._reuse = reuse
        self._online = online
        self._waiting = waiting
        self._display = WaitingDisplay(progress, journal, counters)
        self._steps = Steps(client.batches, journal.batches, facts, waiting.unknown_s)
        self._collector = Collector(
            client.batches,
            journal,
            prepared,
            counters=counters,
            collected=self._collected,
            account=account,
            ephemeral=waiting.ephemeral,
        )
        self._submitter = BatchSubmitter(
            journal,
            self._steps,
            facts,
            meter=account.meter,
            counters=self._collected,
            one_model=not job.per_row and not job.steps,
        )
        self._since = _session(journal)
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[Any] | None = None
        self._run_stop = run_stop
        run_stop.subscribe(self._stopping.set, self._cancel)

    async def run(self) -> None:
        """Loops until every row is finished.

        Raises:
            NotReady: Batches are under way, and the run does not wait.
            JobError: The job cannot go on; everything received is in the journal.
        """
        pause_s = self._waiting.first_s
        try:
            moved = True
            while True:
                moved = await self._guarded(self._poll()) or moved
                if moved or self._held:
                    self._display.close()
                    await self._send_rest()
                live = self._store.live()
                if not live and self._submitter.shortage is not None:
                    raise BudgetStop(self._submitter.shortage)
                if not live and not self._held:
                    return
                if not self._waiting.wait:
                    raise NotReady(not_ready(live, held=self._held))
                self._display.show(sum(batch.completed or 0 for batch in live))
                await self._guarded(self._pause(pause_s))
                pause_s = min(self._waiting.most_s, pause_s * 1.5)
                moved = False
        finally:
            self._display.close()

    def _cancel(self) -> None:
        """Gives up the current step; the next run repeats it."""
        if self._task is not None:
            self._task.cancel()

    @property
    def _held(self) -> bool:
        return self._steps.held or self._submitter.held

    @property
    def _answered(self) -> bool:
        """Whether the job has an answer: then trouble is the endpoint's, and not wrong use."""
        return bool(self._counters.answers or self._journal.reader().counts().answered)

    async def _guarded(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine; once the run is to stop, it has the grace period to end."""
        task = self._task = asyncio.create_task(work)
        try:
            with self._run_stop.watch():
                await asyncio.wait({task})
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        result: T = task.result()
        return result

    async def _pause(self, pause_s: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), pause_s)
        except TimeoutError:
            return

    async def _poll(self) -> bool:
        """Takes every live batch as far as it goes; returns whether any was collected."""
        self._steps.held = False
        moved = False
        trouble: JobError | None = None
        for batch in self._store.live():
            self._run_stop.check()
            self._run_stop.raise_reason()
            try:
                after = await self._advance(batch)
            except CallFailed as failed:
                if failed.status != 404:
                    what = f"batch {batch.remote_id or batch.name}"
                    raise job_error(failed, what=what, paid=self._answered) from failed
                trouble = trouble or UsageError(unknown_batch(batch))
            except (UsageError, Unavailable) as error:
                trouble = trouble or error
                moved = True
            else:
                moved = moved or after.state is BatchState.DONE
        if trouble is not None:
            raise trouble
        return moved

    async def _advance(self, batch: BatchRecord) -> BatchRecord:
        """Takes a batch as far as it goes, and collects it if it has ended.

        Raises:
            UsageError, Unavailable: It was collected, and says that further requests would be refused alike.
            CallFailed: It was not collected.
        """
        if batch.state is not BatchState.ENDED:
            try:
                batch = await self._steps.advance(batch, create=self._online is None)
            except CallFailed as failed:
                if failed.status == 404 and self._waiting.ephemeral:
                    batch = self._store.update(batch, state=BatchState.ENDED, status=GONE)
                elif batch.remote_id is None and is_queue_full(str(failed)):
                    batch = await self._submitter.drop_refused(batch, str(failed))
                else:
                    raise
        if batch.state is not BatchState.ENDED:
            return batch
        rejection = None
        if batch.status == "failed":
            rejection = read_rejection(batch.errors, batch.requests, answered=self._answered)
            rejection = self._submitter.apply_rejection(batch, rejection)
        batch = await self._collector.collect(batch, rejection, answered=self._answered)
        if rejection is not None and rejection.systemic:
            message = f"the endpoint refused batch {batch.remote_id}: {rejection.message}"
            raise Unavailable(message) if self._answered else UsageError(message)
        if (fatal := self._collector.fatal) is not None:
            wrong_use = fatal.exit_status is ExitStatus.USAGE and not self._answered
            raise UsageError(fatal.message) if wrong_use else Unavailable(fatal.message)
        return batch

    async def _send_rest(self) -> None:
        """Sends every unfinished row that is in no batch, in the mode that the job asks for."""
        if self._online is None:
            await self._guarded(self._submit())
            return
        with recounted(self._counters, self._collected):
            await self._online()

    async def _submit(self) -> None:
        """Puts every unfinished row that is in no batch into one.

        Raises:
            Unavailable: The last batches finished no row.
        """
        ended = [
            batch
            for batch in self._store.all()
            if batch.first_attempt >= self._since
            and batch.state is BatchState.DONE
            and batch.status in ("completed", "expired")
        ]
        last = ended[-MAX_EMPTY_BATCHES:]
        if len(last) == MAX_EMPTY_BATCHES and not any(batch.finished_rows for batch in last):
            raise Unavailable(
                f"the last {MAX_EMPTY_BATCHES} batches ended ({last[-1].status}) without finishing a single row; "
                "try again later, or finish the job with --via online"
            )
        await self._submitter.submit(self._items(), self._run_stop.raise_reason, paid=self._answered)

    async def _items(self) -> AsyncGenerator[Sequence[WorkItem], None]:
        plan = plan_of(
            self._prepared,
            self._journal,
            continued=True,
            counters=self._counters,
            chosen=self._chosen,
            reuse=self._reuse,
            since=self._since,
            collected=self._collected,
        )
        with recounted(self._counters, self._collected):
            async for items in plan.batches():
                yield items


@contextmanager
def recounted(counters: RunCounters, collected: RunCounters) -> Iterator[None]:
    """Lets a pass count every row anew, and tells the rows collected in this run from those finished before.

    Args:
        counters: The run's counters.
        collected: The rows that this run collected from batches.
    """
    counters.finished_before = counters.failed_before = counters.answered = counters.failed = 0
    counters.unanswered = counters.skipped = counters.duplicates = counters.pending = 0
    counters.failed_by_reason.clear()
    try:
        yield
    finally:
        here = collected.answered + collected.failed + collected.unanswered
        counters.finished_before = max(0, counters.finished_before - here)
        counters.failed_before = max(0, counters.failed_before - collected.failed - collected.unanswered)
        counters.answered += collected.answered
        counters.failed += collected.failed
        counters.unanswered += collected.unanswered
        counters.failed_by_reason.update(collected.failed_by_reason)


def _session(journal: Journal) -> int:
    """Returns the first attempt of the session: the last run's if that ended "not ready", else the next one."""
    since = session_since(journal)
    if since is None:
        since = journal.next_attempt
        journal.put(SESSION, since)
    return since


def not_ready(live: Sequence[BatchRecord], *, held: bool) -> str:
    """Returns the message of a run that does not wait."""
    requests = sum(batch.requests for batch in live)
    done = sum((batch.completed or 0) + (batch.failed or 0) for batch in live)
    are = "batch is" if len(live) == 1 else "batches are"
    message = f"{len(live)} {are} under way, {done:,} of {counted(requests, 'request')} done"
    if any(batch.state is BatchState.CREATING for batch in live):
        message += ", and whether the endpoint has the last one is not known yet"
    if held:
        message += "; the other rows wait for room in the endpoint's queue"
    return f"{message}; run the same command again to go on, or add --wait"


def unknown_batch(batch: BatchRecord) -> str:
    """Returns what to do about a batch, or its results, that the endpoint does not know."""
    created = batch.state is BatchState.CREATED
    what = f"batch {batch.remote_id}" if created else f"the results of {batch.remote_id}"
    return (
        f"the endpoint does not know {what} ({counted(batch.requests, 'request')}, possibly billed): use the URL and "
        "the key it was made with, or give it up with 'batchllm batches cancel OUTPUT'"
    )
