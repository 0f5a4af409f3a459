"""Many rows in one statement: how the journal writes, and how it looks up many keys.

Every call of SQLite gives up the interpreter's lock several times and has to win it back from a busy event loop, which
costs more than the row itself. So rows for several tables go into one view, in one statement, and a trigger for each
kind of row puts it into its table. The statement is a transaction by itself. Views and triggers are temporary: they
belong to the connection and are no part of the file.

Each row begins with its kind. Statements exist for a few numbers of rows, so that the connection's cache keeps them
compiled; a shorter list is filled up with rows of kind 0, which no trigger takes. A row with fewer cells than its view
is filled up with 0, so the last cells of a kind may mean ``NULL`` by 0.

Python's ``sqlite3`` searches for an adapter of each parameter that is ``None`` or ``bytes``, which takes a microsecond.
So no parameter is either: ``MISSING`` stands for ``None``, and bytes are passed as ``bytearray``.
"""

import sqlite3
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import chain
from typing import Any
from zlib import crc32

MISSING = -1
"""Stands for ``None``; no column has this value."""

BATCH_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
"""Numbers of rows for which there is a statement."""
MAX_ROWS = BATCH_SIZES[-1]
"""The most rows that one statement takes."""

ATTEMPT, REPLY, OUTCOME, META, REQUEST, CLAIM, ROW, BATCH_ATTEMPT, ROW_STATE, REOPEN, KEPT, STATE = range(
    1, 13
)
"""Kinds of rows. In a list, a row that refers to another one comes after it."""


BulkRow = tuple[Any, ...]
"""A kind, and the cells of the row."""


class BulkInsert:
    """Writes rows of several kinds in one statement.

    Args:
        name: The name of its view.
        cells: The most cells of a row after its kind.
        statements: What is done with a row of each kind; ``NEW.a``, ``NEW.b`` and so on are the row's cells.
    """

    def __init__(self, name: str, cells: int, statements: dict[int, tuple[str, ...]]) -> None:
        self.name = name
        self.statements = statements
        self._width = 1 + cells
        self._fill = [[0] * (self._width - size) for size in range(self._width + 1)]
        self._texts = [f"INSERT INTO temp.{name} {_values(self._width, size)}" for size in BATCH_SIZES]

    def prepare(self, connection: sqlite3.Connection) -> None:
        """Creates the view and its triggers, which ``insert`` needs."""
        columns = ", ".join(("kind", *"abcdefghij"[: self._width - 1]))
        connection.execute(
            f"CREATE TEMP VIEW {self.name}({columns}) AS SELECT {', '.join(['0'] * self._width)}"
        )
        for kind, statements in self.statements.items():
            connection.execute(
                f"CREATE TEMP TRIGGER {self.name}_{kind} INSTEAD OF INSERT ON {self.name} WHEN NEW.kind = {kind}"
                f" BEGIN {'; '.join(statements)}; END"
            )

    def insert(self, connection: sqlite3.Connection, rows: Sequence[BulkRow]) -> None:
        """Writes rows; up to ``MAX_ROWS`` are one transaction where none has begun."""
        fill, empty = self._fill, self._fill[0]
        for start in range(0, len(rows), MAX_ROWS):
            part = rows[start : start + MAX_ROWS]
            at = bisect_left(BATCH_SIZES, len(part))
            cells: list[Any] = []
            for row in part:
                cells += row
                cells += fill[len(row)]
            cells += empty * (BATCH_SIZES[at] - len(part))
            connection.execute(self._texts[at], cells)


def _values(cells: int, rows: int) -> str:
    row = f"({','.join('?' * cells)})"
    return f"VALUES {','.join([row] * rows)}"


_INSERT_ATTEMPT = (
    "INSERT INTO attempt(attempt_id, request_id, run_id, sent_at, endpoint)"
    " VALUES (NEW.a, NEW.b, NEW.c, nullif(NEW.d, -1), nullif(NEW.e, 0))"
)

