"""``show``: shows everything about one row of a job."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from batchllm.errors import InputError
from batchllm.flows import Ask, Unsent, later_key
from batchllm.formats.several import SeveralSource
from batchllm.inspect.job import local_time, open_job
from batchllm.inspect.no_input import NOT_KEPT
from batchllm.job import Job
from batchllm.journal import AdmittedRow, AttemptRecord, JournalReader
from batchllm.plan.replay import Replayer, first_asks
from batchllm.plan.row_counts import row_state_of
from batchllm.prepare.job_paths import JobPaths
from batchllm.prepare.prepared_job import prepare_job
from batchllm.printable import counted
from batchllm.records import Failure, Paid, Response

_BILLED = {Paid.NO: "not billed", Paid.MAYBE: "possibly billed"}


def show_row(output: Path, row_index: int) -> Iterator[str]:
    """Yields lines with one row's flow: each exact request, every attempt, the raw answers and the times.

    Raises:
        InputError: The journal does not exist, has no such row, or is damaged.
    """
    with open_job(output) as (reader, paths, job):
        rows = reader.get("rows")
        if rows is not None and row_index >= rows:
            raise InputError(reader.path, f"the job has {counted(rows, 'row')}, and no row {row_index + 1}")
        known = reader.row(row_index)
        note = known.unsent_reason
        yield f"row {row_index + 1} of {paths.output or 'standard output'}"
        if note is not None:
            yield "never sent: " + note.replace("\n", ": ")
        shown: list[int] = []
        try:
            if not job.inputs:
                raise InputError("standard input", f"{NOT_KEPT}; the reply below is what the journal has")
            for text, request_id in _flow_lines(reader, job, paths, known):
                yield text
                if request_id is not None:
                    shown.append(request_id)
                attempts = [] if request_id is None else list(_attempts(reader, request_id))
                yield from attempts or (
                    ["not sent yet"] if note is None and text.startswith("request") else []
                )
        except InputError as error:
            yield f"the request cannot be shown: {error}"
        if known.request_id is not None:
            for record in reader.flow_requests(known.request_id):
                if record.request_id not in shown:
                    if shown:
                        yield f"asked before, at {record.path or 'the first request'} ({record.key.hex()}):"
                    yield from _attempts(reader, record.request_id)


def row_facts(output: Path, row_index: int) -> dict[str, Any]:
    """Returns what the journal has of one row, for ``--json``.

    Raises:
        InputError: The journal does not exist, has no such row, or is damaged.
    """
    with open_job(output) as (reader, paths, _):
        known = reader.row(row_index)
        records = [] if known.request_id is None else reader.flow_requests(known.request_id)
        state = row_state_of(known)
        return {
            "output": str(paths.output) if paths.output else None,
            "row": row_index + 1,
            "state": "unsent" if state is None else state.name.lower(),
            "unsent_reason": known.unsent_reason,
            "requests": [
                {
                    "key": record.key.hex(),
                    "path": record.path or "",
                    "state": record.state.name.lower(),
                    "attempts": [_attempt_facts(each) for each in reader.attempts_of(record.request_id)],
                }
                for record in records
            ],
        }


def _attempt_facts(attempt: AttemptRecord) -> dict[str, Any]:
    outcome = attempt.outcome
    reply = outcome if isinstance(outcome, Response) else None
    failure = outcome if isinstance(outcome, Failure) else None
    return {
        "attempt": attempt.attempt_id,
        "run": attempt.run_id,
        "sent_at": attempt.sent_at,
        "received_at": attempt.received_at,
        "latency_s": None if outcome is None else outcome.latency_s,
        "status": reply.status if reply else None,
        "headers": dict(reply.headers) if reply else None,
        "body": reply.body.decode("utf-8", "replace") if reply else None,
        "failure": str(failure.kind) if failure else None,
        "message": failure.message if failure else None,
        "possibly_billed": outcome is None or attempt.possibly_billed is True,
    }


def _flow_lines(
    reader: JournalReader, job: Job, paths: JobPaths, known: AdmittedRow
) -> Iterator[tuple[str, int | None]]:
    """Yields a line for each request of a row's flow, with its number in the journal, if it has one."""
    with prepare_job(job, paths) as prepared:
        row = next((row for row in prepared.source.rows() if row.index == known.row_index), None)
        if row is None:
            raise InputError(prepared.source.name, f"has no row {known.row_index + 1} any more")
        if isinstance(prepared.source, SeveralSource):
            yield f"from {prepared.source.file_of(row)}, line {row.line}", None
        replayer = Replayer(prepared.flow, reader)
        if known.request_id is None:
            for ask in first_asks(prepared.flow, row, reader):
                yield _request_line(ask, ask.identity), None
            return
        replay = replayer.replay(row, known.request_id, replayer.history(row, prepared.source.rows))
        for each in replay.requests:
            assert each.ask is not None, "the row is there"
            key = each.record.key if each.record is not None else later_key(known.request_id, each.ask)
            yield _request_line(each.ask, key), None if each.record is None else each.record.request_id
        asked = {each.ask.path for each in replay.requests if each.ask is not None}
        for name in prepared.flow.by_step if replay.result is not None else ():
            if name not in asked:
                yield f"step {name}: not asked", None
        if (len(replay.requests) > 1 or prepared.flow.named) and replay.result is not None:
            said = replay.result.error or json.dumps(dict(replay.result.columns), ensure_ascii=False)
            yield f"the row's answer: {said}", None


def _request_line(ask: Ask, key: bytes) -> str:
    name = f"request {ask.path}" if ask.path else "request"
    try:
        return f"{name} ({key.hex()}): {ask.built().body.decode('utf-8', 'replace')}"
    except Unsent as unsent:
        return f"{name} ({key.hex()}) cannot be sent: {getattr(unsent.outcome, 'error', 'it is empty')}"


def _attempts(reader: JournalReader, request_id: int) -> Iterator[str]:
    for number, attempt in enumerate(reader.attempts_of(request_id), 1):
        sent = "taken from another job" if attempt.sent_at is None else f"sent {local_time(attempt.sent_at)}"
        yield f"attempt {number} (run {attempt.run_id}): {sent}"
        match attempt.outcome:
            case Response(status=status, headers=headers, body=body, latency_s=latency_s):
                yield f"  HTTP {status} after {latency_s:.3f} s, {json.dumps(dict(headers))}"
                yield f"  {body.decode('utf-8', 'replace')}"
            case Failure(kind=kind, message=message, paid=paid, latency_s=latency_s):
                yield f"  {kind}: {message}; after {latency_s:.3f} s; {_BILLED[paid]}"
            case None:
                yield "  nothing came back: in flight, or its run died; possibly billed"
