"""A value that a JSON Schema accepts, taken from a text where the schema leaves room.

Types, enums, constants, bounds, required and nested members, references within the schema and combinations
(``allOf``, ``anyOf``, ``oneOf``) are honoured; of patterns and formats the common ones.
"""

import re
from collections.abc import Mapping
from math import ceil, floor
from typing import Any
from zlib import crc32

from batchllm.simulator import labels
from batchllm.simulator.problem import ApiError

_DEEPEST = 12  # below this a recursive schema gets only what it requires
_FORMATS = {
    "date": "2024-01-31",
    "date-time": "2024-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "duration": "P1D",
    "email": "simulator@example.com",
    "hostname": "example.com",
    "ipv4": "127.0.0.1",
    "ipv6": "::1",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}
_CANDIDATES = (
    "a",
    "A",
    "1",
    "abc",
    "ABC",
    "Abc",
    "123",
    "1234",
    "12345",
    "A1",
    "AB12",
    "ab-12",
    "+1",
    "#a1b2c3",
    "1.0.0",
    "USD",
)


def instance(schema: Any, text: str) -> Any:
    """A value valid for ``schema``, the same for the same text.

    Raises:
        ApiError: 400, the schema contradicts itself or refers to what is not there.
    """
    try:
        return _Builder(schema, text).value(schema, 0)
    except (
        LookupError,
        TypeError,
        ValueError,
        ArithmeticError,
        AttributeError,
        RecursionError,
        re.error,
    ) as error:
        message = f"Invalid schema: {type(error).__name__}: {error}."
        raise ApiError(400, message, "invalid_json_schema", param="response_format") from error


class _Builder:
    def __init__(self, root: Any, text: str) -> None:
        self._root = root
        self._text = text
        self._draws = crc32(text.encode("utf-8", "replace"))

    def value(self, schema: Any, depth: int) -> Any:
        """A value for one (sub)schema."""
        if not isinstance(schema, Mapping):
            return {}
        schema = self._resolved(schema, depth)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self._one_of(schema["enum"])
        match _type_of(schema, depth):
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, depth)
            case "integer" | "number" as kind:
                return _number(schema, kind)
            case "boolean":
                return labels.sentiment(self._text) > 0
            case "null":
                return None
            case _:
                return self._string(schema)

    def _resolved(self, schema: Mapping[str, Any], depth: int) -> Mapping[str, Any]:
        """The schema with its reference followed and its combinations merged."""
        for _ in range(50):
            if "$ref" in schema:
                rest = {key: value for key, value in schema.items() if key != "$ref"}
                schema = _merged(self._referred(schema["$ref"]), rest)
            elif schema.get("allOf"):
                rest = {key: value for key, value in schema.items() if key != "allOf"}
                for part in schema["allOf"]:
                    rest = _merged(rest, self._resolved(part, depth))
                schema = rest
            elif choices := schema.get("anyOf") or schema.get("oneOf"):
                rest = {key: value for key, value in schema.items() if key not in ("anyOf", "oneOf")}
                schema = _merged(rest, _pick(choices, depth))
            else:
                return schema
        return schema

    def _referred(self, reference: str) -> Mapping[str, Any]:
        found = self._root
        for part in reference.lstrip("#").strip("/").split("/"):
            if part:
                found = found[part.replace("~1", "/").replace("~0", "~")]
        return found if isinstance(found, Mapping) else {}

    def _one_of(self, choices: list[Any]) -> Any:
        if all(isinstance(choice, str) for choice in choices):
            return labels.choose(choices, self._text)
        return choices[self._draws % len(choices)]

    def _object(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        members = schema.get("properties") or {}
        required = schema.get("required") or []
        wanted = [*members, *(name for name in required if name not in members)]
        if depth > _DEEPEST:
            wanted = list(required)
        rest = schema.get("additionalProperties", {})
        return {name: self.value(members.get(name, rest), depth + 1) for name in wanted}

    def _array(self, schema: Mapping[str, Any], depth: int) -> list[Any]:
        least = schema.get("minItems", 0)
        fixed = schema.get("prefixItems") or []
        count = least if depth > _DEEPEST else max(least, len(fixed), 1)
        count = min(count, schema.get("maxItems", count))
        shapes = [fixed[at] if at < len(fixed) else schema.get("items", {}) for at in range(count)]
        values = [self.value(shape, depth + 1) for shape in shapes]
        return _told_apart(values, shapes) if schema.get("uniqueItems") else values

    def _string(self, schema: Mapping[str, Any]) -> str:
        least, most = schema.get("minLength", 0), schema.get("maxLength", 200)
        if schema.get("format") in _FORMATS:
            return _FORMATS[schema["format"]]
        if pattern := schema.get("pattern"):
            fits = (c for c in _candidates(pattern) if re.search(pattern, c) and least <= len(c) <= most)
            return next(fits, "a" * least)
        said = re.split(r"(?<=[.!?])\s|[。\n]", self._text.strip(), maxsplit=1)[0] or "simulated"
        return said[:most].ljust(least, ".")


def _type_of(schema: Mapping[str, Any], depth: int) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        if depth > _DEEPEST and "null" in kind:
            return "null"
        kind = next((each for each in kind if each != "null"), "null")
    if isinstance(kind, str):
        return kind
    if "properties" in schema or "required" in schema:
        return "object"
    if "items" in schema or "prefixItems" in schema:
        return "array"
    return "number" if "minimum" in schema or "maximum" in schema else "string"


def _pick(choices: list[Any], depth: int) -> Mapping[str, Any]:
    """The first choice that is not null; null itself once a recursive schema is deep enough."""
    nulls = [choice for choice in choices if isinstance(choice, Mapping) and choice.get("type") == "null"]
    others = [choice for choice in choices if isinstance(choice, Mapping) and choice.get("type") != "null"]
    if depth > _DEEPEST:
        flat = [
            choice
            for choice in others
            if "$ref" not in choice and choice.get("type") not in ("object", "array")
        ]
        return next(iter([*nulls, *flat, *others]), {})
    return next(iter([*others, *nulls]), {})


def _merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**first, **second}
    if "properties" in first and "properties" in second:
        merged["properties"] = {**first["properties"], **second["properties"]}
    if "required" in first and "required" in second:
        merged["required"] = list(dict.fromkeys([*first["required"], *second["required"]]))
    return merged


