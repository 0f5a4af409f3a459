"""The batches of a job: what is uploaded and created, what the endpoint reports, and which results have come.

A batch holds the attempts ``first_attempt`` to ``first_attempt + requests - 1``, in the order of its lines: line n is
attempt ``first_attempt + n``, and nothing else is kept. Its attempts are intents like any other, made durable together
with it, before its file is uploaded. Its requests are ``PENDING`` from that instant until the outcome of each is
recorded, and a request is in one live batch at most: ``prepare`` refuses a second. Pending requests are not open, so no
run sends them, and recovery does not take their attempts for lost ones.
"""

# ruff: noqa: S608 - the SQL is put together from constants of this package

import json
import secrets
import sqlite3
from array import array
from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from batchllm.journal import bulk
from batchllm.journal.replies import REPLY, outcome_of, read_stored
from batchllm.journal.sqlite_errors import damaged, report_damage
from batchllm.journal.writer import JournalThread
from batchllm.records import Failure, Response

PAGE = 256
CHUNK = 4096


class BatchState(StrEnum):
    """How far a batch is; each state is durable before the next step begins.

    ``PREPARED``: about to be uploaded; ``UPLOADED``: its file is there; ``CREATING``: about to be created, and possibly
    created; ``CREATED``: the endpoint has it; ``ENDED``: it does not change any more, its results are to be fetched;
    ``DONE``: the outcome of each request is recorded.
    """

    PREPARED = "prepared"
    UPLOADED = "uploaded"
    CREATING = "creating"
    CREATED = "created"
    ENDED = "ended"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """What the journal knows of a batch.

    Attributes:
        batch_id: Its number in the journal.
        name: Its own name: in its metadata, in its file's name, and before the number in each ``custom_id``.
        state: How far it is.
        model: The model of its requests.
        requests, bytes, tokens: Lines and bytes of its file, and the estimated prompt tokens in it.
        sha256: Of its file, in hexadecimal.
        first_attempt: The attempt of its first line.
        prepared_at: When it was prepared, in seconds since the epoch.
        state_changed_at: When its state last changed.
        last_polled_at: When the endpoint was last asked about it.
        file_id, remote_id: The endpoint's ids of its file and of the batch.
        status: The endpoint's last status; ``dropped`` where it was never created.
        total, completed, failed: Its ``request_counts``; ``None`` is unknown.
        output_file_id, error_file_id: Files of results.
        errors: Why its validation failed.
        finished_rows: Requests that are finished by its results.
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
        """The name of its file at the endpoint."""
        return f"{self.name}.jsonl"

    @property
    def last_attempt(self) -> int:
        """The attempt of its last line."""
        return self.first_attempt + self.requests - 1


class BatchResult(NamedTuple):
    """One request of a batch whose outcome is not recorded yet.

    Attributes:
        attempt_id: Its attempt in the batch.
        request_id: The request.
        row_index: Its row, where results are read in the order of rows.
        attempts: Attempts so far, without this one.
        outcome: The batch's result; ``None``: it has none.
    """

    attempt_id: int
    request_id: int
    row_index: int | None
    attempts: int
    outcome: Response | Failure | None


COLUMNS = tuple(each.name for each in fields(BatchRecord))
BATCHES = f"SELECT {', '.join(COLUMNS)}, valid FROM batch"

_RESULT = f"""
SELECT attempt.attempt_id, attempt.request_id, %s, request.attempts, attempt.valid AND request.valid,
       reply.attempt_id, {REPLY}
