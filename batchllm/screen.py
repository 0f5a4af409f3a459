"""What a terminal is given: lines that wrap at its width, in colour where colour is wanted.

Colours are red, green and magenta of the terminal's own palette, which are readable on light and on dark ones; no
message depends on them. See https://no-color.org and https://force-color.org.
"""

import os
import re
from collections.abc import Iterator
from enum import Enum
from typing import TextIO

LEAST_COLUMNS = 20
"""A narrower terminal gets lines of this width."""

_ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


class Tone(Enum):
    """What a colour says."""

    FAILED = 31
    DONE = 32
    WAITING = 35


def columns_of(stream: TextIO) -> int | None:
    """Returns the width of the terminal behind a stream; ``None`` where there is no terminal."""
    if not stream.isatty():
        return None
    try:
        columns = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):  # a terminal without a size, a stream without a descriptor
        columns = 0
    return max(LEAST_COLUMNS, columns or 80)


def has_colours(stream: TextIO) -> bool:
    """Whether a stream gets colours: a terminal does, unless NO_COLOR or TERM=dumb; FORCE_COLOR gives them to any."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR", "0") not in ("", "0"):
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def painted(text: str, tone: Tone | None, stream: TextIO) -> str:
    """Returns a text in a colour, if it has one and the stream gets colours."""
    if tone is None or not text or not has_colours(stream):
        return text
    return f"\x1b[{tone.value}m{text}\x1b[0m"


def width_of(text: str) -> int:
    """Returns the columns that a text takes: a wide character takes two, a combining mark and a colour none."""
    text = _ESCAPE.sub("", text)
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def wrapped(text: str, columns: int | None) -> str:
    """Returns a text whose lines break between words, with the indent of their first line.

    A word that is longer than a line stays whole and where it is, so that a path can be copied.

    Args:
        text: Any number of lines.
        columns: The longest line; ``None`` leaves the text as it is.
    """
    if columns is None or all(width_of(line) <= columns for line in text.split("\n")):
        return text
    return "\n".join(part for line in text.split("\n") for part in _parts(line, columns))


def _parts(line: str, columns: int) -> Iterator[str]:
    body = line.lstrip(" ")
    indent = line[: len(line) - len(body)]
    first, *words = body.split(" ")
    part, width = first, width_of(first)
    for word in words:
        more = width_of(word) + 1
        if len(indent) + width + more > columns >= len(indent) + more - 1:
            yield indent + part.rstrip(" ")
            part, width = word, more - 1
        else:
            part, width = f"{part} {word}", width + more
    yield indent + part
