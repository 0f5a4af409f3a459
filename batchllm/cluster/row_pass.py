"""Passes over the rows of a job and sends nothing: the journal then knows which answer is whose."""

from collections.abc import Sequence

from batchllm.counters import RunCounters
from batchllm.journal import JournalReader
from batchllm.plan.chosen import Chosen
from batchllm.plan.job_plan import plan_of
from batchllm.plan.reuse import Reuse
from batchllm.prepare.prepared_job import PreparedJob
from batchllm.runner.resume import ResumedJob


async def find_rows(
    prepared: PreparedJob, *, chosen: Chosen = None, reuse: Sequence[JournalReader] = ()
) -> None:
    """Passes over the rows as a run does, as far as the journal has answers.

    Args:
        prepared: The job and its input.
        chosen: The only rows wanted; ``None`` for all.
        reuse: Journals of other jobs, whose answers are taken where this one has none.
    """
    rows = prepared.statistics.rows if chosen is None else len(chosen)
    resumed = ResumedJob(prepared, rows=rows, chosen=chosen)
    journal = resumed.journal
    try:
        resumed.begin()
        plan = plan_of(
            prepared,
            journal,
            continued=False,
            counters=RunCounters(rows=rows),
            chosen=chosen,
            reuse=Reuse(reuse, journal) if reuse else None,
            since=journal.next_attempt,
        )
        async for _ in plan.batches():
            pass
        await journal.flush()
    finally:
        journal.close(0)
