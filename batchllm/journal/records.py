"""What the journal hands out: frozen values, read from the database with each link of the chain checked.

A row of the database that does not match its checksum raises; it never becomes a wrong record.
"""

# ruff: noqa: S608 - the SQL is put together from constants of this package

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

from batchllm.journal.bulk import meta_row
from batchllm.journal.replies import REPLY, outcome_of, read_stored, reply_crc
from batchllm.journal.sqlite_errors import damaged, report_damage
from batchllm.records import Failure, Response

SKIPPED = "skipped"
"""The reason why a row with nothing to send is not sent: an empty text cell. Any other reason is the row's error."""


PLAN = "plan"
"""The key of ``meta`` that names the current plan."""

FINISHED = "finished_plan"
"""The key of ``meta`` with the number of the plan that a run finished."""

ENDPOINTS = "endpoints"
"""The key of ``meta`` with the names of the endpoints that attempts went to."""

TRIAL = "trial_plan"
"""The key of ``meta`` with the number of the plan of which a run finished a trial."""


class State(IntEnum):
    """How far a request is.

    ``OPEN``: unfinished; one with an ``attempt_id`` has an answer that was not read yet; ``ANSWERED``: finished with an
    answer; ``FAILED``: finished with a failure, sent again only with ``--retry-failed``; ``UNANSWERED``: the run gave
    up without an answer, sent again by the next run; ``PENDING``: in a batch without a result yet, sent by nobody else.
    """

    OPEN = 0
    ANSWERED = 1
    FAILED = 2
    UNANSWERED = 3
    PENDING = 4


STATES = tuple(State)
"""State by number: three times faster than ``State(number)``."""


class AdmittedRow(NamedTuple):
    """A row of the input and its request.

    Attributes:
        row_index: Position in the input, from 0.
        request_id: Its request; ``None`` for a row that is never sent.
        ordinal: Which of several equal requests it is, from 0.
        state: How far the request is; ``OPEN`` for a new one, ``None`` for a row that is never sent.
        attempts: Attempts so far, of all runs.
        attempt_id: The attempt whose reply is the request's outcome.
        unsent_reason: Why the row is never sent: ``"skipped"``, or its error.
        shares_request: An earlier row of this plan has the same request (with deduplication only).
        row_state: How far the row is; ``None``: as far as its request.
        key: The key of its request; ``None`` where the row was admitted just now.
    """

    row_index: int
    request_id: int | None = None
    ordinal: int | None = None
    state: State | None = None
    attempts: int = 0
    attempt_id: int | None = None
    unsent_reason: str | None = None
    shares_request: bool = False
    row_state: State | None = None
    key: bytes | None = None


class RowRecord(NamedTuple):
    """A row of the current plan and its outcome.

    Attributes:
        row_index: Position in the input, from 0.
        unsent_reason: Why the row was never sent: ``"skipped"``, or its error; else ``None``.
        state: How far the row is; ``None`` for a row that is never sent.
        attempts: Attempts of its first request so far, of all runs.
        status: HTTP status of the reply; ``None`` where no HTTP answer came, or none yet.
        body: Raw body of the reply, or the part of it that arrived.
        failure: One word why no HTTP answer came (``timeout``); ``None`` where one did.
        message: The same in one sentence.
        possibly_billed: Whether a failure may be on the bill; ``None`` where an HTTP answer came.
        latency_s: Seconds that the attempt took.
        received_at: When the reply was saved, in seconds since the epoch.
        attempt_id: The attempt that the reply belongs to.
        flow_of: The first request of a row that has a state of its own: its outcome is made by its flow, and the
            fields of a reply are empty. ``None``: the outcome is that of its request.
    """

    row_index: int
    unsent_reason: str | None
    state: State | None = None
    attempts: int = 0
    status: int | None = None
    body: bytes = b""
    failure: str | None = None
    message: str | None = None
    possibly_billed: bool | None = None
    latency_s: float | None = None
    received_at: float | None = None
    attempt_id: int | None = None
    flow_of: int | None = None


class FinishedRows(NamedTuple):
    """How many rows are finished in the same way.

    Attributes:
        state: The state of their requests; ``None`` for rows that are never sent.
        reason: Why those are not sent: ``"skipped"``, or the first line of their error; else ``None``.
        shares_request: Earlier rows have the same requests.
        rows: Number of rows.
    """

    state: State | None
    reason: str | None
    shares_request: bool
    rows: int


class AttemptRecord(NamedTuple):
    """One attempt of a request.

    Attributes:
        attempt_id: Its number in the journal.
        run_id: The run that made it.
        sent_at: When its intent was recorded, in seconds since the epoch; ``None``: nothing was sent, the answer was
            taken from another job.
        received_at: When its outcome was saved; ``None``: in flight, or the run died.
        outcome: What came back; ``None``: nothing was saved.
        possibly_billed: Whether a failure may be on the bill; ``None`` where an HTTP answer came.
    """

    attempt_id: int
    run_id: int
    sent_at: float | None
    received_at: float | None = None
    outcome: Response | Failure | None = None
    possibly_billed: bool | None = None


class Orphan(NamedTuple):
    """An attempt of a dead run that is possibly billed and has no answer.

    Attributes:
        attempt_id: The attempt.
        request_id: Its request.
        row_index: The first row with this request in the dead run's plan; ``None`` where there is none any more.
    """

    attempt_id: int
    request_id: int
    row_index: int | None


@dataclass(frozen=True, slots=True)
class PlanRecord:
    """One pass over the input.

    Attributes:
        plan_id: Its number, growing.
        continued: Source and job are the same as in the plan before: rows already admitted are known.
        rows: Number of known rows.
    """

    plan_id: int
    continued: bool
    rows: int


