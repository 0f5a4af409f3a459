"""The prices of one job: looked up once a model, applied to usage."""

import hashlib
from decimal import Decimal
from pathlib import Path
from typing import Any

from batchllm import prices
from batchllm.job import Job
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

    Raises:
        UsageError: ``--prices`` cannot be read, or is no price table.
    """

    def __init__(self, job: Job, *, needed: bool = True) -> None:
        self._endpoint = job.endpoint
        self._path = job.prices
        self._lost = not needed and job.prices is not None and not job.prices.exists()
        self._table: Table | None = prices.load_table(job.prices) if job.prices and not self._lost else None
        self._known: dict[str, Price | None] = {}
        self.model = job.endpoint.model

    def of(self, model: str) -> Price | None:
        """The price of a model, ``None`` where it is not known."""
        if self._lost:
            return None
        if model not in self._known:
            endpoint = self._endpoint
            self._known[model] = prices.price(
                endpoint.base_url, model, preset=endpoint.preset, table=self._table
            )
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


def plus(one: Decimal | None, other: Decimal | None) -> Decimal | None:
    """The sum, ``None`` where a part of it is unknown."""
    return None if one is None or other is None else one + other


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
