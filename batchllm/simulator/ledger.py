"""Counters of what the server received and sent."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Ledger:
    """Counters of one server.

    Attributes:
        requests: Chat requests that arrived.
        answered: Those that got a whole 200.
        refused: 429s by the limits, injected ones not included.
        rejected: 4xx for what the request itself was.
        injected: Faults by kind.
        abandoned: Requests whose client closed the connection before its answer.
        in_flight, max_in_flight: Chat requests being worked on, now and at most.
        prompt_tokens, completion_tokens: The bill: all answers worked out, received or not.
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
        """Counts a chat request in and returns its number, from 1."""
        self.requests += 1
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        return self.requests

    def charge(self, usage: Mapping[str, Any]) -> None:
        """Puts an answer with this usage on the bill."""
        self.prompt_tokens += usage["prompt_tokens"]
        self.completion_tokens += usage["completion_tokens"]
