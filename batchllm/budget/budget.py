"""Budgets: what may be spent, what is promised to requests in flight, what is gone.

A request *reserves* its bound case before it leaves, and *settles* with what it took when its outcome is known.
At every instant ``spent + reserved <= limit`` in every dimension, and a request's bill is within its reserve as long
as the endpoint's usage is; so the bill is within the limit, whatever lands, is lost or is killed:

=================================================  ==============================================================
outcome                                            takes
=================================================  ==============================================================
an answer with usage                               its usage
an answer without usage, or a 2xx nobody can read  its whole reserve
an error status (429, 4xx, 5xx)                    no tokens and no money; one request
nothing, after sending (timeout, reset, cut)       its whole reserve: it may have been paid
nothing, before sending (connect, DNS, TLS)        nothing
=================================================  ==============================================================

The limit is the job's, not the run's: what its journal has paid counts, so killing and resuming does not open it
again, and the same command with a larger budget goes on. ``--restart`` begins a new journal, and a new budget.
"""

from dataclasses import dataclass
from decimal import Decimal

from batchllm.records import Failure, Paid, Response, Usage


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
    """The budgets of a job; ``None`` is none.

    Attributes:
        cost: US dollars.
        requests: Requests that reach the endpoint, every try counted.
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
    """Keeps a job within its limits. Pure: told what is about to be sent, and what became of it.

    Args:
        limits: What may be spent.
        spent: What the journal says is spent already.

    Attributes:
        limits: What may be spent.
        spent: What is gone.
        reserved: What requests in flight may still take.
    """

    def __init__(self, limits: BudgetLimits, spent: Amount = NOTHING) -> None:
        self.limits = limits
        self.spent = spent
        self.reserved = NOTHING

    def reserve(self, bound: Amount) -> bool:
        """Sets a request's bound case aside; ``False``, and nothing is, where it does not fit."""
        if self.shortage(bound, self.reserved) is not None:
            return False
        self.reserved += bound
        return True

    def settle(self, bound: Amount, taken: Amount) -> None:
        """Ends a reservation with what the request took."""
        self.reserved -= bound
        self.spent += taken

    def shortage(self, bound: Amount, reserved: Amount = NOTHING) -> str | None:
        """Why a request does not fit beside what is reserved, in words; ``None`` where it does."""
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


def taken(reserved: Amount, outcome: Response | Failure, usage: Usage, cost: Decimal | None) -> Amount:
    """What an attempt took, by the table above.

    Args:
        reserved: Its bound case.
        outcome: What came.
        usage: The usage of the answer, where there is one.
        cost: What that usage costs; ``None`` is unknown.
    """
    if isinstance(outcome, Failure):
        return NOTHING if outcome.paid is Paid.NO else reserved
    if not 200 <= outcome.status < 300:
        return ONE_REQUEST
    tokens = total_tokens(usage)
    return Amount(1, reserved.tokens if tokens is None else tokens, reserved.cost if cost is None else cost)


def total_tokens(usage: Usage) -> int | None:
    """Prompt and completion together; ``None`` where the endpoint did not say."""
    if usage.prompt_tokens is not None and usage.completion_tokens is not None:
        return max(usage.prompt_tokens + usage.completion_tokens, usage.total_tokens or 0)
    return usage.total_tokens


def rounded(amount: Decimal) -> str:
    """Dollars with cents, and more digits for small sums."""
    return f"{amount:.2f}" if amount == 0 or amount >= 1 else f"{amount:.3g}"
