"""SQLite: the rows of a query (``--query``), read only and in its order.

The query is run once, and its rows are spooled as lines of JSONL: so every pass sees the same rows, and nobody who
writes to the database waits. Integers, reals, texts and NULL are what they are in JSON; a BLOB is refused, since no
prompt can show it. What identifies the input are the rows: a database that changed elsewhere is the same input.
"""

import math
import os
import sqlite3
import weakref
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from batchllm.errors import InputError, UsageError, listed
from batchllm.formats.csv_text import column_names
from batchllm.formats.format import Format
from batchllm.formats.input_file import InputFile, LocalFile, copied
from batchllm.formats.jsonl import JsonlSource
from batchllm.formats.memory import json_line
from batchllm.formats.scan import InputStatistics
from batchllm.records import Row

_CHUNK_CHARACTERS = 1 << 18
_BUSY_S = 30
_READS = frozenset(
    {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
)
_TABLES = "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%' ORDER BY name"


class SqliteSource(JsonlSource):
    """The rows of a query.

    Args:
        file: The database.
        suffix: Its suffix, of no meaning here.
        query: A ``SELECT`` (or ``WITH … SELECT``, ``VALUES``).

    Raises:
        UsageError: There is no query, or it is none that only reads.
        InputError: The database or its rows cannot be read.
    """

    kind = "db"

    def __init__(self, file: InputFile, suffix: str, query: str | None = None) -> None:
        self._name = file.name
        self._names: tuple[str, ...] = ()
        with closing(self._opened(file.local_path())) as database:
            if query is None:
                raise UsageError(
                    f"{file.name} is a database; say which rows with --query 'select …'; {self._tables(database)}"
                )
            failure = f"the rows of {file.name} cannot be spooled here"
            path = copied(self._lines(database, query), "query", failure)
        self._remove = weakref.finalize(self, partial(path.unlink, missing_ok=True))
        super().__init__(LocalFile(path, file.name), ".jsonl")
        self.columns = self._names
        self._query = query

    def close(self) -> None:
        """Removes the spooled rows; see ``Source``."""
        self._remove()

    def _opened(self, path: Path) -> sqlite3.Connection:
        """Opens the database to read; what it must not do is refused before it is done."""
        uri = f"file:{quote(os.fsencode(os.path.abspath(path)))}?mode=ro"  # noqa: PTH100 - it keeps links
        try:
            database = sqlite3.connect(uri, uri=True, timeout=_BUSY_S)
            database.execute("SELECT 1 FROM sqlite_master").fetchone()
        except sqlite3.Error as error:
            raise InputError(self._name, f"cannot be read as a database: {error}") from error
        database.set_authorizer(_only_reading)
        return database

    def _tables(self, database: sqlite3.Connection) -> str:
        names = [name for (name,) in database.execute(_TABLES)]
        return f"its tables are {listed(names)}" if names else "it has no tables"

    def _lines(self, database: sqlite3.Connection, query: str) -> Iterator[bytes]:
        """Runs the query, and yields its rows as JSONL, many at a time."""
        waiting: list[str] = []
        size = 0
        try:
            cursor = database.execute(query)
            if cursor.description is None:
                raise UsageError(f"--query must return rows, like 'select …'; {self._tables(database)}")
            self._names = column_names([column[0] for column in cursor.description])
            for index, values in enumerate(cursor):
                waiting.append(json_line(index, self._checked(index, values)))
                size += len(waiting[-1])
                if size > _CHUNK_CHARACTERS:
                    yield "\n".join((*waiting, "")).encode()
                    waiting, size = [], 0
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise self._failure(database, error) from error
        yield "\n".join((*waiting, "")).encode() if waiting else b""

    def _checked(self, index: int, values: Sequence[Any]) -> dict[str, Any]:
        for name, value in zip(self._names, values, strict=True):
            if isinstance(value, bytes):
                what = f"the column {name!r} holds binary data (a BLOB)"
                advice = f"leave it out of the query, or make text of it: hex({name}), CAST({name} AS TEXT)"
                raise InputError(self._name, f"row {index + 1}: {what}; {advice}")
            if isinstance(value, float) and math.isinf(value):
                raise InputError(
                    self._name,
                    f"row {index + 1}: the column {name!r} is infinite, which JSON cannot hold; leave the row out of "
                    f"the query, or make text of it: CAST({name} AS TEXT)",
                )
        return dict(zip(self._names, values, strict=True))

    def _failure(self, database: sqlite3.Connection, error: Exception) -> Exception:
        message = str(error)
        if "Could not decode to UTF-8" in message:
            reason = f"{message[:200]}; make text of that column: hex(column), or leave it out of the query"
            return InputError(self._name, reason)
        if isinstance(error, sqlite3.OperationalError) and ("locked" in message or "busy" in message):
            return InputError(
                self._name, f"is locked by another program for {_BUSY_S} seconds ({message}); try again"
            )
        if isinstance(error, sqlite3.DatabaseError) and (
            "malformed" in message or "not a database" in message
        ):
            return InputError(self._name, f"cannot be read as a database: {message}")
        if any(
            word in message for word in ("not authorized", "authorization denied", "prohibited", "readonly")
        ):
            return UsageError("--query must only read, like 'select …'; the database is not changed")
        return UsageError(f"--query: {message}; {self._tables(database)}")

    def scan(self) -> InputStatistics:
        """Reads the spooled rows once; see ``Source``."""
        statistics = super().scan()
        self.columns = self._names
        return replace(statistics, columns=self.columns)

    def reading(self) -> str:
        """Returns what rows depend on beside what was read; see ``Source``."""
        return f"query {self._query}"

    def describe(self) -> str:
        """Returns the format."""
        return "the rows of a query of SQLite"

    def size_of(self, row: Row) -> int | None:
        """Returns the bytes of a spooled row; see ``Source``."""
        return len(row.origin) + 1


def _only_reading(action: int, first: str | None, second: str | None, *_: object) -> int:
    """Authorizes what a query needs that reads, the tables of full-text search and the like included.

    These declare their columns as changes of ``sqlite_master``, which no statement may change itself.
    """
    declares = action == sqlite3.SQLITE_UPDATE and first == "sqlite_master"
    asks = action == sqlite3.SQLITE_PRAGMA and first == "data_version" and second is None
    return sqlite3.SQLITE_OK if action in _READS or declares or asks else sqlite3.SQLITE_DENY


FORMAT = Format(
    suffixes=(".db", ".sqlite", ".sqlite3"),
    source=SqliteSource,
    options=("query",),
    begins_with=b"SQLite format 3\0",
    magic=(b"SQLite format 3\0",),
    output=".csv",
)
