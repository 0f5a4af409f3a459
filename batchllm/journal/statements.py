"""SQL for many rows at once.

Each step of SQLite lets go of the interpreter's lock and takes it again, and with a busy event loop on the other
side of that lock, a step a row costs more than the row. So rows go down in a few statements whose ``VALUES`` hold
many of them, in few enough shapes that the connection's statement cache keeps each compiled. What every row of a run
needs goes down in one statement (``inbox``, which also says why parameters are seldom ``None`` or ``bytes``).
"""

# ruff: noqa: S608 - the SQL is put together from constants of this package

import sqlite3
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from batchllm.journal.database import attempt_check, request_check, row_sum

SHAPES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
"""Rows in a statement: three statements at most for any number of rows up to 256."""


class Bulk:
    """A statement with a list of rows in it.

    Args:
        head: SQL before the rows.
        row: One row of parameters, ``(?, ?)``.
        tail: SQL after the rows.
    """

    __slots__ = ("_texts",)

    def __init__(self, head: str, row: str, tail: str = "") -> None:
        self._texts = {rows: f"{head} {','.join([row] * rows)} {tail}" for rows in SHAPES}

    def run(self, connection: sqlite3.Connection, rows: Sequence[Sequence[Any]]) -> None:
        """Executes it for all rows."""
        for _ in self._steps(connection, rows):
            pass

    def fetch(self, connection: sqlite3.Connection, rows: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
        """Executes it for all rows and returns what it finds."""
        return [found for cursor in self._steps(connection, rows) for found in cursor]

    def _steps(
        self, connection: sqlite3.Connection, rows: Sequence[Sequence[Any]]
    ) -> Iterator[sqlite3.Cursor]:
        start, end = 0, len(rows)
        while start < end:
            shape = SHAPES[bisect_right(SHAPES, end - start) - 1]
            part = rows[start : start + shape]
            yield connection.execute(self._texts[shape], tuple(chain.from_iterable(part)))
            start += shape


SET_META = Bulk("INSERT OR REPLACE INTO meta(key, value, crc) VALUES", "(?,?,?)")

LAST_OF_KEYS = Bulk(
    "WITH wanted(key) AS (VALUES",
    "(?)",
    ") SELECT wanted.key, request.key, request.request_id, request.ordinal, request.state, request.attempts,"
    f' request.attempt_id, request.plan, request."check" = {request_check("request.")}'
    " FROM wanted CROSS JOIN request ON request.request_id ="
    " (SELECT request_id FROM request WHERE key = wanted.key ORDER BY ordinal DESC LIMIT 1)",
)
"""(key) → the request of that key with the highest ordinal; the second key shows a damaged index."""

NEW_REQUEST = Bulk(
    'INSERT INTO request(request_id, key, ordinal, plan, state, attempts, attempt_id, "check")'
    " SELECT request_id, key, ordinal, plan, 0, 0, NULL, (request_id * 1000003 + ordinal * 8191) & 2147483647"
    " FROM (SELECT column1 AS request_id, column2 AS key, column3 AS ordinal, column4 AS plan FROM (VALUES",
    "(?,?,?,?)",
    "))",
)

CLAIM = Bulk(
    "WITH claim(request_id, plan) AS (VALUES",
    "(?,?)",
    ") UPDATE request SET plan = claim.plan FROM claim WHERE request.request_id = claim.request_id",
)

SET_ROW = Bulk(
    'INSERT OR REPLACE INTO row(row_index, request_id, note, shared, "check") SELECT row_index, request_id, note,'
    f" shared, ({row_sum('')} + crc) & 2147483647 FROM (SELECT column1 AS row_index, nullif(column2, '') AS request_id,"
    " nullif(column3, 0) AS note, column4 AS shared, column5 AS crc FROM (VALUES",
    "(?,?,?,?,?)",
    "))",
)

NEW_ATTEMPT = Bulk(
    'INSERT INTO attempt(attempt_id, request_id, run_id, sent_at, body, "check") SELECT attempt_id, request_id,'
    f" run_id, sent_at, body, {attempt_check('')} FROM (SELECT column1 AS attempt_id, column2 AS request_id,"
    " column3 AS run_id, column4 AS sent_at, column5 AS body FROM (VALUES",
    "(?,?,?,?,?)",
    "))",
)
