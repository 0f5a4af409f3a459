"""Builds a journal from what ``tail`` copied from others: those of several attempts at the same rows."""

import os
import platform
from collections.abc import Callable, Collection, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

from batchllm.journal import bulk
from batchllm.journal.bulk import MISSING, BulkRow
from batchllm.journal.database import open_writer
from batchllm.journal.records import State
from batchllm.journal.replies import lost_reply, reply_row
from batchllm.journal.sqlite_errors import sqlite_errors
from batchllm.journal.store import boot_id
from batchllm.journal.tail import FINAL, AttemptEntry, Entry, KeptEntry

LaterKey = Callable[[int, str, bytes], bytes]
"""Makes the key of a later request of the number of its row's first request, its path and what it asks."""


@dataclass(slots=True)
class Rebuilt:
    """What the entries of some journals say together.

    Attributes:
        answers: Requests with an answer.
        lost: Attempts that were sent and brought nothing: possibly billed without an answer.
        last_attempt: The highest number of an attempt.
    """

    answers: int = 0
    lost: int = 0
    last_attempt: int = 0


@dataclass(slots=True)
class _Request:
    request_id: int
    attempts: int = 0
    outcome: tuple[int, int] | None = None  # state, attempt


class JournalBuilder:
    """Builds a journal from entries of others; use it as a context manager.

    The journal has requests and answers and no rows: the next run finds its rows' requests as after any change of the
    input, and sends what has no answer.

    Args:
        path: The journal; it must not exist.
        later_key: Makes the keys of later requests.
        now: Seconds since the epoch.

    Attributes:
        found: What the entries say together.
    """

    def __init__(self, path: Path, later_key: LaterKey, now: float) -> None:
        self._path = path
        self._later_key = later_key
        self._now = now
        self.found = Rebuilt()
        self._requests = 0
        self._rows: list[BulkRow] = []
        self._begin_range()

    def _begin_range(self) -> None:
        self._roots: dict[bytes, list[_Request]] = {}
        self._offsets: dict[bytes, int] = {}
        self._later: dict[bytes, _Request] = {}

    def __enter__(self) -> "JournalBuilder":
        with sqlite_errors(self._path):
            self._connection, new = open_writer(self._path)
            assert new, "it is built from nothing"
            bulk.prepare(self._connection)
            self._connection.execute("BEGIN")
            self._connection.execute(
                "INSERT INTO run(run_id, started_at, ended_at, exit_status, pid, host, boot_id, version)"
                " VALUES (1,?,?,0,?,?,?,'')",
                (self._now, self._now, os.getpid(), platform.node(), boot_id()),
            )
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        with sqlite_errors(self._path), closing(self._connection):
            self._connection.execute("ROLLBACK" if kind else "COMMIT")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def add(self, logs: Iterable[Iterable[Entry]], *, better: Collection[int] = ()) -> None:
        """Adds what the attempts at one range of rows brought; ranges come in the order of their rows.

        An ordinal counts equal requests within its range, so those of the next range are put after them.

        Args:
            logs: The entries of each attempt at the range, oldest attempt first.
            better: The attempts, from 0, whose answers take the place of earlier ones, which were cut off.
        """
        with sqlite_errors(self._path):
            self._begin_range()
            for number, log in enumerate(logs):
                self._add_log(log, is_better=number in better)
            later = self._later.values()
            for request in [*(each for roots in self._roots.values() for each in roots), *later]:
                if request.outcome is not None:
                    state, attempt_id = request.outcome
                    self._rows.append((bulk.OUTCOME, request.request_id, state, request.attempts, attempt_id))
                    self.found.answers += state == State.ANSWERED
            self._write()

    def _add_log(self, log: Iterable[Entry], *, is_better: bool) -> None:
        open_attempts: dict[int, int] = {}
        numbers: dict[int, int] = {}
        for entry in log:
            if isinstance(entry, KeptEntry):
                value = bytearray(entry.value)
                self._rows.append((bulk.KEPT, bytearray(entry.key), value, crc32(value)))
            else:
                self._attempt(entry, numbers, open_attempts, is_better=is_better)
            if len(self._rows) >= bulk.MAX_ROWS:
                self._write()
        self.found.lost += len(open_attempts)
        self._rows += [lost_reply(attempt_id, self._now) for attempt_id in open_attempts.values()]

    def _attempt(
        self,
        entry: AttemptEntry,
        numbers: dict[int, int],
        open_attempts: dict[int, int],
        *,
        is_better: bool,
    ) -> None:
        request = self._request(entry)
        attempt_id = numbers.get(entry.attempt_id)
        if attempt_id is None:
            self.found.last_attempt += 1
            attempt_id = numbers[entry.attempt_id] = self.found.last_attempt
            sent = MISSING if entry.sent_at is None else entry.sent_at
            self._rows.append((bulk.ATTEMPT, attempt_id, request.request_id, 1, sent))
            open_attempts[entry.attempt_id] = attempt_id
        if entry.reply is not None and open_attempts.pop(entry.attempt_id, None) is not None:
            self._rows.append(reply_row(attempt_id, entry.reply))
        request.attempts = max(request.attempts, entry.attempts)
        decided = request.outcome is not None and request.outcome[0] == State.ANSWERED
        if entry.state in FINAL and (not decided or (is_better and entry.state == State.ANSWERED)):
            request.outcome = entry.state, attempt_id

    def _request(self, entry: AttemptEntry) -> _Request:
        root = self._root(entry)
        if entry.path is None:
            return root
        assert entry.identity is not None, "a later request says what it asks"
        key = self._later_key(root.request_id, entry.path, entry.identity)
        request = self._later.get(key)
        if request is None:
            request = self._later[key] = self._new_request()
            cells = bytearray(key), 0, 0, root.request_id, entry.path, bytearray(entry.identity)
            self._insert((bulk.REQUEST, request.request_id, *cells))
        return request

    def _root(self, entry: AttemptEntry) -> _Request:
        """Returns the first request; equal ones of lower ordinals are made too, since no ordinal may be missing."""
        roots = self._roots.get(entry.key)
        if roots is None:
            roots = self._roots[entry.key] = []
            found = self._connection.execute(
                "SELECT ifnull(max(ordinal), -1) FROM request WHERE key = ?", (entry.key,)
            )
            self._offsets[entry.key] = found.fetchone()[0] + 1
        while len(roots) <= entry.ordinal:
            request = self._new_request()
            ordinal = self._offsets[entry.key] + len(roots)
            body = () if entry.body_key is None else (0, 0, bytearray(entry.body_key))
            self._insert((bulk.REQUEST, request.request_id, bytearray(entry.key), ordinal, 0, *body))
            roots.append(request)
        return roots[entry.ordinal]

    def _new_request(self) -> _Request:
        self._requests += 1
        return _Request(self._requests)

    def _insert(self, row: BulkRow) -> None:
        bulk.ADMISSION_ROWS.insert(self._connection, [row])

    def _write(self) -> None:
        bulk.RUN_ROWS.insert(self._connection, self._rows)
        self._rows = []
