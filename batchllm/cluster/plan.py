"""The plan of a job on many machines: contiguous ranges of rows, frozen before anything is sent.

Where the ranges lie depends on the number of workers and on conversations, so they are never derived again: a job that
goes on takes them from ``plan.json``. Each has a hash of its rows, so that a worker notices another input.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from batchllm.errors import InputError
from batchllm.formats import Source
from batchllm.prepare.row_range import digest_of
from batchllm.prepare.shards import merged_spans

FIRST_ROWS = 20
"""Rows of shard 0, which is answered before anything else: as many as the early stop judges."""

MOST_ROWS = 100_000
"""The most rows of a shard."""

LEAST_ROWS = 20
"""The fewest rows of a shard, but for the last one and for small jobs."""

SHARDS_PER_WORKER = 4
"""The least number of shards for each worker."""


@dataclass(frozen=True, slots=True)
class Shard:
    """A range of rows.

    Attributes:
        number: Its number, from 0, in the order of the rows.
        first_row: Its first row, from 0.
        rows: How many rows it has.
        sha256: The hash of its rows, in hexadecimal.
    """

    number: int
    first_row: int
    rows: int
    sha256: str

    @property
    def name(self) -> str:
        """Its name in the work folder."""
        return f"{self.number:06}"


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """What the machines agree on.

    Attributes:
        input: The input, as it was named.
        input_sha256: The hash of its bytes, in hexadecimal.
        output: The output, as it was named; ``None`` is standard output.
        rows: Rows of the input.
        identity: What shapes the requests of the job (``Job.fingerprint``), and whether equal rows share them.
        shards: The ranges, in the order of the rows, without gaps.
        job: The job as the journal keeps it (``saved``).
    """

    input: str
    input_sha256: str
    output: str | None
    rows: int
    identity: dict[str, Any]
    shards: tuple[Shard, ...]
    job: dict[str, Any]

    @property
    def digest(self) -> str:
        """Identifies the plan."""
        return hashlib.sha256(self.to_json()).hexdigest()

    def to_json(self) -> bytes:
        """Returns the content of ``plan.json``."""
        return json.dumps(asdict(self), ensure_ascii=False, indent=1).encode()

    @classmethod
    def from_json(cls, data: bytes, name: str) -> "ClusterPlan":
        """Reads the content of ``plan.json``.

        Raises:
            InputError: It is none.
        """
        try:
            values = json.loads(data)
            shards = tuple(Shard(**each) for each in values.pop("shards"))
            return cls(shards=shards, **values)
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(name, f"it is no plan of this version ({error})") from None


def cut(rows: int, workers: int, spans: Sequence[tuple[int, int]] = ()) -> list[range]:
    """Cuts rows into contiguous ranges, large ones first.

    Each range takes its share of what is left (guided self-scheduling, Polychronopoulos and Kuck, 1987), so that
    workers neither begin their next ranges at the same moment nor finish far apart. No range is much smaller than the
    mean, because each beginning costs a worker a second or so.

    Args:
        rows: Rows of the input.
        workers: Workers that answer ranges side by side.
        spans: First and last rows of what must not be cut, in any order; they may overlap.
    """
    ranges: list[range] = []
    ends = iter(merged_spans(spans))
    span = next(ends, None)
    start = 0
    usual = max(1, rows // (SHARDS_PER_WORKER * workers))
    least = min(usual, max(LEAST_ROWS, usual // 2))
    while start < rows or not ranges:  # no rows are one empty range
        share = -(-(rows - start) // (2 * workers))
        size = FIRST_ROWS if not ranges else min(MOST_ROWS, max(least, share))
        end = min(rows, start + size)
        while span is not None and span[1] < end:
            span = next(ends, None)
        if span is not None and span[0] < end:
            end = span[1] + 1
        ranges.append(range(start, end))
        start = end
    return ranges


def hashed(source: Source, ranges: Sequence[range]) -> tuple[Shard, ...]:
    """Returns the shards of ranges, with the hashes of their rows."""
    rows = source.rows()
    return tuple(
        Shard(number, each.start, len(each), digest_of(source, islice(rows, len(each))))
        for number, each in enumerate(ranges)
    )
