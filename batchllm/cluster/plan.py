"""The plan of a job on many machines: contiguous ranges of rows, frozen before anything is sent.

Where the ranges lie depends on the number of workers and on conversations, so they are never derived again: a job that
goes on takes them from ``plan.json``. Each has the place where it begins in the input, so that a worker reads its rows
alone, and their hash, so that it notices another input.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from batchllm.errors import InputError
from batchllm.formats import InputStatistics, Source
from batchllm.prepare.shards import RowRange, merged_spans

FIRST_ROWS = 20
"""Rows of shard 0, which is answered before anything else: as many as the early stop judges."""

MOST_ROWS = 100_000
"""The most rows of a shard."""

LEAST_ROWS = 20
"""The fewest rows of a shard, but for the last one and for small jobs."""

SHARDS_PER_WORKER = 4
"""The least number of shards for each worker."""


@dataclass(frozen=True, slots=True)
class Trial:
    """The rows of a shard that a trial (``-n``, ``--sample``) wants, where these are not all of them.

    Attributes:
        name: Tells trials apart: ``first-100``.
        rows: How many rows of the shard, the first ones of those that it chooses.
    """

    name: str
    rows: int


@dataclass(frozen=True, slots=True)
class Shard:
    """A range of rows.

    Attributes:
        number: Its number, from 0, in the order of the rows.
        first_row: Its first row, from 0.
        rows: How many rows it has.
        sha256: The hash of its rows, in hexadecimal (``Source.digest_of``).
        place: Where they begin in the input (``Source.place_of``).
        trial: The rows of it that are wanted; ``None`` for all.
    """

    number: int
    first_row: int
    rows: int
    sha256: str
    place: Any
    trial: Trial | None = None

    @property
    def name(self) -> str:
        """Its name in the work folder."""
        return f"{self.number:06}"

    @property
    def wanted(self) -> int:
        """How many of its rows are wanted."""
        return self.rows if self.trial is None else self.trial.rows


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """What the machines agree on.

    Attributes:
        input: The input, as it was named.
        whole: What its scan found, without the sample.
        texts: The texts of the sample (``cell_texts``).
        base: The folder relative to which files are shown (``Source.base``).
        output: The output, as it was named; ``None`` is standard output.
        identity: What shapes the requests of the job (``Job.fingerprint``), and whether equal rows share them.
        shards: The ranges, in the order of the rows, without gaps.
        job: The job as the journal keeps it (``saved``).
    """

    input: str
    whole: InputStatistics
    texts: tuple[dict[str, str], ...]
    base: str
    output: str | None
    identity: dict[str, Any]
    shards: tuple[Shard, ...]
    job: dict[str, Any]

    @property
    def rows(self) -> int:
        """Rows of the input."""
        return self.whole.rows

    def rows_of(self, shard: Shard, *, has_worked: bool) -> RowRange:
        """Returns the rows of a shard as a run reads them; see ``RowRange``."""
        return RowRange(
            rows=range(shard.first_row, shard.first_row + shard.rows),
            whole=self.whole,
            place=shard.place,
            sha256=shard.sha256,
            texts=self.texts,
            base=Path(self.base),
            has_worked=has_worked,
        )

    @property
    def digest(self) -> str:
        """Identifies the job of the plan."""
        return hashlib.sha256(
            json.dumps([self.whole.sha256, self.identity], sort_keys=True).encode()
        ).hexdigest()

    @property
    def wanted(self) -> int:
        """How many rows of the shards are wanted."""
        return sum(shard.wanted for shard in self.shards)

    def shard(self, number: int) -> Shard:
        """Returns the shard of a number."""
        return next(shard for shard in self.shards if shard.number == number)

    def to_json(self) -> bytes:
        """Returns the content of ``plan.json``."""
        return json.dumps(asdict(self), ensure_ascii=False).encode()

    @classmethod
    def from_json(cls, data: bytes, name: str) -> "ClusterPlan":
        """Reads the content of ``plan.json``.

        Raises:
            InputError: It is none.
        """
        try:
            values = json.loads(data)
            shards = tuple(Shard(**each) for each in values.pop("shards"))
            whole = _statistics(**values.pop("whole"))
            return cls(shards=shards, whole=whole, texts=tuple(values.pop("texts")), **values)
        except (ValueError, TypeError, KeyError) as error:
            reason = f"it is no plan of this version ({error}); name another folder with --work"
            raise InputError(name, reason) from None


def cut(
    rows: int, workers: int, spans: Sequence[tuple[int, int]] = (), *, trial: int | None = None
) -> list[range]:
    """Cuts rows into contiguous ranges, large ones first.

    Each range takes its share of what is left (guided self-scheduling, Polychronopoulos and Kuck, 1987), so that
    workers neither begin their next ranges at the same moment nor finish far apart. No range is much smaller than the
    mean, because each beginning costs a worker a second or so.

    Args:
        rows: Rows of the input.
        workers: Workers that answer ranges side by side.
        spans: First and last rows of what must not be cut, in any order; they may overlap.
        trial: So many first rows are cut as if they were all, because they are tried first.
    """
    ranges: list[range] = []
    ends = iter(merged_spans(spans))
    span = next(ends, None)
    start = 0
    for until in (min(rows, trial or 0), rows):
        usual = max(1, (until - start) // (SHARDS_PER_WORKER * workers))
        least = min(usual, max(LEAST_ROWS, usual // 2))
        while start < until:
            share = -(-(until - start) // (2 * workers))
            size = FIRST_ROWS if not ranges else min(MOST_ROWS, max(least, share))
            end = min(until, start + size)
            while span is not None and span[1] < end:
                span = next(ends, None)
            if span is not None and span[0] < end:
                end = span[1] + 1
            ranges.append(range(start, end))
            start = end
    return ranges or [range(0)]  # no rows are one empty range


def hashed(source: Source, ranges: Sequence[range]) -> tuple[Shard, ...]:
    """Returns the shards of ranges, with the hashes of their rows."""
    rows = source.rows()
    return tuple(
        Shard(
            number,
            each.start,
            len(each),
            source.digest_of(islice(rows, len(each))),
            source.place_of(each.start),
        )
        for number, each in enumerate(ranges)
    )


def _statistics(columns: list[str], parts: list[dict[str, Any]], **others: Any) -> InputStatistics:
    values = {**others, "sample": ()}
    return InputStatistics(
        columns=tuple(columns), parts=tuple(_statistics(**each) for each in parts), **values
    )
