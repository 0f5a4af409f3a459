"""Protocols that are broken on purpose: patches of the driver's process that the checker has to catch.

Each takes one promise out of the product. They are here, not in the product, which has no switch for any.
"""

import asyncio
import itertools
import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import Any

from batchllm.formats.output_file import AtomicFile
from batchllm.journal import Journal, bulk, database
from batchllm.journal.writer import Done, OperationKind
from batchllm.records import Failure, Response


def with_pragma(pragma: str) -> None:
    """Sets something else than the journal does, right after it."""
    configure = database._configure

    def patched(connection: sqlite3.Connection) -> None:
        configure(connection)
        connection.execute(f"PRAGMA {pragma}").fetchall()

    database._configure = patched


def checkpoint_every(pages: int) -> None:
    """Moves the log into the database often, so that a small job does it too; not a fault."""
    with_pragma(f"wal_autocheckpoint={pages}")


def clock_that(jumps: Sequence[float]) -> None:
    """A wall clock that is off by so many seconds, the next of them at each look, in turn; not a fault either."""
    true, looks = time.time, itertools.cycle(jumps)

    def clock() -> float:
        return true() + next(looks)

    time.time = clock
    defaults = Journal.open.__func__.__kwdefaults__  # type: ignore[attr-defined]
    assert defaults["clock"] is true
    defaults["clock"] = clock


def never_synced() -> None:
    with_pragma("synchronous=OFF")


def no_intent() -> None:
    """Requests leave without a record that they may."""

    def intend(self: Journal, request_ids: Sequence[int]) -> "asyncio.Future[list[int]]":
        rows = self._attempts(request_ids, 0.0)
        return _done([row[1] for row in rows])

    Journal.intend = intend  # type: ignore[method-assign]


def intent_not_awaited() -> None:
    """Requests leave while the record that they may is still on its way to the disk."""

    def intend(self: Journal, request_ids: Sequence[int]) -> "asyncio.Future[list[int]]":
        rows = self._attempts(request_ids, 0.0)
        ids = [row[1] for row in rows]
        _unheard(self._submit(OperationKind.WRITE, (rows, (), ids)))
        return _done(ids)

    Journal.intend = intend  # type: ignore[method-assign]


def acknowledged_before_durable() -> None:
    """An answer counts as saved as soon as it waits for the disk."""
    save = Journal.save

    # The driver notes what the runner is told, whichever of the two patches comes first: the writer tells both early.
    def early(
        self: Journal,
        attempt_id: int,
        outcome: Response | Failure,
        saved: Done,
    ) -> None:
        submit = self._writer.submit

        def submitted(
            kind: OperationKind, payload: Any, done: Done, loop: asyncio.AbstractEventLoop | None = None
        ) -> None:
            assert loop is not None
            submit(kind, payload, lambda result, error: None, loop)
            loop.call_soon(done, None, None)

        self._writer.submit = submitted  # type: ignore[method-assign]
        try:
            save(self, attempt_id, outcome, saved)
        finally:
            del self._writer.submit

    Journal.save = early  # type: ignore[method-assign]


def output_not_synced() -> None:
    _without_sync(folder=False)


def folder_not_synced() -> None:
    _without_sync(folder=True)


def settled_by_key() -> None:
    """An answer goes to every request of its key, so that equal rows lose their own."""
    bulk.RUN_ROWS.statements[bulk.OUTCOME] = (
        "UPDATE request SET state = NEW.b, attempts = NEW.c, attempt_id = NEW.d"
        " WHERE key = (SELECT key FROM request AS own WHERE own.request_id = NEW.a)",
    )


def _without_sync(*, folder: bool) -> None:
    sync = AtomicFile._sync

    def patched(self: AtomicFile, descriptor: int, *, is_folder: bool = False) -> None:
        if is_folder is not folder:
            sync(self, descriptor, is_folder=is_folder)

    AtomicFile._sync = patched  # type: ignore[method-assign]


def _done(result: Any) -> "asyncio.Future[Any]":
    future = asyncio.get_running_loop().create_future()
    future.set_result(result)
    return future


def _unheard(future: "asyncio.Future[Any]") -> None:
    """Nobody waits for it, and its failure is nobody's surprise."""
    future.add_done_callback(lambda done: done.cancelled() or done.exception())


CONTROLS: dict[str, Callable[[], None]] = {
    control.__name__: control
    for control in (
        never_synced,
        no_intent,
        intent_not_awaited,
        acknowledged_before_durable,
        output_not_synced,
        folder_not_synced,
        settled_by_key,
    )
}
