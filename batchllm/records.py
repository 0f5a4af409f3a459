"""The data types of a run, in processing order: ``Row`` → ``ChatRequest`` → ``Response | Failure`` → ``Answer``.

These are made for every row, so they are named tuples, which are faster to make than frozen dataclasses.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple

Chosen = range | frozenset[int] | None
"""The rows that are wanted, by their indexes; ``None`` for all."""


class Row(NamedTuple):
    """One record of the input.

    Attributes:
        index: Position in the input, from 0, counting records (not lines).
        line: Line of the file on which the record starts, from 1.
        values: Column name to value. CSV values are ``str``, always; JSONL values are what JSON says,
            with numbers that remember how they were written.
        origin: What the row's source keeps of it to write it again as it was; only that source understands it.
    """

    index: int  # type: ignore[assignment]  # tuple.index, which nobody means by a row's
    line: int
    values: Mapping[str, Any]
    origin: Any = None


class ChatRequest(NamedTuple):
    """One request, ready for the wire.

    Attributes:
        row_index: The row it answers.
        key: 16 bytes that name the request: a hash of the preset's name and the body.
        body: The exact bytes to send.
        model: The model, which is also the lane of the limiter that it waits in.
        prompt_tokens: Tokens of the messages, counted or estimated; 0 where nobody needs them.
        max_tokens: The most the answer may have, ``None`` where the request does not bound it.
        raised: It is sent with a higher limit than its ``key`` is made of (``Job.raised_max_tokens``).
    """

    row_index: int
    key: bytes
    body: bytes
    model: str
    prompt_tokens: int
    max_tokens: int | None
    raised: bool = False


class Paid(StrEnum):
    """Whether an attempt without an answer may have been billed."""

    NO = "no"
    MAYBE = "maybe"


class Response(NamedTuple):
    """An HTTP answer as it came, before anything reads it.

    Attributes:
        status: HTTP status.
        headers: Header names in lower case to values.
        body: Decoded content, as bytes.
        latency_s: Seconds from the first byte sent to the last byte received.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    latency_s: float


class FailureKind(StrEnum):
    """Why no HTTP answer came."""

    CONNECT = "connect"
    DNS = "dns"
    UNKNOWN_HOST = "unknown_host"  # the name service says that there is no such host
    TLS = "tls"
    PROXY = "proxy"  # the proxy refuses: name and password, or the destination
    TIMEOUT = "timeout"
    RESET = "reset"
    CUT = "cut"
    TOO_LARGE = "too_large"
    ENCODING = "encoding"  # an answer came in an encoding that was not asked for
    REDIRECT = "redirect"
    UNSENT = "unsent"  # it was in a batch that ended, or was never created, before any work on it
    NO_RESULT = "no_result"  # it was in a batch whose files of results have no line for it


class Failure(NamedTuple):
    """An attempt without a complete HTTP answer.

    Attributes:
        kind: What happened.
        message: One sentence for the row's ``error`` column.
        paid: Whether the request may have been processed and billed.
        latency_s: Seconds from the start of the attempt until it failed.
        partial: What had arrived of the body.
    """

    kind: FailureKind
    message: str
    paid: Paid
    latency_s: float
    partial: bytes = b""


