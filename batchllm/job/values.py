"""The kinds of values that an option takes: each parses text (flags, environment) and TOML's own types.

A parser returns the value or raises ``ValueError`` with the end of a sentence, ``must be …``. The caller knows its
beginning: the name of the flag, variable or key.
"""

import csv
import io
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from batchllm.formats import text_codec
from batchllm.stores import is_url, located

Parser = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of value; calling it parses.

    Attributes:
        parse: Turns text or a TOML value into the value.
        metavar: Stands for a value in the help.
        python_type: The type of a parsed value.
        is_path: The value is a path, or may be one; in a job file it is relative to that file.
        repeated: The flag can be given several times.
        by_comma: So can it, and its value has several parts, separated by commas.
        merged: A table to which command line, environment and job file each add.
        annotation: What a keyword of the library may be, as Python writes the type; by default ``python_type``.
    """

    parse: Parser
    metavar: str = "TEXT"
    python_type: Any = str
    is_path: bool = False
    repeated: bool = False
    by_comma: bool = False
    merged: bool = False
    annotation: str = ""

    def __call__(self, value: Any) -> Any:
        """Parses a value."""
        return self.parse(value)


def kind_of(metavar: str, python_type: Any = str, **how: Any) -> Callable[[Parser], Kind]:
    """Makes a kind of a parser; see ``Kind`` for the rest."""
    return lambda parse: Kind(parse, metavar, python_type, **how)


_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|sec|seconds?|m|min|minutes?|h|hours?|d|days?)?", re.IGNORECASE)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off", ""})


LARGEST = 1e15
"""No option needs a larger number; up to here a float holds every integer."""


def _shown(value: Any) -> str:
    """A value for a message; an integer may have more digits than Python writes."""
    try:
        text = repr(value)
    except ValueError:
        return "a number of thousands of digits"
    return text if len(text) <= 60 else text[:59] + "…"


@kind_of("TEXT")
def text(value: Any) -> str:
    """Text that is not blank."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be text")
    return value


@kind_of("TEXT")
def any_text(value: Any) -> str:
    """Text, the empty one too."""
    if not isinstance(value, str):
        raise ValueError("must be text")
    return value


@kind_of("NAME|NUMBER", annotation="str | int")
def sheet(value: Any) -> str:
    """The name or the number of a sheet."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return text.parse(value)  # type: ignore[no-any-return]


@kind_of("BOOLEAN", bool)
def boolean(value: Any) -> bool:
    """``true`` or ``false``, or what environment variables use for them."""
    if isinstance(value, bool):
        return value
    word = value.strip().lower() if isinstance(value, str) else None
    if word not in _TRUE | _FALSE:
        raise ValueError(f"must be true or false, not {value!r}")
    return word in _TRUE


def number(minimum: float, maximum: float = math.inf, *, above: bool = False, whole: bool = False) -> Kind:
    """A number from ``minimum`` (``above``: more than it) to ``maximum``; ``whole``: an integer."""
    kind = "a whole number" if whole else "a number"
    low = f"above {minimum:g}" if above else f"of at least {minimum:g}"
    if math.isinf(maximum):
        limits = f"{kind} {low}"
    else:
        limits = f"{kind} from {minimum:g} to {maximum:g}" + (f", above {minimum:g}" if above else "")

    def parse(value: Any) -> float:
        try:
            found = value if isinstance(value, (int, float)) else float(value.replace("_", "").strip())
        except (AttributeError, ValueError):
            raise ValueError(f"must be {limits}, not {_shown(value)}") from None
        beyond = not minimum <= found <= maximum or (above and found == minimum) or abs(found) > LARGEST
        if isinstance(value, bool) or beyond or (whole and found != int(found)):
            raise ValueError(f"must be {limits}, not {_shown(value)}")
        return int(found) if whole else found

    return Kind(parse, "INTEGER", int) if whole else Kind(parse, "NUMBER", float)


def integer(minimum: int, maximum: float = math.inf) -> Kind:
    """An integer in these limits."""
    return number(minimum, maximum, whole=True)


def choice(*words: str) -> Kind:
    """One of these words, in any case."""

    def parse(value: Any) -> str:
        word = value.strip().lower() if isinstance(value, str) else value
        if word not in words:
            raise ValueError(f"must be one of {', '.join(words)}, not {value!r}")
        return str(word)

    return Kind(
        parse, "|".join(words), annotation=f"Literal[{', '.join(map(repr, words))}]".replace("'", '"')
    )


@kind_of("TIME", float, annotation="float | str")
def duration_s(value: Any) -> float:
    """Seconds, as a number or as ``90s``, ``10min``, ``1h``, ``2d``."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= LARGEST:
        value = str(value)
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if not match:
        raise ValueError(f"must be a time such as 90s, 10min, 1h or 2d, not {_shown(value)}")
    found = float(match[1]) * _SECONDS[(match[2] or "s")[0].lower()]
    if found > LARGEST:
        raise ValueError(f"must be a time such as 90s, 10min, 1h or 2d, not {_shown(value)}")
    return found


@kind_of("SHARE", float, annotation="float | str")
def share(value: Any) -> float:
    """A share from 0 to 1, as ``0.01`` or ``1%``."""
    percent = isinstance(value, str) and value.strip().endswith("%")
    try:
        found = float(value.strip().removesuffix("%")) if isinstance(value, str) else float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    found = found / 100 if percent else found
    if isinstance(value, bool) or not 0 <= found <= 1:
        raise ValueError(f"must be a share such as 1% or 0.01, not {_shown(value)}")
    return found


