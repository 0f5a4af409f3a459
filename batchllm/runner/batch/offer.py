"""The two roads side by side, for the line before a run and ``--dry-run``."""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from batchllm import presets
from batchllm.job import Job


@dataclass(frozen=True, slots=True)
class Offer:
    """What a job would be by batch.

    Attributes:
        window: Within what time: ``24h``.
        cost_low, cost_high: US dollars; ``None`` is unknown.
        share: Of the online price.
        files: Into how many batches its requests go at least.
    """

    window: str
    cost_low: Decimal | None
    cost_high: Decimal | None
    share: Decimal
    files: int

    def words(self, dollars: Callable[[Decimal], str]) -> str:
        """``by batch $0.06 to $0.31 within 24h``."""
        if self.cost_low is None or self.cost_high is None:
            price = f"for {self.share:.0%} of the price"
        elif self.cost_low == self.cost_high:
            price = dollars(self.cost_high)
        else:
            price = f"{dollars(self.cost_low)} to {dollars(self.cost_high)}"
        return f"by batch {price} within {self.window}"


def offer_of(
    job: Job, *, requests: int | None, cost_low: Decimal | None, cost_high: Decimal | None
) -> Offer | None:
    """What a job would be by batch; ``None`` where it cannot be: no Batch API, or conversations.

    Args:
        job: The job.
        requests: Requests still to be sent; ``None`` is unknown.
        cost_low, cost_high: What they cost online.
    """
    facts = presets.load(job.endpoint.preset).batch
    if facts is None or job.conversation is not None:
        return None
    share = Decimal(str(facts.discount))
    return Offer(
        facts.windows[0],
        None if cost_low is None else cost_low * share,
        None if cost_high is None else cost_high * share,
        share,
        -(-(requests or 1) // facts.max_requests),
    )


def batch_words(
    job: Job,
    *,
    requests: int | None,
    cost_low: Decimal | None,
    cost_high: Decimal | None,
    dollars: Callable[[Decimal], str],
) -> str | None:
    """The road of batches in a few words, to stand beside the online one; ``None`` where there is none.

    Args:
        job: The job.
        requests: Requests still to be sent; ``None`` is unknown.
        cost_low, cost_high: What they cost online.
        dollars: Writes a sum of money.
    """
    offer = offer_of(job, requests=requests, cost_low=cost_low, cost_high=cost_high)
    if offer is None or requests == 0:
        return None
    if job.via == "batch":
        files = f" in {offer.files} batches" if offer.files > 1 else ""
        return offer.words(dollars) + files
    return f"{offer.words(dollars)} (--via batch)"
