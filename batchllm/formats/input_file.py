"""Opens and hashes the bytes of an input, and puts standard input on disk.

Formats take their bytes from here and need not know where they come from.
"""

import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from batchllm.errors import InputError, StorageFailure
from batchllm.formats.output_file import storage_error

CHUNK_BYTES = 1 << 18
HEAD_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file that can be read more than once.

    Attributes:
        path: Where it is.
        name: What messages call it.
    """

    path: Path
    name: str

    def ends(self) -> tuple[bytes, bytes]:
        """Returns the first mebibyte and the last four bytes.

        Raises:
            InputError: It cannot be opened, or it is not a regular file.
        """
        try:
            status = self.path.stat()
            if not stat.S_ISREG(status.st_mode):
                reason = "is not a regular file, and it has to be read twice; pipe it in and say -"
                raise InputError(self.name, reason)
            with self.path.open("rb") as file:
                head = file.read(HEAD_BYTES)
                file.seek(max(0, status.st_size - 4))
                return head, file.read(4)
        except OSError as error:
            raise InputError(self.name, f"cannot be opened: {error.strerror}") from error


class InputPass:
    """One pass over the bytes of an input.

    Attributes:
        start: Offset of the first byte that is read.
        size_bytes: Bytes read so far.
    """

    def __init__(self, file: InputFile, start: int = 0) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.start = start
        self.size_bytes = 0

    def chunks(self) -> Iterator[bytes]:
        """Yields the bytes in large pieces; raises ``InputError`` or ``StorageFailure``."""
        try:
            file = self._file.path.open("rb", buffering=0)
        except OSError as error:
            raise InputError(self._file.name, f"cannot be opened: {error.strerror}") from error
        with file:
            file.seek(self.start)
            while chunk := self._read(file):
                self._hash.update(chunk)
                self.size_bytes += len(chunk)
                yield chunk

    def _read(self, file: FileIO) -> bytes:
        try:
            return file.read(CHUNK_BYTES)
        except OSError as error:
            raise StorageFailure(f"{self._file.name}: cannot be read: {error.strerror}") from error

    def sha256(self) -> str:
        """Returns the hash of the bytes read so far, in hexadecimal digits."""
        return self._hash.hexdigest()


def spool(stream: BinaryIO, folder: Path) -> Path:
    """Copies a stream to a new temporary file that only its owner can read.

    Args:
        stream: What to copy, to its end.
        folder: Where the file is created.

    Returns:
        The path of the file; the caller removes it when the run is over.

    Raises:
        CannotWrite: There is no room, or the folder cannot be written.
        StorageFailure: The disk reported an error.
    """
    path = folder / f"batchllm-stdin-{secrets.token_hex(8)}"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                while chunk := stream.read(CHUNK_BYTES):
                    file.write(chunk)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise storage_error(error, path, "standard input cannot be spooled here") from error
    return path
