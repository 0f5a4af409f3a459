"""One pass over the bytes of a file, hashed on the way, and what every kind of source has in common."""

import codecs
import hashlib
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import NamedTuple

from batchllm.errors import InputError, StorageFailure
from batchllm.records import Row
from batchllm.source.encodings import describe_undecodable
from batchllm.source.format import Format
from batchllm.source.statistics import InputStatistics

CHUNK_BYTES = 1 << 20
RECORD_LIMIT_BYTES = 64 << 20
"""The largest cell of a CSV file and the largest line of a JSONL file."""


class Reading:
    """One pass over a file, from its first byte on, or from a later one.

    Attributes:
        start: Where it begins.
        size_bytes: Bytes read so far.
    """

    def __init__(self, path: Path, name: str, start: int = 0) -> None:
        self._path = path
        self._name = name
        self.start = start
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    def chunks(self) -> Iterator[bytes]:
        """The bytes of the file in large pieces; raises ``InputError`` or ``StorageFailure``."""
        try:
            file = self._path.open("rb", buffering=0)
        except OSError as error:
            raise InputError(self._name, f"cannot be opened: {error.strerror}") from error
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
            raise StorageFailure(f"{self._name}: cannot be read: {error.strerror}") from error

    def texts(self, form: Format) -> Iterator[str]:
        """The same decoded, without byte-order mark, no piece empty; ``InputError`` for a wrong byte."""
        decoder = codecs.getincrementaldecoder(form.encoding)("strict")
        skip = 0 if self.start else len(form.bom)
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


class RecordMark(NamedTuple):
    """A place in a file where a record begins, so that a later pass can begin there.

    Files in UTF-8 have them; other encodings may have a state at such a place, or bytes that nobody counted.

    Attributes:
        index: The record's position, from 0.
        line: Its first line, from 1.
        offset: Its first byte.
    """

    index: int  # type: ignore[assignment]  # tuple.index, which nobody means by a record's
    line: int
    offset: int


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
        self._marks: list[RecordMark] = []

    @abstractmethod
    def check(self) -> InputStatistics:
        """Read the whole file once; raises ``InputError`` for the first thing that is wrong with it."""

    @abstractmethod
    def rows(self, start: int = 0) -> Iterator[Row]:
        """The rows, streamed, at every call from the first one, or from row ``start`` on; raises ``InputError``.

        Where ``check`` could mark places, the rows before ``start`` are not read.
        """

    def _mark_before(self, start: int) -> RecordMark | None:
        """The last mark at or before a row; ``None`` is the beginning of the file."""
        after = bisect_right(self._marks, start, key=lambda mark: mark.index)
        return self._marks[after - 1] if after else None

    def digest(self) -> str:
        """SHA-256 of the bytes that the last complete pass over ``rows`` read, in hexadecimal digits."""
        if self._digest is None:
            raise ValueError("no pass over rows() has been completed")
        return self._digest
