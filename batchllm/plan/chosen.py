"""The rows that ``-n`` and ``--sample`` choose."""

import random
from collections.abc import Iterable, Iterator

from batchllm.records import Row

Chosen = range | frozenset[int] | None
"""The rows that are wanted, by their indexes; ``None`` for all."""


def chosen_rows(rows: int, *, limit: int | None, sample: int | None, seed: int) -> Chosen:
    """Returns the rows that ``-n`` and ``--sample`` choose."""
    if sample is not None:
        among = min(rows, limit) if limit is not None else rows
        return frozenset(random.Random(seed).sample(range(among), min(sample, among)))
    return None if limit is None or limit >= rows else range(limit)


def wanted(rows: Iterable[Row], chosen: Chosen) -> Iterator[Row]:
    """Yields the chosen rows, and reads no further than the last of them."""
    if chosen is None:
        yield from rows
        return
    last = max(chosen, default=-1)
    for row in rows:
        if row.index in chosen:
            yield row
        if row.index >= last:
            return
