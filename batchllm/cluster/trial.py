"""A trial (``-n``, ``--sample``) on many machines: the shards of the whole plan, of which some rows are wanted.

So the plan of a job is made once, whether it is tried first or not, and what a trial has answered is in the answer logs
of the shards that the whole job reads later.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace

from batchllm.cluster.plan import FIRST_ROWS, ClusterPlan, Shard, Trial
from batchllm.job import Job
from batchllm.plan.chosen import Chosen, chosen_rows


def tried(plan: ClusterPlan, job: Job) -> ClusterPlan:
    """Returns a plan with the shards that have rows of a trial; of a job that is none, the plan itself."""
    rows = _chosen(job, plan.rows)
    if not rows:
        return plan
    name = f"first-{job.limit}" if job.sample is None else f"sample-{job.sample}-{job.seed}"
    shards = []
    for shard in plan.shards:
        among = len(_within(rows, shard))
        if among:
            trial = None if among == shard.rows else Trial(name, among)
            shards.append(replace(shard, trial=trial))
    return replace(plan, shards=tuple(shards))


def first_of(plan: ClusterPlan) -> Shard:
    """Returns what is answered before anything else: the first shard, or so many of its rows that it is short."""
    first = plan.shards[0]
    if first.trial is None or first.wanted <= FIRST_ROWS:
        return first
    return replace(first, trial=Trial(f"{first.trial.name}-begin", FIRST_ROWS))


def chosen_in(shard: Shard, job: Job, rows: int) -> Chosen:
    """Returns the rows of a shard that a trial wants, counted from its first one; ``None`` for all.

    Args:
        shard: The shard, with its trial.
        job: The job, with ``-n`` or ``--sample``.
        rows: Rows of the whole input.
    """
    chosen = _chosen(job, rows)
    if shard.trial is None or chosen is None:
        return None
    return frozenset(row - shard.first_row for row in _within(chosen, shard)[: shard.trial.rows])


def _chosen(job: Job, rows: int) -> Sequence[int] | None:
    chosen = chosen_rows(job, rows)
    return sorted(chosen) if isinstance(chosen, frozenset) else chosen


def _within(chosen: Sequence[int], shard: Shard) -> Sequence[int]:
    """Returns the chosen rows, in ascending order, that a shard has."""
    first, last = (bisect_left(chosen, end) for end in (shard.first_row, shard.first_row + shard.rows))
    return chosen[first:last]
