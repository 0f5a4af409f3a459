"""Small jobs for the tests of the journal: what a run does with it, without a run."""

import asyncio
import hashlib
import itertools
import re
import sqlite3
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from batchllm.journal import AdmittedRow, Journal, RequestRecord, State
from batchllm.journal.writer import resolve
from batchllm.records import Failure, Response


def key_of(name: object) -> bytes:
    return hashlib.sha256(str(name).encode()).digest()[:16]


def response(body: bytes, status: int = 200, **headers: str) -> Response:
    return Response(status, {name.replace("_", "-"): value for name, value in headers.items()}, body, 0.25)


def answer_to(name: object, ordinal: int | None) -> bytes:
    """The one right answer to the request of that name and ordinal."""
    return f'{{"answer to": "{name}", "ordinal": {ordinal}}}'.encode()


def ticking() -> "itertools.count[int]":
    return itertools.count(1_700_000_000)


async def admit(journal: Journal, names: Sequence[object], first_row: int = 0) -> list[AdmittedRow]:
    """Admits a row for each name; equal names are equal requests, ``None`` is a row with nothing to send."""
    items = [
        (row_index, None if name is None else key_of(name), "skipped" if name is None else None)
        for row_index, name in enumerate(names, first_row)
    ]
    return await journal.admit(items)


def save(journal: Journal, attempt_id: int, outcome: Response | Failure) -> "asyncio.Future[None]":
    """``Journal.save`` for those who wait for one outcome."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    journal.save(attempt_id, outcome, partial(resolve, future))
    return future


async def run(
    journal: Journal, names: Sequence[object], *, identity: str = "job", dedupe: bool = False
) -> int:
    """A whole run: each row without an answer gets its own; returns how many requests were sent."""
    journal.begin_plan(identity, dedupe=dedupe)
    sent = 0
    for start in range(0, len(names), 7):
        part = names[start : start + 7]
        rows = await admit(journal, part, start)
        live = [
            (name, row)
            for name, row in zip(part, rows, strict=True)
            if row.request_id is not None and row.state is not State.ANSWERED and not row.shares_request
        ]
        attempt_ids = await journal.intend([row.request_id or 0 for _, row in live])
        for attempt_id, (name, row) in zip(attempt_ids, live, strict=True):
            await save(journal, attempt_id, response(answer_to(name, row.ordinal)))
            journal.record_outcome(row.request_id or 0, State.ANSWERED, attempt_id, row.attempts + 1)
        sent += len(live)
    await journal.flush()
    return sent


def unread(journal: Journal) -> list[RequestRecord]:
    """The requests whose answer a dead run saved without recording an outcome."""
    known = [row for row in journal.planned() if row.state is State.OPEN and row.attempt_id is not None]
    return [*journal.reader().requests([row.request_id or 0 for row in known]).values()]


def finished_job(path: Path, names: Sequence[object], *, dedupe: bool = False) -> None:
    """A journal whose rows all have their answers, cleanly closed."""

    async def whole() -> None:
        with Journal.open(path, threaded=False, clock=ticking().__next__) as journal:
            await run(journal, names, dedupe=dedupe)
            journal.close(0)

    asyncio.run(whole())


def damage_cells(path: Path, statement: str) -> None:
    """Changes cells as damage of the disk would: the checksums beside them stay as they are."""
    with sqlite3.connect(path) as connection:
        schema = connection.execute("SELECT sql, name FROM sqlite_schema WHERE sql IS NOT NULL").fetchall()
    connection.close()
    _set_schema(
        path,
        [(re.sub(r"checksum INTEGER AS .* STORED", "checksum INTEGER", sql), name) for sql, name in schema],
    )
    with sqlite3.connect(path) as connection:
        connection.execute(statement)
    connection.close()
    _set_schema(path, schema)


def _set_schema(path: Path, schema: list[tuple[str, str]]) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.executemany("UPDATE sqlite_schema SET sql = ? WHERE name = ?", schema)
    connection.close()
