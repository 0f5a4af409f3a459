"""What becomes of a row that is not sent, and the name of a request that is."""

from dataclasses import dataclass
from hashlib import sha256


@dataclass(frozen=True, slots=True)
class Skipped:
    """A row with nothing to ask about: its text cell is empty. Counted, not a failure."""

    row_index: int


@dataclass(frozen=True, slots=True)
class Unsendable:
    """A row that fails before anything is sent.

    Attributes:
        row_index: The row.
        error: Why, in one sentence.
        reason: The same in one word, for counting.
    """

    row_index: int
    error: str
    reason: str


class InvalidRow(ValueError):
    """A row cannot become a request. The message is a sentence for its ``error``; ``reason`` is one word."""

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        super().__init__(message)


def request_key(preset: str, body: bytes) -> bytes:
    """The 16 bytes that name a request: SHA-256 over the preset's name and the body, cut in half."""
    return sha256(preset.encode() + b"\0" + body).digest()[:16]
