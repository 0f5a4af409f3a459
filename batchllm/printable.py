"""Makes text of files, models and endpoints printable: nothing in it can command a terminal or break a line.

Control, format and direction characters, lone surrogates and what Unicode does not define are written as escapes.
Spaces of every width stay.
"""

import json
import unicodedata
from collections.abc import Callable
from decimal import Decimal

MAX_MESSAGE = 300
"""Characters of a message of somebody else that is shown within a line."""


def _python_escape(sign: str) -> str:
    return repr(sign)[1:-1]


def json_escape(sign: str) -> str:
    """A character as JSON writes it in a string, in ASCII."""
    return json.dumps(sign)[1:-1]


def printable(text: str, *, keep: str = "\n\t", escape: Callable[[str], str] = _python_escape) -> str:
    r"""Returns the text with every character that is not printable as an escape such as ``\x1b``.

    Args:
        text: Any text.
        keep: Characters that stay as they are.
        escape: Writes one character; ``json_escape`` leaves a JSON text's value as it is.
    """
    if text.isprintable():
        return text
    return "".join(
        sign if sign.isprintable() or sign in keep or unicodedata.category(sign) == "Zs" else escape(sign)
        for sign in text
    )


def one_line(text: str, limit: int = MAX_MESSAGE) -> str:
    """Returns the text on one line of at most ``limit`` characters, printable, with single spaces."""
    line = printable(" ".join(text[: 10 * limit].split()), keep="")
    return line if len(line) <= limit else line[: limit - 1] + "…"


def counted(number: int, noun: str, plural: str = "") -> str:
    """Returns a number with its noun: ``1 row``, ``12 rows``; ``plural`` where that is not the noun with an s."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def known_count(number: int | None) -> str:
    """Returns a number with its thousands separated; ``None`` is ``unknown``."""
    return "unknown" if number is None else f"{number:,}"


def dollars(amount: Decimal) -> str:
    """An amount with cents, or with as many digits as a small one needs."""
    if amount >= Decimal("0.1"):
        return f"${amount:,.2f}"
    if amount > Decimal("0.0001"):
        return f"${amount:.2g}"
    return "<$0.0001" if amount else "$0"


def duration(seconds: float) -> str:
    """``0.8 s``, ``12 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
