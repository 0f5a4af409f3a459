"""Makes the plan of a job, or finds the one that its work folder has."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from batchllm.cluster.collect import answers_of, done_of, plan_of_work
from batchllm.cluster.plan import ClusterPlan, cut, hashed
from batchllm.cluster.work import PLAN, WorkFolder
from batchllm.errors import UsageError
from batchllm.job import Job
from batchllm.prepare.prepared_job import PreparedJob
from batchllm.prepare.saved_job import saved
from batchllm.prepare.shards import uncut_spans
from batchllm.template import cell_texts


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
    if not plan.shards or (done_of(work, plan.shards[0]) is None and not answers_of(work, plan.shards[0])):
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


def _identity(job: Job) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps({"job": job.fingerprint(), "dedupe": job.dedupe}))
    return plain
