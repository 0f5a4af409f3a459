"""The database file: its schema and settings, and how it is created, opened and set aside.

The chain of an answer is row → request → attempt → reply. SQLite does not notice a flipped bit in a cell, and a
flipped bit in a link would give a row another row's answer. So each table of the chain has a column ``checksum``: a
sum of the row's fields with odd multipliers, modulo 2^31. A change of one bit changes the sum, because an odd number
times a power of two below 2^31 is not 0 modulo 2^31. SQLite computes and stores it with each write; the column
``valid`` compares the stored sum with the fields when it is read. Replies and texts carry a CRC-32.

A row of one request has neither ``state`` nor later requests: its state is its request's. A row whose flow can send
more has a ``state`` of its own until it ends with one request; the later requests name the first one as their
``root_id``, and their ``path`` in the flow. ``body_key`` is the hash of a first request's body, where its key is made
of more than that; of a later request it is what the key is made of beside root and path.

The ``endpoint`` of an attempt is a place in the list ``endpoints`` of ``meta``, from 1.

A journal is built under another name and renamed, so there is never half a schema under its own name.
"""

import sqlite3
from pathlib import Path
from urllib.parse import quote

from batchllm.errors import InputError
from batchllm.journal.files import SIDECARS, create_private, exists, sync
from batchllm.journal.sqlite_errors import damaged, job_error, sqlite_errors, write_error

APPLICATION_ID = 0x424C4C4D
VERSION = 2
WRITTEN_BY = {1: "0.1"}
"""The version of batchllm that wrote an older version of the journal."""


def _checked(checksum: str) -> str:
    """The columns ``checksum`` and ``valid`` of a table."""
    return (
        f"checksum INTEGER AS (({checksum}) & 2147483647) STORED,"
        f" valid INTEGER AS (checksum = (({checksum}) & 2147483647)) VIRTUAL"
    )


_BATCH = _checked("batch_id * 1000003 + first_attempt * 524287 + requests * 8191")
_REQUEST = _checked(
    "request_id * 1000003 + ordinal * 8191 + state * 131071 + attempts * 10007 + ifnull(attempt_id, 0) * 524287"
    " + ifnull(root_id, 0) * 65537"
)
_ROW = _checked(
    "row_index * 1000003 + ifnull(request_id, 0) * 524287 + shares_request * 8191 + reason_crc"
    " + ifnull(state + 1, 0) * 131071"
)
_ATTEMPT = _checked("attempt_id * 1000003 + request_id * 524287 + ifnull(endpoint, 0) * 8191")

SCHEMA = f"""
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL, crc INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE batch(
  batch_id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, state TEXT NOT NULL, model TEXT NOT NULL,
  requests INTEGER NOT NULL, bytes INTEGER NOT NULL, tokens INTEGER NOT NULL, sha256 TEXT NOT NULL,
  first_attempt INTEGER NOT NULL, prepared_at REAL NOT NULL, state_changed_at REAL NOT NULL, last_polled_at REAL,
  file_id TEXT, remote_id TEXT, status TEXT, total INTEGER, completed INTEGER, failed INTEGER, output_file_id TEXT,
  error_file_id TEXT, errors TEXT, finished_rows INTEGER NOT NULL, {_BATCH});
CREATE TABLE run(
  run_id INTEGER PRIMARY KEY, started_at REAL, ended_at REAL, exit_status INTEGER,
  pid INTEGER, host TEXT, boot_id TEXT, version TEXT);
CREATE TABLE request(
  request_id INTEGER PRIMARY KEY, key BLOB NOT NULL, ordinal INTEGER NOT NULL, plan_id INTEGER NOT NULL,
  state INTEGER NOT NULL, attempts INTEGER NOT NULL, attempt_id INTEGER, root_id INTEGER, path TEXT, body_key BLOB,
  {_REQUEST}, UNIQUE(key, ordinal));
CREATE INDEX request_of_root ON request(root_id, path) WHERE root_id IS NOT NULL;
CREATE INDEX request_by_body ON request(body_key) WHERE body_key IS NOT NULL;
CREATE TABLE row(
  row_index INTEGER PRIMARY KEY, request_id INTEGER, unsent_reason TEXT, reason_crc INTEGER NOT NULL,
  shares_request INTEGER NOT NULL, state INTEGER, {_ROW});
CREATE TABLE kept(key BLOB PRIMARY KEY, value BLOB NOT NULL, crc INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE attempt(
  attempt_id INTEGER PRIMARY KEY, request_id INTEGER NOT NULL, run_id INTEGER NOT NULL, sent_at REAL,
  endpoint INTEGER, {_ATTEMPT});
CREATE TABLE reply(
  attempt_id INTEGER PRIMARY KEY, received_at REAL, latency_s REAL, status INTEGER, failure TEXT, message TEXT,
  possibly_billed INTEGER, crc INTEGER NOT NULL, headers TEXT, body BLOB);
"""

_TABLES = {statement.strip() for statement in SCHEMA.split(";")} - {""}


class ForeignDatabase(InputError):
    """A database of another program, which is never removed."""


