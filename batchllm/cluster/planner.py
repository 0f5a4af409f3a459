"""Makes the plan of a job, or finds the one that its work folder has."""

import json
import platform
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from batchllm.cluster.journal_from_logs import has_answers
from batchllm.cluster.plan import FIRST_ROWS, ClusterPlan, Shard
from batchllm.cluster.summaries import done_of
from batchllm.cluster.work import PLAN, WorkFolder
from batchllm.errors import InputError, UsageError
from batchllm.formats import Source
from batchllm.job import Job
from batchllm.prepare.prepared_job import PreparedJob
from batchllm.prepare.saved_job import saved
from batchllm.prepare.shards import merged_spans, uncut_spans
from batchllm.template import cell_texts

MOST_ROWS = 100_000
"""The most rows of a shard."""

LEAST_ROWS = 20
"""The fewest rows of a shard, but for the last one and for small jobs."""

SHARDS_PER_WORKER = 4
"""The least number of shards for each worker."""


def plan_of_work(work: WorkFolder) -> ClusterPlan:
    """Returns the plan of a work folder.

    Raises:
        InputError: There is none, or it is of another version.
    """
    content = work.get(PLAN)
    if content is None:
        raise InputError(
            work, f"on {platform.node()} there is no plan in this folder; share it among the machines"
        )
    return ClusterPlan.from_json(content, f"{work}/{PLAN}")


def known_plan(work: WorkFolder, job: Job, prepared: PreparedJob) -> ClusterPlan | None:
    """Returns the plan of a job that has begun; ``None`` if there is none, or nothing was answered by it.

    Raises:
        UsageError: It is that of another job.
    """
    if not work.has(PLAN):
        return None
    plan = plan_of_work(work)
    same_input = plan.whole.sha256 == prepared.statistics.sha256
    if same_input and plan.identity == _identity(job):
        return plan
    if not plan.shards or (done_of(work, plan.shards[0]) is None and not has_answers(work, plan.shards[0])):
        return None
    what = "another job: model, prompt or parameters differ"
    if not same_input:
        what = f"another input than {job.input_name} is now"
    raise UsageError(
        f"{work} has the plan of {what}; name another folder with --work, and another output with -o, or begin anew "
        "with --restart"
    )


def new_plan(job: Job, prepared: PreparedJob, workers: int) -> ClusterPlan:
    """Makes the plan of a job.

    Args:
        job: The job.
        prepared: The same, with its input scanned.
        workers: Shards that are answered side by side.
    """
    source, statistics = prepared.source, prepared.statistics
    return ClusterPlan(
        input=job.input_name,
        whole=replace(statistics, sample=()),
        texts=tuple(cell_texts(row.values) for row in statistics.sample),
        base=str(Path.cwd()),
        output=None if job.output is None else str(job.output),
        identity=_identity(job),
        shards=hashed(source, cut(statistics.rows, workers, uncut_spans(job, source), trial=job.limit)),
        job=saved(replace(job, limit=None, sample=None)),
    )


def cut(
    rows: int, workers: int, spans: Sequence[tuple[int, int]] = (), *, trial: int | None = None
) -> list[range]:
    """Cuts rows into contiguous ranges, large ones first.

    Each range takes its share of what is left (guided self-scheduling, Polychronopoulos and Kuck, 1987), so that
    workers neither begin their next ranges at the same moment nor finish far apart. No range is much smaller than the
    mean, because each beginning costs a worker a second or so.

    Args:
        rows: Rows of the input.
        workers: Workers that answer ranges side by side.
        spans: First and last rows of what must not be cut, in any order; they may overlap.
        trial: So many first rows are cut as if they were all, because they are tried first.
    """
    ranges: list[range] = []
    ends = iter(merged_spans(spans))
    span = next(ends, None)
    start = 0
    for until in (min(rows, trial or 0), rows):
        usual = max(1, (until - start) // (SHARDS_PER_WORKER * workers))
        least = min(usual, max(LEAST_ROWS, usual // 2))
        while start < until:
            share = -(-(until - start) // (2 * workers))
            size = FIRST_ROWS if not ranges else min(MOST_ROWS, max(least, share))
            end = min(until, start + size)
            while span is not None and span[1] < end:
                span = next(ends, None)
            if span is not None and span[0] < end:
                end = span[1] + 1
            ranges.append(range(start, end))
            start = end
    return ranges or [range(0)]  # no rows are one empty range


def hashed(source: Source, ranges: Sequence[range]) -> tuple[Shard, ...]:
    """Returns the shards of ranges, with the hashes of their rows."""
    rows = source.rows()
    return tuple(
        Shard(
            number,
            each.start,
            len(each),
            source.digest_of(islice(rows, len(each))),
            source.place_of(each.start),
        )
        for number, each in enumerate(ranges)
    )


def _identity(job: Job) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps({"job": job.fingerprint(), "dedupe": job.dedupe}))
    return plain
