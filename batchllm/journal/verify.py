"""Raw rows of the database become records, each link of the chain checked: damage is loud, never a wrong row."""

# ruff: noqa: S608 - the SQL is put together from constants of this package

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

from batchllm.journal.database import attempt_check, request_check, row_sum
from batchllm.journal.entries import STATES, AdmittedRow, AttemptRecord, RowRecord, State, StoredAnswer
from batchllm.journal.faults import damaged, loud
from batchllm.journal.replies import seal, unpack
from batchllm.journal.statements import Bulk
from batchllm.records import Response

NOTE_CRC = f'(row."check" - {row_sum("row.")}) & 2147483647'
"""What is left of a row's check is the CRC of its note: 0 where it has none."""

SOUND = f'request."check" = {request_check("request.")}'

ENTRIES = f"""
SELECT row.row_index, row.note, {NOTE_CRC}, row.request_id, request.state, {SOUND}, request.attempts,
       request.attempt_id, reply.status, reply.body, reply.failure, reply.message, reply.paid, reply.latency_s,
       reply.received_at, reply.crc
FROM row LEFT JOIN request ON request.request_id = row.request_id
LEFT JOIN reply ON reply.attempt_id = request.attempt_id
WHERE row.row_index >= ? ORDER BY row.row_index
"""

PLANNED = f"""
SELECT row.row_index, row.request_id, request.ordinal, request.state, request.attempts, request.attempt_id,
       row.note, row.shared, {NOTE_CRC}, {SOUND}
FROM row LEFT JOIN request ON request.request_id = row.request_id
WHERE row.row_index >= ? ORDER BY row.row_index LIMIT ?
"""

ATTEMPTS = f"""
SELECT attempt.attempt_id, attempt.run_id, attempt.sent_at, attempt.body, attempt."check" = {attempt_check("attempt.")},
       reply.attempt_id, reply.received_at, reply.status, reply.headers, reply.body, reply.latency_s, reply.failure,
       reply.message, reply.paid, reply.crc
FROM attempt LEFT JOIN reply ON reply.attempt_id = attempt.attempt_id
WHERE attempt.request_id = ? ORDER BY attempt.attempt_id
"""

REPLY = """
SELECT received_at, status, headers, body, latency_s, failure, message, paid, crc FROM reply WHERE attempt_id = ?
"""

ANSWERS = Bulk(
    "WITH wanted(key, ordinal) AS (VALUES",
    "(?,?)",
    f") SELECT wanted.key, request.key, wanted.ordinal, {SOUND}, request.attempt_id, reply.received_at,"
    " reply.latency_s, reply.status, reply.headers, reply.body, reply.crc FROM wanted CROSS JOIN request"
    " ON request.request_id = (SELECT request_id FROM request WHERE key = wanted.key AND ordinal = wanted.ordinal)"
    " LEFT JOIN reply ON reply.attempt_id = request.attempt_id WHERE request.state = 1",
)


META = "SELECT key, value, crc FROM meta"


def value_row(key: str, text: str) -> tuple[str, str, int]:
    """A row of ``meta``."""
    return key, text, crc32(f"{key}\0{text}".encode())


@loud
def value(path: Path, fields: Sequence[Any]) -> tuple[str, str]:
    """A row of ``META``: a key, and its value as JSON."""
    key, text, _ = fields
    if tuple(fields) != value_row(key, text):
        raise damaged(path, f"the entry {key!r} does not match its CRC")
    return key, text


