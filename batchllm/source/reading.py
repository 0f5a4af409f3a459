"""One pass over the bytes of a file, hashed on the way, and what every kind of source has in common."""

import codecs
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

from batchllm.errors import InputError, StorageFailure
from batchllm.records import Row
from batchllm.source.census import Census
from batchllm.source.encodings import describe_undecodable
from batchllm.source.format import Format

CHUNK_BYTES = 1 << 20
RECORD_LIMIT_BYTES = 64 << 20
"""The largest cell of a CSV file and the largest line of a JSONL file."""


class Reading:
    """One pass over a file, from its first byte on.

    Attributes:
        size_bytes: Bytes read so far.
    """

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        self._name = name
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    def chunks(self) -> Iterator[bytes]:
        """The bytes of the file in large pieces; raises ``InputError`` or ``StorageFailure``."""
        try:
            file = self._path.open("rb", buffering=0)
        except OSError as error:
            raise InputError(self._name, f"cannot be opened: {error.strerror}") from error
        with file:
            while chunk := self._read(file):
                self._hash.update(chunk)
                self.size_bytes += len(chunk)
                yield chunk

    def _read(self, file: FileIO) -> bytes:
        try:
            return file.read(CHUNK_BYTES)
        except OSError as error:
            raise StorageFailure(f"{self._name}: cannot be read: {error.strerror}") from error

    def texts(self, form: Format) -> Iterator[str]:
        """The same decoded, without byte-order mark, no piece empty; ``InputError`` for a wrong byte."""
        decoder = codecs.getincrementaldecoder(form.encoding)("strict")
        skip = len(form.bom)
        try:
            for chunk in self.chunks():
                text = decoder.decode(chunk[skip:] if skip else chunk)
                skip = 0
                if text:
                    yield text
            if last := decoder.decode(b"", final=True):
                yield last
        except UnicodeDecodeError as error:
            raise self.undecodable(form) from error

    def undecodable(self, form: Format) -> InputError:
        """The error that says where the first wrong byte is and what the encoding may be."""
        line, reason = describe_undecodable(self._path, form.encoding, len(form.bom))
        return InputError(self._name, reason, line=line)

    def sha256(self) -> str:
        """Hash of the bytes read so far, in hexadecimal digits."""
        return self._hash.hexdigest()


class Source(ABC):
    """An input file; use ``open_source``.

    Attributes:
        path: The file.
        name: What messages call it.
        format: How it is written.
        columns: Names of the columns, in order; those of a JSONL file are known after ``check``.
    """

    def __init__(self, path: Path, form: Format, name: str) -> None:
        self.path = path
        self.name = name
        self.format = form
        self.columns: tuple[str, ...] = ()
        self._digest: str | None = None

    @abstractmethod
    def check(self) -> Census:
        """Read the whole file once; raises ``InputError`` for the first thing that is wrong with it."""

    @abstractmethod
    def rows(self) -> Iterator[Row]:
        """The rows, streamed, from the first one at every call; raises ``InputError``."""

    def digest(self) -> str:
        """SHA-256 of the bytes that the last complete pass over ``rows`` read, in hexadecimal digits."""
        if self._digest is None:
            raise ValueError("no pass over rows() has been completed")
        return self._digest
