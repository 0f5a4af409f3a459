"""The two roads of a job side by side, for the line before a run and ``--dry-run``."""

from dataclasses import dataclass, replace
from decimal import Decimal

from batchllm import presets
from batchllm.budget.estimate import Forecast
from batchllm.job import Job


@dataclass(frozen=True, slots=True)
class Offer:
    """What a job would be by either road.

    Attributes:
        window: Within what time by batch: ``24h``.
        share: What a batch costs of the online price.
        batches: Into how many its requests go at least.
        online, batch: What it would cost; the forecast of the road that is asked for, and that of the other.
    """

    window: str
    share: Decimal
    batches: int
    online: Forecast
    batch: Forecast


def offer_of(job: Job, forecast: Forecast) -> Offer | None:
    """The two roads; ``None`` where there is one: no Batch API, conversations, or nothing left to send.

    Args:
        job: The job.
        forecast: What it has before it by the road that it asks for.
    """
    facts = presets.load(job.endpoint.preset).batch
    if facts is None or job.conversation is not None or not forecast.requests:
        return None
    share = Decimal(str(facts.discount))
    by_batch = job.via == "batch"
    online = _times(forecast, 1 / share) if by_batch else forecast
    batch = forecast if by_batch else _times(forecast, share)
    return Offer(facts.windows[0], share, -(-forecast.requests // facts.max_requests), online, batch)


def _times(forecast: Forecast, factor: Decimal) -> Forecast:
    """The same for another price."""
    low, high, expected = (
        None if cost is None else cost * factor
        for cost in (forecast.cost_low, forecast.cost_high, forecast.cost_expected)
    )
    return replace(forecast, cost_low=low, cost_high=high, cost_expected=expected)
