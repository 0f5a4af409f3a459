"""Counts what a run does; the progress bar and the summary are made of these numbers."""

from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal

from batchllm.records import Answer, Usage
from batchllm.retry import Verdict
from batchllm.run_log import RunLog

MIN_SPAN_S = 1.0
"""The shortest time between the first and the last request from which a rate is computed."""


@dataclass(slots=True)
class SendRate:
    """The rate of this run's single requests, from the first that was sent to the last.

    The first request starts the clock, so it is not counted: of 31 requests, one every 0.2 s, 30 were sent in 6 s,
    which is 300 a minute.

    Attributes:
        requests: Requests that were sent, each attempt counted.
        tokens: Tokens of their answers, prompts included.
        first_s, last_s: When the first and the last one were sent, on the loop's clock.
    """

    requests: int = 0
    tokens: int = 0
    first_s: float = 0.0
    last_s: float = 0.0

    def count(self, now: float) -> None:
        """Counts a request that is sent."""
        if not self.requests:
            self.first_s = now
        self.requests += 1
        self.last_s = now

    def per_minute(self) -> tuple[float, float | None] | None:
        """Returns requests and tokens a minute; the tokens are ``None`` if no usage is known.

        Returns:
            ``None`` if fewer than two requests were sent, or all of them within ``MIN_SPAN_S``.
        """
        seconds = self.last_s - self.first_s
        if self.requests < 2 or seconds < MIN_SPAN_S:
            return None
        share = (self.requests - 1) / self.requests
        tokens = self.tokens * share * 60.0 / seconds if self.tokens else None
        return (self.requests - 1) * 60.0 / seconds, tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointFigures:
    """What one of several endpoints did in a run.

    Attributes:
        endpoint: Its URL.
        state: ``works`` (also where it has answered nothing so far), ``waits`` (it asked for a pause), ``down``,
            ``spent`` (it asks for too long a pause) or ``out`` (it refused key, model or URL, or every row).
        why: What it said, where it does not work.
        attempts: Requests sent to it, each attempt counted.
        answers, refusals, failures: How they ended: answered, refused for a limit, anything else.
        requests_per_minute: Attempts a minute, from the first to the last; ``None`` if that took less than a second.
    """

    endpoint: str
    state: str
    why: str = ""
    attempts: int = 0
    answers: int = 0
    refusals: int = 0
    failures: int = 0
    requests_per_minute: float | None = None

    def to_text(self) -> str:
        """Returns the figures in one line."""
        rate = "" if self.requests_per_minute is None else f", {self.requests_per_minute:,.0f} requests/min"
        why = f" ({self.why})" if self.why else ""
        state = self.state
        if state == "works" and not self.answers:
            state = "no answer yet" if self.attempts else "not asked"
        return (
            f"{self.endpoint}: {state}{why}, {self.answers:,} answered, {self.refusals:,} refused, "
            f"{self.failures:,} failed{rate}"
        )


