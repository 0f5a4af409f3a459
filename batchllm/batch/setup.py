"""The loop of batches, put together for one run of a job."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from batchllm import presets
from batchllm.batch.collect import Collector
from batchllm.batch.loop import BatchLoop
from batchllm.batch.plan import BatchPlan, recounted
from batchllm.batch.steps import Steps
from batchllm.batch.submit import BatchSubmitter, BudgetReserver
from batchllm.batch.waiting import Waiting
from batchllm.budget.pricing import Pricing
from batchllm.counters import RunCounters
from batchllm.endpoint import LazyClient
from batchllm.job import Job
from batchllm.journal import Journal
from batchllm.plan.outcomes import readers
from batchllm.plan.reuse import Reuse
from batchllm.plan.work_item import WorkItem
from batchllm.prepare.prepared_job import PreparedJob
from batchllm.presets import BatchFacts
from batchllm.progress import Progress
from batchllm.records import Usage


def facts_of(job: Job) -> BatchFacts:
    """What the Batch API of a job's endpoint takes; that of any compatible one where nothing is known."""
    facts = presets.load(job.endpoint.preset).batch or presets.load(presets.CUSTOM).batch
    assert facts is not None, "the preset for any URL has a Batch API"
    return facts


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchContext:
    """What a run lends to the loop of batches.

    Attributes:
        prepared: The job and its input.
        journal: What is known.
        counters: Counts.
        client: Opens the endpoint at the first call.
        budget: The budget.
        progress: Shown while the call waits.
        chosen: The only rows wanted (``-n``, ``--sample``), or ``None`` for all.
        reuse: Answers of other jobs.
        online: Sends what is in no batch one by one (``--via online``); ``None`` makes batches of it.
    """

    prepared: PreparedJob
    journal: Journal
    counters: RunCounters
    client: LazyClient
    budget: BudgetReserver
    progress: Progress
    chosen: "range | frozenset[int] | None"
    reuse: Reuse | None
    online: Callable[[], Awaitable[None]] | None


def batch_loop(run: BatchContext, waiting: Waiting) -> BatchLoop:
    """The loop for one run.

    Args:
        run: What the run lends.
        waiting: How it waits.
    """
    prepared, journal, job = run.prepared, run.journal, run.prepared.job
    facts = facts_of(job)
    row_counters = RunCounters()
    steps = Steps(run.client.batches, journal.batches, facts, waiting.patience)

    async def items(since: int) -> AsyncGenerator[Sequence[WorkItem], None]:
        plan = BatchPlan(
            prepared.source.rows(),
            prepared.builder,
            journal,
            since=since,
            known=journal.planned(),
            counters=run.counters,
            chosen=run.chosen,
            retry_failed=job.retry_failed,
            dedupe=job.dedupe,
            reuse=run.reuse,
        )
        with recounted(run.counters, row_counters):
            async for found in plan.batches():
                yield found

    async def one_by_one() -> None:
        assert run.online is not None, "asked for only where there is one"
        with recounted(run.counters, row_counters):
            await run.online()

    collector = Collector(
        run.client.batches,
        journal,
        reader=prepared.reader,
        readers=(lambda: readers(prepared)) if job.per_row else None,
        counters=run.counters,
        row_counters=row_counters,
        cost=_half_price(job),
        max_attempts=job.pace.max_attempts,
        ephemeral=waiting.ephemeral,
    )
    sender = BatchSubmitter(
        journal, steps, facts, budget=run.budget, counters=row_counters, one_model=not job.per_row
    )
    return BatchLoop(
        journal=journal,
        steps=steps,
        collector=collector,
        sender=sender,
        items=items,
        online=None if run.online is None else one_by_one,
        waiting=waiting,
        show=_Display(run.progress, journal, run.counters).show,
        answered=lambda: bool(run.counters.answers or journal.reader().counts().answered),
        grace_s=job.grace_s,
    )


def _half_price(job: Job) -> Callable[[Usage, str], Decimal | None]:
    """What an answer of a batch cost; ``None`` is unknown."""
    pricing = Pricing(job)

    def cost(usage: Usage, model: str) -> Decimal | None:
        full = pricing.cost(usage, model)
        return None if full is None else full * pricing.batch_share

    return cost


class _Display:
    """The progress display, on the screen only while a call waits."""

    def __init__(self, progress: Progress, journal: Journal, counters: RunCounters) -> None:
        self._progress = progress
        self._journal = journal
        self._counters = counters
        self._open = False

    def show(self, done: int | None) -> None:
        """Shows how many rows are done, ``done`` of them in batches that have not ended; ``None`` closes it."""
        if done is None:
            if self._open:
                self._progress.close()
            self._open = False
            return
        counts = self._journal.reader().counts()
        failed = counts.failed + counts.unsendable + counts.unanswered
        ended = counts.answered + counts.skipped + failed
        if not self._open:
            self._progress.start(self._counters.rows, ended)
            self._open = True
        self._progress.show(
            min(self._counters.rows, ended + done), failed, self._counters.tokens, "waiting for batches"
        )
