"""A pseudo-terminal of a given width, and the lines that a person sees on it."""

import fcntl
import os
import pty
import re
import struct
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread

import pyte


class Screen:
    """A pseudo-terminal.

    Attributes:
        path: The terminal, for a program to open.
        columns: Its width.
    """

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self._master, self._slave = pty.openpty()
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.path = Path(os.ttyname(self._slave))
        self._seen = bytearray()
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with suppress(OSError):  # the other end is closed
            while piece := os.read(self._master, 65_536):
                self._seen += piece

    @property
    def states(self) -> list[str]:
        """All states of all lines, without colours: a carriage return begins a new one."""
        text = self.text.replace("\r\n", "\n").replace("\x1b[A", "")
        text = re.sub(r"\x1b\[[0-9;]*m", "", text)
        return [state.rstrip() for line in text.split("\n") for state in line.split("\r") if state.strip()]

    @property
    def text(self) -> str:
        """All that was written, with its colours."""
        return self._seen.decode("utf-8", "replace")

    @property
    def lines(self) -> list[str]:
        """What a terminal of a thousand lines shows at the end, made by a terminal emulator."""
        emulated = pyte.Screen(self.columns, 1_000)
        pyte.Stream(emulated).feed(self.text)
        return "\n".join(line.rstrip() for line in emulated.display).rstrip().split("\n")

    def close(self) -> None:
        """Ends the terminal once everything has been read."""
        os.close(self._slave)
        self._reader.join(10)
        os.close(self._master)


@contextmanager
def screen(columns: int) -> Iterator[Screen]:
    """A terminal inside the ``with`` block; its states can be looked at afterwards."""
    terminal = Screen(columns)
    try:
        yield terminal
    finally:
        terminal.close()
