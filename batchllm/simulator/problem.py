"""Errors in the words and the shape of OpenAI's API."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


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
        """The error object, ready for JSON."""
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return {"error": error}


# What an injected status says, as OpenAI words it; other statuses say that they were injected.
_INJECTED: dict[int, tuple[str, str, str | None]] = {
    429: (
        "Rate limit reached for simulator in organization org-sim on requests per min (RPM).",
        "requests",
        "rate_limit_exceeded",
    ),
    500: ("The server had an error while processing your request. Sorry about that!", "server_error", None),
    503: ("That model is currently overloaded with other requests.", "server_error", "server_is_overloaded"),
}


def injected(status: int, wait_s: float) -> ApiError:
    """The error of an injected fault; an injected 429 asks for ``wait_s`` seconds."""
    message, kind, code = _INJECTED.get(
        status, (f"Status {status}, injected by the simulator.", "invalid_request_error", None)
    )
    headers = {"x-simulator-injected": "1"}
    if status == 429:
        message += f" Please try again in {wait_s * 1000:.0f}ms."
    return ApiError(status, message, code, kind, headers=headers)