def _number(schema: Mapping[str, Any], kind: str) -> int | float:
    """The smallest number allowed, or 1 where 1 is."""
    least = schema.get("minimum", schema.get("exclusiveMinimum"))
    most = schema.get("maximum", schema.get("exclusiveMaximum"))
    step = schema.get("multipleOf", 1 if kind == "integer" else None)
    if step:
        low = ceil(least / step) if least is not None else None
        if low is not None and low * step == schema.get("exclusiveMinimum"):
            low += 1
        high = floor(most / step) if most is not None else None
        if high is not None and high * step == schema.get("exclusiveMaximum"):
            high -= 1
        chosen = max(low, 1) if low is not None else 1
        chosen = min(chosen, high) if high is not None else chosen
        result: int | float = chosen * step
        return int(result) if kind == "integer" else result
    if least is not None and most is not None:
        return float(least + most) / 2
    if least is not None:
        return float(max(least + 1, 1))
    return float(min(most - 1, 1)) if most is not None else 1.0


def _told_apart(values: list[Any], shapes: list[Any]) -> list[Any]:
    """The values, none twice: another of the enum, a number counted up, a text numbered."""
    apart: list[Any] = []
    for value, shape in zip(values, shapes, strict=True):
        if value in apart:
            choices = shape.get("enum", []) if isinstance(shape, Mapping) else []
            value = next((each for each in choices if each not in apart), value)
        if value in apart and isinstance(value, int | float) and not isinstance(value, bool):
            value = max(apart) + 1
        elif value in apart and isinstance(value, str):
            value = f"{len(apart)} {value}"[: len(value)] if len(value) > 2 else f"{value}{len(apart)}"
        apart.append(value)
    return apart


def _candidates(pattern: str) -> list[str]:
    """Likely texts for a pattern: common ones, and repetitions of the length that it asks for."""
    lengths = [int(n) for n in re.findall(r"\{(\d+)", pattern)]
    return [*_CANDIDATES, *(sign * n for n in lengths if n <= 1000 for sign in "aA1")]
