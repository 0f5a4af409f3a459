"""What every row of a run needs, in one statement a group: intents, replies, settlements and entries of ``meta``.

Every call of SQLite lets go of the interpreter's lock several times and has to win it back from a busy event loop.
A group of a transaction and a statement a table lost more time to that than to the disk. So a group goes, row by
row, into a view that keeps nothing: a trigger for each kind puts the row where it belongs. One statement is a
transaction by itself, and all of it happens between two looks at the lock. View and triggers are temporary: they
are this connection's, and no part of the file.

Each row begins with its kind. A statement exists for some numbers of rows, so that SQLite compiles few; a group is
filled up with rows of kind 0, which no trigger takes.

Python's ``sqlite3`` looks for adapters of every parameter that is ``None`` or ``bytes``, at a microsecond each with
the lock held. So no parameter is either: what is missing goes down as a value that its column cannot have.
"""

# ruff: noqa: S608 - the SQL is put together from constants of this package

import sqlite3
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

from batchllm.journal.database import attempt_check, request_check

INTENT, REPLY, SETTLEMENT, ENTRY = 1, 2, 3, 4
"""Kinds, in the order in which a group has to hold them: a reply belongs to an intent, a settlement to a reply."""

NO_NUMBER = ""
"""Stands for ``None`` in a column of numbers."""
NO_TEXT = 0
"""Stands for ``None`` in a column of texts or bytes."""

_CELLS = 11
_ROW = f"({','.join('?' * _CELLS)})"
_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
MOST = _SIZES[-1]
"""The most rows that go into one statement."""

_INSERTS = [f"INSERT INTO temp.inbox VALUES {','.join([_ROW] * size)}" for size in _SIZES]
_FILLS = [[0] * (_CELLS - size) for size in range(_CELLS + 1)]
_EMPTY = [0] * _CELLS

_ATTEMPT_CHECK = attempt_check("NEW.").replace("NEW.attempt_id", "NEW.a").replace("NEW.request_id", "NEW.b")

_TRIGGERS = {
    # A request that had its end is open again.
    INTENT: f"""
        INSERT INTO attempt(attempt_id, request_id, run_id, sent_at, body, "check")
        VALUES (NEW.a, NEW.b, NEW.c, nullif(NEW.d, ''), nullif(NEW.e, 0), {_ATTEMPT_CHECK});
        UPDATE request SET state = 0, "check" = {request_check("", "0")} WHERE request_id = NEW.b AND state <> 0;
    """,
    REPLY: """
        INSERT INTO reply(attempt_id, received_at, latency_s, status, failure, message, paid, crc, headers, body)
        VALUES (NEW.a, NEW.b, NEW.c, nullif(NEW.d, ''), nullif(NEW.e, 0), nullif(NEW.f, 0), nullif(NEW.g, 0), NEW.h,
                nullif(NEW.i, 0), NEW.j);
    """,
    SETTLEMENT: """
        UPDATE request SET state = NEW.b, attempts = NEW.c, attempt_id = nullif(NEW.d, ''),
          "check" = (NEW.a * 1000003 + ordinal * 8191 + NEW.b * 131071 + NEW.c * 10007
                     + ifnull(nullif(NEW.d, ''), 0) * 524287) & 2147483647
        WHERE request_id = NEW.a;
    """,
    ENTRY: "INSERT OR REPLACE INTO meta(key, value, crc) VALUES (NEW.a, NEW.b, NEW.c);",
}


def prepare_job(connection: sqlite3.Connection) -> None:
    """Makes the view and its triggers on the journal's writing connection."""
    connection.execute(
        "CREATE TEMP VIEW inbox(kind, a, b, c, d, e, f, g, h, i, j)"
        " AS SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL"
    )
    for kind, statements in _TRIGGERS.items():
        connection.execute(
            f"CREATE TEMP TRIGGER inbox_{kind} INSTEAD OF INSERT ON inbox WHEN NEW.kind = {kind}"
            f" BEGIN {statements} END"
        )


def put(connection: sqlite3.Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    """Writes rows of a kind and its columns; up to ``MOST`` of them are a transaction where none has begun."""
    for start in range(0, len(rows), MOST):
        part = rows[start : start + MOST]
        at = bisect_left(_SIZES, len(part))
        cells: list[Any] = []
        for row in part:
            cells += row
            cells += _FILLS[len(row)]
        cells += _EMPTY * (_SIZES[at] - len(part))
        connection.execute(_INSERTS[at], cells)
