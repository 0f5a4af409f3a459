"""The rows of a shard: a contiguous range, whose rows are counted from its first one.

That of ``--shard 3/8`` is the same whoever computes it: the boundaries depend on the number of rows, the number of
shards and the conversations alone, so machines that do not know each other agree on them. That of a job on many
machines is in a plan (``RowRange``).
"""

import platform
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from batchllm.errors import InputError
from batchllm.flows.conversation import conversation_of
from batchllm.formats import Columns, InputStatistics, Source
from batchllm.formats.kinds import Kind
from batchllm.job import Job

SHARD = "shard"
"""The journal's key for the shard that its job is (``ShardRows``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardRows:
    """Which rows of an input a shard has.

    Attributes:
        number: Its number, from 1.
        of: The number of shards.
        first_row: Its first row, from 0.
        rows: How many rows it has.
        input_rows: How many rows the input has.
        input_sha256: The hash of the input's bytes, in hexadecimal.
    """

    number: int
    of: int
    first_row: int
    rows: int
    input_rows: int
    input_sha256: str

    def __str__(self) -> str:
        return f"shard {self.number} of {self.of}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RowRange:
    """Rows of an input as a plan has them, which are read without a scan of what is before them.

    Attributes:
        rows: The range.
        whole: What the scan of the whole input found.
        place: Where the range begins in the input (``Source.place_of``).
        sha256: The hash of the rows (``Source.digest_of``).
        texts: The texts of the sample of the whole input (``cell_texts``), to find the text column.
        base: The folder relative to which files are shown (``Source.base``).
        has_worked: Other rows of the job have been answered, so a refusal of all of these is about them, and not about
            key, model or URL.
        chosen: The only ones wanted, counted from the first one; ``None`` for all.
        input_kinds: The kinds of the input's columns as all its rows decide them; ``None``: these rows do.
        as_text: Added columns that are text, whatever their kind.
    """

    rows: range
    whole: InputStatistics
    place: Any
    sha256: str
    texts: Sequence[Mapping[str, str]]
    base: Path
    has_worked: bool = False
    chosen: frozenset[int] | range | None = None
    input_kinds: Mapping[str, Kind] | None = None
    as_text: frozenset[str] = frozenset()

    def columns(self, columns: Columns) -> Columns:
        """Returns the columns of an output with the kinds that these rows share with others."""
        kinds = {**columns.kinds, **dict.fromkeys(self.as_text, str)}
        return replace(columns, input_kinds=self.input_kinds, kinds=kinds)

    def restrict(self, source: Source) -> InputStatistics:
        """Restricts a source that is not scanned to these rows, and returns their statistics.

        Raises:
            InputError: The source has other rows there.
        """
        reason = ""
        source.base = self.base
        try:
            source.recall(self.whole, self.place)
            statistics = source.restrict(self.rows, self.whole)
            if statistics.sha256 == self.sha256:
                return statistics
        except InputError as error:  # an edit before the place makes text of any kind stand there
            reason = f" ({error})"
        raise InputError(
            source.name,
            f"on {platform.node()} it is not the input of the plan{reason}; copy it there, or share it",
        )


def boundaries(rows: int, shards: int, spans: Sequence[tuple[int, int]] = ()) -> list[int]:
    """Returns the first row of each shard, and at the end the number of rows.

    Shards are as equal as they can be. A boundary inside of something that must not be cut goes to its nearer end, so
    shards may be empty.

    Args:
        rows: Rows of the input.
        shards: The number of shards.
        spans: First and last rows of what must not be cut, in any order; they may overlap.
    """
    whole = merged_spans(spans)
    starts = [first for first, _ in whole]
    found = []
    for number in range(shards + 1):
        at = number * rows // shards
        place = bisect_right(starts, at) - 1
        if place >= 0 and whole[place][0] < at <= whole[place][1]:
            first, last = whole[place]
            at = first if at - first <= last + 1 - at else last + 1
        found.append(at)
    return found


def merged_spans(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Returns spans in order, those that overlap as one."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if merged and first <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(last, merged[-1][1])
        else:
            merged.append((first, last))
    return merged


def conversation_spans(names: Iterable[str | None]) -> list[tuple[int, int]]:
    """Returns the first and the last row of each conversation of several rows.

    Args:
        names: The conversation of each row; ``None`` is none.
    """
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for index, name in enumerate(names):
        if name is not None:
            first.setdefault(name, index)
            last[name] = index
    return [(begin, last[name]) for name, begin in first.items() if last[name] > begin]


def uncut_spans(job: Job, source: Source) -> list[tuple[int, int]]:
    """Returns the first and the last row of what a job's input must not be cut inside of: its conversations."""
    column = job.conversation
    if column is None:
        return []
    return conversation_spans(conversation_of(row, column) for row in source.rows())


def restricted(job: Job, source: Source, statistics: InputStatistics) -> tuple[InputStatistics, ShardRows]:
    """Restricts the input of a job to the job's shard; what the scan found of columns is that of the whole input.

    Args:
        job: The job, which is a shard.
        source: The input, scanned.
        statistics: What the scan found.

    Returns:
        The statistics of the shard's rows, and which rows these are.
    """
    assert job.shard is not None, "only called for shards"
    number, of = job.shard
    bounds = boundaries(statistics.rows, of, uncut_spans(job, source))
    rows = range(bounds[number - 1], bounds[number])
    shard = ShardRows(
        number=number,
        of=of,
        first_row=rows.start,
        rows=len(rows),
        input_rows=statistics.rows,
        input_sha256=statistics.sha256,
    )
    bad_rows = statistics.bad_rows if number == 1 else 0  # of the whole input, so one shard tells of them
    return replace(source.restrict(rows, statistics), sample=statistics.sample, bad_rows=bad_rows), shard
