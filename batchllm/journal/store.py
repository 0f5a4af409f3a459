"""One transaction of the journal: everything that waits, in one statement where nothing but rows is written.

Functions run after the rows, so that a row admitted together with the outcome of its twin sees that outcome.
"""

import json
import os
import platform
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from batchllm.journal import bulk
from batchllm.journal.admission import Admission
from batchllm.journal.bulk import BulkRow, meta_row
from batchllm.journal.records import META, PLAN, PlanRecord, read_meta


class Store:
    """Writes on the one writing connection; its owner calls from one thread at a time.

    Args:
        connection: The journal's writing connection, configured.
        path: The journal, for messages.

    Attributes:
        admission: Gives rows their requests, in a function that ``write`` runs.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self.connection = connection
        self._path = path
        bulk.prepare(connection)
        self.admission = Admission(connection, path)

    def write(self, rows: Sequence[BulkRow], calls: Sequence[Callable[[], Any]] = ()) -> list[Any]:
        """Writes rows, runs functions after them, and commits all of it durably, or changes nothing.

        Args:
            rows: Rows of ``bulk.RUN_ROWS``; a reply comes after its intent, an outcome after its reply.
            calls: Functions that read and write the database.

        Returns:
            The results of the functions, in order.

        Raises:
            sqlite3.Error: Nothing was written.
            JobError: The journal is damaged; nothing was written.
        """
        connection = self.connection
        try:
            if len(rows) <= bulk.MAX_ROWS and not calls:
                bulk.RUN_ROWS.insert(connection, rows)
                return []
            connection.execute("BEGIN IMMEDIATE")
            bulk.RUN_ROWS.insert(connection, rows)
            results = [call() for call in calls]
            connection.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise
        return results

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

    def forget_run(self, run_id: int) -> None:
        """Removes the record of a run that sent nothing."""
        self.connection.execute("DELETE FROM run WHERE run_id = ?", (run_id,))

    def begin_plan(self, identity: str, *, dedupe: bool, job: str) -> PlanRecord:
        """Starts a pass over the input, or continues the last one; see ``Journal.begin_plan``."""
        row = self.connection.execute(f"{META} WHERE key = ?", (PLAN,)).fetchone()
        stored = json.loads(read_meta(self._path, row)[1]) if row else {"plan_id": 0}
        wanted = {"identity": identity, "dedupe": dedupe}
        continued = wanted.items() <= stored.items()
        plan_id = stored["plan_id"] + (0 if continued else 1)
        same_since = stored["same_since"] if stored.get("job") == job else plan_id
        if not continued:
            self.connection.execute("DELETE FROM row")
            bulk.RUN_ROWS.insert(
                self.connection,
                [
                    meta_row(
                        PLAN, json.dumps({"plan_id": plan_id, "same_since": same_since, "job": job, **wanted})
                    )
                ],
            )
        self.admission.plan_id, self.admission.same_since, self.admission.dedupe = plan_id, same_since, dedupe
        (rows,) = self.connection.execute("SELECT count(*) FROM row").fetchone()
        return PlanRecord(plan_id, continued, rows)


def boot_id() -> str | None:
    """Identifies this boot of the machine; ``None`` where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return None
