"""Turns errors of SQLite and of the operating system into errors of the job."""

import errno
import os
import sqlite3
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

from batchllm.errors import CannotWrite, InputError, JobError, NotNow, StorageFailure

P = ParamSpec("P")
T = TypeVar("T")

_DAMAGED = (
    sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH,
    sqlite3.SQLITE_FORMAT,
)  # fmt: skip
"""The package's statements are right, so an error in one of them is an error of the schema or the data."""
_NO_ROOM_BYTES = 1 << 20


def code_of(error: sqlite3.Error) -> int:
    """Returns the primary result code of SQLite, ``SQLITE_ERROR`` where Python has none."""
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    return code & 0xFF


def is_full(error: Exception) -> bool:
    """Returns whether the disk is full: the one error after which a smaller write may still succeed."""
    return isinstance(error, sqlite3.Error) and code_of(error) == sqlite3.SQLITE_FULL


def damaged(path: Path, what: str) -> InputError:
    """Returns the error for a damaged journal."""
    return InputError(
        path,
        f"the journal is damaged ({what}); restore a copy, or run the job with --restart, which keeps it aside",
    )


def job_error(error: sqlite3.Error, path: Path) -> JobError:
    """Returns the error that says what happened, where, and what to do."""
    code = code_of(error)
    if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and _is_full(path)):
        return CannotWrite(f"{path}: the disk is full; free some space and run the same command again")
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return CannotWrite(
            f"{path}: the journal cannot be written ({error}); check the permissions of its folder"
        )
    if code == sqlite3.SQLITE_NOTADB:
        return InputError(
            path, "not a journal of batchllm, or its beginning is damaged; restore or remove it"
        )
    if code in _DAMAGED:
        return damaged(path, str(error))
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return NotNow(
            f"{path}: another program keeps the journal locked; close it and run the same command again"
        )
    return StorageFailure(
        f"{path}: the journal could not be written or read ({error}); check the disk, then run the same command again"
    )


@contextmanager
def sqlite_errors(path: Path) -> Iterator[None]:
    """Raises errors of SQLite as errors of the job."""
    try:
        yield
    except sqlite3.Error as error:
        raise job_error(error, path) from error
    except UnicodeDecodeError as error:  # a message that quotes a damaged schema
        raise damaged(path, "text that is no UTF-8") from error


def report_damage(function: Callable[P, T]) -> Callable[P, T]:
    """Makes a function of a path and of values read there raise "damaged" where a value has a wrong type."""

    @wraps(function)
    def guarded(*arguments: P.args, **named: P.kwargs) -> T:
        try:
            return function(*arguments, **named)
        except (TypeError, ValueError, AttributeError, IndexError, struct.error) as error:
            raise damaged(Path(str(arguments[0])), f"{type(error).__name__}: {error}") from error

    return guarded


def write_error(path: Path, error: OSError) -> JobError:
    """Returns the error for a file that could not be written."""
    if error.errno == errno.EIO:
        return StorageFailure(f"{path}: {error.strerror}; check the disk, then run the same command again")
    if error.errno == errno.ENAMETOOLONG:
        return CannotWrite(f"{path}: its name is too long; name a shorter OUTPUT, or another --journal PATH")
    return CannotWrite(f"{path}: {error.strerror}; check its folder, then run the same command again")


def _is_full(path: Path) -> bool:
    """SQLite reports some failures for want of room as plain I/O errors (the shared memory file, quotas)."""
    try:
        facts = os.statvfs(path.parent)
    except OSError:
        return False
    return facts.f_bavail * facts.f_frsize < _NO_ROOM_BYTES
