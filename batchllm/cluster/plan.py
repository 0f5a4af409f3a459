"""The plan of a job on many machines: contiguous ranges of rows, frozen before anything is sent.

Where the ranges lie depends on the number of workers and on conversations, so they are never derived again: a job that
goes on takes them from ``plan.json``. Each has the place where it begins in the input, so that a worker reads its rows
alone, and their hash, so that it notices another input.

A trial (``-n``, ``--sample``) has the shards of the whole plan, of which some rows are wanted. So the plan of a job is
made once, whether it is tried first or not, and what a trial has answered is in the answer logs of the shards that the
whole job reads later.
"""

import hashlib
import json
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from batchllm.errors import InputError
from batchllm.formats import InputStatistics
from batchllm.job import Job
from batchllm.plan.chosen import chosen_rows
from batchllm.prepare.shards import RowRange
from batchllm.records import Chosen

FIRST_ROWS = 20
"""Rows of shard 0, which is answered before anything else: as many as the early stop judges."""


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


def tried(plan: ClusterPlan, job: Job) -> ClusterPlan:
    """Returns a plan with the shards that have rows of a trial; of a job that is none, the plan itself."""
    rows = _chosen(job, plan.rows)
    if not rows:
        return plan
    name = f"first-{job.limit}" if job.sample is None else f"sample-{job.sample}-{job.seed}"
    shards = []
    for shard in plan.shards:
        among = len(_within(rows, shard))
        if among:
            trial = None if among == shard.rows else Trial(name, among)
            shards.append(replace(shard, trial=trial))
    return replace(plan, shards=tuple(shards))


def first_of(plan: ClusterPlan) -> Shard:
    """Returns what is answered before anything else: the first shard, or so many of its rows that it is short."""
    first = plan.shards[0]
    if first.trial is None or first.wanted <= FIRST_ROWS:
        return first
    return replace(first, trial=Trial(f"{first.trial.name}-begin", FIRST_ROWS))


def chosen_in(shard: Shard, job: Job, rows: int) -> Chosen:
    """Returns the rows of a shard that a trial wants, counted from its first one; ``None`` for all.

    Args:
        shard: The shard, with its trial.
        job: The job, with ``-n`` or ``--sample``.
        rows: Rows of the whole input.
    """
    chosen = _chosen(job, rows)
    if shard.trial is None or chosen is None:
        return None
    return frozenset(row - shard.first_row for row in _within(chosen, shard)[: shard.trial.rows])


def _chosen(job: Job, rows: int) -> Sequence[int] | None:
    chosen = chosen_rows(job, rows)
    return sorted(chosen) if isinstance(chosen, frozenset) else chosen


def _within(chosen: Sequence[int], shard: Shard) -> Sequence[int]:
    """Returns the chosen rows, in ascending order, that a shard has."""
    first, last = (bisect_left(chosen, end) for end in (shard.first_row, shard.first_row + shard.rows))
    return chosen[first:last]


def _statistics(columns: list[str], parts: list[dict[str, Any]], **others: Any) -> InputStatistics:
    values = {**others, "sample": ()}
    return InputStatistics(
        columns=tuple(columns), parts=tuple(_statistics(**each) for each in parts), **values
    )
