"""What a batch must be: its creation, checked at once, and its file, checked line by line afterwards."""

import asyncio
import time
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from batchllm.simulator.problem import ApiError

FINAL = frozenset({"completed", "failed", "expired", "cancelled"})
ENDPOINTS = ("/v1/chat/completions", "/chat/completions")  # the second is Azure's
_DAY_S = 86_400
_MOST_ERRORS = 100
_SLICE = 500  # lines read before other requests get their turn


def check_creation(request: Any) -> None:
    """Refuse what creating a batch would refuse.

    Raises:
        ApiError: With status 400, naming the parameter.
    """
    if not isinstance(request, dict):
        raise ApiError(400, "We could not parse the JSON body of your request: it is not an object.")
    for name in ("input_file_id", "endpoint", "completion_window"):
        if not isinstance(request.get(name), str):
            raise ApiError(
                400, f"Missing required parameter: '{name}'.", "missing_required_parameter", param=name
            )
    for name, allowed in (("endpoint", ENDPOINTS), ("completion_window", ("24h",))):
        if request[name] not in allowed:
            message = f"Invalid value: '{request[name]}'. Supported values are: '{allowed[0]}'."
            raise ApiError(400, message, "invalid_value", param=name)
    _check_metadata(request.get("metadata"))


def _check_metadata(metadata: Any) -> None:
    if metadata is None:
        return
    fits = (
        isinstance(metadata, dict)
        and len(metadata) <= 16
        and all(
            len(key) <= 64 and isinstance(value, str) and len(value) <= 512 for key, value in metadata.items()
        )
    )
    if not fits:
        message = "Invalid 'metadata': at most 16 pairs of strings of at most 64 and 512 characters."
        raise ApiError(400, message, "invalid_value", param="metadata")


def new_batch(request: Mapping[str, Any], identity: str) -> dict[str, Any]:
    """The batch object as it is on creation."""
    now = int(time.time())
    moments = (
        "in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled",
    )  # fmt: skip
    return {
        "id": identity,
        "object": "batch",
        "endpoint": request["endpoint"],
        "model": None,
        "errors": None,
        "input_file_id": request["input_file_id"],
        "completion_window": request["completion_window"],
        "status": "validating",
        "output_file_id": None,
        "error_file_id": None,
        "created_at": now,
        "expires_at": now + _DAY_S,
        **{f"{moment}_at": None for moment in moments},
        "request_counts": {"total": 0, "completed": 0, "failed": 0},
        "usage": {
            "input_tokens": 0,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 0,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 0,
        },
        "metadata": request.get("metadata"),
    }


class Intake:
    """What validation finds in a file.

    Attributes:
        offsets: Where each line starts.
        model: The one model of all lines.
        tokens: Input tokens, estimated as a quarter of the characters.
        errors: What is wrong, as the API lists it.
    """

    def __init__(self) -> None:
        self.offsets = array("Q")
        self.model: str | None = None
        self.tokens = 0
        self.errors: list[dict[str, Any]] = []

    async def read(self, path: Path, endpoint: str, most: int) -> None:
        """Check every line of the file for a batch to ``endpoint`` of at most ``most`` requests."""
        seen: set[str] = set()
        offset = 0
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    self._check(line, number, endpoint, seen)
                    self.offsets.append(offset)
                offset += len(line)
                if number % _SLICE == 0:
                    await asyncio.sleep(0)
        if not self.offsets:
            self._wrong(
                "empty_file", "The batch file is empty: it must hold at least one request.", None, None
            )
        if len(self.offsets) > most:
            message = f"The batch holds {len(self.offsets)} requests; at most {most} are allowed."
            self._wrong("too_many_tasks", message, None, None)

    def _check(self, line: bytes, number: int, endpoint: str, seen: set[str]) -> None:
        self.tokens += len(line) // 4
        try:
            request = orjson.loads(line)
        except orjson.JSONDecodeError:
            request = None
        if not isinstance(request, Mapping) or not isinstance(request.get("body"), Mapping):
            self._wrong("invalid_json_line", "This line is not parseable as valid JSON.", number, None)
            return
        name = request.get("custom_id")
        if not isinstance(name, str) or not name:
            self._wrong(
                "missing_required_parameter", "Missing required parameter: 'custom_id'.", number, "custom_id"
            )
        elif name in seen:
            message = f"The custom_id '{name}' is used more than once in this batch."
            self._wrong("duplicate_custom_id", message, number, "custom_id")
        else:
            seen.add(name)
        if request.get("method") != "POST":
            self._wrong("invalid_method", "The method of every line must be POST.", number, "method")
        if request.get("url") != endpoint:
            message = f"The URL provided for this request does not match the batch endpoint {endpoint}."
            self._wrong("mismatched_url" if request.get("url") else "invalid_url", message, number, "url")
        model = request["body"].get("model")
        self.model = self.model or model
        if model != self.model:
            message = f"This batch is for {self.model}, but this line asks for {model}: one model a batch."
            self._wrong("mismatched_model", message, number, "body.model")

    def _wrong(self, code: str, message: str, line: int | None, param: str | None) -> None:
        if len(self.errors) < _MOST_ERRORS:
            self.errors.append({"code": code, "line": line, "message": message, "param": param})
