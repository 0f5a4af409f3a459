"""Batches of a job: what was meant to be uploaded and created, what the endpoint says, and whose answers came.

A batch holds the attempts ``first_attempt … first_attempt + requests - 1``, in the order of its lines, so line n
is attempt ``first_attempt + n`` and nothing else need be kept. Its attempts are intents like any other, made
durable together with it, before its file is uploaded. Its requests are ``PENDING`` from that instant until each
is settled, and a request is in one live batch at most: ``prepare`` refuses a second. Pending requests are not
open, so no run sends them, and recovery does not take their attempts for lost ones.
"""

# ruff: noqa: S608 - the SQL is put together from constants of this package

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from batchllm.journal.database import attempt_check, request_check
from batchllm.journal.entries import State
from batchllm.journal.faults import damaged, loud
from batchllm.journal.replies import seal, unpack
from batchllm.records import Failure, Response

PAGE = 256


class BatchState(StrEnum):
    """How far a batch is; each is durable before the step that follows it begins.

    ``PREPARED``: meant to be uploaded; ``UPLOADED``: its file is there; ``CREATING``: meant to be created, and
    perhaps it was; ``CREATED``: the endpoint has it; ``ENDED``: it will not change any more, its results are to
    be fetched; ``DONE``: each of its requests is settled.
    """

    PREPARED = "prepared"
    UPLOADED = "uploaded"
    CREATING = "creating"
    CREATED = "created"
    ENDED = "ended"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """A batch, as this job knows it.

    Attributes:
        batch_id: Its number in the journal.
        name: Our name for it: in its metadata, in its file's name, and before the number in each ``custom_id``.
        state: How far it is.
        model: The one model of its requests.
        requests, bytes, tokens: Lines and bytes of its file, and the prompt tokens that it was estimated to hold.
        sha256: Of its file, in hexadecimal.
        first_attempt: The attempt of its first line.
        prepared_at: When it was prepared, in seconds since the epoch.
        state_changed_at: When it came to its state.
        last_polled_at: When the endpoint was last asked about it.
        file_id, remote_id: The endpoint's names for its file and for itself.
        status: What the endpoint said last; ``dropped`` where it was never created.
        total, completed, failed: Its ``request_counts``; ``None`` is unknown.
        output_file_id, error_file_id: Files of results.
        errors: Why its validation failed.
        finished_rows: Requests that it brought to their end.
    """

    batch_id: int
    name: str
    state: BatchState
    model: str
    requests: int
    bytes: int
    tokens: int
    sha256: str
    first_attempt: int
    prepared_at: float
    state_changed_at: float
    last_polled_at: float | None
    file_id: str | None
    remote_id: str | None
    status: str | None
    total: int | None
    completed: int | None
    failed: int | None
    output_file_id: str | None
    error_file_id: str | None
    errors: tuple[dict[str, Any], ...]
    finished_rows: int

    @property
    def filename(self) -> str:
        """What its file is called at the endpoint."""
        return f"{self.name}.jsonl"

    @property
    def last_attempt(self) -> int:
        """The attempt of its last line."""
        return self.first_attempt + self.requests - 1


class BatchResult(NamedTuple):
    """One request of a batch that is not settled yet.

    Attributes:
        attempt_id: Its attempt in the batch.
        request_id: The request.
        row_index: The row that means it, where results are read in the order of rows.
        attempts: Attempts so far, without this one.
        outcome: What the batch brought; ``None``: nothing.
    """

    attempt_id: int
    request_id: int
    row_index: int | None
    attempts: int
    outcome: Response | Failure | None


COLUMNS = (
    "batch_id", "name", "state", "model", "requests", "bytes", "tokens", "sha256", "first_attempt", "prepared_at",
    "state_changed_at", "last_polled_at", "file_id", "remote_id", "status", "total", "completed", "failed",
    "output_file_id", "error_file_id", "errors", "finished_rows",
)  # fmt: skip
BATCH_CHECK = "(batch_id * 1000003 + first_attempt * 524287 + requests * 8191) & 2147483647"
LIST = f'SELECT {", ".join(COLUMNS)}, "check" = {BATCH_CHECK} FROM batch'

