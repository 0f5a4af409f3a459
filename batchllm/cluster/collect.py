"""Reads a work folder: its plan, and a journal made of its answer logs."""

import json
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchllm.cluster.frames import decode, lost_rows, most_sent
from batchllm.cluster.plan import ClusterPlan, Shard
from batchllm.cluster.work import PLAN, WorkFolder, attempts_at, done_name, log_name
from batchllm.errors import InputError
from batchllm.flows import Ask, later_key
from batchllm.journal import Entry, JournalBuilder, Rebuilt


@dataclass(frozen=True, slots=True)
class Collected:
    """What the logs of some shards say.

    Attributes:
        found: What the journal was made of.
        in_flight: Rows, from 0 in the whole input, of requests in flight when a worker that died wrote its log last.
        after: Rows that it may have sent after that.
    """

    found: Rebuilt
    in_flight: frozenset[int]
    after: frozenset[int]


def plan_of_work(work: WorkFolder) -> ClusterPlan:
    """Returns the plan of a work folder.

    Raises:
        InputError: There is none, or it is of another version.
    """
    content = work.get(PLAN)
    if content is None:
        raise InputError(
            work, f"on {platform.node()} there is no plan in this folder; share it among the machines"
        )
    return ClusterPlan.from_json(content, f"{work}/{PLAN}")


def done_of(work: WorkFolder, shard: Shard) -> dict[str, Any] | None:
    """Returns the summary of a shard; ``None`` if it is not finished."""
    content = work.get(done_name(shard))
    return None if content is None else json.loads(content)


def rebuild(journal: Path, wanted: Sequence[tuple[Shard, int]], work: WorkFolder) -> Collected:
    """Builds a journal from answer logs.

    Args:
        journal: The journal; it must not exist.
        wanted: The shards, in order, each with the number of its attempts.
        work: The work folder.
    """
    most = 0
    unended: list[tuple[Shard, list[list[Entry]]]] = []
    with JournalBuilder(journal, _later_key, time.time()) as builder:
        for shard, attempts in wanted:
            logs = [_frames(work, shard, number) for number in range(1, attempts + 1)]
            builder.add(([entry for frame in log for entry in frame] for log in logs), shard.first_row)
            most = max(most, *map(most_sent, logs), 0)
            unended += [(shard, log) for log in logs if not log or log[-1]]
    in_flight: set[int] = set()
    after: set[int] = set()
    for shard, log in unended:
        for rows, found in zip((in_flight, after), lost_rows(log, most), strict=True):
            rows |= {shard.first_row + row for row in found if row < shard.rows}
    return Collected(builder.found, frozenset(in_flight), frozenset(after))


def rebuild_all(journal: Path, plan: ClusterPlan, work: WorkFolder) -> Collected:
    """Builds a journal from everything in a work folder; see ``rebuild``."""
    return rebuild(journal, [(shard, attempts_at(work, shard)) for shard in plan.shards], work)


def _frames(work: WorkFolder, shard: Shard, attempt: int) -> list[list[Entry]]:
    return [frame for piece in work.log(log_name(shard, attempt)) for frame in decode(piece)]


def _later_key(root_id: int, path: str, identity: bytes) -> bytes:
    return later_key(root_id, Ask(path, identity, None, None))  # type: ignore[arg-type]
