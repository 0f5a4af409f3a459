"""What a dead run left: found once, at the beginning of the next run.

Only an open request can have an attempt without a reply, or a reply without a settlement: a request is settled
after the reply of its last attempt, and opened again with the intent of the next. So one pass over the attempts,
which are small, finds everything; the replies, which are large, are looked up for open requests only.
"""

# ruff: noqa: S608 - the SQL is put together from constants of this package

import sqlite3
from pathlib import Path
from typing import Any

from batchllm.journal.database import attempt_check, quick_check, request_check
from batchllm.journal.entries import Orphan
from batchllm.journal.faults import damaged
from batchllm.journal.replies import UNKNOWN, seal
from batchllm.journal.statements import Bulk
from batchllm.journal.store import boot_id

MESSAGE = "the run ended before an answer was saved"

_FIND = f"""
CREATE TEMP TABLE unfinished AS
  SELECT attempt.attempt_id, attempt.request_id, reply.attempt_id AS reply_id, reply.status,
         reply.failure = 'unsent' AS unsent, attempt."check" = {attempt_check("attempt.")} AS sound
  FROM attempt CROSS JOIN request ON request.request_id = attempt.request_id
  LEFT JOIN reply ON reply.attempt_id = attempt.attempt_id
  WHERE request.state = 0
"""

_LOST = Bulk(
    "INSERT INTO reply(attempt_id, received_at, failure, message, paid, crc, body) VALUES", "(?,?,?,?,?,?,?)"
)


def check_after_crash(connection: sqlite3.Connection, path: Path) -> None:
    """Checks the structure of a journal whose last run died with the machine.

    The death of a process alone cannot damage the file: what it wrote is in the kernel's hands.

    Raises:
        InputError: The journal is damaged.
    """
    last = connection.execute("SELECT ended_at, boot_id FROM run ORDER BY run_id DESC LIMIT 1").fetchone()
    if last is not None and last[0] is None and (last[1] is None or last[1] != boot_id()):
        quick_check(connection, path)


def recover(
    connection: sqlite3.Connection, path: Path, now: float
) -> tuple[list[Orphan], list[tuple[int, int, int]]]:
    """Closes the attempts of dead runs, within the transaction of the caller.

    Each attempt without a reply gets one that says "possibly billed", so that it is counted once. The count of
    attempts of open requests is brought up to date; refusals (429) do not count, nor what a batch never came to.

    Returns:
        The attempts closed now, and for each open request that has an HTTP answer: its id, the newest such
        attempt, and how many attempts it has had.

    Raises:
        InputError: The journal is damaged.
    """
    connection.execute("DROP TABLE IF EXISTS temp.unfinished")
    connection.execute(_FIND)
    if connection.execute("SELECT 1 FROM unfinished WHERE sound IS NOT 1").fetchone():
        raise damaged(path, "an attempt does not match its check")
    orphans = _close(connection, now)
    connection.execute(
        "UPDATE request SET attempts = done.attempts,"
        f' "check" = {request_check("request.").replace("request.attempts", "done.attempts")}'
        " FROM (SELECT request_id, sum(status IS NOT 429 AND unsent IS NOT 1) AS attempts FROM unfinished"
        "       GROUP BY request_id) AS done"
        " WHERE request.request_id = done.request_id"
    )
    answered: list[Any] = connection.execute(
        "SELECT unfinished.request_id, max(unfinished.attempt_id), request.attempts FROM unfinished"
        " JOIN request ON request.request_id = unfinished.request_id"
        " WHERE unfinished.status IS NOT NULL GROUP BY unfinished.request_id ORDER BY 1"
    ).fetchall()
    connection.execute("DROP TABLE temp.unfinished")
    return orphans, answered


def _close(connection: sqlite3.Connection, now: float) -> list[Orphan]:
    lost = connection.execute(
        "SELECT attempt_id, request_id FROM unfinished WHERE reply_id IS NULL ORDER BY attempt_id"
    ).fetchall()
    # Rows are not found by their request: one pass over them serves all that was lost.
    first_rows = dict(
        connection.execute(
            "SELECT request_id, min(row_index) FROM row"
            " WHERE request_id IN (SELECT request_id FROM unfinished WHERE reply_id IS NULL) GROUP BY request_id"
        )
    )
    rows = [
        (
            attempt_id,
            now,
            UNKNOWN,
            MESSAGE,
            "maybe",
            seal(attempt_id, None, None, now, UNKNOWN, MESSAGE, "maybe", b""),
            b"",
        )
        for attempt_id, _ in lost
    ]
    _LOST.run(connection, rows)
    return [Orphan(attempt_id, request_id, first_rows.get(request_id)) for attempt_id, request_id in lost]
