"""Where an output goes: a file that appears whole or not at all, or standard output.

The bytes go to ``.NAME.<16 digits>.tmp`` in the folder of the output, which only its owner can read. When all are
written: fsync, the mode of the output that is replaced (0600 where there is none), rename, fsync of the folder. A
run that is killed leaves the temporary file behind; the next write of the same output removes it. That is safe
because a lock lets one run at a time have an output.

An output that is a symbolic link stays one; the file it points to is replaced.
"""

import contextlib
import errno
import hashlib
import os
import re
import secrets
import stat
import sys
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Self

from batchllm.errors import CannotWrite, JobError, StorageFailure

_LEFTOVER = re.compile(r"\.(.+)\.[0-9a-f]{16}\.tmp", re.DOTALL)
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
_BAD_PATH = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG}
_CANNOT_WRITE = _NO_ROOM | _BAD_PATH | {errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS}


def storage_error(error: OSError, path: Path, what: str) -> JobError:
    """Returns ``CannotWrite`` where room or permission is missing, else ``StorageFailure``.

    Args:
        error: What the system reported.
        path: The file.
        what: What failed: ``cannot be written``.
    """
    kind = CannotWrite if error.errno in _CANNOT_WRITE else StorageFailure
    advice = "make room" if error.errno in _NO_ROOM else "correct that"
    return kind(f"{path}: {what}: {error.strerror or error}; {advice} and run the same command again")


class OutputTarget(ABC):
    """Takes the bytes of an output; a context manager that leaves nothing half done unless ``commit`` was called.

    The order of calls is ``write`` as often as needed, ``finish``, ``sha256``, ``commit``.

    Args:
        path: What messages call it.
        compressor: Packs what is written, as ``zlib.compressobj()`` does; ``None`` leaves it as it is.

    Attributes:
        path: As given.
        size_bytes: Bytes of the output so far, packed where it is.
        is_cut: Whoever read it closed it before the end.
    """

    def __init__(self, path: Path, compressor: Any = None) -> None:
        self.path = path
        self.size_bytes = 0
        self.is_cut = False
        self._compressor = compressor
        self._hash = hashlib.sha256()

    @abstractmethod
    def __enter__(self) -> Self: ...

    @abstractmethod
    def __exit__(self, *exception: object) -> None: ...

    @abstractmethod
    def check(self) -> None:
        """Makes sure that it can be written later, and leaves no trace; raises ``CannotWrite``."""

    def write(self, data: bytes) -> None:
        """Appends bytes; raises ``CannotWrite`` or ``StorageFailure``."""
        self._put(data if self._compressor is None else self._compressor.compress(data))

    def finish(self) -> None:
        """Writes what the compressor holds back; called once, after the last ``write``."""
        if self._compressor is not None:
            self._put(self._compressor.flush())

    def _put(self, data: bytes) -> None:
        self._hash.update(data)
        self.size_bytes += len(data)
        rest = memoryview(data)
        try:
            while rest and not self.is_cut:
                rest = rest[self._append(rest) :]
        except OSError as error:
            raise storage_error(error, self.path, "cannot be written") from error

    @abstractmethod
    def _append(self, data: memoryview) -> int:
        """Writes at least one byte and returns how many."""

    def sha256(self) -> str:
        """Returns the hash of the output so far, in hexadecimal digits; of a packed one that of the packed bytes."""
        return self._hash.hexdigest()

    @abstractmethod
    def commit(self) -> None:
        """Completes the output; raises ``CannotWrite`` or ``StorageFailure``."""


class StandardOutput(OutputTarget):
    """Writes rows as they come; a reader that goes away ends the writing, not the run."""

    def __init__(self) -> None:
        super().__init__(Path("standard output"))

    def __enter__(self) -> Self:
        sys.stdout.flush()  # then past its buffer, which would complain at exit of what nobody took
        self._file = getattr(sys.stdout.buffer, "raw", sys.stdout.buffer)
        return self

    def __exit__(self, *exception: object) -> None:
        """Leaves standard output open."""

    def check(self) -> None:
        """Does nothing: there is a standard output."""

    def _append(self, data: memoryview) -> int:
        try:
            written: int = self._file.write(data)
        except BrokenPipeError:
            self.is_cut = True
            return len(data)
        return written

    def commit(self) -> None:
        """Does nothing: what was written is out."""


