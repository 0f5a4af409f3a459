"""A value for a JSON Schema: types, enums, bounds, nested members, references and alternatives."""

from collections.abc import Mapping
from math import ceil, floor
from typing import Any
from zlib import crc32

_DEEPEST = 6  # below this a recursive schema gets null or an empty array where it may
_TEXT_CHARS = 80


def instance(schema: Any, text: str) -> Any:
    """Returns a value for ``schema``, the same for the same text.

    Patterns, formats and ``multipleOf`` are not looked at. A malformed schema raises what Python raises.
    """
    return _value(schema, schema, text, 0)


def _value(schema: Any, root: Any, text: str, depth: int) -> Any:
    if not isinstance(schema, Mapping):
        return text[:_TEXT_CHARS]
    if "$ref" in schema:
        return _value(_referred(root, schema["$ref"]), root, text, depth + 1)
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        nulls = [choice for choice in choices if choice.get("type") == "null"]
        others = [choice for choice in choices if choice.get("type") != "null"]
        chosen = nulls or others if depth > _DEEPEST else others or nulls
        return _value(chosen[0], root, text, depth + 1)
    if "const" in schema:
        return schema["const"]
    draw = crc32(text.encode("utf-8", "replace"))
    if "enum" in schema:
        return schema["enum"][draw % len(schema["enum"])]
    kind = schema.get("type") or ("object" if "properties" in schema else "string")
    if not isinstance(kind, str):
        kind = next((each for each in kind if each != "null"), "null")
    match kind:
        case "object":
            members = schema.get("properties") or {}
            names = dict.fromkeys([*members, *schema.get("required", ())])
            return {name: _value(members.get(name), root, text, depth + 1) for name in names}
        case "array":
            count = schema.get("minItems", 0 if depth > _DEEPEST else min(1, schema.get("maxItems", 1)))
            return [_value(schema.get("items"), root, text, depth + 1) for _ in range(count)]
        case "integer" | "number":
            return _number(schema, kind)
        case "boolean":
            return bool(draw % 2)
        case "null":
            return None
    least, most = schema.get("minLength", 0), schema.get("maxLength", _TEXT_CHARS)
    return (text.partition("\n")[0] or "simulated")[:most].ljust(least, ".")


def _referred(root: Any, reference: str) -> Any:
    for part in reference.lstrip("#").strip("/").split("/"):
        root = root[part] if part else root
    return root


def _number(schema: Mapping[str, Any], kind: str) -> Any:
    """Returns 1 where it is allowed, else the number within the bounds that is nearest to it."""
    least = schema.get("minimum", schema.get("exclusiveMinimum", -1e9))
    most = schema.get("maximum", schema.get("exclusiveMaximum", 1e9))
    if kind == "integer":
        low = ceil(least) + (schema.get("exclusiveMinimum") == ceil(least))
        high = floor(most) - (schema.get("exclusiveMaximum") == floor(most))
        return max(low, min(1, high))
    return float(1 if least < 1 < most else (least + most) / 2)
