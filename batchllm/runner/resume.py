"""Opening a job's journal, and going on where the last run of the job stopped."""

import hashlib
import json

from batchllm import __version__
from batchllm.journal import Journal, Plan, State, check_space, set_aside
from batchllm.plan.reask import Again
from batchllm.prepare.job_paths import check_output, check_summary, known_output
from batchllm.prepare.prepared_job import Stage
from batchllm.prepare.saved_job import saved
from batchllm.retry import Fate, classify
from batchllm.runner.guard import refuse_change

BYTES_PER_ROW = 4_000
"""Room that a row is expected to need in journal and output together, at most, beside its own bytes."""


def open_journal(stage: Stage, *, rows: int, chosen: "range | frozenset[int] | None") -> Journal:
    """Opens the journal once the output is known to be ours and there is room for both.

    Args:
        stage: The job and its input.
        rows: Rows of the job.
        chosen: The only rows wanted, ``None`` for all.

    Raises:
        UsageError: The output is not ours, or the job was changed and rows would be paid again.
        CannotWrite: A file cannot be written, or there is no room.
        InputError: The journal is damaged, or is none.
    """
    job, places = stage.job, stage.places
    check_space(places.journal.parent, stage.census.bytes + rows * BYTES_PER_ROW)
    check_summary(job.summary)
    output = known_output(places.journal) if job.restart else None
    if job.restart:
        set_aside(places.journal)
    journal = Journal.open(places.journal, version=__version__)
    try:
        if output is not None:
            journal.put_now("output", output)
        if places.output is not None:
            check_output(places.output, written=journal.get("output"), force=job.force)
        refuse_change(stage, journal, chosen)
    except BaseException:
        journal.close()
        raise
    return journal


def begin(stage: Stage, journal: Journal, again: Again) -> Plan:
    """Continues the last pass over the input where it was the same, and settles what a crash left open."""
    fingerprint = stage.job.fingerprint()
    subject = json.dumps([stage.census.sha256, fingerprint, stage.census.columns], sort_keys=True)
    plan = journal.begin_plan(hashlib.sha256(subject.encode()).hexdigest(), dedupe=stage.job.dedupe)
    journal.put("fingerprint", fingerprint)
    journal.put("job", saved(stage.job))
    journal.put("source", stage.census.sha256)
    journal.put("rows", stage.census.rows)
    for reply in journal.unsettled():
        answer = stage.reader.read(reply.response.status, reply.response.body)
        match classify(reply.response).fate:
            case Fate.ANSWERED if not again.leaves_open(answer):
                state = State.ANSWERED if answer.error is None else State.FAILED
                journal.settle(reply.request_id, state, reply.attempt_id, reply.attempts)
            case Fate.REJECTED:
                journal.settle(reply.request_id, State.FAILED, reply.attempt_id, reply.attempts)
    return plan
