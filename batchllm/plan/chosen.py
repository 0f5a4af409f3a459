"""The rows that ``-n`` and ``--sample`` choose."""

import random
from collections.abc import Iterable, Iterator

from batchllm.job import Job
from batchllm.records import Chosen, Row


def chosen_rows(job: Job, rows: int) -> Chosen:
    """Returns the rows that a job wants (``-n``, ``--sample``).

    Args:
        job: The job.
        rows: How many rows its input has.
    """
    among = rows if job.limit is None else min(rows, job.limit)
    if job.sample is not None:
        return frozenset(random.Random(job.seed).sample(range(among), min(job.sample, among)))
    return None if among == rows else range(among)


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
