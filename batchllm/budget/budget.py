"""Keeps a job within its budget: a request reserves its upper bound before it is sent, and releases it afterwards.

At every instant ``spent + reserved <= limit`` in every dimension, and a request costs no more than it reserved, as
long as the endpoint's usage is right. So the bill stays within the limit, whatever fails:

=================================================  ==============================================================
outcome                                            takes
=================================================  ==============================================================
an answer with usage                               its usage
an answer without usage, or an unreadable 2xx      all it reserved
an error status (429, 4xx, 5xx)                    no tokens and no money; one request
nothing, after sending (timeout, reset, cut)       all it reserved: it is possibly billed
nothing, before sending (connect, DNS, TLS)        nothing
=================================================  ==============================================================

The limit is the job's, not the run's: what the journal says was paid counts, so a killed and resumed job keeps its
limit, and the same command with a larger budget goes on. ``--restart`` begins a new journal, and a new budget.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from batchllm.answer import Reader
from batchllm.budget.costs import BatchShares, Pricing
from batchllm.budget.usage import UpperBound, UsageEstimator, counted_upper_bound, upper_bound
from batchllm.journal import JournalReader
from batchllm.journal.bill import billed_attempts, count_sent
from batchllm.printable import counted
from batchllm.records import ChatRequest, Failure, Paid, Response, Usage
from batchllm.template import AnswerSpec

LARGEST = "largest_requests"
"""The journal's key for the largest upper bounds, by model: prompt and completion tokens."""

UNBOUNDED_TOKENS = 131_072
"""Stands for the missing bound of a request that an earlier run sent without a budget."""

_USAGE = Reader(AnswerSpec("response"))


@dataclass(frozen=True, slots=True)
class Amount:
    """Requests, tokens and dollars."""

    requests: int = 0
    tokens: int = 0
    cost: Decimal = Decimal(0)

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(self.requests + other.requests, self.tokens + other.tokens, self.cost + other.cost)

    def __sub__(self, other: "Amount") -> "Amount":
        return Amount(self.requests - other.requests, self.tokens - other.tokens, self.cost - other.cost)