class Usage(NamedTuple):
    """Tokens as the endpoint counted them; ``None`` is unknown, never 0."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    reasoning_tokens: int | None = None
    cached_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class AnswerSpec:
    """How an answer is read, and into which column.

    Attributes:
        column: Name of the answer column.
        read: ``text`` as it is, ``label`` (one of ``labels``), ``code`` (the fenced block), ``json``.
        labels: The labels, spelled as the label column spells them.
        multi_label: For ``label``: any number of them, joined by ``; ``.
        schema: For ``json``: a JSON Schema, or the short form (``"topic, urgent bool"``).
        tools: The tools that the request offers; ``None`` where nobody knows, so that calls are not checked.
        tool_choice: The request's parameter of this name.
    """

    column: str
    read: str = "text"
    labels: tuple[str, ...] = ()
    schema: Mapping[str, Any] | str | None = None
    tools: tuple[Any, ...] | None = None
    tool_choice: Any = None
    multi_label: bool = False


class Answer(NamedTuple):
    """What a row gets: the values read from a response, or the reason why there are none.

    Attributes:
        columns: Answer columns to values: ``{"summary": …}``, ``{"label": …}``, the fields of a schema.
        text: The visible text of the answer, reasoning blocks removed; ``""`` where there is none.
        finish_reason: Why the answer ended, in the words of ``batchllm.finish_reason``; ``None`` where the endpoint
            said nothing.
        usage: Tokens as the endpoint counted them.
        model: The model that the endpoint says answered.
        response_id: The endpoint's id of the answer.
        created: When, in seconds since the epoch, by the endpoint's clock.
        tool_calls: The calls the model asks for, or ``None``; arguments that were not quite JSON are written as JSON.
        error: Why the row failed, in one sentence; ``None`` means that it did not.
        reason: The same in one word, for counting (``no_label``, ``content_filter``, ``http_400``).
        raw_finish_reason: Why the answer ended, as the endpoint said it.
        confidence: The probability of the label, where the endpoint gave logprobs.
        labels: The labels that were read, for counting: one, or several with ``--multi-label``.
    """

    columns: Mapping[str, Any] = MappingProxyType({})
    text: str = ""
    finish_reason: str | None = None
    usage: Usage = Usage()
    model: str | None = None
    response_id: str | None = None
    created: int | None = None
    tool_calls: list[dict[str, Any]] | None = None
    error: str | None = None
    reason: str | None = None
    raw_finish_reason: str | None = None
    confidence: float | None = None
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where requests go, and what the endpoint needs.

    Attributes:
        preset: Name of the preset; part of every request's key (the host is not).
        base_url: Root of the API, ending in ``/v1`` or what the endpoint has instead.
        model: The model that rows use unless they name another.
        api_key: The key; ``None`` only where none is needed. Never shown, compared or pickled.
        key_source: Where the key came from, for messages (``OPENAI_API_KEY``).
        organization, project: OpenAI's own headers, where set.
        headers: Further headers, by ``--header``.
        azure_api_version: Set for Azure's older layout: deployment in the path, version in the query.
        charge: What a request counts toward the token limit when it is admitted: ``max_tokens`` (the larger of
            it and the prompt's estimate), ``sum`` (prompt + max_tokens), ``usage`` (corrected to the actual
            usage), ``split`` (input and output apart, output corrected).
        allow_http: Plain http beyond loopback and private addresses is allowed.
    """

    preset: str
    base_url: str
    model: str
    api_key: str | None = field(default=None, repr=False, compare=False)
    key_source: str | None = field(default=None, compare=False)
    organization: str | None = None
    project: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    azure_api_version: str | None = None
    charge: str = "max_tokens"
    allow_http: bool = False

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles everything but the key."""
        values = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "api_key"}
        return _endpoint, ({**values, "headers": dict(self.headers)},)

    def __copy__(self) -> "Endpoint":
        return self

    def __deepcopy__(self, memo: Any) -> "Endpoint":
        return self


def _endpoint(values: dict[str, Any]) -> Endpoint:
    return Endpoint(**values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """The settings of limiter, retry and deadlines.

    Attributes:
        requests_per_minute, tokens_per_minute: The rate limits, where the user knows them.
        concurrency: Requests in flight, exact from the first second; ``None`` finds it, at most 256.
        max_attempts: Attempts of a row within one run, the first included; refusals do not count.
        timeout_s: Total seconds of one attempt, headers and body and all.
        max_wait_s: The longest pause that an endpoint may ask for.
        max_outage_s: How long an endpoint may stay down before the run ends with status 69.
    """

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    concurrency: int | None = None
    max_attempts: int = 5
    timeout_s: float = 600.0
    max_wait_s: float = 3600.0
    max_outage_s: float = 600.0
