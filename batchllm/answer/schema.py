"""Validates answers against a JSON Schema (Draft 2020-12)."""

import re
from collections.abc import Mapping
from typing import Any

from batchllm.answer.fields import schema_of
from batchllm.errors import UsageError

_MAX_WORDS = 200


class Schema:
    """Validates answers against a schema.

    Args:
        schema: A JSON Schema or the short form.

    Attributes:
        fields: The properties of the answer, which become columns; empty where it is no object.

    Raises:
        UsageError: The schema is not valid.
    """

    def __init__(self, schema: Mapping[str, Any] | str) -> None:
        from jsonschema import Draft202012Validator  # takes time to load, and most jobs have no schema
        from jsonschema.exceptions import SchemaError
        from referencing import Registry

        document = dict(schema_of(schema))
        try:
            Draft202012Validator.check_schema(document)
        except SchemaError as error:
            raise UsageError(
                f"--schema is not a JSON Schema: {error.json_path}: {_short(error.message)}"
            ) from error
        except RecursionError as error:
            raise UsageError("--schema is nested too deeply") from error
        properties = document.get("properties")
        self.fields: tuple[str, ...] = tuple(properties) if isinstance(properties, dict) else ()
        # Without a registry of its own, jsonschema would fetch what a $ref names.
        self._validator = Draft202012Validator(document, registry=Registry())

    def fault(self, value: Any) -> str | None:
        """Returns the validator's message about a value, shortened; ``None`` where the value is valid."""
        from jsonschema.exceptions import best_match
        from referencing.exceptions import Unresolvable

        try:
            error = best_match(self._validator.iter_errors(value))
        except (Unresolvable, RecursionError, ArithmeticError, re.error) as failure:
            return f"the schema cannot be applied: {_short(str(failure) or type(failure).__name__)}"
        return None if error is None else f"{error.json_path}: {_short(error.message)}"


def _short(message: str) -> str:
    line = " ".join(message.split())
    return line if len(line) <= _MAX_WORDS else line[: _MAX_WORDS // 2] + " … " + line[-_MAX_WORDS // 2 :]
