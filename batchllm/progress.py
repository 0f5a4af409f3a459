"""Shows the progress of a run: a bar on a terminal, plain lines in a log, nothing when quiet."""

import sys
from typing import TYPE_CHECKING, NoReturn, Protocol, TextIO

from batchllm.printable import printable

if TYPE_CHECKING:
    from tqdm import tqdm

PLAIN_LINES = 10
"""The most plain lines of a run, so that its log fits a screen."""

WIDE = 100
"""Columns from which on a bar has room for time, rate and tokens beside what it waits for."""

_FULL = "{l_bar}{bar}{r_bar}"
_SHORT = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{remaining} left{postfix}]"
_SHORTER = "{l_bar}{bar}| {n_fmt}/{total_fmt}{postfix}"
_WITHOUT_BAR = "{desc}: {percentage:3.0f}% {n_fmt}/{total_fmt}{postfix}"


class Progress(Protocol):
    """Displays a run; ``show`` is called a few times a second, not for each row."""

    def start(self, total: int, done: int) -> None:
        """Begins at ``done`` of ``total`` rows."""

    def show(self, done: int, failed: int, tokens: int, note: str, waits: str = "") -> None:
        """Shows the current state.

        Args:
            done, failed: Rows.
            tokens: Tokens paid in this run.
            note: Any other text, such as the cost of this run.
            waits: What the next request waits for.
        """

    def tell(self, line: str) -> None:
        """Writes a line that stays."""

    def close(self) -> None:
        """Ends the display."""


class Quiet:
    """Shows nothing."""

    def start(self, total: int, done: int) -> None:
        """Does nothing."""

    def show(self, done: int, failed: int, tokens: int, note: str, waits: str = "") -> None:
        """Does nothing."""

    def tell(self, line: str) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""


class Bar:
    """Draws a tqdm bar on a terminal."""

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

    def show(self, done: int, failed: int, tokens: int, note: str, waits: str = "") -> None:
        """Moves the bar to ``done``."""
        assert self._bar is not None, "start comes before show"
        failures = f"{failed} failed" if failed else ""
        self._fit([word for word in (waits, failures, f"{compact(tokens)} tokens", note) if word])
        self._bar.update(done - self._bar.n)
        self._bar.refresh()

    def _fit(self, parts: list[str]) -> None:
        """Chooses the layout that has room for the first part, and adds as many other parts as fit."""
        assert self._bar is not None, "start comes before show"
        columns = self._bar.format_dict["ncols"]
        layouts = [_FULL, _SHORT, _SHORTER] if columns is None or columns >= WIDE else [_SHORT, _SHORTER]
        layout = next((each for each in layouts if self._fits(each, parts[:1], columns)), _WITHOUT_BAR)
        shown = parts[:1]
        for part in parts[1:]:
            if self._fits(layout, [*shown, part], columns):
                shown.append(part)
        self._bar.bar_format = layout
        self._bar.set_postfix_str(", ".join(shown), refresh=False)

    def _fits(self, layout: str, parts: list[str], columns: int | None) -> bool:
        """Whether a line with a bar of ten characters fits into the terminal."""
        assert self._bar is not None, "start comes before show"
        state = {**self._bar.format_dict, "bar_format": layout, "postfix": ", ".join(parts), "ncols": None}
        return columns is None or len(self._bar.format_meter(**state)) < columns

    def tell(self, line: str) -> None:
        """Writes a line above the bar."""
        if self._bar is not None:
            self._bar.write(printable(line), file=self._stream)

    def close(self) -> None:
        """Leaves the bar on the screen."""
        if self._bar is not None:
            self._bar.close()


class AutoBar:
    """tqdm's own choice of a bar: a widget in a notebook, else text on standard error."""

    def __init__(self) -> None:
        self._bar: tqdm[NoReturn] | None = None

    def start(self, total: int, done: int) -> None:
        """Draws the bar."""
        from tqdm.auto import tqdm

        self._bar = tqdm(total=total, initial=done, unit=" rows", dynamic_ncols=True)

    def show(self, done: int, failed: int, tokens: int, note: str, waits: str = "") -> None:
        """Moves the bar."""
        if self._bar is not None:
            words = (waits, f"{failed} failed" if failed else "", f"{compact(tokens)} tokens", note)
            self._bar.set_postfix_str(", ".join(word for word in words if word), refresh=False)
            self._bar.update(done - self._bar.n)
            self._bar.refresh()

    def tell(self, line: str) -> None:
        """Writes a line beside the bar."""
        if self._bar is not None:
            self._bar.write(line, file=sys.stderr)

    def close(self) -> None:
        """Leaves the bar where it is."""
        if self._bar is not None:
            self._bar.close()


class Plain:
    """Writes plain lines to a log: one for each tenth of the job, and those of ``tell``."""

    def __init__(self, title: str, stream: TextIO) -> None:
        self._title = title
        self._stream = stream
        self._total = 0
        self._tenth = 0

    def start(self, total: int, done: int) -> None:
        """Remembers the finished tenths; only new ones get a line."""
        self._total = total
        self._tenth = done * PLAIN_LINES // total if total else 0

    def show(self, done: int, failed: int, tokens: int, note: str, waits: str = "") -> None:
        """Writes a line if another tenth of the job is done."""
        tenth = done * PLAIN_LINES // self._total if self._total else 0
        if tenth <= self._tenth or done >= self._total:
            return
        self._tenth = tenth
        failures = f", {failed} failed" if failed else ""
        limited = "".join(f", {word}" for word in (note, waits) if word)
        self._stream.write(
            f"{self._title}: {done:,} of {self._total:,} rows{failures}, {compact(tokens)} tokens{limited}\n"
        )
        self._stream.flush()

    def tell(self, line: str) -> None:
        """Writes a line."""
        self._stream.write(printable(line) + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Does nothing."""


def progress_for(title: str, *, quiet: bool, stream: TextIO | None = None) -> Progress:
    """Returns a bar for a terminal, plain lines for any other stream."""
    stream = stream or sys.stderr
    if quiet:
        return Quiet()
    return Bar(title, stream) if stream.isatty() else Plain(title, stream)


def compact(number: int) -> str:
    """Formats a count in about four characters: ``950``, ``12.3k``, ``4.5M``."""
    for size, suffix in ((1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")):
        if number >= size:
            return f"{number / size:.3g}{suffix}"
    return str(number)
