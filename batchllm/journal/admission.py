"""Which request a row means: keys, ordinals and plans.

Two rows with the same request are two requests: each pays for its own answer, and the ordinal (0, 1, 2, …) tells
them apart. It has to be the same in the next run, after rows were inserted, deleted or shuffled, and it must not
need the keys in memory. So each pass over the input has a number, the *plan*; a row claims the lowest ordinal of
its key that this plan has not claimed yet, or makes the next one.

Invariant: among the requests of one key, sorted by ordinal, the plan that claimed each last never grows. (A new
request gets the highest ordinal and the current plan, when all lower ones have been claimed by it; a claim takes
the first that the current plan has not.) So what the current plan has claimed is a prefix, and its end is found
by looking at the highest ordinal, and by bisection only where that one is not claimed: a million equal rows cost
no more than a million different ones.

With deduplication nothing is claimed: every row of a key means one request, an answered one if there is one.
"""

# ruff: noqa: S608 - the SQL is put together from constants of this package

import sqlite3
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

from batchllm.journal.database import request_check
from batchllm.journal.entries import STATES, AdmittedRow
from batchllm.journal.faults import damaged
from batchllm.journal.inbox import NO_NUMBER, NO_TEXT
from batchllm.journal.replies import printable
from batchllm.journal.statements import CLAIM, LAST_OF_KEYS, NEW_REQUEST, SET_ROW

Item = tuple[int, bytes | None, str | None]
"""A row to admit: its index, the key of its request, or a note why there is none."""

_OF_KEY = (
    "SELECT request.key, request.request_id, request.ordinal, request.state, request.attempts, request.attempt_id,"
    f' request.plan, request."check" = {request_check("request.")}'
    " FROM request AS found CROSS JOIN request ON request.request_id = found.request_id WHERE found.key = ?"
)
"""Found by the index, read from the table: where the two differ, the index is damaged."""
_RANGE = f"{_OF_KEY} AND found.ordinal BETWEEN ? AND ? ORDER BY found.ordinal"
_ANSWERED = f"{_OF_KEY} AND request.state = 1 ORDER BY found.ordinal LIMIT 1"
_PLAN_AT = "SELECT plan FROM request WHERE key = ? AND ordinal = ?"


class _Request(NamedTuple):
    request_id: int
    ordinal: int
    state: int
    attempts: int
    attempt_id: int | None
    plan: int
    shared: int  # 0 or 1: SQLite takes plain integers without asking how


class Admission:
    """Gives rows their requests, within the transaction of the caller.

    Args:
        connection: The journal's one writing connection.
        path: The journal, for messages.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path
        self.plan = 0
        self.dedupe = False
        (last,) = connection.execute("SELECT max(request_id) FROM request").fetchone()
        self._next_id: int = (last or 0) + 1

    def admit(self, items: Sequence[Item]) -> list[AdmittedRow]:
        """Admits rows in input order; every row of the input once a plan."""
        requests = self._requests(Counter(item[1] for item in items if item[1] is not None))
        admitted: list[AdmittedRow] = []
        rows: list[tuple[int, int | str, str | int, int, int]] = []
        for row_index, key, note in items:
            if key is None:
                text = printable(note or "")
                rows.append((row_index, NO_NUMBER, text, 0, crc32(text.encode()) & 0x7FFFFFFF))
                admitted.append(AdmittedRow(row_index, None, None, None, 0, None, text, False))
                continue
            request_id, ordinal, state, attempts, attempt_id, _, shared = requests[key].popleft()
            rows.append((row_index, request_id, NO_TEXT, shared, 0))
            admitted.append(
                AdmittedRow(
                    row_index, request_id, ordinal, STATES[state], attempts, attempt_id, None, shared == 1
                )
            )
        SET_ROW.run(self._connection, rows)
        return admitted

    def _requests(self, wanted: Mapping[bytes, int]) -> dict[bytes, deque[_Request]]:
        """For each key as many requests as it has rows here, in the order of their ordinals."""
        found: dict[bytes, deque[_Request]] = {}
        claims: list[tuple[int, int]] = []
        new: list[tuple[int, bytearray, int, int]] = []
        last_of = self._last_of(wanted)
        for key, count in wanted.items():
            last = last_of.get(key)
            make = 1 if self.dedupe else count
            requests: deque[_Request] = deque()
            if last is not None:
                requests += [self._shared(key, last)] if self.dedupe else self._unclaimed(key, last, count)
                claims += [
                    (request.request_id, self.plan) for request in requests if request.plan != self.plan
                ]
            first = 0 if last is None else last.ordinal + 1
            for ordinal in range(first, first + make - len(requests)):
                new.append((self._next_id, bytearray(key), ordinal, self.plan))
                requests.append(_Request(self._next_id, ordinal, 0, 0, None, self.plan, 0))
                self._next_id += 1
            if self.dedupe:
                requests.extend([requests[0]._replace(shared=1)] * (count - 1))
            found[key] = requests
        CLAIM.run(self._connection, claims)
        NEW_REQUEST.run(self._connection, new)
        return found

    def _last_of(self, keys: Iterable[bytes]) -> dict[bytes, _Request]:
        """The request with the highest ordinal of each key that has any."""
        rows = LAST_OF_KEYS.fetch(self._connection, [(bytearray(key),) for key in keys])
        return {wanted: self._sound(wanted, fields) for wanted, *fields in rows}

    def _unclaimed(self, key: bytes, last: _Request, count: int) -> list[_Request]:
        """The first ``count`` requests of a key that this plan has not claimed, fewer where there are fewer."""
        if last.plan == self.plan:
            return []
        if last.ordinal == 0:
            return [last]
        low, high = 0, last.ordinal  # the highest is not claimed; find the lowest that is not
        while low < high:
            middle = (low + high) // 2
            found = self._connection.execute(_PLAN_AT, (key, middle)).fetchone()
            if found is None:
                raise damaged(self._path, "an ordinal is missing")
            if found[0] == self.plan:
                low = middle + 1
            else:
                high = middle
        rows = self._connection.execute(_RANGE, (key, low, min(low + count - 1, last.ordinal)))
        return [self._sound(key, fields) for fields in rows]

    def _shared(self, key: bytes, last: _Request) -> _Request:
        """The one request that all rows of a key share: the first answered one, else the first."""
        request = last
        if last.ordinal > 0:
            row = self._connection.execute(_ANSWERED, (key,)).fetchone()
            request = self._sound(key, row or self._connection.execute(_RANGE, (key, 0, 0)).fetchone())
        return request._replace(shared=int(request.plan == self.plan))

    def _sound(self, key: bytes, fields: Sequence[Any] | None) -> _Request:
        if fields is None or fields[0] != key or fields[-1] != 1:
            raise damaged(self._path, "a request does not match its check, or the index not the request")
        return _Request._make((*fields[1:-1], 0))