_RESULT = f"""
SELECT attempt.attempt_id, attempt.request_id, %s, request.attempts,
       attempt."check" = {attempt_check("attempt.")} AND request."check" = {request_check("request.")},
       reply.attempt_id, reply.status, reply.headers, reply.body, reply.latency_s, reply.failure, reply.message,
       reply.paid, reply.received_at, reply.crc
"""
_IS_PENDING = f"request.state = {int(State.PENDING)} AND request.attempt_id = attempt.attempt_id"
_BY_ATTEMPT = f"""{_RESULT % "NULL"}
FROM attempt CROSS JOIN request ON request.request_id = attempt.request_id
LEFT JOIN reply ON reply.attempt_id = attempt.attempt_id
WHERE attempt.attempt_id >= :start AND attempt.attempt_id BETWEEN :first AND :last AND {_IS_PENDING}
ORDER BY attempt.attempt_id LIMIT {PAGE}
"""
_BY_ROW = f"""{_RESULT % "row.row_index"}
FROM row CROSS JOIN request ON request.request_id = row.request_id
CROSS JOIN attempt ON attempt.attempt_id = request.attempt_id
LEFT JOIN reply ON reply.attempt_id = attempt.attempt_id
WHERE row.row_index >= :start AND attempt.attempt_id BETWEEN :first AND :last AND {_IS_PENDING}
ORDER BY row.row_index LIMIT {PAGE}
"""


def batches_of(connection: sqlite3.Connection, path: Path) -> list[BatchRecord]:
    """Every batch of a journal, oldest first."""
    return [record_of(path, fields) for fields in connection.execute(f"{LIST} ORDER BY batch_id")]


def replied(connection: sqlite3.Connection, batch: BatchRecord) -> bytearray:
    """For each line of a batch 1 where its attempt has a reply already, else 0."""
    flags = bytearray(batch.requests)
    for (attempt_id,) in connection.execute(
        "SELECT attempt_id FROM reply WHERE attempt_id BETWEEN ? AND ?",
        (batch.first_attempt, batch.last_attempt),
    ):
        flags[attempt_id - batch.first_attempt] = 1
    return flags


def results_of(
    connection: sqlite3.Connection, path: Path, batch: BatchRecord, *, by_row: bool
) -> Iterator[BatchResult]:
    """The requests of a batch that are not settled yet, in pages, so that a caller may settle on the way.

    Args:
        connection: A reading connection.
        path: The journal, for messages.
        batch: The batch.
        by_row: In the order of the rows that mean them; requests that no row means any more are left out.
    """
    start = 0
    while True:
        page = connection.execute(
            _BY_ROW if by_row else _BY_ATTEMPT,
            {"start": start, "first": batch.first_attempt, "last": batch.last_attempt},
        ).fetchall()
        for fields in page:
            yield _result(path, fields)
        if len(page) < PAGE:
            return
        start = (page[-1][2] if by_row else page[-1][0]) + 1


@loud
def record_of(path: Path, fields: Any) -> BatchRecord:
    """A row of ``LIST``."""
    if fields is None or fields[-1] != 1:
        raise damaged(path, "a batch does not match its check")
    values = dict(zip(COLUMNS, fields[:-1], strict=True))
    values["state"] = BatchState(values["state"])
    values["errors"] = tuple(json.loads(values["errors"] or "[]"))
    return BatchRecord(**values)


@loud
def _result(path: Path, fields: Any) -> BatchResult:
    attempt_id, request_id, row_index, attempts, sound, reply_id, *reply = fields
    if sound != 1:
        raise damaged(path, f"attempt {attempt_id} does not match its check")
    if reply_id is None:
        return BatchResult(attempt_id, request_id, row_index, attempts, None)
    status, headers, body, latency_s, failure, message, paid, received_at, crc = reply
    if crc != seal(attempt_id, status, latency_s, received_at, failure, message, paid, body):
        raise damaged(path, f"the answer of attempt {attempt_id} does not match its CRC")
    outcome = unpack(status, headers, body, latency_s, failure, message, paid)
    return BatchResult(attempt_id, request_id, row_index, attempts, outcome)
