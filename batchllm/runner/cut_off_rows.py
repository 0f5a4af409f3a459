"""Finds the rows with answers that were cut off (``--retry-cut-off``), and what they are asked again."""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from batchllm.answer import Reader
from batchllm.budget.sample import RowsAgain
from batchllm.budget.usage import UsageEstimator
from batchllm.flows import Unsent
from batchllm.journal import AskedAgain, JournalReader, KeptAnswer, State
from batchllm.plan.finished import final_states, pages
from batchllm.plan.outcomes import in_order
from batchllm.plan.preview import Preview
from batchllm.plan.replay import ReplayedRequest, Replayer, read_outcome
from batchllm.plan.row_counts import row_state_of
from batchllm.prepare.prepared_job import PreparedJob
from batchllm.records import Chosen
from batchllm.runner.cut_off import Limits, limit_of, limits_in

_CUT_OFF = "length"
_PAGE = 256
_LOOKED_AT = 1000  # rows whose requests an estimate builds
_ANSWERED = """
SELECT attempt.request_id, attempt.attempt_id FROM attempt JOIN reply ON reply.attempt_id = attempt.attempt_id
WHERE attempt.request_id IN (SELECT value FROM json_each(?)) AND reply.status BETWEEN 200 AND 299 ORDER BY 2
"""
_TRIED = "SELECT DISTINCT request_id FROM attempt WHERE attempt_id >= ?"
_REASK = re.compile(r"(^|/)reask/\d+$")


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


def cut_off_rows(
    prepared: PreparedJob,
    reader: JournalReader,
    *,
    chosen: Chosen = None,
    since: int | None = None,
) -> list[CutOffRow]:
    """Returns the rows with an answer that was cut off at a lower limit than the job's raised one.

    An answer that does not validate is none of these if a re-ask has brought a whole one.

    Args:
        prepared: The job and its input, which are those of the journal's last pass.
        reader: The journal.
        chosen: The only rows wanted, ``None`` for all.
        since: In batch mode, the session's first attempt: what it has sent with the raised limit, it sends once.
    """
    readers: dict[int, Reader] = {}
    rows = list(_cut_off_rows(prepared, reader, chosen, _tried(prepared, reader, since), readers))
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


def _cut_off_rows(
    prepared: PreparedJob,
    reader: JournalReader,
    chosen: Chosen,
    tried: "set[int]",
    readers: "dict[int, Reader]",
) -> Iterator[CutOffRow]:
    """Yields the rows, without requests that were ``tried``, and adds the readers of their answers to ``readers``."""
    limits = limits_in(reader)
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
                if request_id not in tried:
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


def _tried(prepared: PreparedJob, reader: JournalReader, since: int | None) -> set[int]:
    """Returns the requests that the session has sent with the raised limit."""
    limits = limits_in(reader)
    if since is None or not limits or limits[-1][1] != prepared.job.raised_max_tokens:
        return set()
    return {request_id for (request_id,) in reader.select(_TRIED, max(since, limits[-1][0]))}


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
        if is_raised and (limit_of(record.attempt_id, limits) or 0) < raised_to:
            state = State.ANSWERED if answer.error is None else State.FAILED
            yield record.request_id, KeptAnswer(state, record.attempt_id), ask.reader


def _later_answers(
    prepared: PreparedJob, reader: JournalReader, rows: Sequence[CutOffRow], readers: "Mapping[int, Reader]"
) -> dict[int, int]:
    """Returns by request the attempt of a usable answer that a row gave up because its flow failed after it."""
    limits, raised_to = limits_in(reader), prepared.job.raised_max_tokens or 0
    kept = {request_id: answer for row in rows for request_id, answer in row.asked.answers.items()}
    found: dict[int, int] = {}
    for request_id, attempt_id in reader.select(_ANSWERED, json.dumps(list(kept))):
        if attempt_id > kept[request_id].attempt_id:
            response = reader.response_of(attempt_id)
            answer = readers[request_id].read(response.status, response.body)
            is_whole = answer.finish_reason != _CUT_OFF or (limit_of(attempt_id, limits) or 0) >= raised_to
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
