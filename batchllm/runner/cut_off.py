"""``--retry-cut-off``: asks again, with a higher limit, for the answers that were cut off.

The job stays the one that its journal knows, so its rows keep their requests; only what is sent has the higher limit.
Each request whose answer was cut off is opened again, and the flow of its row is replayed: what follows from a new
answer differs from what was asked before, and is asked anew. A request keeps its answer until a better one comes, and
a row of several requests keeps its own until its flow has ended well (``journal.kept``). The journal keeps from which
attempt on which limit was raised, so an answer that was cut off at that limit too is not asked for again by the same
command.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from batchllm.answer import Reader
from batchllm.budget.sample import RowsAgain
from batchllm.budget.usage import UsageEstimator
from batchllm.errors import UsageError
from batchllm.flows import Unsent
from batchllm.flows.stand_in import begun, missing
from batchllm.job import Job
from batchllm.job.record import STEPS, plain
from batchllm.journal import AskedAgain, Journal, JournalReader, KeptAnswer, State
from batchllm.plan.finished import final_states, pages
from batchllm.plan.outcomes import in_order
from batchllm.plan.preview import Preview
from batchllm.plan.replay import ReplayedRequest, Replayer, read_outcome
from batchllm.plan.row_counts import row_state_of
from batchllm.prepare.prepared_job import PreparedJob
from batchllm.request.parameters import BOUNDS, max_tokens
from batchllm.runner.consent import FINGERPRINT

RAISED = "raised_limits"
"""The journal's key for the raised limits, each with the first attempt that was sent with it; ``None`` is none."""

_CUT_OFF = "length"
_PAGE = 256
_LOOKED_AT = 1000  # rows whose requests an estimate builds
_ANSWERED = """
SELECT attempt.request_id, attempt.attempt_id FROM attempt JOIN reply ON reply.attempt_id = attempt.attempt_id
WHERE attempt.request_id IN (SELECT value FROM json_each(?)) AND reply.status BETWEEN 200 AND 299 ORDER BY 2
"""
_REASK = re.compile(r"(^|/)reask/\d+$")

Limits = Sequence[tuple[int, int | None]]
"""What the journal has under ``RAISED``."""


class CutOffRow(NamedTuple):
    """A row with an answer that was cut off.

    Attributes:
        row_index: The row.
        state: How it ended; ``None`` if it has not.
        asked: What of its flow is asked again.
    """

    row_index: int
    state: State | None
    asked: AskedAgain


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
            "--retry-cut-off pays for rows that were cut off alone, and a new answer in a --conversation changes what "
            "every later turn was asked; ask for all of them again with --max-tokens and --accept-change"
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
    of_steps = before.get(STEPS, {})
    steps = tuple(
        replace(step, job=_with_limits(step.job, of_steps.get(step.name, {}), wanted)) for step in job.steps
    )
    found = _with_limits(job, before, wanted)
    parameters = steps[0].job.parameters if steps else found.parameters
    # Answers of other jobs were asked for with the lower limit.
    return replace(found, steps=steps, parameters=parameters, reuse=())


def _with_limits(job: Job, before: "Mapping[str, Any]", raised_to: int) -> Job:
    """Returns a job with the limits of an answer that it had before, sent with a higher one."""
    parameters = {name: value for name, value in job.parameters.items() if name not in BOUNDS}
    of_template = plain(job.template.parameters) if job.template else {}
    parameters |= {
        name: value
        for name, value in before.get("parameters", {}).items()
        if name in BOUNDS and value != of_template.get(name)
    }
    return replace(job, parameters=parameters, raised_max_tokens=raised_to)


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
    expected, _ = UsageEstimator().stand_ins()
    limits: set[int] = set()
    for row in () if job.per_row else prepared.statistics.sample:
        for _, request in missing(begun(prepared.flow.start(row)), expected):
            if request.raised:
                return
            limits.add(request.max_tokens or 0)
    if limits:
        named = ", ".join(f"{limit:,}" for limit in sorted(limits))
        raise UsageError(
            f"--retry-cut-off needs a limit higher than the one that answers were cut off at ({named} tokens); "
            "raise --max-tokens"
        )


def cut_off_rows(
    prepared: PreparedJob, reader: JournalReader, *, chosen: "range | frozenset[int] | None" = None
) -> list[CutOffRow]:
    """Returns the rows with an answer that was cut off at a lower limit than the job's raised one.

    An answer that does not validate is none of these if a re-ask has brought a whole one.

    Args:
        prepared: The job and its input, which are those of the journal's last pass.
        reader: The journal.
        chosen: The only rows wanted, ``None`` for all.
    """
    readers: dict[int, Reader] = {}
    rows = list(_cut_off_rows(prepared, reader, chosen, readers))
    later = _later_answers(prepared, reader, rows, readers)
    return [row._replace(asked=_with_left_behind(reader, row.asked, later)) for row in rows]


def rows_again(
    prepared: PreparedJob, reader: JournalReader, rows: Sequence[CutOffRow], learned: UsageEstimator
) -> RowsAgain:
    """Returns the requests that rows still need, for the estimate: of up to a thousand rows, evenly spread.

    Args:
        prepared: The job and its input.
        reader: The journal.
        rows: What ``cut_off_rows`` returned.
        learned: What is known about answers.
    """
    if not rows:
        return RowsAgain()
    flows = list({each.asked.root_id: each for each in rows}.values())
    looked_at = flows[:: math.ceil(len(flows) / _LOOKED_AT)]
    row_of = in_order(prepared.source.rows)
    preview = Preview(
        prepared.flow,
        reader,
        final=final_states(prepared.job.retry_failed),
        dedupe=False,
        again=asked_again(looked_at),
        stand_ins=learned.stand_ins(),
    )
    seen = [preview.look_at(row_of(each.row_index), each.asked.root_id) for each in looked_at]
    return RowsAgain(
        [request for row in seen for request in row.requests],
        [request for row in seen for request in row.longest],
        len(rows),
        len(flows) / len(looked_at),
    )