NOTHING = Amount()
ONE_REQUEST = Amount(requests=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetLimits:
    """The budgets of a job; ``None`` is unlimited.

    Attributes:
        cost: US dollars.
        requests: Requests that reach the endpoint, every attempt counted.
        tokens: Prompt and completion tokens together.
    """

    cost: Decimal | None = None
    requests: int | None = None
    tokens: int | None = None

    @property
    def any(self) -> bool:
        """Whether there is a budget at all."""
        return any(limit is not None for limit in (self.cost, self.requests, self.tokens))


class Budget:
    """Adds up what is spent and reserved, and compares it with the limits.

    Args:
        limits: What may be spent.
        spent: What the journal says is spent already.

    Attributes:
        limits: What may be spent.
        spent: What is spent.
        reserved: What requests in flight may still take.
        final: Whether the limits never rise.
        is_shared: Whether other workers spend of them too, so that the rows of this run are not those that are left.
    """

    final = True
    is_shared = False

    def __init__(self, limits: BudgetLimits, spent: Amount = NOTHING) -> None:
        self.limits = limits
        self.spent = spent
        self.reserved = NOTHING

    def reserve(self, bound: Amount) -> bool:
        """Reserves a request's upper bound; returns ``False``, and reserves nothing, if it does not fit."""
        if self.shortage(bound, self.reserved) is not None:
            return False
        self.reserved += bound
        return True

    def release(self, bound: Amount, taken: Amount) -> None:
        """Ends a reservation with what the request took."""
        self.reserved -= bound
        self.spent += taken

    def shortage(self, bound: Amount, reserved: Amount = NOTHING) -> str | None:
        """Says why a request does not fit beside what is reserved; ``None`` if it does."""
        limits = self.limits
        wanted = self.spent + reserved + bound
        if limits.requests is not None and wanted.requests > limits.requests:
            return f"--max-requests {limits.requests:,}: {self.spent.requests:,} have been sent"
        if limits.tokens is not None and wanted.tokens > limits.tokens:
            return (
                f"--max-total-tokens {limits.tokens:,}: {self.spent.tokens:,} are spent, and the next request may "
                f"take {bound.tokens:,}"
            )
        if limits.cost is not None and wanted.cost > limits.cost:
            return (
                f"--max-cost {limits.cost}: ${rounded(self.spent.cost)} is spent, and the next request may take "
                f"${rounded(bound.cost)}"
            )
        return None

    def to_text(self) -> str:
        """Says how much of each limit is spent, for the progress bar; empty without limits."""
        limits, spent = self.limits, self.spent
        parts = []
        if limits.cost is not None:
            parts.append(f"${rounded(spent.cost)} of ${limits.cost}")
        if limits.tokens is not None:
            parts.append(f"{spent.tokens:,} of {counted(limits.tokens, 'token')}")
        if limits.requests is not None:
            parts.append(f"{spent.requests:,} of {counted(limits.requests, 'request')}")
        return ", ".join(parts)


class BudgetMeter:
    """Reserves each request's upper bound before it is sent, and records the actual cost afterwards.

    The largest upper bound of any request is written to the journal before that request's intent. So a request that
    a dead run may have paid without an answer has a bound when the next run adds up what is spent.

    Args:
        budget: The job's budget; ``None`` is unlimited.
        pricing: What the job's models cost.
        largest: The journal's value of ``LARGEST``.
        put: Writes that value; it must be durable no later than what is sent to the journal next.
        learned: Learns from answers.

    Attributes:
        learned: Learns from answers.
        budget: The budget; one without limits only adds up.
    """

    def __init__(
        self,
        budget: Budget | None = None,
        pricing: Pricing | None = None,
        *,
        largest: Mapping[str, Any] | None = None,
        put: Callable[[str, Any], None] = lambda key, value: None,
        learned: UsageEstimator | None = None,
    ) -> None:
        self.budget = budget or Budget(BudgetLimits())
        self.learned = learned or UsageEstimator()
        self._limited = self.budget.limits.any
        self._priced = self.budget.limits.cost is not None
        self._pricing = pricing
        self._largest: dict[str, list[int]] = dict(largest or {})
        self._put = put

    def reserve(self, request: ChatRequest) -> Amount | None:
        """Reserves what the request may take; returns ``None`` if the budget is too small for it."""
        bound = self._bounded(upper_bound(request), request.model)
        reserved = NOTHING
        if self._limited:
            reserved = self._amount(bound, request.model)
            if not self.budget.reserve(reserved):
                bound = self._bounded(counted_upper_bound(request), request.model)
                reserved = self._amount(bound, request.model)
                if not self.budget.reserve(reserved):
                    return None
        self._note_largest(request.model, bound)
        return reserved

    def release(
        self, request: ChatRequest, reserved: Amount, outcome: Response | Failure, usage: Usage | None = None
    ) -> Decimal | None:
        """Ends a reservation, and returns what the answer cost; ``None`` is unknown.

        Args:
            request: What was sent.
            reserved: What ``reserve`` returned.
            outcome: What came back.
            usage: The usage of the answer, if the outcome is one.
        """
        cost = None
        if usage is not None:
            self.learned.add(usage)
            cost = self._pricing.cost(usage, request.model) if self._pricing else None
        if self._limited:
            self.budget.release(reserved, taken(reserved, outcome, usage or Usage(), cost))
        return cost

    def saved_by_cache(self, usage: Usage, model: str) -> Decimal | None:
        """Returns what the endpoint's cache took off an answer, in dollars; ``None`` is unknown."""
        if not usage.cached_tokens:
            return Decimal(0)
        return self._pricing.saved_by_cache(usage, model) if self._pricing else None

    def shortage(self, request: ChatRequest) -> str:
        """Says why the request does not fit even when nothing else is in flight."""
        bound = self._bounded(counted_upper_bound(request), request.model)
        reason = self.budget.shortage(self._amount(bound, request.model))
        if request.max_tokens is None and bound.completion_tokens is not None:
            reason = f"{reason} (an answer of {bound.completion_tokens:,} tokens; --max-tokens bounds it)"
        return f"{reason}; the same command with a larger budget goes on"

    def most_at_once(self, request: ChatRequest) -> int:
        """Returns how many requests like this one the budget has room for at once."""
        limits, spent = self.budget.limits, self.budget.spent
        each = self._amount(self._bounded(upper_bound(request), request.model), request.model)
        rooms = (
            (limits.requests, spent.requests, each.requests),
            (limits.tokens, spent.tokens, each.tokens),
            (limits.cost, spent.cost, each.cost),
        )
        return min(
            (max(0, int((limit - used) // one)) for limit, used, one in rooms if limit is not None and one),
            default=0,
        )

    def _bounded(self, bound: UpperBound, model: str) -> UpperBound:
        """Bounds an answer by the model's own output limit where the request does not."""
        if bound.completion_tokens is not None or self._pricing is None:
            return bound
        return UpperBound(bound.prompt_tokens, self._pricing.output_limit(model))

    def _amount(self, bound: UpperBound, model: str) -> Amount:
        """Returns the upper bound in all dimensions; above every limit if it has no bound or no price."""
        cost = Decimal(0)
        if bound.prompt_tokens is None or bound.completion_tokens is None:
            limits = self.budget.limits
            unbounded = limits.tokens is not None or limits.cost is not None
            return Amount(1, 10**18, Decimal("1e18")) if unbounded else ONE_REQUEST
        if self._priced and self._pricing is not None:
            found = self._pricing.cost(Usage(bound.prompt_tokens, bound.completion_tokens), model)
            cost = Decimal("1e18") if found is None else found * self._pricing.batch_share
        return Amount(1, bound.prompt_tokens + bound.completion_tokens, cost)

    def _note_largest(self, model: str, bound: UpperBound) -> None:
        prompt = UNBOUNDED_TOKENS if bound.prompt_tokens is None else bound.prompt_tokens
        completion = UNBOUNDED_TOKENS if bound.completion_tokens is None else bound.completion_tokens
        known = self._largest.get(model)
        if known is None or prompt > known[0] or completion > known[1]:
            before = known or (0, 0)
            self._largest[model] = [max(prompt, before[0]), max(completion, before[1])]
            self._put(LARGEST, self._largest)


def taken(reserved: Amount, outcome: Response | Failure, usage: Usage, cost: Decimal | None) -> Amount:
    """Returns what an attempt took, by the table above.

    Args:
        reserved: What it reserved.
        outcome: What came back.
        usage: The usage of the answer, if there is one.
        cost: What that usage costs; ``None`` is unknown.
    """
    if isinstance(outcome, Failure):
        return NOTHING if outcome.paid is Paid.NO else reserved
    if not 200 <= outcome.status < 300:
        return ONE_REQUEST
    tokens = total_tokens(usage)
    return Amount(1, reserved.tokens if tokens is None else tokens, reserved.cost if cost is None else cost)


def spent_before(reader: JournalReader, limits: BudgetLimits, pricing: Pricing) -> Amount:
    """Adds up what the job's journal has paid, or possibly paid, by the table above."""
    spent = Amount(requests=count_sent(reader))
    if limits.tokens is None and limits.cost is None:
        return spent
    largest: Mapping[str, list[int]] = reader.get(LARGEST) or {}
    models = set(largest) | {pricing.model}
    prompt, completion = (
        max((pair[i] for pair in largest.values()), default=UNBOUNDED_TOKENS) for i in (0, 1)
    )
    shares = BatchShares(reader.batches(), pricing.batch_share)
    tokens, cost = 0, Decimal(0)
    for attempt in billed_attempts(reader):
        answer = None if attempt.body is None else _USAGE.read(200, attempt.body)
        usage = Usage() if answer is None else answer.usage
        if attempt.status is None:
            usage = Usage(prompt if usage.prompt_tokens is None else usage.prompt_tokens, completion)
        counted = total_tokens(usage)
        tokens += prompt + completion if counted is None else counted
        if limits.cost is not None:
            named = answer.model if answer is not None else None
            asked = [named] if named in models else sorted(models)
            costs = [pricing.cost(usage, model or "") for model in asked]
            if None in costs:
                bound = Usage(prompt, completion)
                costs = [pricing.cost(bound, model or "") for model in asked]
            most = max((each for each in costs if each is not None), default=Decimal(0))
            cost += most * shares.share_of(attempt.attempt_id)
    return replace(spent, tokens=tokens, cost=cost)


def total_tokens(usage: Usage) -> int | None:
    """Returns prompt and completion together; ``None`` if the endpoint did not say."""
    if usage.prompt_tokens is not None and usage.completion_tokens is not None:
        return max(usage.prompt_tokens + usage.completion_tokens, usage.total_tokens or 0)
    return usage.total_tokens


def rounded(amount: Decimal) -> str:
    """Formats dollars with cents, or with more digits for small sums."""
    return f"{amount:.2f}" if amount == 0 or amount >= 1 else f"{amount:.3g}"