class AtomicFile(OutputTarget):
    """Writes a new version of a file.

    Args:
        path: The file.
        compressor: See ``OutputTarget``.
        tidies: Remove first what killed runs left beside it, for which its folder is listed.
    """

    def __init__(self, path: Path, compressor: Any = None, *, tidies: bool = True) -> None:
        super().__init__(Path(os.path.realpath(path)), compressor)
        self._tidies = tidies
        self._temporary = self.path.with_name(f".{self.path.name}.{secrets.token_hex(8)}.tmp")
        self._descriptor = -1
        self._is_in_place = False

    def check(self) -> None:
        """Makes sure that the file can be written here, under its long temporary name too, and leaves no trace.

        Raises:
            CannotWrite: Its name is too long, its place is no file, or its folder cannot be written.
        """
        if os.path.isdir(self.path):  # noqa: PTH112 - False for a name that no file can have
            raise CannotWrite(f"{self.path} is a folder; name a file")
        try:
            self._create()
        finally:
            self.__exit__()

    def __enter__(self) -> Self:
        if self._tidies:
            remove_leftovers(self.path)
        self._create()
        return self

    def _create(self) -> None:
        path = self.path
        if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):  # noqa: PTH110, PTH112, PTH113
            raise CannotWrite(f"{self.path} is not a regular file, and it would be replaced; name another")
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            self._descriptor = os.open(self._temporary, flags, 0o600)
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                extra = len(self._temporary.name) - len(self.path.name)
                raise CannotWrite(
                    f"{self.path}: its name is too long: the files beside it need {extra} bytes more; name a shorter "
                    "one with -o"
                ) from error
            raise storage_error(error, self.path, "cannot be created") from error

    def _append(self, data: memoryview) -> int:
        return os.write(self._descriptor, data)

    def commit(self) -> None:
        """Makes the file durable and puts it in place; raises ``CannotWrite`` or ``StorageFailure``."""
        try:
            os.fchmod(self._descriptor, self._mode())
        except OSError as error:
            raise storage_error(error, self.path, "cannot get its mode") from error
        self._sync(self._descriptor)
        try:
            self._temporary.replace(self.path)
            self._is_in_place = True
            folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise storage_error(error, self.path, "cannot be put in place") from error
        try:
            self._sync(folder, is_folder=True)
        finally:
            os.close(folder)

    def __exit__(self, *exception: object) -> None:
        # After commit nothing depends on it, and before it the file is removed.
        with contextlib.suppress(OSError):
            os.close(self._descriptor)
        if not self._is_in_place:
            with contextlib.suppress(OSError):  # the next write removes it
                self._temporary.unlink()

    def _mode(self) -> int:
        try:
            return stat.S_IMODE(self.path.stat().st_mode) & 0o777
        except FileNotFoundError:
            return 0o600

    def _sync(self, descriptor: int, *, is_folder: bool = False) -> None:
        try:
            os.fsync(descriptor)
        except OSError as error:
            if is_folder and error.errno == errno.EINVAL:  # a file system that cannot sync folders
                return
            message = f"{self.path}: could not be made durable (fsync): {error.strerror}; check the disk"
            raise StorageFailure(message) from error


def remove_leftovers(*paths: Path) -> None:
    """Removes the temporary files that killed runs left beside outputs; each folder is listed once."""
    names: dict[Path, set[str]] = {}
    for path in map(Path, map(os.path.realpath, paths)):
        names.setdefault(path.parent, set()).add(path.name)
    for folder, own in names.items():
        with contextlib.suppress(OSError):  # what cannot be listed or removed does no harm to this write
            for entry in os.scandir(folder):
                leftover = _LEFTOVER.fullmatch(entry.name)
                if leftover is not None and leftover[1] in own:
                    Path(entry.path).unlink()
