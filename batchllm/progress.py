"""What a person sees of a running job: a bar on a terminal, plain lines in a log, nothing when quiet."""

import sys
from typing import TYPE_CHECKING, NoReturn, Protocol, TextIO

if TYPE_CHECKING:
    from tqdm import tqdm

PLAIN_LINES = 10
"""Plain lines of a whole run at most; with the line before and the summary a log stays under a screen."""


class Progress(Protocol):
    """Watches a run. ``show`` is called a few times a second, never once a row."""

    def start(self, total: int, done: int) -> None:
        """Begins at ``done`` of ``total`` rows; the rows of an earlier run count as done."""

    def show(self, done: int, failed: int, tokens: int, note: str) -> None:
        """The state now: rows done and failed, tokens paid in this run, and what limits the pace."""

    def close(self) -> None:
        """Ends the display and leaves the cursor on a line of its own."""


class Quiet:
    """Shows nothing."""

    def start(self, total: int, done: int) -> None:
        """Nothing to begin."""

    def show(self, done: int, failed: int, tokens: int, note: str) -> None:
        """Nothing to show."""

    def close(self) -> None:
        """Nothing to end."""


class Bar:
    """A tqdm bar with rows a second, tokens, failures and time left; for a terminal."""

    def __init__(self, title: str, stream: TextIO) -> None:
        self._title = title
        self._stream = stream
        self._bar: tqdm[NoReturn] | None = None

    def start(self, total: int, done: int) -> None:
        """Draws the bar."""
        from tqdm import tqdm

        self._bar = tqdm(
            total=total,
            initial=done,
            desc=self._title,
            unit=" rows",
            file=self._stream,
            dynamic_ncols=True,
            smoothing=0.1,
            leave=True,
        )

    def show(self, done: int, failed: int, tokens: int, note: str) -> None:
        """Moves the bar to ``done``."""
        assert self._bar is not None, "start comes before show"
        parts = [f"{compact(tokens)} tokens"]
        if failed:
            parts.append(f"{failed} failed")
        if note:
            parts.append(note)
        self._bar.set_postfix_str(", ".join(parts), refresh=False)
        self._bar.update(done - self._bar.n)
        self._bar.refresh()

    def close(self) -> None:
        """Leaves the finished bar on the screen."""
        if self._bar is not None:
            self._bar.close()


class Plain:
    """At most ``PLAIN_LINES`` lines, one for each tenth of the job, without carriage returns; for logs."""

    def __init__(self, title: str, stream: TextIO) -> None:
        self._title = title
        self._stream = stream
        self._total = 0
        self._tenth = 0

    def start(self, total: int, done: int) -> None:
        """Remembers where the job stands, so that only new tenths are told."""
        self._total = total
        self._tenth = done * PLAIN_LINES // total if total else 0

    def show(self, done: int, failed: int, tokens: int, note: str) -> None:
        """Writes a line when another tenth of the job is done."""
        tenth = done * PLAIN_LINES // self._total if self._total else 0
        if tenth <= self._tenth or done >= self._total:
            return
        self._tenth = tenth
        failures = f", {failed} failed" if failed else ""
        limited = f", {note}" if note else ""
        self._stream.write(
            f"{self._title}: {done:,} of {self._total:,} rows{failures}, {compact(tokens)} tokens{limited}\n"
        )
        self._stream.flush()

    def close(self) -> None:
        """Nothing is left open."""


def progress_for(title: str, *, quiet: bool, stream: TextIO | None = None) -> Progress:
    """The display that fits the stream: a bar on a terminal, plain lines elsewhere."""
    stream = stream or sys.stderr
    if quiet:
        return Quiet()
    return Bar(title, stream) if stream.isatty() else Plain(title, stream)


def compact(number: int) -> str:
    """A count in four characters or so: ``950``, ``12.3k``, ``4.5M``."""
    for size, suffix in ((1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")):
        if number >= size:
            return f"{number / size:.3g}{suffix}"
    return str(number)