@loud
def entry(path: Path, fields: Sequence[Any]) -> RowRecord:
    """A row of ``ENTRIES``."""
    (
        row_index, note, note_crc, request_id, state, sound, attempts, attempt_id,
        status, body, failure, message, paid, latency_s, received_at, crc,
    ) = fields  # fmt: skip
    if request_id is None or note is not None:
        _check_note(path, row_index, note, note_crc, request_id)
        return RowRecord(row_index, note, None, 0, None, b"", None, None, None, None, None, None)
    if sound != 1 or note_crc != 0:
        raise damaged(path, f"row {row_index} does not match its check")
    if attempt_id is None or state == State.PENDING:
        if state == State.ANSWERED:
            raise damaged(path, f"the answer of row {row_index} is missing")
        return RowRecord(
            row_index, None, STATES[state], attempts, None, b"", None, None, None, None, None, None
        )
    if crc is None or crc != seal(attempt_id, status, latency_s, received_at, failure, message, paid, body):
        raise damaged(path, f"the answer of row {row_index} does not match its CRC")
    return RowRecord(
        row_index, None, STATES[state], attempts, status, body, failure, message, paid, latency_s, received_at,
        attempt_id,
    )  # fmt: skip


@loud
def admitted(path: Path, fields: Sequence[Any]) -> AdmittedRow:
    """A row of ``PLANNED``."""
    row_index, request_id, ordinal, state, attempts, attempt_id, note, shared, note_crc, sound = fields
    if request_id is None or note is not None:
        _check_note(path, row_index, note, note_crc, request_id)
        return AdmittedRow(row_index, None, None, None, 0, None, note, False)
    if sound != 1 or note_crc != 0:
        raise damaged(path, f"row {row_index} does not match its check")
    return AdmittedRow(row_index, request_id, ordinal, STATES[state], attempts, attempt_id, None, shared == 1)


@loud
def attempt(path: Path, fields: Sequence[Any]) -> AttemptRecord:
    """A row of ``ATTEMPTS``."""
    attempt_id, run_id, sent_at, sent_body, sound, reply_id, received_at, *reply = fields
    if sound != 1:
        raise damaged(path, f"attempt {attempt_id} does not match its check")
    if reply_id is None:
        return AttemptRecord(attempt_id, run_id, sent_at, sent_body, None, None, None)
    status, headers, body, latency_s, failure, message, paid, crc = reply
    if crc != seal(attempt_id, status, latency_s, received_at, failure, message, paid, body):
        raise damaged(path, f"the answer of attempt {attempt_id} does not match its CRC")
    outcome = unpack(status, headers, body, latency_s, failure, message, paid)
    return AttemptRecord(attempt_id, run_id, sent_at, sent_body, received_at, outcome, paid)


@loud
def response(path: Path, attempt_id: int, fields: Sequence[Any] | None) -> Response:
    """A row of ``REPLY`` that has an HTTP answer."""
    if fields is None:
        raise damaged(path, f"the answer of attempt {attempt_id} is missing")
    received_at, status, headers, body, latency_s, failure, message, paid, crc = fields
    sealed = seal(attempt_id, status, latency_s, received_at, failure, message, paid, body)
    outcome = unpack(status, headers, body, latency_s, failure, message, paid) if crc == sealed else None
    if not isinstance(outcome, Response):
        raise damaged(path, f"the answer of attempt {attempt_id} does not match its CRC")
    return outcome


@loud
def stored(path: Path, fields: Sequence[Any]) -> tuple[tuple[bytes, int], StoredAnswer]:
    """A row of ``ANSWERS``: which request, and its answer."""
    wanted, key, ordinal, sound, attempt_id, received_at, latency_s, status, headers, body, crc = fields
    if wanted != key or sound != 1 or attempt_id is None:
        raise damaged(path, "a request does not match its check")
    reply = (received_at, status, headers, body, latency_s, None, None, None, crc)
    return (key, ordinal), StoredAnswer(
        received_at, response(path, attempt_id, None if crc is None else reply)
    )


def _check_note(path: Path, row_index: int, note: str | None, note_crc: int, request_id: int | None) -> None:
    if note is None or request_id is not None or note_crc != crc32(note.encode()) & 0x7FFFFFFF:
        raise damaged(path, f"row {row_index} does not match its check")
