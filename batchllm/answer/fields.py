"""Parses the short form of a schema, as the ``llm`` tool has it::

    topic, urgent bool, score float: from 0 to 1

Fields are separated by commas or, where there are several lines, by line ends; each is a name, a type
(``str`` unless given, ``int``, ``float``, ``bool``) and, after a colon, a description.
"""

from collections.abc import Mapping
from typing import Any

from batchllm.errors import UsageError, did_you_mean

_TYPES = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}
_NAMES = {**_TYPES, "string": "string", "integer": "integer", "number": "number", "boolean": "boolean"}


def schema_of(value: Mapping[str, Any] | str) -> Mapping[str, Any]:
    """Returns the JSON Schema of what a user gives: the schema itself, or the short form.

    Raises:
        UsageError: It is neither.
    """
    if isinstance(value, Mapping):
        return value
    properties: dict[str, Any] = {}
    for part in value.split("\n" if "\n" in value.strip() else ","):
        field, _, description = part.partition(":")
        words = field.split()
        if not words:
            continue
        name, kind = words[0], words[1] if len(words) > 1 else "str"
        if len(words) > 2 or kind not in _NAMES:
            raise UsageError(
                f"--schema: {field.strip()!r} is not a name and a type{did_you_mean(kind, _NAMES)}; "
                f"the types are {', '.join(_TYPES)}"
            )
        if name in properties:
            raise UsageError(f"--schema: the field {name} is there twice")
        properties[name] = {"type": _NAMES[kind]}
        if description.strip():
            properties[name]["description"] = description.strip()
    if not properties:
        raise UsageError(
            "--schema has no fields; write them like 'topic, urgent bool, score float: from 0 to 1'"
        )
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
