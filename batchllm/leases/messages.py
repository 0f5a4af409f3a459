"""What a worker and the holder of the leases say to each other."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from batchllm.budget.budget import NOTHING, Amount

TTL_S = 10.0
RENEW_S = 1.0
HEADROOM = 1.5
"""A worker that a rate does not hold back may use so many times what it sends."""
MARGIN = 0.05
"""The share of its time to live by which a worker ends a lease early: for clocks that go at different speeds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What a worker needs of one model at one endpoint, and what happened there since its last request.

    Attributes:
        limit_rpm, limit_tpm: The limits that the job gives, for all workers together; ``None`` is not known.
        shown_rpm, shown_tpm: The limits that headers show; ``None`` if they do not.
        demand_rpm, demand_tpm: What it can use; ``None`` is as much as there is.
        holds_rpm, holds_tpm: What its lease in force lets it use: 0 without one, ``None`` without a limit.
        divided_rpm: The limit that its last share was a part of; ``None`` is not known.
        tokens_per_request: What a request usually takes of the tokens.
        sent: Requests sent so far.
        refused: Requests refused so far.
        pauses: How often refusals have made it pause so far.
        paused_s: How much longer it pauses.
    """

    limit_rpm: float | None = None
    limit_tpm: float | None = None
    shown_rpm: float | None = None
    shown_tpm: float | None = None
    demand_rpm: float | None = None
    demand_tpm: float | None = None
    holds_rpm: float | None = 0.0
    holds_tpm: float | None = 0.0
    divided_rpm: float | None = None
    tokens_per_request: float = 0.0
    sent: int = 0
    refused: int = 0
    pauses: int = 0
    paused_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetUse:
    """What a worker has of the budget, and what it needs.

    Attributes:
        ceiling: The most that it may spend in all, as far as it knows.
        spent: What it has spent in this run.
        reserved: What its requests in flight may still take.
        wanted: The upper bound of a request, the largest so far.
        short: A request waits because it does not fit.
    """

    ceiling: Amount = NOTHING
    spent: Amount = NOTHING
    reserved: Amount = NOTHING
    wanted: Amount = NOTHING
    short: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRequest:
    """A worker asks for its next lease.

    Attributes:
        worker: Its name, which no other run ever has.
        number: 1, 2, 3, ...; it accepts the lease with the number of its newest request, and no other.
        uses: What it needs, by endpoint and model: ``key_of``.
        budget: What it has of the budget, if the job has one.
        leaving: Its run is over: it gives everything back, and sends nothing more.
    """

    worker: str
    number: int
    uses: Mapping[str, Use] = field(default_factory=dict)
    budget: BudgetUse | None = None
    leaving: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What a worker may use of one model at one endpoint.

    Attributes:
        rpm, tpm: The rates; ``None`` is no limit.
        requests: Where the rates are too low to be divided, how many requests may leave until the next lease;
            ``None`` is any number.
        pause_s: Nothing leaves for so long, because another worker was refused.
        limit_rpm, limit_tpm: The limits that the shares are parts of; ``None`` is not known. A request may be too large
            for the whole limit, and never for a share.
    """

    rpm: float | None = None
    tpm: float | None = None
    requests: int | None = None
    pause_s: float = 0.0
    limit_rpm: float | None = None
    limit_tpm: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetShare:
    """What a worker may spend.

    Attributes:
        ceiling: The most that it may spend in all.
        scarce: Others wait: it should give back what it does not need now.
        nothing_left: The request that it wants to send fits no more, whatever others give back.
    """

    ceiling: Amount = NOTHING
    scarce: bool = False
    nothing_left: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The holder's answer.

    Attributes:
        number: That of the request.
        ttl_s: How long the lease lasts, from before the worker asked.
        renew_s: When the worker is to ask again.
        shares: By endpoint and model; what is missing keeps the share that it has, until that ends.
        budget: What it may spend; ``None`` without a budget.
    """

    number: int
    ttl_s: float = TTL_S
    renew_s: float = RENEW_S
    shares: Mapping[str, Share] = field(default_factory=dict)
    budget: BudgetShare | None = None


def key_of(endpoint: str, model: str) -> str:
    """Returns the key of an endpoint's model."""
    return f"{endpoint} {model}"
