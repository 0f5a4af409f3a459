"""The prices of one job: looked up once a model, applied to usage."""

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from batchllm import presets, prices
from batchllm.job import Job
from batchllm.job.url import host_of, is_local
from batchllm.journal import BatchRecord
from batchllm.prices import Price, Table
from batchllm.records import Usage


class Pricing:
    """What a job's models cost at its endpoint.

    Args:
        job: Its endpoint and ``--prices``.
        needed: Without a price table that was named there is nothing to do; otherwise, where the table is gone, no
            price is known.

    Attributes:
        model: The model that rows use unless they name another.
        batch_share: What a batch costs of the online price.
        batch_share: What the job costs of it by the road that it asks for.

    Raises:
        UsageError: ``--prices`` cannot be read, or is no price table.
    """

    def __init__(self, job: Job, *, needed: bool = True) -> None:
        self._preset = job.endpoint.preset
        # Nobody publishes prices of what runs here or next door, and to look takes a tenth of a start.
        self._base_url = "" if is_local(host_of(job.endpoint.base_url)) else job.endpoint.base_url
        self._path = job.prices
        self._lost = not needed and job.prices is not None and not job.prices.exists()
        self._table: Table | None = prices.load_table(job.prices) if job.prices and not self._lost else None
        self._known: dict[str, Price | None] = {}
        self.model = job.endpoint.model
        facts = presets.load(job.endpoint.preset).batch
        self.batch_share = Decimal(1) if facts is None else Decimal(str(facts.discount))
        self.batch_share = self.batch_share if job.via == "batch" else Decimal(1)

    def of(self, model: str) -> Price | None:
        """The price of a model, ``None`` where it is not known."""
        if self._lost:
            return None
        if model not in self._known:
            self._known[model] = prices.price(self._base_url, model, preset=self._preset, table=self._table)
        return self._known[model]

    def cost(self, usage: Usage, model: str) -> Decimal | None:
        """What an answer of a model cost, in dollars; ``None`` where price or usage is not known."""
        return prices.cost(usage, self.of(model))

    def nothing(self, model: str | None = None) -> Decimal | None:
        """No cost: 0 where the price is known, ``None`` where it is not, so that an unknown price is never 0."""
        return None if self.of(self.model if model is None else model) is None else Decimal(0)

    def identity(self) -> list[Any]:
        """What costs depend on beside usage, JSON-able; where it is equal, so are they."""
        price = self.of(self.model)
        rates = None if price is None else repr((price.rates, price.per_request))
        return [rates, None if self._path is None or self._lost else _digest(self._path)]


class Shares:
    """What attempts cost of the online price: less where a batch brought the answer.

    Args:
        batches: The job's.
        batch_share: What a batch costs.
    """

    def __init__(self, batches: Sequence[BatchRecord], batch_share: Decimal) -> None:
        ranges = sorted((batch.first_attempt, batch.last_attempt) for batch in batches)
        self._firsts = [first for first, _ in ranges]
        self._lasts = [last for _, last in ranges]
        self._batch_share = batch_share

    def of(self, attempt_id: int | None) -> Decimal:
        """The share of one attempt."""
        place = -1 if attempt_id is None else bisect_right(self._firsts, attempt_id) - 1
        if attempt_id is None or place < 0 or attempt_id > self._lasts[place]:
            return Decimal(1)
        return self._batch_share


def plus(one: Decimal | None, other: Decimal | None) -> Decimal | None:
    """The sum, ``None`` where a part of it is unknown."""
    return None if one is None or other is None else one + other


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
