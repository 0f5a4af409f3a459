"""The batches of a journal that a run writes: each step of a batch is durable before the next one begins."""

# ruff: noqa: S608 - the SQL is put together from constants of this package

import json
import secrets
import sqlite3
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

from batchllm.journal.batches import (
    BATCH_CHECK,
    COLUMNS,
    LIST,
    BatchRecord,
    BatchState,
    batches_of,
    record_of,
)
from batchllm.journal.database import request_check
from batchllm.journal.entries import State
from batchllm.journal.faults import damaged
from batchllm.journal.statements import NEW_ATTEMPT, Bulk

CHUNK = 4096

_STATE = str(int(State.PENDING))
_PEND = Bulk(
    "WITH pending(request_id, attempt_id) AS (VALUES",
    "(?,?)",
    f") UPDATE request SET state = {_STATE}, attempt_id = pending.attempt_id,"
    f' "check" = {request_check("request.", _STATE).replace("request.attempt_id", "pending.attempt_id")}'
    f" FROM pending WHERE request.request_id = pending.request_id AND request.state <> {_STATE}",
)

Call = Callable[[Callable[[sqlite3.Connection], Any]], Any]
"""Runs a function on the journal's writing connection, within a transaction, and returns its result."""


class BatchStore:
    """The batches of a journal that a run writes; every call waits for the disk.

    Args:
        call: Reaches the writing connection.
        reserve: Takes so many attempt numbers; returns the first.
        run_id: The run.
        clock: Seconds since the epoch.
        path: The journal, for messages.
    """

    def __init__(
        self, call: Call, reserve: Callable[[int], int], run_id: int, clock: Callable[[], float], path: Path
    ) -> None:
        self._call = call
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
            size, tokens, sha256: The file's.
        """
        first, now, run_id = self._reserve(len(requests)), self._clock(), self._run_id

        def write(connection: sqlite3.Connection) -> BatchRecord:
            cursor = connection.execute(
                "INSERT INTO batch(name, state, model, requests, bytes, tokens, sha256, first_attempt, prepared_at,"
                ' state_changed_at, finished_rows, "check") VALUES (?,?,?,?,?,?,?,?,?,?,0,0)',
                (name, BatchState.PREPARED, model, len(requests), size, tokens, sha256, first, now, now),
            )
            connection.execute(
                f'UPDATE batch SET "check" = {BATCH_CHECK} WHERE batch_id = ?', (cursor.lastrowid,)
            )
            before = connection.total_changes
            for start in range(0, len(requests), CHUNK):
                part = list(enumerate(requests[start : start + CHUNK], first + start))
                NEW_ATTEMPT.run(connection, [(attempt, one, run_id, now, None) for attempt, one in part])
                _PEND.run(connection, [(one, attempt) for attempt, one in part])
            if connection.total_changes - before != 2 * len(requests):
                raise damaged(self._path, "a request is in a batch already")
            return self._one(connection, cursor.lastrowid)

        record: BatchRecord = self._call(write)
        return record

    def update(self, batch: BatchRecord, **fields: Any) -> BatchRecord:
        """Changes what is known of a batch; a new state is stamped with the time."""
        if "errors" in fields:
            fields["errors"] = json.dumps(fields["errors"])
        if "state" in fields:
            fields["state_changed_at"] = self._clock()
        assert fields.keys() <= set(COLUMNS), "only columns are updated"
        assignments = ", ".join(f"{name} = :{name}" for name in fields)

        def write(connection: sqlite3.Connection) -> BatchRecord:
            connection.execute(
                f"UPDATE batch SET {assignments} WHERE batch_id = :id", {**fields, "id": batch.batch_id}
            )
            return self._one(connection, batch.batch_id)

        record: BatchRecord = self._call(write)
        return record

    def all(self) -> list[BatchRecord]:
        """Every batch, oldest first."""
        found: list[BatchRecord] = self._call(lambda connection: batches_of(connection, self._path))
        return found

    def live(self) -> list[BatchRecord]:
        """The batches whose requests are not all settled yet."""
        return [batch for batch in self.all() if batch.state is not BatchState.DONE]

    def _one(self, connection: sqlite3.Connection, batch_id: int | None) -> BatchRecord:
        return record_of(self._path, connection.execute(f"{LIST} WHERE batch_id = ?", (batch_id,)).fetchone())


def new_name() -> str:
    """A name that no batch has, here or anywhere."""
    return f"batchllm-{secrets.token_hex(8)}"
