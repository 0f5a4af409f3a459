"""Finds the request of each row: keys, ordinals and plans.

Two rows with the same key are two requests: each pays for its own answer, and an ordinal (0, 1, 2, …) tells them apart.
It has to be the same in the next run, after rows were inserted, deleted or shuffled, without the keys in memory. So
each pass over the input has a number, ``plan_id``. A row claims the lowest ordinal of its key that this plan has not
claimed yet, or creates the next one; ``request.plan_id`` is the plan that claimed a request last.

Invariant: among the requests of one key, sorted by ordinal, ``plan_id`` never grows. (A new request gets the highest
ordinal when the current plan has claimed all lower ones; a claim takes the first that the current plan has not.) So the
requests that the current plan has claimed come first. Where they end is found by looking at the highest ordinal, and by
bisection only where that one is not claimed: a million equal rows cost no more than a million different ones.

With deduplication nothing is claimed: all rows of a key have one request, an answered one if there is one.
"""

# ruff: noqa: S608 - the SQL is put together from constants of this package

import sqlite3
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from batchllm.journal import bulk
from batchllm.journal.bulk import MISSING, BulkQuery, BulkRow
from batchllm.journal.records import STATES, AdmittedRow, text_crc
from batchllm.journal.sqlite_errors import damaged
from batchllm.printable import printable

Item = tuple[int, bytes | None, str | None]
"""A row to admit: its index, and the key of its request or the reason why it is never sent."""

_REQUEST = (
    "SELECT request.key, request.request_id, request.ordinal, request.state, request.attempts, request.attempt_id,"
    " request.plan_id, request.valid"
)
_BY_KEY = (
    f"{_REQUEST} FROM request AS found"
    " CROSS JOIN request ON request.request_id = found.request_id WHERE found.key = ?"
)
"""Found by the index, read from the table: where the two differ, the index is damaged."""
_RANGE = f"{_BY_KEY} AND found.ordinal BETWEEN ? AND ? ORDER BY found.ordinal"
_ANSWERED = f"{_BY_KEY} AND request.state = 1 ORDER BY found.ordinal LIMIT 1"
_PLAN_AT = "SELECT plan_id FROM request WHERE key = ? AND ordinal = ?"
_LAST_BY_KEY = BulkQuery(
    "key",
    f"{_REQUEST}, wanted.key FROM wanted CROSS JOIN request ON request.request_id ="
    " (SELECT request_id FROM request WHERE key = wanted.key ORDER BY ordinal DESC LIMIT 1)",
)


class _Request(NamedTuple):
    request_id: int
    ordinal: int
    state: int
    attempts: int
    attempt_id: int | None
    plan_id: int
    shared: int = 0  # 0 or 1, which SQLite takes without asking how


class Admission:
    """Gives rows their requests, within the transaction of the caller.

    Args:
        connection: The journal's one writing connection.
        path: The journal, for messages.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path
        self.plan_id = 0
        self.dedupe = False
        (last,) = connection.execute("SELECT max(request_id) FROM request").fetchone()
        self._next_id: int = (last or 0) + 1

    def admit(self, items: Sequence[Item]) -> list[AdmittedRow]:
        """Admits rows in input order, each row of the input once in a plan."""
        rows: list[BulkRow] = []
        requests = self._requests(Counter(item[1] for item in items if item[1] is not None), rows)
        admitted: list[AdmittedRow] = []
        for row_index, key, reason in items:
            if key is None:
                text = printable(reason or "")
                rows.append((bulk.ROW, row_index, MISSING, text, 0, text_crc(text)))
                admitted.append(AdmittedRow(row_index, None, None, None, 0, None, text, False))
                continue
            request_id, ordinal, state, attempts, attempt_id, _, shared = requests[key].popleft()
            rows.append((bulk.ROW, row_index, request_id, MISSING, shared, 0))
            admitted.append(
                AdmittedRow(
                    row_index, request_id, ordinal, STATES[state], attempts, attempt_id, None, shared == 1
                )
            )
        bulk.ADMISSION_ROWS.insert(self._connection, rows)
        return admitted

    def _requests(self, wanted: Mapping[bytes, int], rows: list[BulkRow]) -> dict[bytes, deque[_Request]]:
        """Returns the requests of each key, one for each row that wants it; adds what is to be written to ``rows``."""
        found: dict[bytes, deque[_Request]] = {}
        keys = [(bytearray(key),) for key in wanted]
        last_by_key = {
            key: self._checked(key, fields) for *fields, key in _LAST_BY_KEY.fetch(self._connection, keys)
        }
        for key, count in wanted.items():
            last = last_by_key.get(key)
            make = 1 if self.dedupe else count
            requests: deque[_Request] = deque()
            if last is not None:
                requests += [self._shared(key, last)] if self.dedupe else self._unclaimed(key, last, count)
                rows += [
                    (bulk.CLAIM, request.request_id, self.plan_id)
                    for request in requests
                    if request.plan_id != self.plan_id
                ]
            first = 0 if last is None else last.ordinal + 1
            for ordinal in range(first, first + make - len(requests)):
                rows.append((bulk.REQUEST, self._next_id, bytearray(key), ordinal, self.plan_id))
                requests.append(_Request(self._next_id, ordinal, 0, 0, None, self.plan_id))
                self._next_id += 1
            if self.dedupe:
                requests.extend([requests[0]._replace(shared=1)] * (count - 1))
            found[key] = requests
        return found

    def _unclaimed(self, key: bytes, last: _Request, count: int) -> list[_Request]:
        """Returns the first ``count`` requests of a key that this plan has not claimed, fewer where there are fewer."""
        if last.plan_id == self.plan_id:
            return []
        if last.ordinal == 0:
            return [last]
        low, high = 0, last.ordinal  # the highest is not claimed; find the lowest that is not
        while low < high:
            middle = (low + high) // 2
            found = self._connection.execute(_PLAN_AT, (key, middle)).fetchone()
            if found is None:
                raise damaged(self._path, "an ordinal is missing")
            if found[0] == self.plan_id:
                low = middle + 1
            else:
                high = middle
        rows = self._connection.execute(_RANGE, (key, low, min(low + count - 1, last.ordinal)))
        return [self._checked(key, fields) for fields in rows]

    def _shared(self, key: bytes, last: _Request) -> _Request:
        """Returns the request that all rows of a key share: the first answered one, else the first."""
        request = last
        if last.ordinal > 0:
            row = self._connection.execute(_ANSWERED, (key,)).fetchone()
            request = self._checked(key, row or self._connection.execute(_RANGE, (key, 0, 0)).fetchone())
        return request._replace(shared=int(request.plan_id == self.plan_id))

    def _checked(self, key: bytes, fields: Sequence[Any] | None) -> _Request:
        if fields is None or fields[0] != key or fields[-1] != 1:
            raise damaged(self._path, "a request does not match its checksum or its index")
        return _Request(*fields[1:-1])
