"""Between the road and the money: what a request may take before it leaves, what it took when it has landed.

The largest bound case of any request is written to the journal before that request's intent, so that what a dead
run may have paid without an answer has a bound when the next run reckons what is spent.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

from batchllm.answer import Reader
from batchllm.budget.budget import Amount, Budget, BudgetLimits, rounded, taken, total_tokens
from batchllm.budget.learned import Learned
from batchllm.budget.pricing import Pricing, Shares
from batchllm.budget.upper_bound import UpperBound, counted_upper_bound, upper_bound
from batchllm.journal import JournalReader
from batchllm.journal.bill import billed_attempts, count_sent
from batchllm.records import ChatRequest, Failure, Response, Usage
from batchllm.template import AnswerSpec

LARGEST = "largest_requests"
"""The journal's entry for the largest bound cases, by model: prompt and completion tokens."""

UNBOUNDED_TOKENS = 131_072
"""What counts for a bound that an earlier run's request did not have; no budget run sends such."""

_USAGE = Reader(AnswerSpec("response"))


class BudgetMeter:
    """Measures the requests of one run.

    Args:
        budget: The job's; ``None`` where there is no limit.
        pricing: What its models cost.
        largest: The journal's entry ``LARGEST``.
        put: Writes that entry; it must be durable no later than what is sent to the journal next.
        learned: Takes note of answers.

    Attributes:
        learned: What is known about answers.
        budget: The budget; one without limits only adds up.
    """

    def __init__(
        self,
        budget: Budget | None = None,
        pricing: Pricing | None = None,
        *,
        largest: Mapping[str, Any] | None = None,
        put: Callable[[str, Any], None] = lambda key, value: None,
        learned: Learned | None = None,
    ) -> None:
        self.budget = budget or Budget(BudgetLimits())
        self.learned = learned or Learned()
        self._limited = self.budget.limits.any
        self._priced = self.budget.limits.cost is not None
        self._pricing = pricing
        self._largest: dict[str, list[int]] = dict(largest or {})
        self._put = put

    def reserve(self, request: ChatRequest) -> Amount | None:
        """Sets aside what the request may take; ``None`` where the budget does not hold that."""
        bound = upper_bound(request)
        reserved = Amount()
        if self._limited:
            reserved = self._amount(bound, request.model)
            if not self.budget.reserve(reserved):
                bound = counted_upper_bound(request)
                reserved = self._amount(bound, request.model)
                if not self.budget.reserve(reserved):
                    return None
        self._note(request.model, bound)
        return reserved

    def settle(
        self, request: ChatRequest, reserved: Amount, outcome: Response | Failure, usage: Usage | None = None
    ) -> Decimal | None:
        """Ends a reservation, and returns what the answer cost; ``None`` is unknown.

        Args:
            request: What was sent.
            reserved: What ``reserve`` gave.
            outcome: What came.
            usage: The usage of the answer, where the outcome is one.
        """
        cost = None
        if usage is not None:
            self.learned.add(usage)
            cost = self._pricing.cost(usage, request.model) if self._pricing else None
        if self._limited:
            self.budget.settle(reserved, taken(reserved, outcome, usage or Usage(), cost))
        return cost

    def shortage(self, request: ChatRequest) -> str:
        """Why the request does not fit even when nothing else is in flight."""
        words = self.budget.shortage(self._amount(counted_upper_bound(request), request.model))
        return f"{words}; the same command with a larger budget goes on"

    def _amount(self, bound: UpperBound, model: str) -> Amount:
        """The bound case in all dimensions; beyond every limit where it has no bound or no price."""
        cost = Decimal(0)
        if bound.prompt_tokens is None or bound.completion_tokens is None:
            limits = self.budget.limits
            unbounded = limits.tokens is not None or limits.cost is not None
            return Amount(1, 10**18, Decimal("1e18")) if unbounded else Amount(1)
        if self._priced and self._pricing is not None:
            found = self._pricing.cost(Usage(bound.prompt_tokens, bound.completion_tokens), model)
            cost = Decimal("1e18") if found is None else found * self._pricing.batch_share
        return Amount(1, bound.prompt_tokens + bound.completion_tokens, cost)

    def _note(self, model: str, bound: UpperBound) -> None:
        prompt = UNBOUNDED_TOKENS if bound.prompt_tokens is None else bound.prompt_tokens
        completion = UNBOUNDED_TOKENS if bound.completion_tokens is None else bound.completion_tokens
        known = self._largest.get(model)
        if known is None or prompt > known[0] or completion > known[1]:
            before = known or (0, 0)
            self._largest[model] = [max(prompt, before[0]), max(completion, before[1])]
            self._put(LARGEST, self._largest)


def spent_before(reader: JournalReader, limits: BudgetLimits, pricing: Pricing) -> Amount:
    """What the job's journal has paid, or may have paid, by the rules of ``budget``."""
    spent = Amount(requests=count_sent(reader))
    if limits.tokens is None and limits.cost is None:
        return spent
    largest: Mapping[str, list[int]] = reader.get(LARGEST) or {}
    models = set(largest) | {pricing.model}
    prompt, completion = (
        max((pair[i] for pair in largest.values()), default=UNBOUNDED_TOKENS) for i in (0, 1)
    )
    shares = Shares(reader.batches(), pricing.batch_share)
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
            cost += most * shares.of(attempt.attempt_id)
    return replace(spent, tokens=tokens, cost=cost)


def spent_words(budget: Budget) -> str:
    """How much of the budget is gone, for the bar; empty without one."""
    limits, spent = budget.limits, budget.spent
    words = []
    if limits.cost is not None:
        words.append(f"${rounded(spent.cost)} of ${limits.cost}")
    if limits.tokens is not None:
        words.append(f"{spent.tokens:,} of {limits.tokens:,} tokens")
    if limits.requests is not None:
        words.append(f"{spent.requests:,} of {limits.requests:,} requests")
    return ", ".join(words)
