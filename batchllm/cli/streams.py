"""The standard streams of a program whose readers may go away: a run goes on when nobody looks any more."""

import os
import sys
from typing import Any, TextIO, cast


class ErrorSafeStream:
    """A text stream that takes what it is given, whether anybody still reads it or not.

    Args:
        stream: Where the text goes as long as it can.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes a text; where that fails, nobody reads it."""
        try:
            return self._stream.write(text)
        except OSError:
            return len(text)

    def flush(self) -> None:
        """Passes on what waits; where that fails, nobody reads it."""
        try:
            self._stream.flush()
        except OSError:
            return

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def guard_streams() -> None:
    """Makes standard error unfailing, and opens what the caller closed: else the next file gets its number."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    nowhere = None
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            nowhere = nowhere or open(os.devnull, "r+", encoding="utf-8")  # noqa: SIM115, PTH123 - until the end
            setattr(sys, name, nowhere)
    sys.stderr = cast(TextIO, ErrorSafeStream(sys.stderr))


def leave_stdout() -> None:
    """Flushes standard output; where its reader has gone, Python's own attempt at exit would change the status."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
