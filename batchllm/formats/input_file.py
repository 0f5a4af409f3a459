"""Where the bytes of an input come from; formats need not know more than ``InputFile``.

``LocalFile`` is a file on disk, and ``compression.CompressedFile`` is another input file that is unpacked while it is
read. An input from elsewhere, such as an object store, is one more kind.
"""

import hashlib
import os
import secrets
import stat
import tempfile
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from functools import partial
from io import FileIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

from batchllm.errors import InputError, StorageFailure
from batchllm.formats.output_file import storage_error

CHUNK_BYTES = 1 << 18
HEAD_BYTES = 1 << 20


class Ends(NamedTuple):
    """The beginning and the end of an input's content.

    Attributes:
        head: At most the first mebibyte.
        tail: The last four bytes; empty where they are not known without reading everything.
        is_complete: The head is the whole content.
    """

    head: bytes
    tail: bytes
    is_complete: bool


class InputFile(ABC):
    """An input that can be read more than once.

    Args:
        path: Its path, or what stands for it; the suffixes of its name tell format and compression.
        name: What messages call it.

    Attributes:
        path, name: As given.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name
        self._spooled: Path | None = None

    @abstractmethod
    def chunks(self, start: int = 0) -> Iterator[bytes]:
        """Yields the content in large pieces.

        Args:
            start: Offset of the first byte.

        Raises:
            InputError: It cannot be opened, or its content cannot be had whole.
            StorageFailure: The disk reported an error.
        """

    def ends(self) -> Ends:
        """Returns the beginning and the end of the content.

        Raises:
            InputError: It cannot be opened or read.
        """
        head = b""
        for chunk in self.chunks():
            head += chunk
            if len(head) > HEAD_BYTES:
                return Ends(head[:HEAD_BYTES], b"", False)
        return Ends(head, head[-4:], True)

    def local_path(self) -> Path:
        """Returns a file on disk with the content, for formats that read at random; spooled once where there is none.

        Raises:
            InputError: As ``chunks``.
            CannotWrite, StorageFailure: The content cannot be spooled.
        """
        if self._spooled is None:
            self._spooled = copied(self.spool_chunks(), "input", f"{self.name} cannot be spooled here")
            weakref.finalize(self, partial(self._spooled.unlink, missing_ok=True))
        return self._spooled

    def at_random(self) -> BinaryIO:
        """Opens the content for a reader that jumps; raises as ``local_path``, and ``OSError``."""
        return self.local_path().open("rb")

    def spool_chunks(self) -> Iterator[bytes]:
        """Yields the content for a copy on disk; by default the same as ``chunks``."""
        return self.chunks()

    def size_and_sha256(self) -> tuple[int, str]:
        """Returns size and hash of the content, for formats that do not read it in its order; raises as ``chunks``."""
        opened = InputPass(self)
        for _ in opened.chunks():
            pass
        return opened.size_bytes, opened.sha256()

    def check_whole(self) -> None:  # noqa: B027 - most inputs have nothing to check
        """Reads what tells whether the content is damaged; called where a format finds a fault in it.

        Raises:
            InputError: It is damaged, which explains the fault.
        """

    def part(self, start: int, size_bytes: int) -> bytes:
        """Returns some bytes of the content, fewer at its end."""
        found = b""
        for chunk in self.chunks(start):
            found += chunk
            if len(found) >= size_bytes:
                break
        return found[:size_bytes]


class LocalFile(InputFile):
    """A regular file on disk."""

    def chunks(self, start: int = 0) -> Iterator[bytes]:
        """Yields the content; see ``InputFile``."""
        try:
            file = self.path.open("rb", buffering=0)
        except OSError as error:
            raise self._unopened(error) from error
        with file:
            file.seek(start)
            while chunk := self._read(file):
                yield chunk

    def _read(self, file: FileIO) -> bytes:
        try:
            return file.read(CHUNK_BYTES)
        except OSError as error:
            raise StorageFailure(f"{self.name}: cannot be read: {error.strerror}") from error

    def ends(self) -> Ends:
        """Returns both ends; see ``InputFile``. What is no regular file is an ``InputError``."""
        try:
            status = self.path.stat()
            if not stat.S_ISREG(status.st_mode):
                reason = "is not a regular file, and it has to be read twice; pipe it in and say -"
                raise InputError(self.name, reason)
            with self.path.open("rb") as file:
                head = file.read(HEAD_BYTES)
                file.seek(max(0, status.st_size - 4))
                return Ends(head, file.read(4), status.st_size <= HEAD_BYTES)
        except OSError as error:
            raise self._unopened(error) from error

    def local_path(self) -> Path:
        """Returns the path of the file itself."""
        return self.path

    def _unopened(self, error: OSError) -> InputError:
        return InputError(self.name, f"cannot be opened: {error.strerror}")


class InputPass:
    """One pass over the content of an input.

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
        for chunk in self._file.chunks(self.start):
            self._hash.update(chunk)
            self.size_bytes += len(chunk)
            yield chunk

    def sha256(self) -> str:
        """Returns the hash of the bytes read so far, in hexadecimal digits."""
        return self._hash.hexdigest()


def spool(stream: BinaryIO, folder: Path | None = None) -> Path:
    """Copies standard input to a new temporary file that only its owner can read.

    Args:
        stream: What to copy, to its end.
        folder: Where the file is created; by default the system's folder of temporary files.

    Returns:
        The path of the file; the caller removes it when the run is over.

    Raises:
        CannotWrite: There is no room, or the folder cannot be written.
        StorageFailure: The disk reported an error.
    """
    chunks = iter(partial(stream.read, CHUNK_BYTES), b"")
    return copied(chunks, "stdin", "standard input cannot be spooled here", folder)


def copied(chunks: Iterable[bytes], label: str, failure: str, folder: Path | None = None) -> Path:
    """Puts bytes into a new temporary file that only its owner can read.

    Args:
        chunks: The bytes.
        label: Put into its name.
        failure: What messages say where that fails.
        folder: See ``spool``.

    Raises:
        CannotWrite: There is no room, or the folder cannot be written.
        StorageFailure: The disk reported an error.
    """
    path = (folder or Path(tempfile.gettempdir())) / f"batchllm-{label}-{secrets.token_hex(8)}"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                for chunk in chunks:
                    file.write(chunk)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise storage_error(error, path, failure) from error
    return path
