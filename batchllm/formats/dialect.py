"""The dialect of a CSV file: its delimiter and quoting, and the lines above its header.

``csv`` is a copy of Python's CSV parser, with a limit for the size of a cell that is not the whole program's:
``csv.field_size_limit`` is one setting for the process. The parser keeps it in its module's state, and a second module
object of the same extension has a state of its own (PEP 489).
"""

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchllm.errors import UsageError

if TYPE_CHECKING:
    import csv as csv
    from _csv import Reader
else:
    _specification = importlib.util.find_spec("_csv")
    csv = importlib.util.module_from_spec(_specification)
    _specification.loader.exec_module(csv)

DELIMITERS = ",;\t|"
QUOTE = '"'

_NOTHING = "\ud800"  # half of a surrogate pair, which decoded text does not hold
_NAMES = {"comma": ",", "semicolon": ";", "bar": "|", "tab": "\t", "\\t": "\t", "none": "", "backslash": "\\"}


@dataclass(frozen=True, slots=True)
class Dialect:
    """How the records of a CSV file are written.

    Attributes:
        delimiter: One character; ``""`` where each record is one cell.
        quote: One character; ``""`` where quotes are text like any other.
        escape: The character before one that stands for itself, ``""`` without one.
        skip_lines: Lines above the header.
        initial_space: Blanks between a delimiter and a quoted cell do not count.
    """

    delimiter: str = ","
    quote: str = QUOTE
    escape: str = ""
    skip_lines: int = 0
    initial_space: bool = False

    def reader(self, lines: Iterable[str]) -> "Reader":
        """Returns a strict reader of lines, which raises ``csv.Error``."""
        return csv.reader(
            lines,
            strict=True,
            delimiter=self.delimiter or _NOTHING,
            quotechar=self.quote or None,
            quoting=csv.QUOTE_MINIMAL if self.quote else csv.QUOTE_NONE,
            escapechar=self.escape or None,
            skipinitialspace=self.initial_space,
        )


@dataclass(frozen=True, slots=True)
class DialectOptions:
    """What the user says about the dialect; ``None`` is to be found in the file.

    Attributes:
        delimiter, quote, escape, skip_lines: As in ``Dialect``.
    """

    delimiter: str | None = None
    quote: str | None = None
    escape: str | None = None
    skip_lines: int | None = None

    @classmethod
    def checked(
        cls, delimiter: str | None, quote: str | None, escape: str | None, skip_lines: int | None
    ) -> "DialectOptions":
        """Returns the options with names such as ``tab`` and ``none`` replaced; raises ``UsageError``."""
        delimiter = _character("--delimiter", delimiter, "comma, semicolon, bar, tab or none", '"')
        quote = _character("--quote", quote, "none")
        escape = _character("--escape", escape, "backslash")
        given = [character for character in (delimiter, quote, escape) if character]
        if len(set(given)) < len(given):
            raise UsageError("--delimiter, --quote and --escape must be different characters")
        return cls(delimiter, quote, escape, skip_lines)


def _character(option: str, given: str | None, words: str, forbidden: str = "") -> str | None:
    if given is None:
        return None
    character = _NAMES.get(given.lower(), given)
    if (
        len(character) > 1
        or (not character and given.lower() != "none")
        or character in [*"\r\n\0", *forbidden]
    ):
        raise UsageError(f"{given!r} cannot be a {option}; give one character, or {words}")
    return character


def delimiter_name(delimiter: str) -> str:
    """Returns what messages call a delimiter: its name, or the character in quotes."""
    return next((name for name, mark in _NAMES.items() if mark == delimiter and delimiter), repr(delimiter))
