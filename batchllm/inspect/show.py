"""``show``: shows everything about one row of a job."""

import json
from collections.abc import Iterator
from pathlib import Path

from batchllm.errors import InputError
from batchllm.inspect.job import local_time, open_job
from batchllm.inspect.no_input import NOT_KEPT
from batchllm.job import Job
from batchllm.journal import AttemptRecord, JournalReader
from batchllm.plan.conversations import rebuilt
from batchllm.prepare.job_paths import JobPaths
from batchllm.prepare.prepared_job import prepare_job
from batchllm.records import ChatRequest, Failure, Paid, Response

_BILLED = {Paid.NO: "not billed", Paid.MAYBE: "possibly billed"}


def show_row(output: Path, row_index: int) -> Iterator[str]:
    """Yields lines with one row's exact request, every attempt, the raw answer and the times.

    Raises:
        InputError: The journal does not exist, has no such row, or is damaged.
    """
    with open_job(output) as (reader, paths, job):
        rows = reader.get("rows")
        if rows is not None and row_index >= rows:
            raise InputError(reader.path, f"the job has {rows:,} rows, and no row {row_index + 1}")
        attempts = reader.attempts_of(row_index)
        note = next(
            (entry.unsent_reason for entry in reader.outcomes(row_index) if entry.row_index == row_index),
            None,
        )
        yield f"row {row_index + 1} of {paths.output or 'standard output'}"
        if note is not None:
            yield "never sent: " + note.replace("\n", ": ")
        try:
            if job.input is None:
                raise InputError("standard input", f"{NOT_KEPT}; the reply below is what the journal has")
            yield from _request_lines(reader, job, paths, row_index)
        except InputError as error:
            yield f"the request cannot be shown: {error}"
        for number, attempt in enumerate(attempts, 1):
            yield from _attempt_lines(number, attempt)


def _request_lines(reader: JournalReader, job: Job, paths: JobPaths, row_index: int) -> Iterator[str]:
    with prepare_job(job, paths) as prepared:
        for row in prepared.source.rows():
            if row.index == row_index:
                if job.conversation is None:
                    built = prepared.builder.build(row)
                else:
                    built = rebuilt(prepared.builder, reader, prepared.source.rows, job.conversation, row)
                if isinstance(built, ChatRequest):
                    yield f"request ({built.key.hex()}): {built.body.decode('utf-8', 'replace')}"
                return
    raise InputError(prepared.source.name, f"has no row {row_index + 1} any more")


def _attempt_lines(number: int, attempt: AttemptRecord) -> Iterator[str]:
    sent = "taken from another job" if attempt.sent_at is None else f"sent {local_time(attempt.sent_at)}"
    yield f"attempt {number} (run {attempt.run_id}): {sent}"
    if attempt.body is not None:
        yield f"  request: {attempt.body.decode('utf-8', 'replace')}"
    match attempt.outcome:
        case Response(status=status, headers=headers, body=body, latency_s=latency_s):
            yield f"  HTTP {status} after {latency_s:.3f} s, {json.dumps(dict(headers))}"
            yield f"  {body.decode('utf-8', 'replace')}"
        case Failure(kind=kind, message=message, paid=paid, latency_s=latency_s):
            yield f"  {kind}: {message}; after {latency_s:.3f} s; {_BILLED[paid]}"
        case None:
            yield "  nothing came back: in flight, or its run died; possibly billed"