@kind_of("DOLLARS", Decimal, annotation="float | str | Decimal")
def dollars(value: Any) -> Decimal:
    """An amount above 0, as ``5``, ``5.00`` or ``$5``."""
    try:
        found = Decimal(str(value).strip().removeprefix("$"))
    except (InvalidOperation, ValueError):
        found = Decimal(0)
    if isinstance(value, bool) or not found.is_finite() or found <= 0:
        raise ValueError(f"must be an amount of dollars above 0, such as 5.00, not {_shown(value)}")
    return found


@kind_of("A,B,C", tuple, by_comma=True, annotation="str | Sequence[str]")
def words(value: Any) -> tuple[str, ...]:
    """Names, as a list or separated by commas: stripped, not empty, each once."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple)) or not all(isinstance(part, str) for part in parts):
        raise ValueError(f"must be names separated by commas, not {value!r}")
    found = tuple(part.strip() for part in parts)
    if not found or not all(found):
        raise ValueError(f"must be names separated by commas, none of them empty, not {value!r}")
    for name in found:
        if found.count(name) > 1:
            raise ValueError(f"names {name!r} twice")
    return found


@kind_of("A,B,C", tuple, by_comma=True, annotation="str | Sequence[str]")
def columns(value: Any) -> tuple[str, ...]:
    """Names of columns, as a list or separated by commas; one with a comma stands in double quotes, as in CSV."""
    found: tuple[str, ...] = words(split_by_commas(value, "names") if isinstance(value, str) else value)
    return found


def split_by_commas(text: str, what: str) -> list[str]:
    """Splits a text at commas; a part with a comma stands in double quotes, as in CSV.

    Raises:
        ValueError: The quotes do not fit.
    """
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True))
    except csv.Error:
        lines = []
    if len(lines) != 1:
        raise ValueError(
            f"must be {what} separated by commas, those with commas in double quotes, not {text!r}"
        )
    return [part.strip() for part in lines[0]]


@kind_of("TEXT", tuple, repeated=True, annotation="str | Sequence[str]")
def several(value: Any) -> tuple[str, ...]:
    """One or more texts, such as column names or paths, which may hold commas."""
    found = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, (list, tuple)) else ()
    if not found or not all(isinstance(part, str) and part.strip() for part in found):
        raise ValueError(f"must be text, or a list of texts, not {value!r}")
    return found


@kind_of("FILE", Path, is_path=True, annotation="str | PathLike[str]")
def path(value: Any) -> Path:
    """A path; ``-`` is a standard stream."""
    if "\0" in text(value):
        raise ValueError("must be a path, which has no NUL character")
    if is_url(value):
        raise ValueError("must be a path on this machine, and is a URL")
    return Path(value)


@kind_of("FILE", Path, is_path=True, annotation="str | PathLike[str]")
def location(value: Any) -> Path:
    """A path, or the URL of an object; ``-`` is a standard stream."""
    return located(value) if is_url(text(value)) else path(value)


_PATHS: dict[str, Any] = {
    "is_path": True,
    "repeated": True,
    "annotation": "str | PathLike[str] | Sequence[str | PathLike[str]]",
}


@kind_of("INPUT", tuple, **_PATHS)
def inputs(value: Any) -> tuple[Path, ...]:
    """One or more inputs; ``-``, standard input, stands alone."""
    found = tuple(map(location, several(value)))
    if len(found) > 1 and any(str(each) == "-" for each in found):
        raise ValueError("must be files, or '-' alone, which is standard input")
    return found


@kind_of("FILE", tuple, **_PATHS)
def paths(value: Any) -> tuple[Path, ...]:
    """One or more paths."""
    return tuple(map(location, several(value)))


columns_or_files = replace(several, metavar="COLUMN|FILE", is_path=True)
"""One or more texts, of which those are paths where such a file exists."""


text_or_path = replace(text, metavar="TEXT|FILE", is_path=True, annotation="str | PathLike[str]")
"""Text that is a path where such a file exists."""


@kind_of("FILE|TEXT", is_path=True, annotation="str | PathLike[str] | Mapping[str, Any] | type[Any]")
def schema(value: Any) -> Any:
    """A JSON Schema as a table, or as text: its file or its short form."""
    return dict(value) if isinstance(value, Mapping) else text(value)


@kind_of("FILE", is_path=True, annotation="str | PathLike[str] | Sequence[Mapping[str, Any]]")
def tools(value: Any) -> Any:
    """Tool definitions as a list, or the path of their file."""
    return list(value) if isinstance(value, (list, tuple)) else path(value)


examples = tools
"""Examples as a list of tables, or the path of their file."""


@kind_of("FILE", Path, is_path=True, annotation="str | PathLike[str] | Mapping[str, Mapping[str, Any]]")
def prices(value: Any) -> Any:
    """A price table, or the path of its file."""
    if not isinstance(value, Mapping):
        return path(value)
    if not all(isinstance(entry, Mapping) for entry in value.values()):
        raise ValueError(
            'must be a table of models, each with a table of prices such as "input_cost_per_token"'
        )
    return {
        str(model): {name: float(cost) if isinstance(cost, Decimal) else cost for name, cost in entry.items()}
        for model, entry in value.items()
    }


@kind_of("ENCODING")
def encoding(value: Any) -> str:
    """An encoding of text files that Python knows."""
    try:
        return text_codec(text(value))
    except ValueError:
        raise ValueError(f"must be an encoding such as utf-8, cp1252 or gb18030, not {value!r}") from None
