"""Writes the fields of a schema as its short form, to be read before anything is paid for."""

import re
from collections.abc import Mapping
from typing import Any

_SHORT = {"string": "str", "integer": "int", "number": "float", "boolean": "bool"}
_DEEPEST = 5
_PLAIN_WORD = re.compile(r"[^\[\]|]+")
_PLAIN_NUMBER = re.compile(r"-?\d{1,15}(?:\.\d{1,15})?", re.ASCII)


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
        kind, nullable = _kind(field, schema, 0)
        optional = "?" if nullable or name not in needed else ""
        found.append(f"{name}{optional} {kind}")
    return ", ".join(found)


def _kind(field: Any, root: Mapping[str, Any], depth: int) -> tuple[str, bool]:
    """Returns a type in the short form, and whether ``null`` is allowed."""
    if not isinstance(field, Mapping) or depth > _DEEPEST:
        return "any", False
    if isinstance(field.get("$ref"), str):
        return _kind(_referred(root, field["$ref"]), root, depth + 1)
    choices = field.get("anyOf") or field.get("oneOf")
    if isinstance(choices, list):
        others = [choice for choice in choices if choice != {"type": "null"}]
        kinds = [_kind(choice, root, depth + 1) for choice in others]
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
        items, _ = _kind(field["items"], root, depth + 1) if "items" in field else ("any", False)
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
