"""Inputs and outputs that are elsewhere: an object is another kind of input file, and another output target."""

import io
import tempfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Self

from batchllm import stores
from batchllm.errors import CannotWrite, InputError, StorageFailure, UsageError
from batchllm.formats.input_file import HEAD_BYTES, Ends, InputFile, LocalFile
from batchllm.formats.output_file import OutputTarget, storage_error
from batchllm.stores import ObjectInfo, ObjectPath

_ATTEMPTS = 3
_BLOCK_BYTES = 1 << 20
_BLOCKS = 32


class ObjectInput(InputFile):
    """An object of a store, or a file behind a web address.

    One with an ETag is read in parts, and every pass reads the version that the first one found. Any other is copied to
    disk once.
    """

    def __init__(self, path: ObjectPath, name: str) -> None:
        super().__init__(path, name)
        self._url = path.url
        self._info: ObjectInfo | None = None
        self._hashed: tuple[int, str] | None = None

    def chunks(self, start: int = 0) -> Iterator[bytes]:
        """Yields the content; see ``InputFile``."""
        is_first = self._info is None
        info = self._found()
        if info.etag is None:
            yield from LocalFile(self.local_path(), self.name).chunks(start)
            return
        try:
            yield from stores.stream(info, start)
        except UsageError as error:
            if is_first:
                raise
            raise StorageFailure(f"{error}, and run the same command again") from None

    def ends(self) -> Ends:
        """Returns both ends, each by one request; see ``InputFile``."""
        info = self._found()
        if info.etag is None or info.size_bytes is None:
            return LocalFile(self.local_path(), self.name).ends()
        head = self.part(0, HEAD_BYTES)
        is_complete = len(head) == info.size_bytes
        return Ends(head, head[-4:] if is_complete else self.part(info.size_bytes - 4, 4), is_complete)

    def part(self, start: int, size_bytes: int) -> bytes:
        """Returns some bytes by one request; see ``InputFile``."""
        info = self._found()
        if info.etag is None or info.size_bytes is None:
            return LocalFile(self.local_path(), self.name).part(start, size_bytes)
        stop = min(start + size_bytes, info.size_bytes)
        return b"" if stop <= start else stores.read(self._url, start, stop, etag=info.etag)

    def spool_chunks(self) -> Iterator[bytes]:
        """Yields the content for a copy on disk; see ``InputFile``."""
        return stores.stream(self._found())

    def local_path(self) -> Path:
        """Returns a copy on disk; see ``InputFile``."""
        for _ in range(_ATTEMPTS - 1):
            try:
                return super().local_path()
            except StorageFailure:  # a connection that was lost on the way; the copy begins anew
                continue
        return super().local_path()

    def at_random(self) -> BinaryIO:
        """Opens the object, or its copy on disk where it cannot be read in parts; see ``InputFile``."""
        info = self._found()
        return super().at_random() if info.etag is None else io.BufferedReader(_RandomReader(info))

    def size_and_sha256(self) -> tuple[int, str]:
        """Returns size and hash, once for the version that all passes read; see ``InputFile``."""
        if self._hashed is None:
            self._hashed = super().size_and_sha256()
        return self._hashed

    def _found(self) -> ObjectInfo:
        if self._info is None:
            if self._url.is_prefix:
                raise InputError(self.name, "is a folder; name an object in it")
            if self._url.is_incomplete:
                reason = (
                    "what follows its ? is not kept, since it can be a signature; give the whole URL again"
                )
                raise InputError(self.name, reason)
            self._info = stores.head(self._url)
        if self._info is None:
            raise InputError(self.name, "there is no such object; correct its name")
        return self._info


class ObjectTarget(OutputTarget):
    """Collects an output on disk and puts it in place as one object."""

    def __init__(self, path: ObjectPath, compressor: Any = None) -> None:
        super().__init__(path, compressor)
        self._url = path.url
        self._file: BinaryIO | None = None

    def check(self) -> None:
        """Makes sure that the object can be put; see ``OutputTarget``."""
        stores.check_writable(self._url)

    def __enter__(self) -> Self:
        folder = Path(tempfile.gettempdir())
        try:
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)
        except OSError as error:
            raise storage_error(error, folder, "the output cannot be collected here") from error
        return self

    def __exit__(self, *exception: object) -> None:
        if self._file is not None:
            self._file.close()

    def _append(self, data: memoryview) -> int:
        assert self._file is not None, "what is written is entered"
        try:
            return self._file.write(data)
        except OSError as error:
            folder = Path(tempfile.gettempdir())
            raise storage_error(error, folder, "the output cannot be collected here") from error

    def commit(self) -> None:
        """Puts the object in place; raises ``CannotWrite`` or ``StorageFailure``."""
        assert self._file is not None, "what is committed is entered"
        try:
            stores.put(self._url, self._file)
        except UsageError as error:  # credentials that were good when the run began: its answers are paid
            raise CannotWrite(f"{error}, and run the same command again") from None


class _RandomReader(io.RawIOBase):
    """An object as a file for readers that jump; each block is a request for one part of the same version.

    Columns of Parquet are read a little at a time, in turn. So the last blocks are kept.
    """

    def __init__(self, info: ObjectInfo) -> None:
        assert info.size_bytes is not None, "an object that is read in parts has a size"
        self._size, self._position = info.size_bytes, 0

        @lru_cache(_BLOCKS)
        def block(begin: int) -> bytes:
            return stores.read(info.url, begin, min(begin + _BLOCK_BYTES, self._size), etag=info.etag)

        self._block = block

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        begin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, begin + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        if self._position >= self._size or not len(buffer):
            return 0
        within = self._position % _BLOCK_BYTES
        part = self._block(self._position - within)[within : within + len(buffer)]
        buffer[: len(part)] = part
        self._position += len(part)
        return len(part)