@dataclass(slots=True)
class RunCounters:
    """What this run has done so far.

    Attributes:
        rows: Rows of the job, after ``-n`` and ``--sample``.
        finished_before: Rows that an earlier run finished.
        failed_before: Those of them that failed.
        has_worked: Another run of the job has had an answer.
        answered, failed, skipped: Rows that this run finished, or found empty.
        duplicates: Rows that share the request of another row (``--dedupe``).
        pending: Rows whose request is in a batch.
        requests: Requests sent by this run, each counted once.
        attempts: Requests sent by this run, each attempt counted.
        answers: Answers received by this run, usable or not: each is billed.
        refusals: Attempts that were refused for a rate limit.
        possibly_billed: Attempts of this run that may be billed though no answer came.
        in_flight: Requests that are sent, and whose answer has not come.
        unanswered: Rows that this run gave up; the next one tries them again.
        truncated: Texts of this run's rows that were cut to ``--max-input-tokens``.
        reused: Rows that got the answer of another job (``--reuse``).
        cached_tokens: Prompt tokens that came from the endpoint's cache; ``None`` if no answer says so.
        cost: US dollars of the answers that this run received; ``None`` is unknown.
        saved_by_cache: US dollars that the endpoint's cache took off these; ``None`` is unknown.
        labels: The labels of the rows that this run finished.
        retries: Attempts that failed and were tried again, by reason.
        send_rate: The rate of the single requests; those in batches have none.
        last_refusal: The latest refusal for a rate limit.
        without_usage: Answers whose usage is unknown, so that the sums of tokens are too small.
        endpoints: What each endpoint did, where there are several.
        log: Where events of the run are written; what is counted here one by one, and is no answer, is an event.
    """

    rows: int = 0
    finished_before: int = 0
    failed_before: int = 0
    has_worked: bool = False
    answered: int = 0
    failed: int = 0
    skipped: int = 0
    duplicates: int = 0
    pending: int = 0
    requests: int = 0
    attempts: int = 0
    answers: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    refusals: int = 0
    possibly_billed: int = 0
    in_flight: int = 0
    unanswered: int = 0
    truncated: int = 0
    reused: int = 0
    cached_tokens: int | None = None
    cost: Decimal | None = None
    saved_by_cache: Decimal | None = None
    retries: Counter[str] = field(default_factory=Counter)
    failed_by_reason: Counter[str] = field(default_factory=Counter)
    finish_reasons: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    send_rate: SendRate = field(default_factory=SendRate)
    last_refusal: Verdict | None = None
    without_usage: int = 0
    endpoints: tuple[EndpointFigures, ...] = ()
    log: RunLog = field(default_factory=RunLog)

    @property
    def answered_before(self) -> int:
        """Rows whose answers earlier runs, or other jobs, had paid."""
        return self.finished_before - self.failed_before + self.reused

    @property
    def finished(self) -> int:
        """Rows that are finished, or given up in this run."""
        here = self.answered + self.failed + self.skipped + self.unanswered + self.duplicates
        return self.finished_before + self.reused + here

    @property
    def requests_left(self) -> float:
        """About how many requests are left to be sent: the rows that are left, by the answers that a row has taken."""
        here = max(1, self.answered + self.failed)
        rows = self.rows - self.finished - self.pending
        return max(0.0, rows * max(1.0, self.answers / here) - self.in_flight)

    @property
    def tokens(self) -> int:
        """Tokens that this run paid."""
        return self.prompt_tokens + self.completion_tokens

    @property
    def known_tokens(self) -> int | None:
        """The same; ``None`` if the usage of an answer is unknown."""
        return None if self.without_usage else self.tokens

    def count_attempt(self, now: float) -> None:
        """Counts a single request that is sent."""
        self.attempts += 1
        self.send_rate.count(now)

    def count_answer(
        self, usage: Usage, cost: Decimal | None = None, saved_by_cache: Decimal | None = None
    ) -> None:
        """Counts an answer, its usage, its cost and what the cache saved; an unknown one makes its sum unknown."""
        self.cost = None if cost is None or self.cost is None else self.cost + cost
        self.answers += 1
        self.without_usage += usage.prompt_tokens is None or usage.completion_tokens is None
        self.prompt_tokens += usage.prompt_tokens or 0
        self.completion_tokens += usage.completion_tokens or 0
        if usage.cached_tokens is not None:
            cached = min(usage.cached_tokens, usage.prompt_tokens or 0)  # some count cached tokens apart
            self.cached_tokens = (self.cached_tokens or 0) + cached
            if self.saved_by_cache is not None:
                self.saved_by_cache = None if saved_by_cache is None else self.saved_by_cache + saved_by_cache

    def count_finished(self, answer: Answer) -> None:
        """Counts a row that is finished."""
        if answer.error is None:
            self.answered += 1
            for label in answer.labels:
                self.labels[label] += 1
        else:
            self.failed += 1
            self.failed_by_reason[answer.reason or "unknown"] += 1
