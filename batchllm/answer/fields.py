"""Parses the short form of a schema, which grew from that of the ``llm`` tool::

    label [a|b|c], score 1..5, tags list, urgent bool, note?: what else is to be said

Fields are separated by commas or, where there are several lines, by line ends. A field is a name, ``?`` where it may
be missing, a type, and after a colon a description. The types:

- ``str`` (unless another is given), ``int``, ``float``, ``bool``;
- ``[a|b|c]``, one of these words;
- ``1..5`` or ``0.0..1.0``, a number within these bounds;
- ``list``, a list of texts; ``list int``, ``list [a|b|c]``, ``list 1..5``, a list of these.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from batchllm.answer.misread import refuse_misread, right_spelling
from batchllm.errors import UsageError, did_you_mean

TYPES = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}
NAMES = {
    **TYPES,
    "text": "string",
    "string": "string",
    "integer": "integer",
    "number": "number",
    "boolean": "boolean",
}

_HEAD = re.compile(r"(?P<name>\w[\w.$@/-]*)\s*(?P<optional>\?)?(?:\s+|(?=\[))?(?P<kind>.*)", re.DOTALL)
_BOUND = r"-?\d{1,15}(?:\.\d{1,15})?"
_BOUNDS = re.compile(rf"(?:(?P<word>\w+)\s+)?(?P<low>{_BOUND})\s*\.\.\s*(?P<high>{_BOUND})", re.ASCII)


def schema_of(value: Mapping[str, Any] | str) -> Mapping[str, Any]:
    """Returns the JSON Schema of what a user gives: the schema itself, or the short form.

    A field that may be missing is not in ``required``, and may also be ``null``.

    Raises:
        UsageError: It is neither, or reads differently from what is probably meant.
    """
    if isinstance(value, Mapping):
        return value
    properties: dict[str, Any] = {}
    required: list[str] = []
    parts = list(_parts(value))
    for number, part in enumerate(parts):
        name, optional, field = _field(part, parts[number + 1 :])
        if name in properties:
            raise UsageError(f"--schema: the field {name} is there twice")
        properties[name] = _nullable(field) if optional else field
        if not optional:
            required.append(name)
    if not properties:
        raise UsageError(
            "--schema has no fields; write them like 'label [a|b|c], score 1..5, tags list, urgent bool, note?'"
        )
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _parts(text: str) -> Iterator[str]:
    """Yields the fields; a comma within brackets separates nothing."""
    separator = "\n" if "\n" in text.strip() else ","
    part, depth = "", 0
    for sign in text:
        depth = max(0, depth + (sign == "[") - (sign == "]"))
        if sign == separator and (depth == 0 or separator == "\n"):
            if part.strip():
                yield part.strip().removesuffix(",")
            part = ""
        else:
            part += sign
    if part.strip():
        yield part.strip().removesuffix(",")


def _field(part: str, later: list[str]) -> tuple[str, bool, dict[str, Any]]:
    """Returns a field's name, whether it may be missing, and its schema."""
    head, _, description = _at_colon(part)
    found = _HEAD.fullmatch(head.strip())
    if found is None:
        raise UsageError(f"--schema: {part!r} does not begin with the name of a field; {_FORM}")
    name, kind = found["name"], found["kind"].strip()
    optional = bool(found["optional"]) or kind.endswith("?")
    kind = kind.removesuffix("?").strip()
    description = " ".join(description.split())
    if not kind:
        refuse_misread(name, description, later, NAMES)
    field = _kind(kind)
    if field is None:
        hint = right_spelling(name, kind, NAMES) or did_you_mean(kind, NAMES)
        raise UsageError(f"--schema: {head.strip()!r} is not a name and a type{hint}; {_FORM}")
    return name, optional, field | ({"description": description} if description else {})


_FORM = (
    "the types are str, int, float, bool, [a|b|c] for one of these words, 1..5 for bounds, and list; "
    "'name?' may be missing, and a description follows a colon"
)


def _at_colon(part: str) -> tuple[str, str, str]:
    """Splits at the first colon outside of brackets."""
    depth = 0
    for position, sign in enumerate(part):
        depth += (sign == "[") - (sign == "]")
        if sign == ":" and depth <= 0:
            return part[:position], ":", part[position + 1 :]
    return part, "", ""


def _kind(text: str) -> dict[str, Any] | None:
    """Returns the schema of a type; ``None`` where there is no such type."""
    if text in NAMES or not text:
        return {"type": NAMES.get(text, "string")}
    if text.split()[0] == "list" or text.startswith("list["):
        items = _kind(text.removeprefix("list").strip())
        return None if items is None or items["type"] == "array" else {"type": "array", "items": items}
    if text.startswith("[") and text.endswith("]"):
        return _choice(text[1:-1])
    return _bounds(text)


def _choice(text: str) -> dict[str, Any] | None:
    words = [word.strip() for word in text.split("|")]
    if len(words) < 2 or not all(words) or any(mark in text for mark in "[]"):
        return None
    if len(set(words)) < len(words):
        raise UsageError(f"--schema: the choice [{text}] names a word twice")
    return {"type": "string", "enum": words}


def _bounds(text: str) -> dict[str, Any] | None:
    found = _BOUNDS.fullmatch(text)
    if found is None:
        return None
    kind = NAMES.get(found["word"] or ("number" if "." in found["low"] + found["high"] else "integer"))
    if kind not in ("integer", "number"):
        return None
    read = int if kind == "integer" and "." not in found["low"] + found["high"] else float
    low, high = read(found["low"]), read(found["high"])
    if low > high:
        raise UsageError(
            f"--schema: {text} has its bounds the wrong way round; write {found['high']}..{found['low']}"
        )
    return {"type": kind, "minimum": low, "maximum": high}


def _nullable(field: Mapping[str, Any]) -> dict[str, Any]:
    found = {**field, "type": [field["type"], "null"]}
    if "enum" in field:
        found["enum"] = [*field["enum"], None]
    return found
