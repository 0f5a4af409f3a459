"""The labels of a classification: as text, as a list, or with descriptions and examples as a table or a file.

::

    [[labels]]
    label = "billing"
    description = "Invoices, prices, refunds"
    examples = ["I was charged twice", "Where is my invoice?"]

A table, such as a CSV file, has the columns ``label``, ``description`` and ``examples`` (several are separated by
``|``); a line of JSONL has the same keys. Only ``label`` is needed. TOML may also have one table for each label.
"""

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from batchllm.errors import UsageError, did_you_mean
from batchllm.formats import WRITTEN_SUFFIXES
from batchllm.formats.suffixes import format_suffix
from batchllm.job.attachments import rows_of, text_of
from batchllm.job.values import Kind, path, split_by_commas, words

_FILES = (".toml", *WRITTEN_SUFFIXES)
_KEYS = ("label", "description", "examples")


def _labels(value: Any) -> tuple[str, ...] | dict[str, str] | Path:
    """At least two labels that differ in more than case; a table gives each label a description; or their file."""
    if isinstance(value, str) and "," not in value and format_suffix(Path(value.strip())) in _FILES:
        return Path(path(value.strip()))
    if isinstance(value, Mapping):
        named = _distinct(list(value))
        if not all(isinstance(entry, str | Mapping) for entry in value.values()):
            raise ValueError(f"must give each label a description in words, not {value!r}")
        said = [entry if isinstance(entry, str) else meaning(entry) for entry in value.values()]
        return dict(zip(named, said, strict=True))
    return _distinct(split_by_commas(value, "labels") if isinstance(value, str) else value)


def _distinct(value: Any) -> tuple[str, ...]:
    """The labels of a list."""
    found: tuple[str, ...] = words(value)
    if len(found) < 2:
        raise ValueError(f"must be at least two labels separated by commas, not {', '.join(found)!r}")
    folded = [label.casefold() for label in found]
    for label, fold in zip(found, folded, strict=True):
        if folded.count(fold) > 1:
            raise ValueError(f"names {label!r} twice, in another case")
    return found


labels = Kind(
    _labels, "A,B,C|FILE", tuple, is_path=True, by_comma=True,
    annotation="str | PathLike[str] | Sequence[str] | Mapping[str, str]",
)  # fmt: skip
"""At least two labels that differ in more than case, in any of these forms; the path of their file."""


def read_labels(path: Path, called: str) -> dict[str, Any]:
    """Returns the labels of a file, each with its description and examples: a text, empty if there is neither.

    Raises:
        UsageError: The file cannot be read, or is no file of labels; the message names the entry.
    """
    where = f"{called} {path}"
    entries = _of_toml(path, called) if path.suffix.lower() == ".toml" else _of_rows(path, called)
    found: dict[str, Any] = {}
    for place, entry in entries:
        label = entry.get("label")
        if not isinstance(label, str) or not label.strip():
            raise UsageError(
                f"{where}, {place}: there is no label; the keys are label, description and examples"
            )
        if label.strip() in found:
            raise UsageError(f"{where}, {place}: the label {label.strip()!r} is there twice")
        try:
            found[label.strip()] = meaning(entry)
        except ValueError as error:
            raise UsageError(f"{where}, {place}: {error}") from None
    return found


def meaning(entry: Mapping[str, Any]) -> str:
    """Returns what a prompt says about a label: its description, then its examples.

    Raises:
        ValueError: A key is unknown or has a value of another kind; the message is the end of a sentence.
    """
    for key in entry:
        if key not in _KEYS:
            raise ValueError(
                f"there is no key {key}{did_you_mean(key, _KEYS)}; the keys are label, description, examples"
            )
    description, examples = entry.get("description") or "", entry.get("examples") or []
    if isinstance(examples, str):
        examples = [example for example in examples.split("|") if example.strip()]
    if not isinstance(description, str):
        raise ValueError(f"the description is {description!r}, which is no text")
    if not isinstance(examples, list | tuple) or not all(isinstance(example, str) for example in examples):
        raise ValueError(f"the examples are {examples!r}, which is no list of texts")
    said = " ".join(description.split())
    if examples:
        named = "; ".join(f'"{" ".join(example.split())}"' for example in examples)
        said = f"{said.rstrip('.')}. For example: {named}" if said else f"for example {named}"
    return said


def _of_rows(path: Path, called: str) -> Iterable[tuple[str, Mapping[str, Any]]]:
    return ((f"row {number}", row) for number, row in enumerate(rows_of(path, called), 1))


def _of_toml(path: Path, called: str) -> Iterable[tuple[str, Mapping[str, Any]]]:
    where = f"{called} {path}"
    try:
        data = tomllib.loads(text_of(path, called).replace("\r\n", "\n"))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{where}: this is not TOML: {error}") from None
    table = data["labels"] if list(data) == ["labels"] else data
    if not isinstance(table, list | dict):
        raise UsageError(f"{where}: labels must be [[labels]] tables, or a list")
    if isinstance(table, list):
        entries = [{"label": entry} if isinstance(entry, str) else entry for entry in table]
        numbered = [(f"label {number}", entry) for number, entry in enumerate(entries, 1)]
    else:
        numbered = [(f"label {name}", _named(name, entry)) for name, entry in table.items()]
    for place, entry in numbered:
        if not isinstance(entry, Mapping):
            raise UsageError(
                f"{where}, {place}: expected [[labels]] tables with label, description and examples"
            )
    return numbered


def _named(name: str, entry: Any) -> Any:
    if isinstance(entry, str):
        return {"label": name, "description": entry}
    return {"label": name, **entry} if isinstance(entry, Mapping) else entry
