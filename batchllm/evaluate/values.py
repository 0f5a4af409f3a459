"""What kind of answers are compared, and how a cell is read as one of that kind."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from batchllm.errors import UsageError
from batchllm.evaluate.figures import AnswerCounter
from batchllm.evaluate.label_sets import LabelSetCounter
from batchllm.evaluate.labels import LabelCounter
from batchllm.evaluate.numbers import NumberCounter
from batchllm.evaluate.text import TextCounter
from batchllm.exact import parse_json
from batchllm.formats.json_text import cell_text

LABEL, LABELS, NUMBER, TEXT = "label", "labels", "number", "text"
KINDS = (LABEL, LABELS, NUMBER, TEXT)
"""What answers can be compared as: one label, several labels, numbers, texts."""

_MOST_LABELS = 100
_LONGEST_LABEL = 80
_SEPARATORS = (";", "|", ",")
_TRUE, _FALSE = frozenset({"true", "yes", "1"}), frozenset({"false", "no", "0"})


@dataclass(frozen=True, slots=True)
class AnswerField:
    """One column of answers.

    Attributes:
        name: The name of the column.
        kind: What it is compared as; ``None`` lets gold decide.
        boolean: It says true or false.
        none: The cell that says that no label applies; empty where there is none.
    """

    name: str
    kind: str | None = None
    boolean: bool = False
    none: str = ""


_COUNTERS: Mapping[str, Callable[[], AnswerCounter]] = {
    LABEL: LabelCounter,
    LABELS: LabelSetCounter,
    NUMBER: NumberCounter,
    TEXT: TextCounter,
}


def check_kind(kind: str | None) -> None:
    """Refuses a kind that there is not; ``None`` is none that a caller named.

    Raises:
        UsageError: There is no such kind.
    """
    if kind is not None and kind not in KINDS:
        raise UsageError(f"--as {kind}: answers are compared as {', '.join(KINDS)}")


def counter_of(kind: str) -> AnswerCounter:
    """Returns a new counter for answers of a kind."""
    return _COUNTERS[kind]()


def is_missing(value: Any) -> bool:
    """Whether a cell has no value: ``None``, NaN, or blank text."""
    if type(value) is str:
        return not value or value.isspace()
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return not value.strip() if isinstance(value, str) else isinstance(value, float) and math.isnan(value)


def read_value(kind: str, value: Any, answer: AnswerField) -> Any:
    """Returns a cell as a value of a kind; ``None`` where it has none.

    A label is text without surrounding blanks, several labels are a frozen set, a number is a finite float.

    Args:
        kind: One of ``KINDS``.
        value: The cell: text, or a JSON value.
        answer: The column; of one that says true or false, ``True``, ``yes`` and ``1`` are the same.
    """
    if is_missing(value):
        return None
    if kind == LABEL and type(value) is str and not answer.boolean:
        return value.strip()
    if kind == NUMBER:
        return _number(value)
    if kind == LABELS:
        found = label_set(value)
        return frozenset[str]() if answer.none and found == {answer.none} else found
    text = cell_text(_plain(value))
    if kind == TEXT:
        return text
    text = text.strip()
    if answer.boolean:
        folded = text.casefold()
        return "true" if folded in _TRUE else "false" if folded in _FALSE else text
    return text


def _plain(value: Any) -> Any:
    """A scalar of NumPy as Python's own."""
    return value.item() if type(value).__module__ == "numpy" and hasattr(value, "item") else value


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def label_set(value: Any) -> frozenset[str]:
    """Returns the labels of a cell: a list, a list as JSON, or text separated by semicolons, bars or commas."""
    if isinstance(value, str) and value.strip()[:1] == "[":
        try:
            value = parse_json(value)
        except ValueError:
            value = value.strip().strip("[]").replace("'", "").replace('"', "")
    if isinstance(value, str):
        separator = next((sign for sign in _SEPARATORS if sign in value), ",")
        items: Iterable[Any] = value.split(separator)
    else:
        items = value if isinstance(value, list | tuple | set | frozenset) else [value]
    return frozenset(text for item in items if (text := cell_text(_plain(item)).strip()))


def shown(value: Any) -> str:
    """Returns a cell, or a value of a kind, as text for a file."""
    if type(value) is str:
        return value
    if isinstance(value, frozenset):
        return ", ".join(sorted(value))
    return "" if value is None else cell_text(_plain(value))


@dataclass(slots=True)
class GoldProfile:
    """Finds the kind of gold values where nothing else says it.

    Lists are several labels; numbers are numbers; few different short values, each of them twice on average, are
    labels; everything else is text.
    """

    values: int = 0
    lists: int = 0
    numbers: int = 0
    short: int = 0
    different: set[str] = field(default_factory=set)

    def add(self, value: Any) -> None:
        """Looks at a gold value."""
        self.values += 1
        is_text = isinstance(value, str)
        self.lists += isinstance(value, list | tuple) or (is_text and value.strip()[:1] == "[")
        self.numbers += _number(value) is not None
        text = shown(value).strip()
        if len(text) <= _LONGEST_LABEL:
            self.short += 1
            if len(self.different) <= _MOST_LABELS:
                self.different.add(text)

    def kind(self) -> str:
        """Returns the kind of the values so far."""
        if self.values and self.lists == self.values:
            return LABELS
        if self.values and self.numbers == self.values:
            return NUMBER
        few = len(self.different) <= min(_MOST_LABELS, self.values // 2)
        return LABEL if few and self.short == self.values else TEXT


def schema_kind(declared: Any, root: Mapping[str, Any]) -> tuple[str | None, bool]:
    """Returns what a field of a JSON Schema is compared as, and whether it is true or false.

    ``None`` is text that gold decides about: labels, or free text.
    """
    if isinstance(declared, Mapping) and isinstance(declared.get("$ref"), str):
        declared = root.get("$defs", {}).get(declared["$ref"].removeprefix("#/$defs/"), {})
    if not isinstance(declared, Mapping):
        return None, False
    for choice in declared.get("anyOf", ()):
        if isinstance(choice, Mapping) and choice.get("type") != "null":
            return schema_kind(choice, root)
    given = declared.get("type")
    names = {*(given if isinstance(given, list) else [given])} - {"null", None}
    if "enum" in declared or names == {"boolean"}:
        return LABEL, names == {"boolean"}
    if names and names <= {"integer", "number"}:
        return NUMBER, False
    if names == {"array"}:
        return LABELS, False
    return (TEXT if names == {"object"} else None), False
