"""Writes what happens in a run, one JSON object a line; rows that are answered write nothing."""

import json
import logging
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from batchllm.printable import counted

log = logging.getLogger("batchllm.run_log")

MOST_TEXT = 2_000
"""Characters of a text that an event keeps, such as the endpoint's own words."""


class RunLog:
    """Events of one run, each with its time.

    The file is opened anew for each event, so that programs that rotate logs may move or remove it at any time, and a
    line is one write at the end, so that several runs may share a file.

    Args:
        path: The file; ``None`` writes nothing.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._lost = 0

    def write(self, event: str, **details: Any) -> None:
        """Appends an event; an error of the disk costs the event, never the run.

        Args:
            event: ``start``, ``plan``, ``refused``, ``retried``, ``failed``, ``waiting`` or ``end``.
            details: What JSON can hold. Long texts are cut.
        """
        if self._path is None:
            return
        texts = {
            name: value[:MOST_TEXT] if isinstance(value, str) else value for name, value in details.items()
        }
        line = json.dumps({"time": now_text(), "event": event, **texts}, default=float)
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                os.write(descriptor, f"{line}\n".encode())
            finally:
                os.close(descriptor)
        except OSError as error:
            self._lost += 1
            if self._lost == 1:
                log.warning("--log-file %s: %s; the run goes on without it", self._path, error.strerror)

    def close(self) -> None:
        """Says how many events could not be written."""
        if self._lost > 1:
            log.warning("--log-file %s: %s could not be written", self._path, counted(self._lost, "event"))


def now_text() -> str:
    """The time, as ISO 8601 in UTC with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
