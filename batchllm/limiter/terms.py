"""The limiter's own vocabulary: what is offered, what is granted, what can be seen."""

from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")

REQUESTS = "requests"
TOKENS = "tokens"
INPUT_TOKENS = "input_tokens"
OUTPUT_TOKENS = "output_tokens"
MINUTE_S = 60.0
DAY_S = 86_400.0


class Cost(NamedTuple):
    """What a request is expected to take of the grant.

    Attributes:
        prompt_tokens: Tokens of its messages, counted or estimated.
        max_tokens: The most its answer may have; ``None`` where the request does not bound it.
    """

    prompt_tokens: int
    max_tokens: int | None


@dataclass(frozen=True, slots=True)
class Poll(Generic[T]):
    """What may happen now.

    Attributes:
        grants: Items to send now, in order.
        wake_at: When to ask again, on the clock of ``now``; ``None``: only an event can change anything.
        too_large: Items given back because the endpoint's limit can never hold them, each with the sentence
            that says so. They no longer wait and hold no slot.
    """

    grants: list[T]
    wake_at: float | None
    too_large: list[tuple[T, str]]


@dataclass(frozen=True, slots=True)
class View:
    """The limiter at one instant, for the bar, the summary and ``--debug``.

    Attributes:
        limits: What holds the next request back: ``requests``, ``tokens``, ``concurrency``, ``pause`` (the
            endpoint has refused, and everybody waits), ``outage`` (the endpoint is down), ``lease`` (the
            limits that were given have ended, and there are no new ones) or ``nothing``.
        requests_per_minute, tokens_per_minute: The pace held now; ``None`` where nothing bounds it.
        concurrency: Requests that may be in flight.
        in_flight, waiting: Requests in flight; requests offered and not granted.
        granted, refused: Grants given, and refusals received, since the start.
        resumes_at: When the next try goes, in a pause or an outage, on the clock of ``now``; else ``None``.
        searching: The pace is being searched for, because nobody given the limit.
        gives_up_at: When the run ends with status 69 unless the pause or the outage ends before, on the clock of
            ``now``; ``None``: there is neither.
        trouble: What the last failure of an outage said, in one line; else empty.
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
