"""The constants of the limiter, and the values that it takes and returns."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")

REQUESTS = "requests"
TOKENS = "tokens"
INPUT_TOKENS = "input_tokens"
OUTPUT_TOKENS = "output_tokens"
MINUTE_S = 60.0
DAY_S = 86_400.0


def sum_of(values: Sequence[float | None]) -> float | None:
    """Adds numbers; ``None`` where one of them is unknown, and where there is none."""
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None


class Cost(NamedTuple):
    """What a request is expected to take of the limits.

    Attributes:
        prompt_tokens: Tokens of its messages, counted or estimated.
        max_tokens: The most tokens of its answer; ``None`` without a bound.
    """

    prompt_tokens: int
    max_tokens: int | None


@dataclass(frozen=True, slots=True)
class Poll(Generic[T]):
    """The result of ``Limiter.poll``.

    Attributes:
        grants: Items to send now, in order.
        wake_at: When to ask again, on the clock of ``now``; ``None`` if only an event can change the result.
        too_large: Items that are larger than the endpoint's limit, each with a message that says so. They have left
            the queue and hold no slot.
    """

    grants: list[T]
    wake_at: float | None
    too_large: list[tuple[T, str]]


@dataclass(frozen=True, slots=True)
class View:
    """The state of the limiter, for the progress bar, the summary and ``--debug``.

    Attributes:
        limits: What holds the next request back: ``requests``, ``tokens``, ``concurrency``, ``pause`` (the
            endpoint has refused, and everybody waits), ``outage`` (the endpoint is down), ``lease`` (the
            limits that were given have ended, and there are no new ones) or ``nothing``.
        requests_per_minute, tokens_per_minute: The current pace; ``None`` without a limit.
        concurrency: Requests that may be in flight.
        in_flight, waiting: Requests in flight; requests offered and not granted.
        granted, refused: Grants and refusals since the start.
        resumes_at: In a pause or an outage, when the next request is tried, on the clock of ``now``.
        searching: The pace is an estimate, because the limit is not known.
        gives_up_at: In a pause or an outage, when the run ends with status 69, on the clock of ``now``.
        trouble: The message of the last failure of an outage, in one line.
    """

    limits: str
    requests_per_minute: float | None
    tokens_per_minute: float | None
    concurrency: int
    in_flight: int
    waiting: int
    granted: int
    refused: int
    resumes_at: float | None
    searching: bool
    gives_up_at: float | None = None
    trouble: str = ""
