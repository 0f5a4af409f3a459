"""One transaction of the journal: everything that waits, in one statement where no row is admitted.

Rows come before admissions, so that a row admitted together with the outcome of its twin sees that outcome.
"""

import json
import os
import platform
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batchllm.journal import bulk
from batchllm.journal.admission import Admission, Item
from batchllm.journal.bulk import BulkRow, meta_row
from batchllm.journal.records import META, AdmittedRow, PlanRecord, read_meta

PLAN = "plan"
"""The key of ``meta`` that names the current plan."""


@dataclass(slots=True)
class WriteGroup:
    """What one transaction writes.

    Attributes:
        rows: Rows of ``bulk.RUN_ROWS``: intents, then replies, then outcomes and values of ``meta``.
        admissions: Rows of the input that get their requests.
        calls: Functions to run.
    """

    rows: list[BulkRow] = field(default_factory=list)
    admissions: list[Sequence[Item]] = field(default_factory=list)
    calls: list[Callable[[], Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What a transaction returns: a result for each admission and each call, in order."""

    admitted: list[list[AdmittedRow]]
    called: list[Any]


class Store:
    """Writes groups on the one writing connection; its owner calls from one thread at a time.

    Args:
        connection: The journal's writing connection, configured.
        path: The journal, for messages.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self.connection = connection
        self._path = path
        bulk.prepare(connection)
        self._admission = Admission(connection, path)

    def write(self, group: WriteGroup) -> WriteResult:
        """Writes a group and commits it durably, or changes nothing.

        Raises:
            sqlite3.Error: Nothing was written.
            JobError: The journal is damaged; nothing was written.
        """
        connection = self.connection
        rows = group.rows
        try:
            if len(rows) <= bulk.MAX_ROWS and not group.admissions and not group.calls:
                bulk.RUN_ROWS.insert(connection, rows)
                return WriteResult([], [])
            connection.execute("BEGIN IMMEDIATE")
            bulk.RUN_ROWS.insert(connection, rows)
            written = WriteResult(self._admit(group.admissions), [call() for call in group.calls])
            connection.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise
        return written

    def _admit(self, admissions: Sequence[Sequence[Item]]) -> list[list[AdmittedRow]]:
        if not admissions:
            return []
        admitted = iter(self._admission.admit([item for items in admissions for item in items]))
        return [[next(admitted) for _ in items] for items in admissions]

    def _roll_back(self) -> None:
        try:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
        except sqlite3.Error:
            pass  # the first error is raised; SQLite drops an unfinished transaction in any case

    def begin_run(self, now: float, version: str) -> int:
        """Records that a run begins, with what identifies its process; returns its number."""
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

    def begin_plan(self, identity: str, *, dedupe: bool) -> PlanRecord:
        """Starts a pass over the input, or continues the last one; see ``Journal.begin_plan``."""
        row = self.connection.execute(f"{META} WHERE key = ?", (PLAN,)).fetchone()
        stored = json.loads(read_meta(self._path, row)[1]) if row else {"plan_id": 0}
        wanted = {"identity": identity, "dedupe": dedupe}
        continued = wanted.items() <= stored.items()
        plan_id = stored["plan_id"] + (0 if continued else 1)
        if not continued:
            self.connection.execute("DELETE FROM row")
            bulk.RUN_ROWS.insert(
                self.connection, [meta_row(PLAN, json.dumps({"plan_id": plan_id, **wanted}))]
            )
        self._admission.plan_id, self._admission.dedupe = plan_id, dedupe
        (rows,) = self.connection.execute("SELECT count(*) FROM row").fetchone()
        return PlanRecord(plan_id, continued, rows)


def boot_id() -> str | None:
    """Identifies this boot of the machine; ``None`` where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return None
