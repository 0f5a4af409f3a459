"""What a row becomes: messages and parameters, or the reason why nothing is sent."""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from types import MappingProxyType
from typing import Any, NamedTuple

from batchllm.template import RenderError

Messages = list[dict[str, Any]]


class RowRequest(NamedTuple):
    """What a row asks for, before the job's own settings are added.

    Attributes:
        messages: What is sent.
        own: Index of the row's own turn; earlier turns of a conversation go before it.
        template_parameters: Parameters that the job's override.
        row_parameters: Parameters that override the job's.
    """

    messages: Messages
    own: int
    template_parameters: Mapping[str, Any] = MappingProxyType({})
    row_parameters: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Skipped:
    """A row with an empty text cell. It is counted and is not a failure."""

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


class InvalidRow(RenderError):
    """A row cannot become a request."""

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        super().__init__(message)


def request_key(preset: str, body: bytes) -> bytes:
    """Returns the 16 bytes that identify a request: half of the SHA-256 of the preset's name and the body."""
    return sha256(preset.encode() + b"\0" + body).digest()[:16]
