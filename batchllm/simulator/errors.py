"""Errors in the words and the shape of OpenAI's API."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson


@dataclass(eq=False)
class ApiError(Exception):
    """A request ends with an HTTP error.

    Attributes:
        status: HTTP status.
        message: What the body's ``error.message`` says.
        code, type, param: The same object's other members.
        headers: Headers of this answer beside the usual ones.
    """

    status: int
    message: str
    code: str | None = None
    type: str = "invalid_request_error"
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        """Returns the error object, ready for JSON."""
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return {"error": error}


def missing(name: str) -> ApiError:
    """Returns the error for a parameter that is not there."""
    return ApiError(400, f"Missing required parameter: '{name}'.", "missing_required_parameter", param=name)


def unsupported(name: str, value: Any, supported: tuple[str, ...]) -> ApiError:
    """Returns the error for a value that is none of the supported ones."""
    listed = ", ".join(f"'{each}'" for each in supported)
    message = f"Invalid value: '{value}'. Supported values are: {listed}."
    return ApiError(400, message, "invalid_value", param=name)


def parsed(raw: bytes) -> dict[str, Any]:
    """Reads a body as a JSON object.

    Raises:
        ApiError: 400, it is none.
    """
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ApiError(400, f"We could not parse the JSON body of your request: {error}.") from error
    if not isinstance(body, dict):
        raise ApiError(400, "The JSON body of your request is not an object.")
    return body
