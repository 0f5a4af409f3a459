"""What an error of SQLite means for the job."""

import errno
import os
import sqlite3
from pathlib import Path

from batchllm.errors import CannotWrite, InputError, JobError, NotNow, StorageFailure

FULL = 13
"""SQLITE_FULL: the one error after which a smaller write may still succeed."""

_READ_ONLY, _CANNOT_OPEN, _NO_PERMISSION = 8, 14, 3
_CORRUPT, _NOT_A_DATABASE, _FORMAT = 11, 26, 24
_BUSY, _LOCKED = 5, 6
_IO_ERROR = 10
_NO_ROOM_BYTES = 1 << 20


def code_of(error: sqlite3.Error) -> int:
    """The primary result code of SQLite, 1 (SQLITE_ERROR) where Python has none."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return 1 if code is None else code & 0xFF


def damaged(path: Path, what: str) -> InputError:
    """The error for a journal that does not hold together."""
    return InputError(
        path,
        f"the journal is damaged ({what}); restore a copy, or start over with --restart, which keeps it aside",
    )


def job_error(error: sqlite3.Error, path: Path) -> JobError:
    """Turns an error of SQLite into one that says what happened, where, and what to do."""
    code = code_of(error)
    if code == FULL or (code == _IO_ERROR and _is_full(path)):
        return CannotWrite(f"{path}: the disk is full; free some space and run the same command again")
    if code in (_READ_ONLY, _CANNOT_OPEN, _NO_PERMISSION):
        return CannotWrite(
            f"{path}: the journal cannot be written ({error}); check the permissions of its folder"
        )
    if code == _NOT_A_DATABASE:
        return InputError(
            path, "not a journal of batchllm, or its beginning is damaged; restore or remove it"
        )
    if code in (_CORRUPT, _FORMAT):
        return damaged(path, str(error))
    if code in (_BUSY, _LOCKED):
        return NotNow(
            f"{path}: another program keeps the journal locked; close it and run the same command again"
        )
    return StorageFailure(
        f"{path}: the journal could not be written or read ({error}); check the disk, then run the same command again"
    )


def write_error(path: Path, error: OSError) -> JobError:
    """Turns an error of the operating system into one that says what happened, where, and what to do."""
    if error.errno == errno.EIO:
        return StorageFailure(f"{path}: {error.strerror}; check the disk, then run the same command again")
    return CannotWrite(f"{path}: {error.strerror}; check its folder, then run the same command again")


def _is_full(path: Path) -> bool:
    """Some failures for want of room reach SQLite as plain I/O errors (the shared memory file, quotas)."""
    try:
        facts = os.statvfs(path.parent)
    except OSError:
        return False
    return facts.f_bavail * facts.f_frsize < _NO_ROOM_BYTES