RUN_ROWS = BulkInsert(
    "run_rows",
    10,
    {
        # A request that is sent again is open again.
        ATTEMPT: (
            _INSERT_ATTEMPT,
            "UPDATE request SET state = 0, attempt_id = NULL WHERE request_id = NEW.b AND state <> 0",
        ),
        REPLY: (
            "INSERT INTO reply(attempt_id, received_at, latency_s, status, failure, message, possibly_billed, crc,"
            " headers, body) VALUES (NEW.a, NEW.b, nullif(NEW.c, -1), nullif(NEW.d, -1), nullif(NEW.e, -1),"
            " nullif(NEW.f, -1), nullif(NEW.g, -1), NEW.h, nullif(NEW.i, -1), NEW.j)",
        ),
        OUTCOME: (
            "UPDATE request SET state = NEW.b, attempts = NEW.c, attempt_id = nullif(NEW.d, -1)"
            " WHERE request_id = NEW.a",
        ),
        META: ("INSERT OR REPLACE INTO meta(key, value, crc) VALUES (NEW.a, NEW.b, NEW.c)",),
        ROW_STATE: ("UPDATE row SET state = nullif(NEW.b, -1) WHERE row_index = NEW.a",),
        REOPEN: (
            "UPDATE request SET state = 0, attempt_id = NULL WHERE state = 2 AND request_id = NEW.a",
            "UPDATE request SET state = 0, attempt_id = NULL WHERE state = 2 AND root_id = NEW.a",
        ),
        STATE: ("UPDATE request SET state = NEW.b, attempt_id = nullif(NEW.c, -1) WHERE request_id = NEW.a",),
        KEPT: ("INSERT OR IGNORE INTO kept(key, value, crc) VALUES (NEW.a, NEW.b, NEW.c)",),
    },
)
"""What a run writes for each row: intents, replies, outcomes, states, kept values, and values of ``meta``."""

ADMISSION_ROWS = BulkInsert(
    "admission_rows",
    7,
    {
        REQUEST: (
            "INSERT INTO request(request_id, key, ordinal, plan_id, state, attempts, root_id, path, body_key)"
            " VALUES (NEW.a, NEW.b, NEW.c, NEW.d, 0, 0, nullif(NEW.e, 0), nullif(NEW.f, 0), nullif(NEW.g, 0))",
        ),
        CLAIM: ("UPDATE request SET plan_id = NEW.b WHERE request_id = NEW.a",),
        ROW: (
            "INSERT OR REPLACE INTO row(row_index, request_id, unsent_reason, shares_request, reason_crc, state)"
            " VALUES (NEW.a, nullif(NEW.b, -1), nullif(NEW.c, -1), NEW.d, NEW.e, nullif(NEW.f, 0) - 1)",
        ),
    },
)
"""What admitting rows writes."""

BATCH_ROWS = BulkInsert(
    "batch_rows",
    5,
    {
        # A request that is in a batch already is not changed, which the writer of the batch notices.
        BATCH_ATTEMPT: (
            _INSERT_ATTEMPT,
            "UPDATE request SET state = 4, attempt_id = NEW.a WHERE request_id = NEW.b AND state <> 4",
        ),
    },
)
"""The intents of a batch."""


def prepare(connection: sqlite3.Connection) -> None:
    """Makes a writing connection ready for every ``BulkInsert``."""
    for each in (RUN_ROWS, ADMISSION_ROWS, BATCH_ROWS):
        each.prepare(connection)


class BulkQuery:
    """A query of many keys at once.

    Args:
        columns: The columns of a key, which the query finds in the table ``wanted``.
        query: The query.
    """

    def __init__(self, columns: str, query: str) -> None:
        cells = len(columns.split(","))
        self._texts = {
            size: f"WITH wanted({columns}) AS ({_values(cells, size)}) {query}" for size in BATCH_SIZES
        }

    def fetch(self, connection: sqlite3.Connection, keys: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
        """The query's rows for all keys."""
        found: list[tuple[Any, ...]] = []
        start = 0
        while start < len(keys):
            size = BATCH_SIZES[bisect_right(BATCH_SIZES, len(keys) - start) - 1]
            part = tuple(chain.from_iterable(keys[start : start + size]))
            found += connection.execute(self._texts[size], part)
            start += size
        return found


def meta_key(key: str) -> str:
    """Returns a key as SQLite can hold it: the names of files may have bytes that are no UTF-8."""
    return key.encode(errors="backslashreplace").decode()


def meta_row(key: str, text: str) -> BulkRow:
    """The row that keeps a text under a key in the table ``meta``."""
    key = meta_key(key)
    return META, key, text, crc32(f"{key}\0{text}".encode())
