"""Makes the pass over the rows of a job."""

from batchllm.counters import RunCounters
from batchllm.journal import FinishedRows, Journal
from batchllm.plan.finished import final_states
from batchllm.plan.plan import Plan
from batchllm.plan.reuse import Reuse
from batchllm.prepare.prepared_job import PreparedJob
from batchllm.records import Chosen


def plan_of(
    prepared: PreparedJob,
    journal: Journal,
    *,
    continued: bool,
    counters: RunCounters,
    chosen: Chosen,
    reuse: Reuse | None = None,
    since: int | None = None,
    collected: RunCounters | None = None,
) -> Plan:
    """Returns a pass over the rows of a job; see ``Plan`` for the arguments.

    A pass in online mode that an earlier run began goes on at the first unfinished row, without reading those before.
    """
    source, job, flow = prepared.source, prepared.job, prepared.flow
    passed: list[FinishedRows] = []
    if continued and chosen is None and flow.conversation is None and since is None:
        passed = journal.reader().finished_rows(
            final_states(job.retry_failed), unsendable=not job.retry_failed
        )
    start = sum(ended.rows for ended in passed)
    return Plan(
        source.rows(start),
        flow,
        journal,
        known=journal.planned(start) if continued else iter(()),
        counters=counters,
        chosen=chosen,
        retry_failed=job.retry_failed,
        accept_change=job.accept_change,
        reuse=reuse,
        passed=passed,
        dedupe=job.dedupe,
        since=since,
        collected=collected,
    )
