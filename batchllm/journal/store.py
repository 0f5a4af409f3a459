"""One transaction of the journal: everything that waits, in a handful of statements.

The order inside is fixed and safe: intents and replies name requests that exist; settlements come before
admissions, so that a row admitted together with the end of its twin sees that end.
"""

import json
import os
import platform
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batchllm.journal.admission import Admission, Item
from batchllm.journal.entries import Admitted, Plan
from batchllm.journal.replies import ReplyRow
from batchllm.journal.statements import NEW_ATTEMPT, NEW_REPLY, REOPEN, SET_META, SETTLE
from batchllm.journal.verify import META, value, value_row

Intent = tuple[int, int, int, float | None, bytes | None]
"""attempt_id, request_id, run_id, sent_at, body."""

Settlement = tuple[int, int, int, int | None]
"""request_id, state, attempts, attempt_id."""

PLAN = "plan"
"""The key of ``meta`` that names the current plan."""


@dataclass(slots=True)
class Group:
    """What one transaction writes."""

    meta: dict[str, str] = field(default_factory=dict)
    intents: list[Intent] = field(default_factory=list)
    replies: list[ReplyRow] = field(default_factory=list)
    settlements: dict[int, Settlement] = field(default_factory=dict)  # the last one of a request counts
    admissions: list[Sequence[Item]] = field(default_factory=list)
    calls: list[Callable[[], Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Written:
    """What a transaction found out: a result for each admission and each call, in order."""

    admitted: list[list[Admitted]]
    called: list[Any]


class Store:
    """The statements on the one writing connection; whoever holds it calls from one thread at a time.

    Args:
        connection: The journal's writing connection, set up.
        path: The journal, for messages.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self.connection = connection
        self._path = path
        self._admission = Admission(connection, path)

    def write(self, group: Group) -> Written:
        """Writes a group and commits it durably, or changes nothing.

        Raises:
            sqlite3.Error: Nothing was written.
            JobError: The journal is damaged; nothing was written.
        """
        connection = self.connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            written = self._write(group)
            connection.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise
        return written

    def _write(self, group: Group) -> Written:
        connection = self.connection
        if group.meta:
            SET_META.run(connection, [value_row(key, text) for key, text in group.meta.items()])
        if group.intents:
            NEW_ATTEMPT.run(connection, group.intents)
            first_new = (
                self._admission.first_new_id
            )  # only what earlier runs made can have been settled before
            old = [(intent[1],) for intent in group.intents if intent[1] < first_new]
            if old:
                REOPEN.run(connection, old)
        if group.replies:
            NEW_REPLY.run(connection, group.replies)
        if group.settlements:
            SETTLE.run(connection, list(group.settlements.values()))
        return Written(self._admit(group.admissions), [call() for call in group.calls])

    def _admit(self, admissions: Sequence[Sequence[Item]]) -> list[list[Admitted]]:
        if not admissions:
            return []
        admitted = iter(self._admission.admit([item for items in admissions for item in items]))
        return [[next(admitted) for _ in items] for items in admissions]

    def _roll_back(self) -> None:
        try:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
        except sqlite3.Error:
            pass  # the error that led here is the one to tell; an unfinished transaction is void in any case

    def begin_run(self, now: float, version: str) -> int:
        """Records that a run begins, with what helps to find its process; returns its number."""
        cursor = self.connection.execute(
            "INSERT INTO run(started_at, pid, host, boot_id, version) VALUES (?,?,?,?,?)",
            (now, os.getpid(), platform.node(), boot_id(), version),
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def end_run(self, run_id: int, now: float, exit_status: int | None) -> None:
        """Records that a run ended."""
        self.connection.execute(
            "UPDATE run SET ended_at = ?, exit_status = ? WHERE run_id = ?", (now, exit_status, run_id)
        )

    def begin_plan(self, identity: str, *, dedupe: bool) -> Plan:
        """Starts a pass over the input, or goes on with the last one where it is the same pass.

        Args:
            identity: Names the bytes of the source and everything that makes requests of them.
            dedupe: Equal rows share one request.
        """
        row = self.connection.execute(f"{META} WHERE key = ?", (PLAN,)).fetchone()
        stored = json.loads(value(self._path, row)[1]) if row else {"plan_id": 0}
        wanted = {"identity": identity, "dedupe": dedupe}
        continued = wanted.items() <= stored.items()
        plan_id = stored["plan_id"] + (0 if continued else 1)
        if not continued:
            self.connection.execute("DELETE FROM row")
            SET_META.run(self.connection, [value_row(PLAN, json.dumps({"plan_id": plan_id, **wanted}))])
        self._admission.plan, self._admission.dedupe = plan_id, dedupe
        (rows,) = self.connection.execute("SELECT count(*) FROM row").fetchone()
        return Plan(plan_id, continued, rows)


def boot_id() -> str | None:
    """What tells one start of the machine from another; ``None`` where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return None
