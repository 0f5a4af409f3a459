"""What a batch must be: its creation, checked at once, and its file, checked line by line afterwards."""

import asyncio
import time
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from batchllm.simulator.errors import missing, unsupported

ENDPOINT = "/v1/chat/completions"
_DAY_S = 86_400
_MOST_ERRORS = 100
_LINES_AT_ONCE = 500  # before other requests get their turn


def new_batch(request: Mapping[str, Any], identity: str) -> dict[str, Any]:
    """Returns the batch object as it is on creation.

    Raises:
        ApiError: 400, the request to create it is wrong.
    """
    for name, supported in (("input_file_id", None), ("endpoint", ENDPOINT), ("completion_window", "24h")):
        if name not in request:
            raise missing(name)
        if supported and request[name] != supported:
            raise unsupported(name, request[name], (supported,))
    now = int(time.time())
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
        "request_counts": {"total": 0, "completed": 0, "failed": 0},
        "usage": {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0},
        "metadata": request.get("metadata"),
    }


class BatchInput:
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
        self._seen: set[object] = set()

    async def read(self, path: Path, max_requests: int) -> None:
        """Checks every line of the file."""
        offset = 0
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    self._check(line, number)
                    self.offsets.append(offset)
                offset += len(line)
                if number % _LINES_AT_ONCE == 0:
                    await asyncio.sleep(0)
        if not self.offsets:
            self._add("empty_file", "The batch file is empty: it must hold at least one request.")
        if len(self.offsets) > max_requests:
            message = f"The batch holds {len(self.offsets)} requests; at most {max_requests} are allowed."
            self._add("too_many_tasks", message)

    def _check(self, line: bytes, number: int) -> None:
        self.tokens += len(line) // 4
        try:
            request = orjson.loads(line)
        except orjson.JSONDecodeError:
            request = None
        if not isinstance(request, Mapping) or not isinstance(request.get("body"), Mapping):
            self._add("invalid_json_line", "This line is not parseable as valid JSON.", number)
            return
        name, model = request.get("custom_id"), request["body"].get("model")
        self.model = self.model or model
        if not isinstance(name, str):
            self._add("missing_required_parameter", "Missing required parameter: 'custom_id'.", number)
        elif name in self._seen:
            self._add("duplicate_custom_id", f"The custom_id '{name}' is used more than once.", number)
        self._seen.add(str(name))
        if request.get("method") != "POST":
            self._add("invalid_method", "The method of every line must be POST.", number)
        if request.get("url") != ENDPOINT:
            self._add("mismatched_url", f"The URL of every line must be {ENDPOINT}.", number)
        if model != self.model:
            message = f"This batch is for {self.model}, but this line asks for {model}: one model a batch."
            self._add("mismatched_model", message, number)

    def _add(self, code: str, message: str, line: int | None = None) -> None:
        if len(self.errors) < _MOST_ERRORS:
            self.errors.append({"code": code, "line": line, "message": message, "param": None})
