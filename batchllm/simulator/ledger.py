"""What the server saw and sent: the counters, and the file that is the oracle of tests that kill.

The file gets one JSON line a chat request, by a single ``write`` to a descriptor in append mode, before the
first byte of the answer leaves. Whatever a client received is therefore in the file, whoever dies when.
"""

import os
from collections import Counter
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import orjson


@dataclass(slots=True)
class Ledger:
    """Counters of one server.

    Attributes:
        requests: Chat requests that arrived.
        answered: Those that got a whole 200.
        refused: 429s by the limits, injected ones not included.
        rejected: 4xx for what the request itself was.
        injected: Faults by kind.
        abandoned: Requests whose client went before its answer.
        in_flight, max_in_flight: Chat requests being worked on, now and at most.
        prompt_tokens, completion_tokens: The bill: all answers worked out, arrived or not.
        batches, batch_requests, files: Batches created, requests in them answered, files uploaded.
    """

    requests: int = 0
    answered: int = 0
    refused: int = 0
    rejected: int = 0
    injected: Counter[str] = field(default_factory=Counter)
    abandoned: int = 0
    in_flight: int = 0
    max_in_flight: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    batches: int = 0
    batch_requests: int = 0
    files: int = 0

    def arrive(self) -> int:
        """Count a chat request in; its number, from 1."""
        self.requests += 1
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        return self.requests

    def leave(self) -> None:
        """Count a chat request out."""
        self.in_flight -= 1

    def bill(self, prompt_tokens: int, completion_tokens: int) -> None:
        """Put an answer on the bill."""
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += completion_tokens

    def snapshot(self) -> dict[str, Any]:
        """The counters, ready for JSON."""
        counters = {each.name: getattr(self, each.name) for each in fields(self)}
        return {**counters, "injected": dict(self.injected)}


class LedgerFile:
    """The append-only file."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(
        self,
        *,
        kind: str,
        identity: str,
        body_sha256: str,
        status: int | None,
        whole: bool,
        prompt_tokens: int = 0,
        completion_tokens: int = 0,
        custom_id: str | None = None,
    ) -> None:
        """Append one line.

        Args:
            kind: ``chat`` or ``batch``.
            identity: The answer's id.
            body_sha256: Of the request's body, in hex.
            status: HTTP status; ``None`` where no answer is sent.
            whole: Whether the whole answer is about to be sent.
            prompt_tokens, completion_tokens: What is on the bill for it.
            custom_id: Of a request in a batch.
        """
        line: dict[str, Any] = {
            "kind": kind,
            "id": identity,
            "sha256": body_sha256,
            "status": status,
            "whole": whole,
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
        }
        if custom_id is not None:
            line["custom_id"] = custom_id
        os.write(self._descriptor, orjson.dumps(line) + b"\n")

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)
