"""What a person sees of a running job: a bar on a terminal, plain lines in a log, nothing when quiet."""

import sys
from typing import TYPE_CHECKING, NoReturn, Protocol, TextIO

from batchllm.printable import printable

if TYPE_CHECKING:
    from tqdm import tqdm

PLAIN_LINES = 10
"""Plain lines of a whole run at most; with the line before and the summary a log stays under a screen."""

WIDE = 100
"""Columns from which on a bar has room for the time, the rate and the tokens beside what it waits for."""

_FULL = "{l_bar}{bar}{r_bar}"
_SHORT = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{remaining} left{postfix}]"
_SHORTER = "{l_bar}{bar}| {n_fmt}/{total_fmt}{postfix}"
_WITHOUT_BAR = "{desc}: {percentage:3.0f}% {n_fmt}/{total_fmt}{postfix}"


class Progress(Protocol):
    """Watches a run. ``show`` is called a few times a second, never once a row."""

    def start(self, total: int, done: int) -> None:
        """Begins at ``done`` of ``total`` rows; the rows of an earlier run count as done."""

    def show(self, done: int, failed: int, tokens: int, note: str, waits: str = "") -> None:
        """The state now.

        Args:
            done, failed: Rows.
            tokens: Paid in this run.
            note: What this run has cost, or what else there is to say.
            waits: What the next request waits for.
        """

    def tell(self, line: str) -> None:
        """Says something that happened, in a line that stays."""

    def close(self) -> None:
        """Ends the display and leaves the cursor on a line of its own."""


class Quiet:
    """Shows nothing."""

    def start(self, total: int, done: int) -> None:
        """Nothing to begin."""

    def show(self, done: int, failed: int, tokens: int, note: str, waits: str = "") -> None:
        """Nothing to show."""

    def tell(self, line: str) -> None:
        """Nothing to tell."""

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

    def show(self, done: int, failed: int, tokens: int, note: str, waits: str = "") -> None:
        """Moves the bar to ``done``."""
        assert self._bar is not None, "start comes before show"
        failures = f"{failed} failed" if failed else ""
        self._fit([word for word in (waits, failures, f"{compact(tokens)} tokens", note) if word])
        self._bar.update(done - self._bar.n)
        self._bar.refresh()

    def _fit(self, words: list[str]) -> None:
        """Chooses the layout that has room for the first word, and as many of the others as fit."""
        assert self._bar is not None, "start comes before show"
        columns = self._bar.format_dict["ncols"]
        layouts = [_FULL, _SHORT, _SHORTER] if columns is None or columns >= WIDE else [_SHORT, _SHORTER]
        layout = next((each for each in layouts if self._fits(each, words[:1], columns)), _WITHOUT_BAR)
        said = words[:1]
        for word in words[1:]:
            if self._fits(layout, [*said, word], columns):
                said.append(word)
        self._bar.bar_format = layout
        self._bar.set_postfix_str(", ".join(said), refresh=False)

    def _fits(self, layout: str, words: list[str], columns: int | None) -> bool:
        """Whether a line with a bar of ten characters fits into the terminal."""
        assert self._bar is not None, "start comes before show"
        state = {**self._bar.format_dict, "bar_format": layout, "postfix": ", ".join(words), "ncols": None}
        return columns is None or len(self._bar.format_meter(**state)) < columns

    def tell(self, line: str) -> None:
        """Writes a line above the bar."""
        if self._bar is not None:
            self._bar.write(printable(line), file=self._stream)

    def close(self) -> None:
        """Leaves the finished bar on the screen."""
        if self._bar is not None:
            self._bar.close()


class Plain:
    """For logs: at most ``PLAIN_LINES`` lines, one for each tenth of the job, and what it is told.

    There are no carriage returns.
    """

    def __init__(self, title: str, stream: TextIO) -> None:
        self._title = title
        self._stream = stream
        self._total = 0
        self._tenth = 0

    def start(self, total: int, done: int) -> None:
        """Remembers where the job stands, so that only new tenths are told."""
        self._total = total
        self._tenth = done * PLAIN_LINES // total if total else 0

    def show(self, done: int, failed: int, tokens: int, note: str, waits: str = "") -> None:
        """Writes a line when another tenth of the job is done."""
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
