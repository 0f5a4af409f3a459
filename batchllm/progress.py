"""Shows the progress of a run: a bar on a terminal, plain lines in a log, nothing when quiet."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn, Protocol, TextIO

from batchllm.printable import counted, printable
from batchllm.screen import Tone, columns_of, painted, width_of, wrapped

if TYPE_CHECKING:
    from tqdm import tqdm

PLAIN_LINES = 10
"""The most plain lines of a run, so that its log fits a screen."""

MATTER = 3
"""Words of a note that go before the bar itself: the rate, the time left, the cost."""

LEAST_BAR = 5
"""The fewest characters of a bar; it goes before the last words until it has twice as many."""

BAR = "\0"
"""Stands for the bar in what ``fitted`` returns."""


class Progress(Protocol):
    """Displays a run; ``show`` is called a few times a second, not for each row."""

    def start(self, total: int, done: int) -> None:
        """Begins at ``done`` of ``total`` rows."""

    def show(self, done: int, failed: int, tokens: int | None, note: str, waits: str = "") -> None:
        """Shows the current state.

        Args:
            done, failed: Rows.
            tokens: Tokens paid in this run; ``None`` is unknown.
            note: Further words, separated by a comma and a space, those that matter most first: the rate, the time
                left, the cost of this run.
            waits: What everything waits for; empty while requests leave.
        """

    def tell(self, line: str) -> None:
        """Writes a line that stays."""

    def close(self) -> None:
        """Ends the display."""


class Quiet:
    """Shows nothing."""

    def start(self, total: int, done: int) -> None:
        """Does nothing."""

    def show(self, done: int, failed: int, tokens: int | None, note: str, waits: str = "") -> None:
        """Does nothing."""

    def tell(self, line: str) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""


class Bar:
    """Draws a tqdm bar on a terminal, in one line of its width."""

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
            file=self._stream,
            dynamic_ncols=True,
            bar_format=f"{self._title} {{percentage:3.0f}}% {{bar}} {done:,}/{total:,}",
            leave=True,
        )

    def show(self, done: int, failed: int, tokens: int | None, note: str, waits: str = "") -> None:
        """Moves the bar to ``done``."""
        assert self._bar is not None, "start comes before show"
        total = self._bar.total or 0
        columns = self._bar.format_dict["ncols"]
        percent = f"{100 * done // total if total else 100:3}%"
        failures = f"{failed:,} failed" if failed else ""
        notes = [word for word in note.split(", ") if word]
        words = [word for word in (f"{done:,}/{total:,}", waits, failures) if word]
        more = [*notes[MATTER:], f"{compact(tokens)} tokens"]
        title = f"{self._title} {percent}"
        if columns is not None and width_of(", ".join([title, *words[: 2 if waits else 1]])) >= columns:
            title = percent
        line = fitted(title, [*words, *notes[:MATTER]], more, columns)
        line = line.replace("{", "{{").replace("}", "}}")
        for word, tone in ((waits, Tone.WAITING), (failures, Tone.FAILED)):
            if word:
                line = line.replace(word, painted(word, tone, self._stream), 1)
        bar = painted("{bar}", Tone.DONE if done >= total and not failed else None, self._stream)
        self._bar.bar_format = line.replace(BAR, bar)
        self._bar.update(done - self._bar.n)
        self._bar.refresh()

    def tell(self, line: str) -> None:
        """Writes a line above the bar."""
        if self._bar is not None:
            text = wrapped(printable(line), columns_of(self._stream))
            self._bar.write(painted(text, Tone.WAITING, self._stream), file=self._stream)

    def close(self) -> None:
        """Leaves the bar on the screen."""
        if self._bar is not None:
            self._bar.close()


def fitted(title: str, words: Sequence[str], more: Sequence[str], columns: int | None) -> str:
    """Returns a line with as many words as fit, in their order, and with a bar where that has room.

    Args:
        title: The beginning of the line.
        words: What goes before the bar if there is no room for both: the rows, what is waited for, failures, ...
        more: What is shown beside a bar of twice ``LEAST_BAR`` characters only.
        columns: The width of the terminal; ``None`` is any.
    """
    room = sys.maxsize if columns is None else columns - 1  # some terminals scroll after a full line
    shown: list[str] = []
    used = width_of(title)
    for wanted, bar in ((words, 0), (more, 2 * LEAST_BAR + 1)):
        for word in wanted:
            wide = width_of(word) + (2 if shown else 1)
            if used + wide + bar <= room:
                shown.append(word)
                used += wide
    has_bar = used + LEAST_BAR + 1 <= room
    return " ".join(part for part in (title, BAR if has_bar else "", ", ".join(shown)) if part)


class AutoBar:
    """tqdm's own choice of a bar: a widget in a notebook, else text on standard error."""

    def __init__(self) -> None:
        self._bar: tqdm[NoReturn] | None = None

    def start(self, total: int, done: int) -> None:
        """Draws the bar."""
        from tqdm.auto import tqdm

        self._bar = tqdm(
            total=total,
            initial=done,
            dynamic_ncols=True,
            bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt}{postfix}",
        )

    def show(self, done: int, failed: int, tokens: int | None, note: str, waits: str = "") -> None:
        """Moves the bar."""
        if self._bar is not None:
            words = (waits, f"{failed} failed" if failed else "", note, f"{compact(tokens)} tokens")
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

    def show(self, done: int, failed: int, tokens: int | None, note: str, waits: str = "") -> None:
        """Writes a line if another tenth of the job is done."""
        tenth = done * PLAIN_LINES // self._total if self._total else 0
        if tenth <= self._tenth or done >= self._total:
            return
        self._tenth = tenth
        failures = f", {failed} failed" if failed else ""
        more = "".join(f", {word}" for word in (waits, note, f"{compact(tokens)} tokens") if word)
        self._stream.write(f"{self._title}: {done:,} of {counted(self._total, 'row')}{failures}{more}\n")
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


def compact(number: int | None) -> str:
    """Formats a count in about four characters: ``950``, ``12.3k``, ``4.5M``; ``None`` is ``unknown``."""
    if number is None:
        return "unknown"
    for size, suffix in ((1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")):
        if number >= size:
            return f"{number / size:.3g}{suffix}"
    return str(number)
