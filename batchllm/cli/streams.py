"""Makes the standard streams safe: a run goes on when their readers have gone."""

import json
import os
import sys
from typing import Any, TextIO, cast

import typer

from batchllm.printable import printable
from batchllm.screen import Tone, columns_of, painted, wrapped


class ErrorSafeStream:
    """A text stream that ignores errors of the stream that it writes to."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes a text, if it can be written."""
        try:
            return self._stream.write(text)
        except OSError:
            return len(text)

    def flush(self) -> None:
        """Flushes the stream, if it can be flushed."""
        try:
            self._stream.flush()
        except OSError:
            return

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def guard_streams() -> None:
    """Makes standard error safe, and opens closed descriptors, whose numbers the next files would get."""
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
    """Flushes standard output; at exit, a reader that has gone would make Python change the exit status."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_json(values: Any) -> None:
    """Writes values to standard output as one line of JSON."""
    typer.echo(json.dumps(values, ensure_ascii=False))


def say(text: str, *, end: str = "\n", lead: str = "", tone: Tone | None = None) -> None:
    """Writes a line to standard error, made printable; on a terminal it wraps between words.

    Args:
        text: The line.
        end: Written after it.
        lead: The words that it begins with, which get the colour.
        tone: The colour; without a lead that of the whole line.
    """
    stream = sys.stderr
    lead, text = (printable(each, keep="\t") for each in (lead, text))
    whole = wrapped(lead + text, columns_of(stream))
    head = lead or whole
    if whole.startswith(head):  # else a lead that is longer than the line was wrapped
        whole = painted(head, tone, stream) + whole[len(head) :]
    stream.write(whole + end)
    stream.flush()
