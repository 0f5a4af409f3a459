"""``--retry-cut-off``: asks again, with a higher limit, for the rows whose answer was cut off.

The job stays the one that its journal knows, so its rows keep their requests; only what is sent has the higher limit.
A row keeps its answer until a better one comes (``journal.kept``). The journal keeps from which attempt on which limit
was raised, so an answer that was cut off at that limit too is not asked for again by the same command.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from batchllm.errors import UsageError
from batchllm.job import Job
from batchllm.job.record import plain
from batchllm.journal import AdmittedRow, Journal, JournalReader, State
from batchllm.journal.kept import answers_before_batches
from batchllm.plan.finished import pages
from batchllm.plan.outcomes import in_order
from batchllm.plan.replay import Replayer, read_outcome
from batchllm.prepare.prepared_job import PreparedJob
from batchllm.records import ChatRequest, Chosen, Row
from batchllm.request import RequestBuilder
from batchllm.request.parameters import BOUNDS, max_tokens
from batchllm.runner.consent import FINGERPRINT

RAISED = "raised_limits"
"""The journal's key for the raised limits, each with the first attempt that was sent with it; ``None`` is none."""

CutOffRow = tuple[AdmittedRow, State]
"""A row whose answer was cut off, and whether that is an answer or a failure: a reply may not be recorded yet."""

_CUT_OFF = "length"
_PAGE = 256


def with_raised_limit(job: Job, journal: Path) -> Job:
    """Returns the job that a journal knows, sent with the higher limit of this one.

    Args:
        job: The job; without ``--retry-cut-off`` it is returned as it is.
        journal: Its journal.

    Raises:
        UsageError: There is no limit to send it with, or the job cannot be retried so.
        InputError: The journal cannot be read.
    """
    if not job.retry_cut_off or job.raised_max_tokens is not None:
        return job
    before = None
    if journal.exists():
        with JournalReader.open(journal) as reader:
            before = reader.get(FINGERPRINT)
    return raised(job, before)


def raised(job: Job, before: "Mapping[str, Any] | None") -> Job:
    """Returns the job that is known, sent with the higher limit of this one.

    Args:
        job: The job, with ``--retry-cut-off``.
        before: The fingerprint of the job that is known; ``None`` if nothing was asked yet.

    Raises:
        UsageError: There is no limit to send it with, or the job cannot be retried so.
    """
    for other, is_given in (("--accept-change", job.accept_change), ("--restart", job.restart)):
        if is_given:
            raise UsageError(f"--retry-cut-off pays for rows that were cut off alone; leave out {other}")
    if job.conversation is not None:
        raise UsageError(
            "--retry-cut-off cannot change a --conversation, whose later turns rest on its answers"
        )
    if job.output is None and job.journal is None:
        raise UsageError(
            "--retry-cut-off finds the answers in a journal; name it with --journal, or the job with -o"
        )
    wanted = max_tokens(job.parameters)
    if wanted is None:
        raise UsageError("--retry-cut-off needs the higher limit to ask with; give it with --max-tokens")
    if before is None:
        return job
    parameters = {name: value for name, value in job.parameters.items() if name not in BOUNDS}
    of_template = plain(job.template.parameters) if job.template else {}
    parameters |= {
        name: value
        for name, value in before.get("parameters", {}).items()
        if name in BOUNDS and value != of_template.get(name)
    }
    # Answers of other jobs were asked for with the lower limit.
    return replace(job, parameters=parameters, raised_max_tokens=wanted, reuse=())


def identity_of(prepared: PreparedJob) -> str:
    """Identifies the input of a job and everything that its requests depend on."""
    of_input = [prepared.statistics.sha256, prepared.statistics.columns, prepared.source.reading()]
    subject = [of_input, prepared.job.fingerprint()]
    return hashlib.sha256(json.dumps(subject, sort_keys=True).encode()).hexdigest()


def is_same_pass(prepared: PreparedJob, plan: "Mapping[str, Any] | None") -> bool:
    """Whether a pass over the input that a journal knows is one of this input and job."""
    wanted = {"identity": identity_of(prepared), "dedupe": prepared.job.dedupe}
    return plan is not None and wanted.items() <= plan.items()


