"""The journal's thread: it commits whatever waits as soon as the last commit returns.

Callers queue operations, each with a function to call when it is done. The thread takes all that wait, writes them in
one transaction, and reports all of them with a single call into the event loop; while it waits for the disk, the next
group gathers. So the latency of the disk decides how large a group is: a single answer is committed at once, and under
load hundreds share one fsync.

After an error of the disk nothing is tried again: what a failed fsync left behind is not known, and a second fsync may
report success for data that is gone. Every waiter and every later caller gets the error. The one exception is a full
disk, which is found before the commit and leaves the database intact: answers are then saved one by one as long as they
fit, and everything else is refused.
"""

import asyncio
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from enum import IntEnum
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

from batchllm.journal.bulk import BulkRow
from batchllm.journal.recovery import OpenedJournal
from batchllm.journal.replies import pack
from batchllm.journal.sqlite_errors import is_full, job_error
from batchllm.journal.store import Store

T = TypeVar("T")


class OperationKind(IntEnum):
    """What an operation's payload is."""

    WRITE = 1  # (rows, saves as of SAVE, the result)
    SAVE = 2  # (attempt id, received_at, Response | Failure)
    CALL = 3  # a function to run within the transaction
    STOP = 4  # a function to run after everything else


Done = Callable[[Any, Exception | None], None]
"""Called with the result of an operation once it is durable, or with the error; it must not raise."""

Operation = tuple[OperationKind, Any, Any, asyncio.AbstractEventLoop | None]
"""Kind, payload, ``Done`` (of STOP a future), and the event loop that ``Done`` is called in; ``None``: the thread."""