def connect(path: Path, *, mode: str = "rw", immutable: bool = False) -> sqlite3.Connection:
    """Connects to a database, without reading or writing it yet.

    Args:
        path: The database, which exists.
        mode: ``rw`` or ``ro``.
        immutable: Nobody writes it, so no sidecar is needed.
    """
    uri = f"file:{quote(str(path.absolute()), errors='surrogateescape')}?mode={mode}"
    return sqlite3.connect(
        uri + ("&immutable=1" if immutable else ""),
        uri=True,
        isolation_level=None,
        timeout=5.0,
        check_same_thread=False,
        cached_statements=256,
    )


def open_writer(path: Path) -> tuple[sqlite3.Connection, bool]:
    """Opens the journal for writing, creating it where there is none; the caller holds the job's lock.

    Returns:
        The connection, and whether the journal is new.

    Raises:
        JobError: It cannot be created, is something else, is damaged, or is of another version.
    """
    new = not exists(path)
    if new:
        _create(path)
    connection = connect(path)
    try:
        with sqlite_errors(path):
            check_version(connection, path)
            _configure(connection)
    except BaseException:
        connection.close()
        raise
    return connection, new


def check_version(connection: sqlite3.Connection, path: Path) -> None:
    """Makes sure that a database is a journal that this version can read.

    Raises:
        InputError: It is not; ``ForeignDatabase`` where it is none at all.
    """
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        raise ForeignDatabase(path, "not a journal of batchllm but another program's database; name another")
    if version in WRITTEN_BY:
        raise InputError(
            path,
            f"this journal was written by batchllm {WRITTEN_BY[version]}; export it with that version (pip install "
            f"'batchllm-cli=={WRITTEN_BY[version]}.*'), or run the job with --restart, which keeps it aside",
        )
    if version != VERSION:
        raise InputError(
            path,
            f"the journal has version {version} and this batchllm knows version {VERSION}; "
            "use the batchllm that wrote it, or run the job with --restart, which keeps it aside",
        )
    if {
        sql for (sql,) in connection.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL")
    } != _TABLES:
        raise damaged(path, "its tables are not those of its version")


def quick_check(connection: sqlite3.Connection, path: Path) -> None:
    """Checks the structure of the whole database, about a second per gigabyte.

    Raises:
        InputError: It is damaged.
    """
    (first,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if first != "ok":
        raise damaged(path, str(first).splitlines()[-1])


def set_aside(path: Path) -> Path | None:
    """Renames a journal to ``path.<n>``, with its sidecars; the caller holds the job's lock.

    Its log is written into it first. Where damage prevents that, the sidecars are renamed first, because SQLite would
    replay a leftover log into the next journal of that name.

    Returns:
        Where it is now; ``None`` if there was none.

    Raises:
        CannotWrite: It cannot be renamed.
        StorageFailure: The disk reported an error.
    """
    if not exists(path):
        return None
    number = 1
    while (aside := path.with_name(f"{path.name}.{number}")).exists():
        number += 1
    connection = connect(path)
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.Error:
        pass  # damaged, which may be why it is set aside
    finally:
        connection.close()
    _rename(path, aside)
    return aside


def bring_back(path: Path, aside: Path) -> None:
    """Renames a journal that ``set_aside`` renamed to its old name, where there is no other by now.

    Raises:
        CannotWrite: It cannot be renamed.
        StorageFailure: The disk reported an error.
    """
    if not exists(path):
        _rename(aside, path)


def _rename(old: Path, new: Path) -> None:
    """Renames a journal, its sidecars first, durably."""
    try:
        for sidecar in SIDECARS:
            if Path(f"{old}{sidecar}").exists():
                Path(f"{old}{sidecar}").rename(f"{new}{sidecar}")
        old.rename(new)
        sync(old.parent)
    except OSError as error:
        raise write_error(old, error) from error


def _create(path: Path) -> None:
    """Builds an empty journal under another name and renames it into place, durably."""
    new_path = path.with_name(f"{path.name}.new")
    create_private(new_path)
    connection = connect(new_path)
    try:
        connection.executescript(
            f"PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; BEGIN; {SCHEMA}"
            f"PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version={VERSION}; COMMIT;"
            "PRAGMA journal_mode=WAL;"
        )
    except sqlite3.Error as error:
        raise job_error(error, new_path) from error
    finally:
        connection.close()
    try:
        sync(new_path)
        for sidecar in SIDECARS:
            Path(f"{path}{sidecar}").unlink(missing_ok=True)
        new_path.rename(path)
        sync(path.parent)
    except OSError as error:
        raise write_error(path, error) from error


def _configure(connection: sqlite3.Connection) -> None:
    """Sets what durability and speed depend on; the page cache holds the index of some 300,000 keys."""
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "fullfsync=ON",
        "temp_store=MEMORY",
        "mmap_size=0",
        "cache_size=-16384",
        "wal_autocheckpoint=4000",
        "journal_size_limit=67108864",
        "busy_timeout=5000",
    ):
        connection.execute(f"PRAGMA {pragma}").fetchall()