def check_retry(prepared: PreparedJob, *, is_same: bool) -> None:
    """Refuses a retry that would change nothing, or that cannot tell which rows were cut off.

    Args:
        prepared: The job and its input.
        is_same: The journal's last pass is of the same input and job.

    Raises:
        UsageError: The limit is not higher, or the input changed.
    """
    job = prepared.job
    if job.raised_max_tokens is None:
        return
    if not is_same:
        raise UsageError(
            "--retry-cut-off: the input was changed since the last run; run the job once without --retry-cut-off and "
            "with its old --max-tokens, then again with both"
        )
    sample = prepared.statistics.sample
    built = [request for request in map(prepared.builder.build, sample) if isinstance(request, ChatRequest)]
    if job.per_row or not built or any(map(prepared.builder.is_raised, built)):
        return
    usual = RequestBuilder(
        replace(job, raised_max_tokens=None), prepared.statistics.columns, sample, prepared.count
    )
    limits = {request.max_tokens for request in map(usual.build, sample) if isinstance(request, ChatRequest)}
    named = ", ".join(f"{limit:,}" for limit in sorted(limit for limit in limits if limit is not None))
    raise UsageError(
        f"--retry-cut-off needs a limit higher than the one that answers were cut off at ({named} tokens); "
        "raise --max-tokens"
    )


def cut_off_rows(
    prepared: PreparedJob, reader: JournalReader, *, chosen: Chosen = None
) -> Iterator[CutOffRow]:
    """Yields the rows whose answer was cut off at a lower limit than the job's raised one.

    Rows that took several requests (samples, re-asks) are not among them.

    Args:
        prepared: The job and its input, which are those of the journal's last pass.
        reader: The journal.
        chosen: The only rows wanted, ``None`` for all.
    """
    limits: list[tuple[int, int | None]] = reader.get(RAISED) or []
    row_of = in_order(prepared.source.rows)
    for page in pages(reader.planned(), _PAGE):
        wanted = [
            known for known in page if known.row_state in (None, State.OPEN) and known.attempt_id is not None
        ]
        records = reader.requests([known.request_id for known in wanted if known.request_id is not None])
        for known in wanted:
            record = records[known.request_id or 0]
            is_answered = (
                known.state in (State.OPEN, State.ANSWERED, State.FAILED) and record.status is not None
            )
            if not is_answered or (chosen is not None and known.row_index not in chosen):
                continue
            row = row_of(known.row_index)
            answer = read_outcome(record, prepared.builder.reader(row))
            if answer.finish_reason != _CUT_OFF or not _is_to_be_raised(prepared, row, known, limits):
                continue
            if known.row_state is None or len(reader.flow_requests(record.request_id)) == 1:
                yield known, State.ANSWERED if answer.error is None else State.FAILED


def cut_off_in_several(prepared: PreparedJob, reader: JournalReader, *, chosen: Chosen = None) -> int:
    """Counts the rows whose last answer was cut off and that took several requests, which are not asked again."""
    if prepared.flow.single:
        return 0
    replayer = Replayer(prepared.flow, reader, in_order(prepared.source.rows))
    found = 0
    for known in reader.planned():
        if known.row_state not in (State.ANSWERED, State.FAILED) or known.request_id is None:
            continue
        if chosen is None or known.row_index in chosen:
            answer = replayer.replay_row(known.row_index, known.request_id).summed()
            found += answer is not None and answer.finish_reason == _CUT_OFF
    return found


def _is_to_be_raised(
    prepared: PreparedJob, row: Row, known: AdmittedRow, limits: "list[tuple[int, int | None]]"
) -> bool:
    """Whether a row's answer came with a lower limit than its request would be sent with."""
    built = prepared.builder.build(row)
    raised = isinstance(built, ChatRequest) and prepared.builder.is_raised(built)
    return raised and (_limit_of(known.attempt_id or 0, limits) or 0) < (prepared.job.raised_max_tokens or 0)


def keep_limit(journal: Journal, raised: int | None) -> None:
    """Notes in the journal with which raised limit the attempts from now on are sent."""
    limits: list[Any] = journal.get(RAISED) or []
    if (limits[-1][1] if limits else None) != raised:
        journal.put(RAISED, [*limits, (journal.next_attempt, raised)])


def keep_answers(prepared: PreparedJob, journal: Journal) -> None:
    """Keeps the cut answers of requests that were asked again in batches, until the results of those are known."""
    if not journal.batches.live():
        return
    for request_id, attempt_id, response in answers_before_batches(journal.reader()):
        answer = prepared.reader.read(response.status, response.body)
        if answer.finish_reason == _CUT_OFF:
            state = State.ANSWERED if answer.error is None else State.FAILED
            journal.keep_answer(AdmittedRow(-1, request_id, None, state, 0, attempt_id, None, False))


def _limit_of(attempt_id: int, limits: "list[tuple[int, int | None]]") -> int | None:
    """Returns the raised limit that an attempt was sent with, ``None`` where it was not raised."""
    return next((limit for first, limit in reversed(limits) if first <= attempt_id), None)