class JournalThread:
    """Owns the store, from its opening to its closing, in a thread of its own or in the caller's.

    Args:
        path: The journal, for messages.
        threaded: Whether there is a thread; without one, ``submit`` commits before it returns.

    Attributes:
        failure: Why nothing can be written any more.
    """

    def __init__(self, path: Path, *, threaded: bool) -> None:
        self._path = path
        self._threaded = threaded
        self._queue: SimpleQueue[list[Operation]] = SimpleQueue()
        self._gathered: list[Operation] = []
        self._deferred: deque[BulkRow] = deque()
        self._thread: threading.Thread | None = None
        self._store: Store
        self._full = False
        self._stopped = False
        self.failure: Exception | None = None

    def start(self, open_store: Callable[[], OpenedJournal]) -> OpenedJournal:
        """Opens the store in the thread that will use it.

        Raises:
            JobError: It cannot be opened.
        """
        opening: Future[OpenedJournal] = Future()
        if self._threaded:
            self._thread = threading.Thread(
                target=self._work, args=(open_store, opening), name="journal", daemon=True
            )
            self._thread.start()
        else:
            self._open(open_store, opening)
        return opening.result()

    def submit(
        self, kind: OperationKind, payload: Any, done: Done, loop: asyncio.AbstractEventLoop | None = None
    ) -> None:
        """Queues an operation; ``done`` is called when it is durable."""
        if self._stopped:
            raise RuntimeError("the journal is closed")
        if not self._threaded:
            self._commit([(kind, payload, done, None)])
            return
        self._gathered.append((kind, payload, done, loop))
        if loop is None:
            self._hand_over()
        elif len(self._gathered) == 1:
            loop.call_soon(self._hand_over)

    def _hand_over(self) -> None:
        """Gives the thread all that one turn of the event loop has gathered; waking it for each row costs more."""
        if self._gathered:
            gathered, self._gathered = self._gathered, []
            self._queue.put(gathered)

    def defer(self, row: BulkRow) -> None:
        """Queues a row that is written with the next commit, after everything else."""
        if self.failure is not None:
            raise self.failure
        self._deferred.append(row)

    def catch_up(self) -> None:
        """Commits the rows that wait for the next commit."""
        if self._deferred:
            self.call(lambda: None)

    def call(self, function: Callable[[], T]) -> T:
        """Runs a function within a transaction, after everything that waits, and returns its result."""
        future: Future[T] = Future()
        self.submit(OperationKind.CALL, function, partial(resolve, future))
        return future.result()

    def stop(self, finish: Callable[[], None]) -> None:
        """Writes what waits, runs ``finish`` if nothing has failed, closes the store and ends the thread.

        Raises:
            JobError: Something of that failed; not raised again if callers have got it before.
        """
        reported = self.failure is not None
        self._stopped = True
        stopping: Future[None] = Future()
        if self._thread is not None:
            self._gathered.append((OperationKind.STOP, finish, stopping, None))
            self._hand_over()
            self._thread.join()
        else:
            self._commit([])
            self._stop(finish, stopping)
        if not reported:
            stopping.result()

    def _open(self, open_store: Callable[[], OpenedJournal], opening: "Future[OpenedJournal]") -> bool:
        try:
            opened = open_store()
        except Exception as error:  # noqa: BLE001 - the caller waits for it
            opening.set_exception(error)
            return False
        self._store = opened.store
        opening.set_result(opened)
        return True

    def _work(self, open_store: Callable[[], OpenedJournal], opening: "Future[OpenedJournal]") -> None:
        """The thread."""
        if not self._open(open_store, opening):
            return
        queue = self._queue
        while True:
            operations = queue.get()
            for _ in range(queue.qsize()):
                operations += queue.get_nowait()
            if operations[-1][0] is OperationKind.STOP:
                _, finish, stopping, _ = operations.pop()
                self._commit(operations)
                self._stop(finish, stopping)
                return
            self._commit(operations)

    def _stop(self, finish: Callable[[], None], stopping: "Future[None]") -> None:
        try:
            try:
                if self.failure is None:
                    finish()
            finally:
                self._store.connection.close()
        except Exception as error:  # noqa: BLE001 - the caller waits for it
            self._fail(error)
        resolve(stopping, None, self.failure)

    def _fail(self, error: Exception) -> None:
        if self.failure is not None:
            return
        self.failure = job_error(error, self._path) if isinstance(error, sqlite3.Error) else error
        if self.failure is not error:
            self.failure.__cause__ = error

    def _commit(self, operations: Sequence[Operation]) -> None:
        """Writes one group and reports its operations."""
        if self.failure is None:
            try:
                reports = self._write(operations)
            except Exception as error:  # noqa: BLE001 - every waiter must get it, or would wait for ever
                self._full = is_full(error)
                self._fail(error)
            else:
                _report(reports)
                return
        if self._full:
            operations = self._salvage(operations)
        _report([(done, loop, None, self.failure) for _, _, done, loop in operations])

    def _write(self, operations: Sequence[Operation]) -> "list[_Report]":
        """Writes one group and returns its reports."""
        rows: list[BulkRow] = []
        reports: list[_Report] = []
        calls: list[Operation] = []
        for operation in operations:
            kind, payload, done, loop = operation
            if kind is OperationKind.SAVE:
                rows.append(pack(*payload))
                reports.append((done, loop, None, None))
            elif kind is OperationKind.WRITE:
                new_rows, saves, result = payload
                rows += new_rows
                rows += [pack(*save) for save in saves]
                reports.append((done, loop, result, None))
            else:
                calls.append(operation)
        rows += [self._deferred.popleft() for _ in range(len(self._deferred))]
        results = self._store.write(rows, [call for _, call, _, _ in calls])
        for (_, _, done, loop), result in zip(calls, results, strict=True):
            reports.append((done, loop, result, None))
        return reports

    def _salvage(self, operations: Sequence[Operation]) -> list[Operation]:
        """Saves answers one by one while they fit; returns what could not be done."""
        left: list[Operation] = []
        for operation in operations:
            kind, payload, done, loop = operation
            if kind is OperationKind.SAVE and self._full:
                try:
                    self._store.write([pack(*payload)])
                except sqlite3.Error as error:
                    self._full = is_full(error)
                else:
                    _report([(done, loop, None, None)])
                    continue
            left.append(operation)
        return left


_Report = tuple[Done, asyncio.AbstractEventLoop | None, Any, Exception | None]
"""What to call in which event loop, with which result and error."""


def _report(reports: Sequence[_Report]) -> None:
    """Calls every ``Done``: in this thread, or those of an event loop with one call into it."""
    for loop in {report[1] for report in reports}:
        of_loop = [report for report in reports if report[1] is loop]
        if loop is None:
            _call_all(of_loop)
            continue
        try:
            loop.call_soon_threadsafe(_call_all, of_loop)
        except RuntimeError:
            pass  # the loop is closed: nobody waits any more, and what was written stays written


def _call_all(reports: Sequence[_Report]) -> None:
    for done, _, result, error in reports:
        done(result, error)


def resolve(future: "Future[Any] | asyncio.Future[Any]", result: Any, error: Exception | None) -> None:
    """Resolves a future unless it has been cancelled."""
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
