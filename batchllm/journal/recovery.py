"""Opens a journal for a run, and closes what dead runs left.

Only an open request can have an attempt without a reply, or a reply whose outcome is not recorded: an outcome is
recorded after the reply of the last attempt, and the intent of the next attempt opens the request again. So one pass
over the attempts, which are small, finds everything; replies, which are large, are read for open requests only.
"""

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchllm.journal import bulk
from batchllm.journal.bulk import meta_row
from batchllm.journal.database import connect, open_writer, quick_check
from batchllm.journal.kept import KEPT_ANSWERS, KeptAnswers
from batchllm.journal.records import META, Orphan, read_meta
from batchllm.journal.replies import lost_reply
from batchllm.journal.sqlite_errors import damaged, sqlite_errors
from batchllm.journal.store import Store, boot_id
from batchllm.records import Response
from batchllm.retry import Disposition, classify

_UNFINISHED = """
CREATE TEMP TABLE unfinished AS
  SELECT attempt.attempt_id, attempt.request_id, ifnull(request.root_id, request.request_id) AS root_id,
         attempt.valid, reply.attempt_id AS reply_id, reply.status,
         reply.failure = 'unsent' AS unsent,
         is_refusal(reply.status, reply.headers, reply.body) AS refused
  FROM attempt CROSS JOIN request ON request.request_id = attempt.request_id
  LEFT JOIN reply ON reply.attempt_id = attempt.attempt_id
  WHERE request.state = 0
"""


@dataclass(frozen=True, slots=True)
class OpenedJournal:
    """A journal that a run may write.

    Attributes:
        store: Writes it.
        new: Whether it was created now.
        run_id: The number of the run that begins.
        orphans: Possibly billed attempts of dead runs without an answer, found now for the first time.
        meta: Everything in the table ``meta``, as JSON by key.
        next_attempt: The number of the next attempt.
        kept: What is asked again though it has an answer.
    """

    store: Store
    new: bool
    run_id: int
    orphans: tuple[Orphan, ...]
    meta: dict[str, str]
    next_attempt: int
    kept: KeptAnswers


def open_store(path: Path, now: float, version: str) -> OpenedJournal:
    """Opens or creates a journal and begins a run, in one transaction with what recovery changes.

    Raises:
        CannotWrite: It cannot be created or written.
        InputError: It is something else, damaged, or of another version.
        StorageFailure: The disk reported an error.
    """
    connection, new = open_writer(path)
    try:
        with sqlite_errors(path):
            check_after_crash(connection, path)
            store = Store(connection, path)
            calls = [lambda: recover(connection, path, now), lambda: store.begin_run(now, version)]
            orphans, run_id = store.write([], calls)
            meta = dict(read_meta(path, fields) for fields in connection.execute(META))
            kept = KeptAnswers(meta.get(KEPT_ANSWERS))
            store.write(kept.settle(connection))
            (last,) = connection.execute("SELECT max(attempt_id) FROM attempt").fetchone()
    except BaseException:
        connection.close()
        raise
    return OpenedJournal(store, new, run_id, tuple(orphans), meta, (last or 0) + 1, kept)


def store_value(path: Path, key: str, value: Any) -> None:
    """Stores a JSON value in a journal that no run has open; the caller holds the job's lock.

    Raises:
        JobError: It cannot be written.
    """
    with sqlite_errors(path), closing(connect(path)) as connection:
        connection.execute("PRAGMA synchronous=FULL")
        bulk.prepare(connection)
        bulk.RUN_ROWS.insert(connection, [meta_row(key, json.dumps(value))])


def check_after_crash(connection: sqlite3.Connection, path: Path) -> None:
    """Checks the structure of a journal whose last run died with the machine.

    The death of a process alone cannot damage the file: the kernel has what it wrote.

    Raises:
        InputError: The journal is damaged.
    """
    last = connection.execute("SELECT ended_at, boot_id FROM run ORDER BY run_id DESC LIMIT 1").fetchone()
    if last is not None and last[0] is None and (last[1] is None or last[1] != boot_id()):
        quick_check(connection, path)


def recover(connection: sqlite3.Connection, path: Path, now: float) -> list[Orphan]:
    """Closes the attempts of dead runs, within the transaction of the caller.

    Each attempt without a reply gets one that says "possibly billed", so that it is counted once. The number of
    attempts of open requests is brought up to date; refusals for a limit do not count, nor do attempts never sent. An
    open request that has an HTTP answer gets the newest such attempt as its own, a 2xx one before others, so that it is
    read before it is sent again.

    Returns:
        The attempts closed now.

    Raises:
        InputError: The journal is damaged.
    """
    connection.execute("DROP TABLE IF EXISTS temp.unfinished")
    connection.create_function("is_refusal", 3, _is_refusal)
    connection.execute(_UNFINISHED)
    if connection.execute("SELECT 1 FROM unfinished WHERE valid IS NOT 1").fetchone():
        raise damaged(path, "an attempt does not match its checksum")
    orphans = _close(connection, now)
    connection.execute(
        "UPDATE request SET attempts = done.attempts, attempt_id = done.answered"
        " FROM (SELECT request_id, sum(refused IS NOT 1 AND unsent IS NOT 1) AS attempts,"
        "       ifnull(max(CASE WHEN status BETWEEN 200 AND 299 THEN attempt_id END),"
        "              max(CASE WHEN status IS NOT NULL THEN attempt_id END)) AS answered FROM unfinished"
        "       GROUP BY request_id) AS done"
        " WHERE request.request_id = done.request_id"
    )
    connection.execute("DROP TABLE temp.unfinished")
    return orphans


def _is_refusal(status: int | None, headers: str | None, body: bytes) -> bool:
    if status is None:
        return False
    kept = json.loads(headers) if headers else {}
    return classify(Response(status, kept, body, 0.0)).disposition is Disposition.REFUSED


def _close(connection: sqlite3.Connection, now: float) -> list[Orphan]:
    lost = connection.execute(
        "SELECT attempt_id, request_id, root_id FROM unfinished WHERE reply_id IS NULL ORDER BY attempt_id"
    ).fetchall()
    # There is no index from a request to its rows: one pass over the rows serves all lost attempts.
    first_rows = dict(
        connection.execute(
            "SELECT request_id, min(row_index) FROM row"
            " WHERE request_id IN (SELECT root_id FROM unfinished WHERE reply_id IS NULL) GROUP BY request_id"
        )
    )
    bulk.RUN_ROWS.insert(connection, [lost_reply(attempt_id, now) for attempt_id, _, _ in lost])
    return [
        Orphan(attempt_id, request_id, first_rows.get(root_id)) for attempt_id, request_id, root_id in lost
    ]
