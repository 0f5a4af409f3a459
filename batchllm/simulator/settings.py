"""How the simulator behaves: every setting, checked when it is set."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from batchllm.errors import UsageError
from batchllm.simulator.faults import FAULTS


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSettings:
    """How batches behave.

    Attributes:
        seconds: From creation to the end of a batch: a tenth validating, a tenth finalizing.
        failure_rate: Share of requests that end in the error file with status 500.
        expire_after_fraction: The batch expires when this share is done; the rest is ``batch_expired``.
        cancel_s: Seconds that a cancelled batch stays ``cancelling``.
        show: Changes a batch object before it is sent: for tests of endpoints that differ from OpenAI's.
        enqueued_tokens: Most input tokens that unfinished batches of one model may hold together.
        max_requests: Most lines in a file.
        max_file_bytes: Largest file.
    """

    seconds: float = 0.05
    failure_rate: float = 0.0
    expire_after_fraction: float | None = None
    cancel_s: float = 0.0
    show: Callable[[dict[str, Any]], dict[str, Any]] = dict
    enqueued_tokens: int | None = None
    max_requests: int = 50_000
    max_file_bytes: int = 200 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorSettings:
    """How the server behaves.

    Attributes:
        port: On 127.0.0.1; 0 takes a free one.
        seed: Decides every random choice, together with the number of the request.
        api_key: The only key that is accepted; ``None`` accepts all, and none.
        models: The only models that exist; ``None`` accepts every name.
        latency_s: Median seconds of an answer; 0 answers at once.
        requests_per_minute, tokens_per_minute: Limits, each model for itself; ``None`` is no limit.
        headers: Answers carry ``x-ratelimit-*`` where there are limits.
        error_rate: Fault to probability: an HTTP status as digits, or one of ``timeout`` (never answers),
            ``reset`` (closes with RST), ``cut`` (half a body), ``garbage`` (HTML), ``empty`` (no content)
            and ``filter`` (a content filter).
        injected_retry_after_s: What an injected 429 asks the client to wait, in seconds.
        keep_requests: How many of the latest requests are kept whole, for tests.
        batches: How batches behave.

    Raises:
        UsageError: A value makes no sense.
    """

    port: int = 0
    seed: int = 0
    api_key: str | None = field(default=None, repr=False)
    models: tuple[str, ...] | None = None
    latency_s: float = 0.0
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    headers: bool = True
    error_rate: Mapping[str, float] = field(default_factory=dict)
    injected_retry_after_s: float = 0.02
    keep_requests: int = 0
    batches: BatchSettings = BatchSettings()

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65_535:
            raise UsageError(
                f"port {self.port} does not exist: choose one from 1 to 65535, or 0 for any free one"
            )
        if self.latency_s < 0:
            raise UsageError("a latency is a number of seconds, 0 or more")
        for limit in (self.requests_per_minute, self.tokens_per_minute):
            if limit is not None and limit <= 0:
                raise UsageError(f"a limit of {limit:g} a minute answers nothing: give a number above 0")
        for kind, rate in self.error_rate.items():
            is_status = kind.isascii() and kind.isdigit() and 400 <= int(kind) <= 599
            if kind not in FAULTS and not is_status:
                raise UsageError(
                    f"unknown fault {kind!r}: choose an HTTP status from 400 to 599 "
                    f"or one of {', '.join(FAULTS)}"
                )
            if not 0 <= rate <= 1:
                raise UsageError(f"the rate of fault {kind!r} is {rate:g}: give a probability from 0 to 1")
        if sum(self.error_rate.values()) > 1 + 1e-9:
            raise UsageError("the error rates add up to more than 1")