"""
_IS_PENDING = "request.state = 4 AND request.attempt_id = attempt.attempt_id"
RESULTS_BY_ATTEMPT = f"""{_RESULT % "NULL"}
FROM attempt CROSS JOIN request ON request.request_id = attempt.request_id
LEFT JOIN reply ON reply.attempt_id = attempt.attempt_id
WHERE attempt.attempt_id >= ? AND attempt.attempt_id BETWEEN ? AND ? AND {_IS_PENDING}
ORDER BY attempt.attempt_id LIMIT {PAGE}
"""
RESULTS_BY_ROW = f"""{_RESULT % "row.row_index"}
FROM row CROSS JOIN request ON request.request_id = row.request_id
CROSS JOIN attempt ON attempt.attempt_id = request.attempt_id
LEFT JOIN reply ON reply.attempt_id = attempt.attempt_id
WHERE row.row_index >= ? AND attempt.attempt_id BETWEEN ? AND ? AND {_IS_PENDING}
ORDER BY row.row_index LIMIT {PAGE}
"""


@report_damage
def read_batch(path: Path, fields: Any) -> BatchRecord:
    """Reads a row of ``BATCHES``."""
    if fields is None or fields[-1] != 1:
        raise damaged(path, "a batch does not match its checksum")
    values = dict(zip(COLUMNS, fields[:-1], strict=True))
    values["state"] = BatchState(values["state"])
    values["errors"] = tuple(json.loads(values["errors"] or "[]"))
    return BatchRecord(**values)


@report_damage
def read_result(path: Path, fields: Any) -> BatchResult:
    """Reads a row of ``RESULTS_BY_ATTEMPT`` or ``RESULTS_BY_ROW``."""
    attempt_id, request_id, row_index, attempts, valid, reply_id, *reply = fields
    if valid != 1:
        raise damaged(path, f"attempt {attempt_id} does not match its checksum")
    outcome = None if reply_id is None else outcome_of(path, read_stored(path, attempt_id, reply))
    return BatchResult(attempt_id, request_id, row_index, attempts, outcome)


class BatchStore:
    """Writes the batches of a journal; every call waits for the disk.

    Args:
        writer: The journal's thread.
        connection: Its connection.
        reserve: Takes so many attempt numbers; returns the first.
        run_id: The run.
        clock: Seconds since the epoch.
        path: The journal, for messages.
    """

    def __init__(
        self,
        writer: JournalThread,
        connection: sqlite3.Connection,
        reserve: Callable[[int], int],
        run_id: int,
        clock: Callable[[], float],
        path: Path,
    ) -> None:
        self._writer = writer
        self._connection = connection
        self._reserve = reserve
        self._run_id = run_id
        self._clock = clock
        self._path = path

    def prepare(
        self, name: str, requests: "array[int]", *, model: str, size: int, tokens: int, sha256: str
    ) -> BatchRecord:
        """Records that a file of requests is about to be uploaded, with the intent of each of its lines.

        Args:
            name: See ``new_name``.
            requests: The requests' ids, in the order of the lines.
            model: Their model.
            size, tokens, sha256: Bytes, estimated prompt tokens and hash of the file.
        """
        first, now, run_id = self._reserve(len(requests)), self._clock(), self._run_id
        connection = self._connection

        def write() -> BatchRecord:
            (batch_id,) = connection.execute("SELECT ifnull(max(batch_id), 0) + 1 FROM batch").fetchone()
            connection.execute(
                "INSERT INTO batch(batch_id, name, state, model, requests, bytes, tokens, sha256, first_attempt,"
                " prepared_at, state_changed_at, finished_rows) VALUES (?,?,?,?,?,?,?,?,?,?,?,0)",
                (
                    batch_id,
                    name,
                    BatchState.PREPARED,
                    model,
                    len(requests),
                    size,
                    tokens,
                    sha256,
                    first,
                    now,
                    now,
                ),
            )
            before = connection.total_changes
            for start in range(0, len(requests), CHUNK):
                part = enumerate(requests[start : start + CHUNK], first + start)
                bulk.BATCH_ROWS.insert(
                    connection,
                    [
                        (bulk.BATCH_ATTEMPT, attempt_id, request_id, run_id, now)
                        for attempt_id, request_id in part
                    ],
                )
            if connection.total_changes - before != 2 * len(requests):
                raise damaged(self._path, "a request is in a batch already")
            return self._read(batch_id)

        return self._writer.call(write)

    def update(self, batch: BatchRecord, **fields: Any) -> BatchRecord:
        """Changes columns of a batch; a new state gets the time."""
        if "errors" in fields:
            fields["errors"] = json.dumps(fields["errors"])
        if "state" in fields:
            fields["state_changed_at"] = self._clock()
        assert fields.keys() <= set(COLUMNS), "only columns are updated"
        assignments = ", ".join(f"{name} = :{name}" for name in fields)

        def write() -> BatchRecord:
            self._connection.execute(
                f"UPDATE batch SET {assignments} WHERE batch_id = :id", {**fields, "id": batch.batch_id}
            )
            return self._read(batch.batch_id)

        return self._writer.call(write)

    def all(self) -> list[BatchRecord]:
        """Returns every batch, oldest first."""
        query = f"{BATCHES} ORDER BY batch_id"
        rows = self._writer.call(lambda: self._connection.execute(query).fetchall())
        return [read_batch(self._path, fields) for fields in rows]

    def live(self) -> list[BatchRecord]:
        """Returns the batches that are not ``DONE``."""
        return [batch for batch in self.all() if batch.state is not BatchState.DONE]

    def _read(self, batch_id: int) -> BatchRecord:
        found = self._connection.execute(f"{BATCHES} WHERE batch_id = ?", (batch_id,))
        return read_batch(self._path, found.fetchone())


def new_name() -> str:
    """Returns a name that no batch has, here or anywhere."""
    return f"batchllm-{secrets.token_hex(8)}"
