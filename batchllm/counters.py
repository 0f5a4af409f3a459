"""Counts of a run while it goes on; the bar reads them, the summary is made of them."""

from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal

from batchllm.records import Answer, Usage
from batchllm.retry import Verdict

LEAST_S = 1.0
"""A pace is said of no shorter time between the first request and the last."""


@dataclass(slots=True)
class Held:
    """The pace of this run's single requests, from the first that left to the last.

    The first one opens the time that is measured, so it is not counted: of 31 requests, one every 0.2 s, 30 left
    in 6 s, which is 300 a minute.

    Attributes:
        requests: Requests that left, each try counted.
        tokens: Tokens of their answers, prompts included.
        first_s, last_s: When the first and the last one left, on the loop's clock.
    """

    requests: int = 0
    tokens: int = 0
    first_s: float = 0.0
    last_s: float = 0.0

    def leaves(self, now: float) -> None:
        """Counts a request that leaves."""
        if not self.requests:
            self.first_s = now
        self.requests += 1
        self.last_s = now

    def per_minute(self) -> tuple[float, float | None] | None:
        """Requests and tokens (``None``: no usage was told) a minute.

        Returns:
            ``None`` where fewer than two requests left, or all of them within ``LEAST_S``.
        """
        seconds = self.last_s - self.first_s
        if self.requests < 2 or seconds < LEAST_S:
            return None
        share = (self.requests - 1) / self.requests
        tokens = self.tokens * share * 60.0 / seconds if self.tokens else None
        return (self.requests - 1) * 60.0 / seconds, tokens


@dataclass(slots=True)
class RunCounters:
    """What this run has done so far.

    Attributes:
        rows: Rows of the job, from the statistics or the bound of ``-n`` and ``--sample``.
        before: Rows that an earlier run had ended for good.
        answered, failed, skipped: Rows that this run ended, or found empty.
        duplicates: Rows that share the request of another row (``--dedupe``).
        requests: Requests sent by this run, each counted once.
        attempts: The same, each try counted.
        answers: Answers received by this run, useful or not: each is on the bill.
        retries: Attempts that failed and were tried again, by reason.
        refusals: Attempts that the endpoint refused for its limit.
        possibly_billed: Attempts of this run that may be on the bill without an answer.
        pending: Rows whose request is in a batch.
        reused: Rows that got the answer of another job (``--reuse``).
        cost: US dollars of the answers that this run received; ``None`` is unknown.
        final_cost: The same of those that rows keep, not asked for once more.
        truncated: Texts of this run's rows that were cut to ``--max-input-tokens``.
        held: The pace of the single requests; those of batches have none.
        last_refusal: The latest refusal for a limit.
    """

    rows: int = 0
    before: int = 0
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
    unanswered: int = 0
    truncated: int = 0
    reused: int = 0
    cost: Decimal | None = None
    final_cost: Decimal | None = None
    retries: Counter[str] = field(default_factory=Counter)
    failed_by_reason: Counter[str] = field(default_factory=Counter)
    finish_reasons: Counter[str] = field(default_factory=Counter)
    held: Held = field(default_factory=Held)
    last_refusal: Verdict | None = None

    @property
    def ended(self) -> int:
        """Rows that have their end, whichever run ended them."""
        here = self.answered + self.failed + self.skipped + self.unanswered + self.duplicates
        return self.before + self.reused + here

    @property
    def tokens(self) -> int:
        """Tokens that this run paid."""
        return self.prompt_tokens + self.completion_tokens

    def leaves(self, now: float) -> None:
        """Counts an attempt that leaves as a single request."""
        self.attempts += 1
        self.held.leaves(now)

    def paid(self, usage: Usage, cost: Decimal | None = None) -> None:
        """Counts an answer, its usage, and what that costs; the sum is unknown as soon as a part of it is."""
        self.cost = None if cost is None or self.cost is None else self.cost + cost
        self.answers += 1
        self.prompt_tokens += usage.prompt_tokens or 0
        self.completion_tokens += usage.completion_tokens or 0

    def final(self, cost: Decimal | None) -> None:
        """Counts the cost of an answer that its row keeps."""
        self.final_cost = None if cost is None or self.final_cost is None else self.final_cost + cost

    def ended_with(self, answer: Answer) -> None:
        """Counts a row that has its end."""
        if answer.error is None:
            self.answered += 1
        else:
            self.failed += 1
            self.failed_by_reason[answer.reason or "unknown"] += 1
