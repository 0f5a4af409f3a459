"""Opening a job's journal, and going on where the last run of the job stopped."""

import hashlib
import json

from batchllm import __version__
from batchllm.journal import Journal, PlanRecord, State, check_space, set_aside
from batchllm.plan.reask import ReaskPolicy
from batchllm.prepare.job_paths import check_output, check_summary, known_output
from batchllm.prepare.prepared_job import PreparedJob
from batchllm.prepare.saved_job import saved
from batchllm.retry import Disposition, classify
from batchllm.runner.guard import check_unchanged

BYTES_PER_ROW = 4_000
"""Room that a row is expected to need in journal and output together, at most, beside its own bytes."""


def open_journal(prepared: PreparedJob, *, rows: int, chosen: "range | frozenset[int] | None") -> Journal:
    """Opens the journal once the output is known to be ours and there is room for both.

    Args:
        prepared: The job and its input.
        rows: Rows of the job.
        chosen: The only rows wanted, ``None`` for all.

    Raises:
        UsageError: The output is not ours, or the job was changed and rows would be paid again.
        CannotWrite: A file cannot be written, or there is no room.
        InputError: The journal is damaged, or is none.
    """
    job, paths = prepared.job, prepared.paths
    check_space(paths.journal.parent, prepared.statistics.bytes + rows * BYTES_PER_ROW)
    check_summary(job.summary)
    output = known_output(paths.journal) if job.restart else None
    if job.restart:
        set_aside(paths.journal)
    journal = Journal.open(paths.journal, version=__version__)
    try:
        if output is not None:
            journal.put_now("output", output)
        if paths.output is not None:
            check_output(paths.output, written=journal.get("output"), force=job.force)
        check_unchanged(prepared, journal, chosen)
    except BaseException:
        journal.close()
        raise
    return journal


def begin(prepared: PreparedJob, journal: Journal, reask: ReaskPolicy) -> PlanRecord:
    """Continues the last pass over the input where it was the same, and settles what a crash left open."""
    fingerprint = prepared.job.fingerprint()
    subject = json.dumps(
        [prepared.statistics.sha256, fingerprint, prepared.statistics.columns], sort_keys=True
    )
    plan = journal.begin_plan(hashlib.sha256(subject.encode()).hexdigest(), dedupe=prepared.job.dedupe)
    journal.put("fingerprint", fingerprint)
    journal.put("job", saved(prepared.job))
    journal.put("source", prepared.statistics.sha256)
    journal.put("rows", prepared.statistics.rows)
    for reply in journal.unread_replies():
        answer = prepared.reader.read(reply.response.status, reply.response.body)
        match classify(reply.response).disposition:
            case Disposition.ANSWERED if not reask.leaves_open(answer):
                state = State.ANSWERED if answer.error is None else State.FAILED
                journal.record_outcome(reply.request_id, state, reply.attempt_id, reply.attempts)
            case Disposition.REJECTED:
                journal.record_outcome(reply.request_id, State.FAILED, reply.attempt_id, reply.attempts)
    return plan
