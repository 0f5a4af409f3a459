"""Opens a job's journal and resumes the job where its last run stopped."""

import hashlib
import json

from batchllm import __version__
from batchllm.errors import UsageError
from batchllm.job import Job
from batchllm.journal import Journal, PlanRecord, State, check_space, remove, set_aside
from batchllm.plan.finished import pages
from batchllm.plan.preview import Preview
from batchllm.prepare.job_paths import check_output, known_output
from batchllm.prepare.prepared_job import PreparedJob
from batchllm.prepare.saved_job import saved

BYTES_PER_ROW = 4_000
"""Room that a row is expected to need in journal and output together, at most, beside its own bytes."""

_PAGE = 256


def open_journal(prepared: PreparedJob, *, rows: int, chosen: "range | frozenset[int] | None") -> Journal:
    """Opens the journal, after checking that the output is this job's and that the disk has room for both.

    Args:
        prepared: The job and its input.
        rows: Rows of the job.
        chosen: The only rows wanted, ``None`` for all.

    Raises:
        UsageError: The output is another job's, or the job was changed and rows would be paid again.
        CannotWrite: A file cannot be written, or the disk is full.
        InputError: The journal is damaged, or is no journal.
    """
    job, paths = prepared.job, prepared.paths
    check_space(paths.journal.parent, prepared.statistics.bytes + rows * BYTES_PER_ROW)
    output = known_output(paths.journal) if job.restart else None
    if job.restart:
        if paths.output is not None:
            check_output(paths.output, written=output, force=job.force, journal=paths.journal)
        set_aside(paths.journal)
    is_new = not paths.journal.exists()
    journal = Journal.open(paths.journal, version=__version__)
    try:
        if output is not None:
            journal.put_now("output", output)
        if paths.output is not None:
            written = journal.get("output")
            check_output(paths.output, written=written, force=job.force, journal=paths.journal)
        if chosen is None:
            check_unchanged(prepared, journal)
    except BaseException:
        journal.close()
        if is_new and not job.restart:
            remove(paths.journal)
        raise
    return journal


def check_unchanged(prepared: PreparedJob, journal: Journal) -> None:
    """Refuses a job that was changed after answers were paid, unless the user agrees to pay again.

    ``--accept-change`` agrees, and so does a budget.

    Raises:
        UsageError: Rows that have an answer would be paid again; the message says how many, and what changed.
    """
    before, now = journal.get("fingerprint"), prepared.job.fingerprint()
    if before is None or before == now or _agrees_to_pay(prepared.job):
        return
    answered = journal.reader().count_answered()
    if not answered:
        return
    again = min(answered, _count_unanswered(prepared, journal))
    if again:
        changed = ", ".join(sorted(name for name in now if now[name] != before.get(name)))
        raise UsageError(
            f"{changed} changed since this job began: {again:,} rows that have an answer would be paid again; "
            "agree with --accept-change, or write to another output with -o"
        )


def _agrees_to_pay(job: Job) -> bool:
    bounds = (job.max_cost, job.max_requests, job.max_total_tokens)
    return job.accept_change or any(bound is not None for bound in bounds)


def _count_unanswered(prepared: PreparedJob, journal: Journal) -> int:
    """Counts the rows that, as the job is now, ask something else in place of what has an answer or is in a batch."""
    preview = Preview(
        prepared.flow,
        journal.reader(),
        final=(State.ANSWERED, State.PENDING),
        dedupe=prepared.job.dedupe,
    )
    return sum(row.paid_again for page in pages(prepared.source.rows(), _PAGE) for row in preview.look(page))


def resume(prepared: PreparedJob, journal: Journal) -> PlanRecord:
    """Continues the last pass over the input if input and job are the same."""
    fingerprint = prepared.job.fingerprint()
    subject = json.dumps(
        [prepared.statistics.sha256, fingerprint, prepared.statistics.columns], sort_keys=True
    )
    plan = journal.begin_plan(
        hashlib.sha256(subject.encode()).hexdigest(),
        dedupe=prepared.job.dedupe,
        job=json.dumps(fingerprint, sort_keys=True),
    )
    journal.put("fingerprint", fingerprint)
    journal.put("job", saved(prepared.job))
    journal.put("source", prepared.statistics.sha256)
    journal.put("rows", prepared.statistics.rows)
    return plan
