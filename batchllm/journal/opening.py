"""The beginning of a run on a journal: open it, take stock of what dead runs left, record that a run begins."""

import json
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchllm.journal.database import connect, open_writer
from batchllm.journal.entries import Orphan
from batchllm.journal.faults import sqlite_errors
from batchllm.journal.recovery import check_after_crash, recover
from batchllm.journal.statements import SET_META
from batchllm.journal.store import Group, Store
from batchllm.journal.verify import META, value, value_row


@dataclass(frozen=True, slots=True)
class Opened:
    """A journal that a run may write.

    Attributes:
        store: Its statements.
        new: Whether it was created now.
        run_id: The number of the run that begins.
        orphans: Attempts of dead runs that may have been paid, found now for the first time.
        unsettled: Open requests with an HTTP answer: request, newest such attempt, attempts so far.
        meta: All entries of ``meta``, as JSON.
        next_attempt: The number of the next attempt.
    """

    store: Store
    new: bool
    run_id: int
    orphans: tuple[Orphan, ...]
    unsettled: tuple[tuple[int, int, int], ...]
    meta: dict[str, str]
    next_attempt: int


def open_store(path: Path, now: float, version: str) -> Opened:
    """Opens or creates a journal and begins a run, in one transaction with what recovery changes.

    Raises:
        CannotWrite: It cannot be created or written.
        InputError: It is something else, damaged, or of another version.
        StorageFailure: The disk reported an error.
    """
    connection, new = open_writer(path)
    try:
        with sqlite_errors(path):
            check_after_crash(connection, path)
            store = Store(connection, path)
            calls = [lambda: recover(connection, path, now), lambda: store.begin_run(now, version)]
            (orphans, unsettled), run_id = store.write(Group(calls=calls)).called
            meta = dict(value(path, fields) for fields in connection.execute(META))
            (last,) = connection.execute("SELECT max(attempt_id) FROM attempt").fetchone()
    except BaseException:
        connection.close()
        raise
    return Opened(store, new, run_id, tuple(orphans), tuple(unsettled), meta, (last or 0) + 1)


def close_store(store: Store, run_id: int, now: float, exit_status: int | None) -> None:
    """Records how the run ended and moves the log into the database.

    Raises:
        sqlite3.Error: Not all of that could be done; what was durable stays so.
    """
    store.write(Group(calls=[lambda: store.end_run(run_id, now, exit_status)]))
    store.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def store_value(path: Path, key: str, entry: Any) -> None:
    """Stores a JSON value in a journal that no run has open; the caller holds the job's lock.

    Raises:
        JobError: It cannot be written.
    """
    with sqlite_errors(path), closing(connect(path)) as connection:
        connection.execute("PRAGMA synchronous=FULL")
        SET_META.run(connection, [value_row(key, json.dumps(entry))])
