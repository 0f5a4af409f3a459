"""The verdict on an attempt, as data."""

from dataclasses import dataclass
from enum import StrEnum

from batchllm.errors import ExitStatus

_WORDS = {
    "bad_body": "unreadable answer",
    "connect": "no connection",
    "cut": "answer broken off",
    "dns": "name not found",
    "reset": "connection broken",
}


def reason_text(reason: str) -> str:
    """Returns the one word that a reason is counted by as people say it: ``HTTP 500`` for ``http_500``."""
    name, _, status = reason.partition("_")
    return f"HTTP {status}" if name == "http" else _WORDS.get(reason, reason.replace("_", " "))


class Disposition(StrEnum):
    """What an attempt means for the run."""

    ANSWERED = "answered"  # billed: final, whatever it says
    REJECTED = "rejected"  # final for its row
    REFUSED = "refused"  # the endpoint asks for a pause; the attempt is not used up
    OVERLOADED = "overloaded"  # not billed, and too much was in flight
    TRANSIENT = "transient"  # not billed
    UNKNOWN = "unknown"  # possibly billed
    FATAL = "fatal"  # stops the job


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on one outcome.

    Attributes:
        disposition: What the attempt means.
        reason: One word for counting: ``http_500``, ``timeout``, ``rate_limit``, ``slow_down``, ``bad_body``…
        message: One sentence for the row's ``error`` column or for the job's.
        retry_after_s: The pause that the endpoint asked for, in seconds, at most a day.
        exit_status: With which status the job ends, for ``FATAL``. Once a request has succeeded, the runner
            takes ``USAGE`` for the row's failure, and for ``UNAVAILABLE`` where row after row is refused.
        requested_tokens, limit_tokens: What the endpoint charged this request and what it grants, where the
            refusal says so ("Limit 30000, Requested 30601").
        should_retry: ``x-should-retry``, where the endpoint sent it.
    """

    disposition: Disposition
    reason: str
    message: str = ""
    retry_after_s: float | None = None
    exit_status: ExitStatus | None = None
    requested_tokens: int | None = None
    limit_tokens: int | None = None
    should_retry: bool | None = None
