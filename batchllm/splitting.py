"""Cuts a text into parts of at most so many tokens, each at the largest natural boundary that fits.

``semantic-text-splitter`` knows the boundaries: sections, blocks and lists of Markdown; paragraphs, lines, sentences
and words of any language by the rules of Unicode (UAX 29), which cover Chinese and Japanese too. It asks for the size
of a piece again and again, and its work grows with the square of a text that has few boundaries. So it gets the text
in windows of a few parts each: what ends before the last part of a window does not depend on what follows.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple

from batchllm.errors import UsageError
from batchllm.extras import install_command

if TYPE_CHECKING:
    from semantic_text_splitter import MarkdownSplitter, TextSplitter

WINDOW = 16
"""Characters of a window for each token of the limit: some three parts of English, and more of Chinese."""

ENOUGH = 6
"""Characters for each token of the limit that are nearly always too many; the rest of a piece is then not counted."""

_SEAM = 8  # a word that is cut may be some tokens more than within its text
_MARKDOWN = re.compile(r"^(?:#{1,6}[ \t]+\S|```|~~~)", re.MULTILINE)
_SURROGATE = re.compile("[\ud800-\udfff]")
_WORD_START = re.compile(r"(?<=\s)\S")

_LIBRARY = "semantic_text_splitter"

Count = Callable[[str], int]


class Span(NamedTuple):
    """A part of a text, in characters.

    Attributes:
        begin: Where it begins, the overlap with the part before it included.
        end: Where it ends, and the next one begins without its overlap.
    """

    begin: int
    end: int


def check_library() -> None:
    """Refuses to split without the library that does it.

    Raises:
        UsageError: It is not installed.
    """
    if find_spec(_LIBRARY) is None:
        raise UsageError(f"--on-long split needs {_LIBRARY}; install with: {install_command('split')}")


def split(text: str, limit: int, count: Count, overlap: int = 0) -> list[Span]:
    """Cuts a text into parts.

    Args:
        text: The text.
        limit: The most tokens of a part, its overlap included; at least 8, so that any character fits.
        count: Counts the tokens of a text.
        overlap: The most tokens at the end of a part that the next one begins with; less than ``limit``.

    Returns:
        The parts, in order. What lies between the ends of two parts is the later one without its overlap, and all of
        that is the text.
    """
    if count(text) <= limit:
        return [Span(0, len(text))]
    clean = _SURROGATE.sub("\ufffd", text)  # half of a UTF-16 pair is no text
    ends = list(_ends(clean, limit - overlap, count))
    spans: list[Span] = []
    start = 0
    for end in ends:
        before = spans[-1].end - spans[-1].begin if spans else 0
        spans.append(Span(_with_overlap(clean, start, end, before, limit, count, overlap), end))
        start = end
    return spans


def _ends(text: str, limit: int, count: Count) -> Iterator[int]:
    """Yields where parts end."""
    splitter = _splitter(text, limit, count)
    start, size = 0, limit * WINDOW
    while start < len(text):
        window = text[start : start + size]
        last = start + len(window) == len(text)
        pieces = [part for piece in splitter.chunks(window) for part in _small(piece, limit, count)]
        if len(pieces) == 1 and not last:
            size *= 2
            continue
        for piece in pieces if last else pieces[:-1]:
            start += len(piece)
            yield start
        size = limit * WINDOW


def _splitter(text: str, limit: int, count: Count) -> "MarkdownSplitter | TextSplitter":
    from semantic_text_splitter import MarkdownSplitter, TextSplitter

    kind = MarkdownSplitter if _MARKDOWN.search(text) else TextSplitter

    def size(piece: str) -> int:
        enough = limit * ENOUGH
        if len(piece) > enough and (found := count(piece[:enough])) > limit + _SEAM:
            return found
        return count(piece)

    return kind.from_callback(size, limit, trim=False)


def _small(piece: str, limit: int, count: Count) -> Sequence[str]:
    """Cuts a piece that no boundary divides: one character of many marks, as a reader sees it."""
    if count(piece) <= limit:
        return (piece,)
    parts, start = [], 0
    while start < len(piece):
        end = _longest(piece, start, limit, count)
        parts.append(piece[start:end])
        start = end
    return parts


def _longest(piece: str, start: int, limit: int, count: Count) -> int:
    """Returns the last end within the limit, by bisection; at least one character behind ``start``."""
    ends = range(start + 2, len(piece) + 1)
    return start + 1 + bisect_right(ends, limit, key=lambda end: count(piece[start:end]))


def _with_overlap(
    text: str, start: int, end: int, before: int, limit: int, count: Count, overlap: int
) -> int:
    """Returns where a part begins that repeats the end of the one before it, at the start of a word if there is one."""
    if not overlap or not start:
        return start
    low = max(start - before, start - overlap * WINDOW, 0)
    low += bisect_left(range(low, start), True, key=lambda begin: count(text[begin:start]) <= overlap)
    word = _WORD_START.search(text, low, start)
    begin = low if low == 0 or word is None or text[low - 1].isspace() else word.start()
    # A word may be more tokens where a text begins with it.
    while begin < start and (count(text[begin:start]) > overlap or count(text[begin:end]) > limit):
        begin = (begin + start + 1) // 2
    return begin
