"""Reads and writes the short form of a schema, which grew from that of the ``llm`` tool::

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

from batchllm.answer.misread import NAMES, TYPES, refuse_misread, right_spelling
from batchllm.errors import UsageError, did_you_mean

_SHORT = {name: short for short, name in TYPES.items()}

_HEAD = re.compile(r"(?P<name>\w[\w.$@/-]*)\s*(?P<optional>\?)?(?:\s+|(?=\[))?(?P<kind>.*)", re.DOTALL)
_BOUND = r"-?\d{1,15}(?:\.\d{1,15})?"
_PLAIN_NUMBER = re.compile(_BOUND, re.ASCII)
_PLAIN_WORD = re.compile(r"[^\[\]|]+")
_DEEPEST = 5
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
        refuse_misread(name, description, later)
    field = _kind(kind)
    if field is None:
        hint = right_spelling(name, kind) or did_you_mean(kind, NAMES)
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


def fields_text(schema: Mapping[str, Any]) -> str:
    """Returns ``label [a|b|c], score 1..5, tags list, note? str``; empty where the schema has no fields.

    Every type is written. What the short form cannot say is written as the name of its type (``object``, ``any``).
    """
    properties = schema.get("properties")
    if not isinstance(properties, Mapping):
        return ""
    required = schema.get("required")
    needed = required if isinstance(required, list | tuple) else ()
    found = []
    for name, field in properties.items():
        kind, nullable = _type_text(field, schema, 0)
        optional = "?" if nullable or name not in needed else ""
        found.append(f"{name}{optional} {kind}")
    return ", ".join(found)


def _type_text(field: Any, root: Mapping[str, Any], depth: int) -> tuple[str, bool]:
    """Returns a type in the short form, and whether ``null`` is allowed."""
    if not isinstance(field, Mapping) or depth > _DEEPEST:
        return "any", False
    if isinstance(field.get("$ref"), str):
        return _type_text(_referred(root, field["$ref"]), root, depth + 1)
    choices = field.get("anyOf") or field.get("oneOf")
    if isinstance(choices, list):
        others = [choice for choice in choices if choice != {"type": "null"}]
        kinds = [_type_text(choice, root, depth + 1) for choice in others]
        nullable = len(others) < len(choices) or any(null for _, null in kinds)
        return " or ".join(dict.fromkeys(kind for kind, _ in kinds)) or "null", nullable
    given = field.get("type")
    names = given if isinstance(given, list) else [given]
    nullable = "null" in names
    names = [name for name in names if name != "null"]
    values = field.get("enum", [field["const"]] if "const" in field else None)
    if isinstance(values, list):
        words = [str(value) for value in values if value is not None]
        if all(map(_PLAIN_WORD.fullmatch, words)):
            return f"[{'|'.join(words)}]", nullable or None in values
        return "any", nullable
    if len(names) != 1 or not isinstance(names[0], str):
        return " or ".join(_SHORT.get(str(name), str(name)) for name in names if name) or "any", nullable
    return _single(names[0], field, root, depth), nullable


def _single(name: str, field: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> str:
    if name == "array":
        items, _ = _type_text(field["items"], root, depth + 1) if "items" in field else ("any", False)
        return "list" if items == "str" else f"list {items}"
    bounds = [field.get("minimum"), field.get("maximum")]
    if name in ("integer", "number") and None not in bounds:
        low, high = (f"{bound}" for bound in bounds)
        if _PLAIN_NUMBER.fullmatch(low) and _PLAIN_NUMBER.fullmatch(high):
            plain = "." in low + high if name == "number" else "." not in low + high
            return f"{low}..{high}" if plain else f"{_SHORT[name]} {low}..{high}"
    return _SHORT.get(name, name)


def _referred(root: Any, reference: str) -> Any:
    """Returns what a local reference names; ``None`` where it names nothing."""
    if not reference.startswith("#"):
        return None
    for part in reference.lstrip("#").strip("/").split("/"):
        root = (
            root.get(part.replace("~1", "/").replace("~0", "~"))
            if part and isinstance(root, Mapping)
            else root
        )
    return root
