"""Follows a journal: copies what it commits, entry by entry, so that another journal can be built from the copies.

An entry names its request by what identifies it in every journal of the same rows (the key and the ordinal of the
row's first request; of a later request also its path and what it asks), never by a number. So entries of several
journals can be put into one, in any order and more than once: an answer gets to its own request, or to none.
"""

# ruff: noqa: S608 - the SQL is put together from constants of this package

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from batchllm.journal.reader import JournalReader
from batchllm.journal.records import State
from batchllm.journal.replies import REPLY, StoredReply, read_stored
from batchllm.journal.sqlite_errors import damaged

FINAL = (State.ANSWERED, State.FAILED)


class AttemptEntry(NamedTuple):
    """An attempt, and what it brought.

    Attributes:
        attempt_id: Its number in the journal that it comes from.
        row_index: The row, from 0; ``None`` where it is not known.
        key, ordinal, body_key: The row's first request.
        path, identity: Of a later request: its path, and what it asks.
        sent_at: When it was sent, in seconds since the epoch; ``None``: it was not.
        reply: What it brought; ``None``: nothing yet.
        state: The outcome of the request, where this attempt decided it, else ``OPEN``.
        attempts: Attempts of the request so far.
    """

    attempt_id: int
    row_index: int | None
    key: bytes
    ordinal: int
    body_key: bytes | None
    path: str | None
    identity: bytes | None
    sent_at: float | None
    reply: StoredReply | None
    state: int
    attempts: int


class KeptEntry(NamedTuple):
    """A kept value of a flow."""

    key: bytes
    value: bytes


Entry = AttemptEntry | KeptEntry

_ATTEMPTS = f"""
SELECT attempt.attempt_id, attempt.sent_at, attempt.valid, root.request_id, root.key, root.ordinal, root.body_key,
       root.valid, request.path, request.body_key, request.state, request.attempts, request.attempt_id, request.valid,
       reply.attempt_id, {REPLY}
FROM attempt JOIN request ON request.request_id = attempt.request_id
JOIN request AS root ON root.request_id = ifnull(request.root_id, request.request_id)
LEFT JOIN reply ON reply.attempt_id = attempt.attempt_id
"""
_NEW = f"{_ATTEMPTS} WHERE attempt.attempt_id > ? ORDER BY attempt.attempt_id"
_KNOWN = (
    f"{_ATTEMPTS} WHERE attempt.attempt_id IN (SELECT value FROM json_each(?)) ORDER BY attempt.attempt_id"
)
_ROWS = (
    "SELECT row_index, request_id FROM row WHERE row_index > ? AND request_id IS NOT NULL ORDER BY row_index"
)


class JournalTail:
    """Follows a journal that a run writes: what is new since the last look.

    Args:
        path: The journal; while a run writes it, its log is there too (``PATH-wal``).
        after: The last attempt that was there before the run.
    """

    def __init__(self, path: Path, after: int = 0) -> None:
        self._reader = JournalReader.open(path)
        self._last = after
        self._open: dict[int, bool] = {}  # attempts without an outcome, and whether they have a reply
        self._rows: dict[int, int] = {}
        self._last_row = -1
        self._kept: set[bytes] = set()

    def new(self) -> list[Entry]:
        """Returns what the journal has committed since the last call: attempts, replies, outcomes, kept values.

        An attempt comes again when its reply or its outcome is there.

        Raises:
            InputError: The journal is damaged.
        """
        select = self._reader.select
        known = select(_KNOWN, json.dumps(sorted(self._open))) if self._open else []
        rows = [*known, *select(_NEW, self._last)]
        for row_index, request_id in select(_ROWS, self._last_row):
            self._rows.setdefault(request_id, row_index)
            self._last_row = row_index
        entries = [entry for fields in rows if (entry := self._entry(fields)) is not None]
        # A kept value is committed before the answers that are built on it, so it is read after them.
        return [*self._new_kept(), *entries]

    def close(self) -> None:
        """Closes the journal."""
        self._reader.close()

    def _new_kept(self) -> list[Entry]:
        entries: list[Entry] = []
        for (key,) in self._reader.select("SELECT key FROM kept"):
            if key not in self._kept:
                self._kept.add(key)
                entries.append(KeptEntry(key, self._reader.kept(key) or b""))
        return entries

    def _entry(self, fields: Sequence[Any]) -> AttemptEntry | None:
        """Reads a row of ``_ATTEMPTS``; ``None`` where nothing about the attempt is new."""
        (
            attempt_id, sent_at, valid, root_id, key, ordinal, body_key, root_valid, path, identity, state, attempts,
            decided_by, request_valid, replied, *reply,
        ) = fields  # fmt: skip
        if not valid == root_valid == request_valid == 1:
            raise damaged(self._reader.path, f"attempt {attempt_id} does not match its checksum")
        self._last = max(self._last, attempt_id)
        had_reply = self._open.pop(attempt_id, None)
        is_final = state in FINAL and decided_by == attempt_id
        if replied is None or state == State.OPEN:
            self._open[attempt_id] = replied is not None
        if had_reply is not None and not is_final and had_reply == (replied is not None):
            return None
        return AttemptEntry(
            attempt_id,
            self._row_of(root_id),
            key,
            ordinal,
            body_key,
            path,
            None if path is None else identity,
            sent_at,
            None if replied is None else read_stored(self._reader.path, attempt_id, reply),
            state if is_final else int(State.OPEN),
            attempts,
        )

    def _row_of(self, root_id: int) -> int | None:
        if root_id not in self._rows:  # turns of conversations are not admitted in the order of their rows
            found = self._reader.select("SELECT min(row_index) FROM row WHERE request_id = ?", root_id)
            if found[0][0] is not None:
                self._rows[root_id] = found[0][0]
        return self._rows.get(root_id)