@dataclass(frozen=True, slots=True)
class RowCounts:
    """Numbers of rows of the current plan.

    Attributes:
        rows: Rows that were admitted.
        answered, failed, unanswered, open: By the state of their request.
        skipped: Rows with nothing to send.
        unsendable: Rows with an error that kept them from being sent.
        pending: Rows whose request is in a batch.
    """

    rows: int
    answered: int
    failed: int
    unanswered: int
    open: int
    skipped: int
    unsendable: int
    pending: int = 0

    @property
    def finished(self) -> int:
        """Rows that have their final state."""
        return self.answered + self.failed + self.skipped + self.unsendable


META = "SELECT key, value, crc FROM meta"

ROWS = """
SELECT row.row_index, row.request_id, row.unsent_reason, row.reason_crc, row.valid, request.valid, request.state,
       request.attempts, request.attempt_id, reply.received_at, reply.latency_s, reply.status, reply.failure,
       reply.message, reply.possibly_billed, reply.crc, reply.body, row.state
FROM row LEFT JOIN request ON request.request_id = row.request_id
LEFT JOIN reply ON reply.attempt_id = request.attempt_id
WHERE row.row_index >= ? ORDER BY row.row_index
"""

ADMITTED = """
SELECT row.row_index, row.request_id, row.unsent_reason, row.reason_crc, row.valid, request.valid, request.state,
       request.attempts, request.attempt_id, request.ordinal, row.shares_request, row.state, request.key
FROM row LEFT JOIN request ON request.request_id = row.request_id
WHERE row.row_index >= ? ORDER BY row.row_index LIMIT ?
"""

ATTEMPTS = f"""
SELECT attempt.attempt_id, attempt.run_id, attempt.sent_at, attempt.valid, reply.attempt_id, {REPLY}
FROM attempt LEFT JOIN reply ON reply.attempt_id = attempt.attempt_id
WHERE attempt.request_id = ? ORDER BY attempt.attempt_id
"""


@report_damage
def read_meta(path: Path, fields: Sequence[Any]) -> tuple[str, str]:
    """Reads a row of ``META``: a key, and its value as JSON."""
    key, text, _ = fields
    if tuple(fields) != meta_row(key, text)[1:]:
        raise damaged(path, f"the value of {key!r} does not match its CRC")
    return key, text


@report_damage
def read_row(path: Path, fields: Sequence[Any]) -> RowRecord:
    """Reads a row of ``ROWS``."""
    (
        row_index, request_id, unsent_reason, reason_crc, valid, request_valid, state, attempts, attempt_id,
        received_at, latency_s, status, failure, message, possibly_billed, crc, body, row_state,
    ) = fields  # fmt: skip
    if request_id is None or unsent_reason is not None:
        _check_unsent(path, row_index, request_id, unsent_reason, reason_crc, valid)
        return RowRecord(row_index, unsent_reason)
    if valid != 1 or request_valid != 1:
        raise damaged(path, f"row {row_index} does not match its checksum")
    if row_state is not None:
        return RowRecord(row_index, None, STATES[row_state], attempts, flow_of=request_id)
    if attempt_id is None or state == State.PENDING:
        if state == State.ANSWERED:
            raise damaged(path, f"the answer of row {row_index} is missing")
        return RowRecord(row_index, None, STATES[state], attempts)
    if crc is None or crc != reply_crc(
        attempt_id, received_at, latency_s, status, failure, message, possibly_billed, body
    ):
        raise damaged(path, f"the answer of row {row_index} does not match its CRC")
    return RowRecord(
        row_index, None, STATES[state], attempts, status, body, failure, message,
        None if possibly_billed is None else possibly_billed == 1, latency_s, received_at, attempt_id,
    )  # fmt: skip


@report_damage
def read_admitted(path: Path, fields: Sequence[Any]) -> AdmittedRow:
    """Reads a row of ``ADMITTED``."""
    (
        row_index, request_id, unsent_reason, reason_crc, valid, request_valid, state, attempts, attempt_id, ordinal,
        shares_request, row_state, key,
    ) = fields  # fmt: skip
    if request_id is None or unsent_reason is not None:
        _check_unsent(path, row_index, request_id, unsent_reason, reason_crc, valid)
        return AdmittedRow(row_index, unsent_reason=unsent_reason)
    if valid != 1 or request_valid != 1:
        raise damaged(path, f"row {row_index} does not match its checksum")
    return AdmittedRow(
        row_index, request_id, ordinal, STATES[state], attempts, attempt_id, None, shares_request == 1,
        None if row_state is None else STATES[row_state], key,
    )  # fmt: skip


@report_damage
def read_attempt(path: Path, fields: Sequence[Any]) -> AttemptRecord:
    """Reads a row of ``ATTEMPTS``."""
    attempt_id, run_id, sent_at, valid, reply_id, *reply = fields
    if valid != 1:
        raise damaged(path, f"attempt {attempt_id} does not match its checksum")
    if reply_id is None:
        return AttemptRecord(attempt_id, run_id, sent_at)
    stored = read_stored(path, attempt_id, reply)
    outcome, billed = outcome_of(path, stored), stored.possibly_billed
    return AttemptRecord(
        attempt_id, run_id, sent_at, stored.received_at, outcome, None if billed is None else billed == 1
    )


def _check_unsent(
    path: Path, row_index: int, request_id: int | None, reason: str | None, reason_crc: int, valid: int
) -> None:
    if reason is None or request_id is not None or valid != 1 or reason_crc != text_crc(reason):
        raise damaged(path, f"row {row_index} does not match its checksum")


def text_crc(text: str) -> int:
    """The CRC of a text, in 31 bits like every checksum of a row."""
    return crc32(text.encode()) & 0x7FFFFFFF
