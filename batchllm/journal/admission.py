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

A flow's later requests have no ordinals: their key is made of their root (the flow's first request), their path and
what they ask, so that rows never exchange answers on which others were built.

Adoption: after a change of the job, a first request whose key is not found takes over an unclaimed one of an earlier
job with the same body. It is the oldest such request, since rows come in input order, so that a row finds its own
answers; among equal keys it is the one of the highest ordinal, so that no ordinal is missing. While the job is the
same nothing is adopted: an unclaimed request may belong to a row that is still to come.
"""

# ruff: noqa: S608 - the SQL is put together from constants of this package

import sqlite3
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from batchllm.journal import bulk
from batchllm.journal.bulk import MISSING, BulkQuery, BulkRow
from batchllm.journal.records import STATES, AdmittedRow, State, text_crc
from batchllm.journal.requests import LaterRequest, LaterState
from batchllm.journal.sqlite_errors import damaged
from batchllm.printable import printable

NO_BODY_KEYS: Mapping[bytes, bytes] = {}

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
_HIGHEST = f"{_BY_KEY} ORDER BY found.ordinal DESC LIMIT 1"
_OLDEST_BY_BODY = (
    "SELECT request_id, key FROM request WHERE body_key = ? AND root_id IS NULL AND plan_id < ? AND request_id > ?"
    " ORDER BY request_id LIMIT 1"
)
_LATER_BY_KEY = BulkQuery(
    "key",
    "SELECT wanted.key, request.key, request.root_id, request.request_id, request.state, request.attempts,"
    " request.attempt_id, request.valid FROM wanted CROSS JOIN request ON request.request_id ="
    " (SELECT request_id FROM request WHERE key = wanted.key AND ordinal = 0)",
)
_ANSWERED_AT_PATH = BulkQuery(
    "root_id, path, since",
    "SELECT request.root_id, request.path FROM wanted CROSS JOIN request"
    " ON request.root_id = wanted.root_id AND request.path = wanted.path"
    f" WHERE request.plan_id >= wanted.since AND request.state IN ({int(State.ANSWERED)}, {int(State.PENDING)})",
)
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

    Attributes:
        plan_id: The current plan.
        same_since: The first plan of the job as it is now; what earlier plans asked may be adopted.
        dedupe: Whether equal rows share one request.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path
        self.plan_id = self.same_since = 0
        self.dedupe = False
        self._adopted_to: dict[bytes, int] = {}
        (last,) = connection.execute("SELECT max(request_id) FROM request").fetchone()
        self._next_id: int = (last or 0) + 1

    def admit(
        self,
        items: Sequence[Item],
        *,
        open_rows: bool = False,
        body_keys: Mapping[bytes, bytes] = NO_BODY_KEYS,
    ) -> list[AdmittedRow]:
        """Admits rows in input order, each row of the input once in a plan.

        Args:
            items: The rows.
            open_rows: Rows may need more than their first request, so they are open until ``ROW_STATE`` ends them.
            body_keys: By key, the hash of the body where the key is made of more.
        """
        rows: list[BulkRow] = []
        wanted = Counter(item[1] for item in items if item[1] is not None)
        requests = self._requests(wanted, body_keys, rows)
        row_state = State.OPEN if open_rows else None
        state_cell = 1 if open_rows else 0
        admitted: list[AdmittedRow] = []
        for row_index, key, reason in items:
            if key is None:
                text = printable(reason or "")
                rows.append((bulk.ROW, row_index, MISSING, text, 0, text_crc(text)))
                admitted.append(AdmittedRow(row_index, unsent_reason=text))
                continue
            request_id, ordinal, state, attempts, attempt_id, _, shared = requests[key].popleft()
            rows.append((bulk.ROW, row_index, request_id, MISSING, shared, 0, state_cell))
            admitted.append(
                AdmittedRow(
                    row_index,
                    request_id,
                    ordinal,
                    STATES[state],
                    attempts,
                    attempt_id,
                    None,
                    shared == 1,
                    row_state,
                    key,
                )
            )
        bulk.ADMISSION_ROWS.insert(self._connection, rows)
        return admitted

    def later(self, wanted: Sequence[LaterRequest]) -> list[LaterState]:
        """Finds the later requests of flows, or creates them, but not where a path was answered something else."""
        keys = [(bytearray(request.key),) for request in wanted]
        found = {fields[0]: fields[1:] for fields in _LATER_BY_KEY.fetch(self._connection, keys)}
        paths = [
            (each.root_id, each.path, self.same_since)
            for each in wanted
            if not each.may_differ and each.key not in found
        ]
        answered = set(_ANSWERED_AT_PATH.fetch(self._connection, paths))
        rows: list[BulkRow] = []
        states: list[LaterState] = []
        for root_id, path, key, identity, _ in wanted:
            known = found.get(key)
            if known is not None:
                stored_key, stored_root, request_id, state, attempts, attempt_id, valid = known
                if stored_key != key or stored_root != root_id or valid != 1:
                    raise damaged(self._path, "a request does not match its checksum or its index")
                states.append(LaterState(request_id, STATES[state], attempts, attempt_id))
            elif (root_id, path) in answered:
                states.append(LaterState(0, State.OPEN, 0, None, differs=True))
            else:
                request_id, self._next_id = self._next_id, self._next_id + 1
                rows.append(
                    (
                        bulk.REQUEST,
                        request_id,
                        bytearray(key),
                        0,
                        self.plan_id,
                        root_id,
                        path,
                        bytearray(identity),
                    )
                )
                found[key] = (key, root_id, request_id, 0, 0, None, 1)
                states.append(LaterState(request_id, State.OPEN, 0, None))
        bulk.ADMISSION_ROWS.insert(self._connection, rows)
        return states

    def _requests(
        self, wanted: Mapping[bytes, int], body_keys: Mapping[bytes, bytes], rows: list[BulkRow]
    ) -> dict[bytes, deque[_Request]]:
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
            body_key = body_keys.get(key)
            cells = () if body_key is None else (0, 0, bytearray(body_key))
            for ordinal in range(first, first + make - len(requests)):
                if self.same_since > 1 and (adopted := self._adopt(key, body_key, ordinal)) is not None:
                    requests.append(adopted)
                    continue
                rows.append((bulk.REQUEST, self._next_id, bytearray(key), ordinal, self.plan_id, *cells))
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

    def _adopt(self, key: bytes, body_key: bytes | None, ordinal: int) -> _Request | None:
        """Gives a key and an ordinal to an unclaimed request of an earlier job with the same body, if there is one."""
        body = body_key or key
        oldest = self._connection.execute(
            _OLDEST_BY_BODY, (body, self.same_since, self._adopted_to.get(body, 0))
        ).fetchone()
        if oldest is not None:
            self._adopted_to[body] = oldest[0] - 1
        old_key = body if oldest is None else oldest[1]
        fields = None if old_key == key else self._connection.execute(_HIGHEST, (old_key,)).fetchone()
        request = None if fields is None else self._checked(old_key, fields)
        if request is None or request.plan_id >= self.same_since:
            return None
        self._connection.execute(
            "UPDATE request SET key = ?, ordinal = ?, body_key = ?, plan_id = ? WHERE request_id = ?",
            (key, ordinal, body_key, self.plan_id, request.request_id),
        )
        return request._replace(ordinal=ordinal, plan_id=self.plan_id)

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
