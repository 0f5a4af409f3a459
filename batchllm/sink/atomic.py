"""A file that appears whole or not at all.

The bytes go to ``.NAME.<16 digits>.tmp`` in the folder of the output, created for its owner only. When all
are written: fsync, the mode of the output that is replaced (0600 where there is none), rename, fsync of the
folder. A run that is killed leaves the temporary file behind; the next write of the same output removes it.
That is safe because a lock lets one run at a time have an output.

An output that is a symbolic link stays one; the file it points to is replaced.
"""

import contextlib
import errno
import hashlib
import os
import re
import secrets
import stat
from pathlib import Path
from types import TracebackType
from typing import Self

from batchllm.errors import CannotWrite, JobError, StorageFailure

_CANNOT_WRITE = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
}


def storage_error(error: OSError, path: Path, what: str) -> JobError:
    """The job's error for one of the operating system: no room or no right, or else a failing disk."""
    kind = CannotWrite if error.errno in _CANNOT_WRITE else StorageFailure
    advice = "make room" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "correct that"
    return kind(f"{path}: {what}: {error.strerror or error}; {advice} and run the same command again")


class AtomicFile:
    """Writes a new version of a file; a context manager that leaves nothing unless ``commit`` was called.

    Attributes:
        size_bytes: Bytes written so far.
    """

    def __init__(self, path: Path) -> None:
        self._path = Path(os.path.realpath(path))
        self._temporary = self._path.with_name(f".{self._path.name}.{secrets.token_hex(8)}.tmp")
        self._hash = hashlib.sha256()
        self._descriptor = -1
        self._is_in_place = False
        self.size_bytes = 0

    def __enter__(self) -> Self:
        remove_leftovers(self._path)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            self._descriptor = os.open(self._temporary, flags, 0o600)
        except OSError as error:
            raise storage_error(error, self._path, "cannot be created") from error
        return self

    def write(self, data: bytes) -> None:
        """Append bytes; raises ``CannotWrite`` or ``StorageFailure``."""
        self._hash.update(data)
        self.size_bytes += len(data)
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            raise storage_error(error, self._path, "cannot be written") from error

    def sha256(self) -> str:
        """Hash of what was written so far, in hexadecimal digits."""
        return self._hash.hexdigest()

    def commit(self) -> None:
        """Make it durable and put it in place; raises ``CannotWrite`` or ``StorageFailure``."""
        try:
            os.fchmod(self._descriptor, self._mode())
        except OSError as error:
            raise storage_error(error, self._path, "cannot get its mode") from error
        self._sync(self._descriptor)
        try:
            self._temporary.replace(self._path)
            self._is_in_place = True
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise storage_error(error, self._path, "cannot be put in place") from error
        try:
            self._sync(folder, is_folder=True)
        finally:
            os.close(folder)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):  # after commit nothing hangs on it, before it the file goes
            os.close(self._descriptor)
        if not self._is_in_place:
            with contextlib.suppress(OSError):  # the next write removes it
                self._temporary.unlink()

    def _mode(self) -> int:
        try:
            return stat.S_IMODE(self._path.stat().st_mode) & 0o777
        except FileNotFoundError:
            return 0o600

    def _sync(self, descriptor: int, *, is_folder: bool = False) -> None:
        try:
            os.fsync(descriptor)
        except OSError as error:
            if is_folder and error.errno == errno.EINVAL:  # a file system that cannot sync folders
                return
            message = f"{self._path}: could not be made durable (fsync): {error.strerror}; check the disk"
            raise StorageFailure(message) from error


def remove_leftovers(path: Path) -> None:
    """Remove the temporary files that killed runs left beside an output."""
    path = Path(os.path.realpath(path))
    leftover = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{16}}\.tmp")
    with contextlib.suppress(OSError):  # what cannot be listed or removed does no harm to this write
        for entry in os.scandir(path.parent):
            if leftover.fullmatch(entry.name):
                Path(entry.path).unlink()
