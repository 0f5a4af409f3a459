"""Compares a job in online mode with the same job in batch mode."""

from dataclasses import dataclass
from decimal import Decimal

from batchllm import presets
from batchllm.budget.forecast import Forecast
from batchllm.job import Job


@dataclass(frozen=True, slots=True)
class ModeComparison:
    """A job in online mode and in batch mode.

    Attributes:
        window: The time within which a batch ends: ``24h``.
        batch_share: The share of the online price that a batch costs.
        batches: The number of batches, at least.
        online, batch: The forecast in each mode.
    """

    window: str
    batch_share: Decimal
    batches: int
    online: Forecast
    batch: Forecast


def compare_modes(job: Job, forecast: Forecast) -> ModeComparison | None:
    """Compares both modes; returns ``None`` if batch mode is impossible or nothing is left to send.

    Args:
        job: The job.
        forecast: Its forecast in the mode that it asks for.
    """
    facts = presets.load(job.endpoint.preset).batch
    if facts is None or job.conversation is not None or len(job.endpoints) > 1 or not forecast.requests:
        return None
    in_batches = job.via == "batch"
    if not facts.offered and not in_batches:
        return None
    share = Decimal(str(facts.discount))
    online = forecast.at_price(1 / share) if in_batches else forecast
    batch = forecast if in_batches else forecast.at_price(share)
    return ModeComparison(facts.windows[0], share, -(-forecast.requests // facts.max_requests), online, batch)