def asked_again(rows: Sequence[CutOffRow]) -> frozenset[int]:
    """Returns the requests of rows that are asked again though they have an answer."""
    return frozenset(request_id for each in rows for request_id in each.asked.answers)


def keep_limit(journal: Journal, raised: int | None) -> None:
    """Notes in the journal with which raised limit the attempts from now on are sent."""
    limits: list[Any] = journal.get(RAISED) or []
    if (limits[-1][1] if limits else None) != raised:
        journal.put(RAISED, [*limits, (journal.next_attempt, raised)])


def _cut_off_rows(
    prepared: PreparedJob,
    reader: JournalReader,
    chosen: "range | frozenset[int] | None",
    readers: "dict[int, Reader]",
) -> Iterator[CutOffRow]:
    """Yields the rows, and adds the readers of the answers that were cut off to ``readers``."""
    limits: Limits = reader.get(RAISED) or []
    raised_to = prepared.job.raised_max_tokens or 0
    row_of = in_order(prepared.source.rows)
    replayer = Replayer(prepared.flow, reader, row_of, unread=True)
    for page in pages(reader.planned(), _PAGE):
        asked = [
            (known, known.request_id)
            for known in page
            if known.request_id is not None and (chosen is None or known.row_index in chosen)
        ]
        firsts = reader.requests([root_id for _, root_id in asked])
        for known, root_id in asked:
            row = row_of(known.row_index)
            if known.row_state is None:  # its only answer, which is quicker to read than to replay
                first = firsts[root_id]
                if first.status is None or (
                    read_outcome(first, prepared.builder.reader(row)).finish_reason != _CUT_OFF
                ):
                    continue
            replay = replayer.replay(row, root_id)
            answers: dict[int, KeptAnswer] = {}
            for request_id, kept, answer_reader in _cut_off(replay.requests, limits, raised_to):
                answers[request_id], readers[request_id] = kept, answer_reader
            if not answers:
                continue
            state_of_row = row_state_of(known)
            if state_of_row in (None, State.OPEN, State.PENDING):
                state_of_row = None
                if replay.result is not None:
                    state_of_row = State.ANSWERED if replay.result.error is None else State.FAILED
            again = AskedAgain(root_id, (known.row_index,), known.row_state, answers)
            yield CutOffRow(known.row_index, state_of_row, again)


def _cut_off(
    requests: Sequence[ReplayedRequest], limits: Limits, raised_to: int
) -> Iterator[tuple[int, KeptAnswer, Reader]]:
    """Yields the requests whose answer was cut off at a lower limit than they would be sent with."""
    last = {
        _REASK.sub("", each.ask.path): each.answer.finish_reason
        for each in requests
        if each.ask is not None and each.answer is not None
    }
    for ask, record, answer in requests:
        if ask is None or record is None or record.attempt_id is None or answer is None:
            continue
        if answer.finish_reason != _CUT_OFF or last[_REASK.sub("", ask.path)] != _CUT_OFF:
            continue
        try:
            is_raised = ask.built().raised
        except Unsent:
            continue
        if is_raised and (_limit_of(record.attempt_id, limits) or 0) < raised_to:
            state = State.ANSWERED if answer.error is None else State.FAILED
            yield record.request_id, KeptAnswer(state, record.attempt_id), ask.reader


def _limit_of(attempt_id: int, limits: Limits) -> int | None:
    """Returns the raised limit that an attempt was sent with, ``None`` where it was not raised."""
    return next((limit for first, limit in reversed(limits) if first <= attempt_id), None)


def _later_answers(
    prepared: PreparedJob, reader: JournalReader, rows: Sequence[CutOffRow], readers: "Mapping[int, Reader]"
) -> dict[int, int]:
    """Returns by request the attempt of a usable answer that a row gave up because its flow failed after it."""
    limits, raised_to = reader.get(RAISED) or [], prepared.job.raised_max_tokens or 0
    kept = {request_id: answer for row in rows for request_id, answer in row.asked.answers.items()}
    found: dict[int, int] = {}
    for request_id, attempt_id in reader.select(_ANSWERED, json.dumps(list(kept))):
        if attempt_id > kept[request_id].attempt_id:
            response = reader.response_of(attempt_id)
            answer = readers[request_id].read(response.status, response.body)
            is_whole = answer.finish_reason != _CUT_OFF or (_limit_of(attempt_id, limits) or 0) >= raised_to
            if answer.error is None and is_whole:
                found[request_id] = attempt_id
    return found


def _with_left_behind(reader: JournalReader, asked: AskedAgain, later: "Mapping[int, int]") -> AskedAgain:
    """Adds what an earlier attempt to ask again has left behind: answers that came, and failures that followed."""
    reopened: dict[int, int | None] = {number: later[number] for number in asked.answers if number in later}
    if reopened:
        first = min(later[number] for number in asked.answers if number in later)
        for record in reader.flow_requests(asked.root_id):
            if record.state is State.FAILED and (record.attempt_id or 0) > first:
                reopened.setdefault(record.request_id, None)
    return asked._replace(reopened=reopened)
