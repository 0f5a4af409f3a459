"""An output that is no regular file: standard output, a pipe, ``/dev/null``."""

import hashlib
import sys
from pathlib import Path
from typing import BinaryIO, Self

from batchllm.errors import JobError
from batchllm.sink.atomic import storage_error


class Stream:
    """Written as the rows come; a reader that goes away ends the writing, not the run.

    Attributes:
        size_bytes: Bytes written so far, those included that nobody read.
        is_cut: Whoever read it closed it before the end.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._hash = hashlib.sha256()
        self.size_bytes = 0
        self.is_cut = False

    def __enter__(self) -> Self:
        try:
            if self._path is not None:
                self._file = self._path.open("wb", buffering=0)
            else:
                sys.stdout.flush()  # then past its buffer, which would complain at exit of what nobody took
                self._file = getattr(sys.stdout.buffer, "raw", sys.stdout.buffer)
        except OSError as error:
            raise self._error(error, "cannot be opened") from error
        return self

    def __exit__(self, *_: object) -> None:
        if self._path is not None and self._file is not None:
            self._file.close()

    def write(self, data: bytes) -> None:
        """Pass bytes on; raises ``CannotWrite`` or ``StorageFailure``."""
        self._hash.update(data)
        self.size_bytes += len(data)
        if self.is_cut:
            return
        assert self._file is not None
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except BrokenPipeError:
            self.is_cut = True
        except OSError as error:
            raise self._error(error, "cannot be written") from error

    def _error(self, error: OSError, what: str) -> JobError:
        return storage_error(error, self._path or Path("standard output"), what)

    def sha256(self) -> str:
        """Hash of what was written so far, in hexadecimal digits."""
        return self._hash.hexdigest()

    def commit(self) -> None:
        """Nothing: what was written is out."""
