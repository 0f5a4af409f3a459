"""Makes a journal of the answer logs in a work folder, and finds whose answers it has."""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from batchllm.cluster.log_format import Log, has_answer, last_entries, logs_of
from batchllm.cluster.losses import DeadAttempt, Losses
from batchllm.cluster.plan import ClusterPlan, Shard
from batchllm.cluster.summaries import JobState
from batchllm.cluster.work import WorkFolder, attempts_at, done_name, log_name
from batchllm.counters import RunCounters
from batchllm.errors import StorageFailure
from batchllm.flows import Ask, later_key
from batchllm.job import Job
from batchllm.journal import Entry, JournalBuilder, JournalReader, Rebuilt
from batchllm.plan.job_plan import plan_of
from batchllm.plan.reuse import Reuse, journals_of
from batchllm.prepare.job_paths import JobPaths
from batchllm.prepare.prepared_job import PreparedJob, prepare_job
from batchllm.prepare.shards import RowRange
from batchllm.records import Chosen
from batchllm.runner.resume import ResumedJob


@dataclass(frozen=True, slots=True)
class Collected:
    """What the logs of some shards say.

    Attributes:
        found: What the journal was made of.
        lost: Rows, from 0 in the whole input, that are paid twice, or may be.
        dead: The workers that died.
        frames: How many frames each log of a shard has, by the number of the shard.
        limits: The raised limits of answers, each with the first attempt that was sent with it; see ``cut_off.RAISED``.
    """

    found: Rebuilt
    lost: frozenset[int]
    dead: tuple[DeadAttempt, ...]
    frames: Mapping[int, tuple[int, ...]]
    limits: tuple[tuple[int, int | None], ...] = ()


def rebuild(journal: Path, wanted: Sequence[tuple[Shard, int]], work: WorkFolder) -> Collected:
    """Builds a journal from answer logs.

    Args:
        journal: The journal; it must not exist.
        wanted: The shards, in order, each with the number of its attempts.
        work: The work folder.
    """
    losses = Losses(work)
    limits: list[tuple[int, int | None]] = []
    frames: dict[int, tuple[int, ...]] = {}
    with JournalBuilder(journal, _later_key, time.time()) as builder:

        def entries(logs: Sequence[Log], raised: Sequence[int | None]) -> Iterator[list[Entry]]:
            for log, limit in zip(logs, raised, strict=True):
                limits.append((builder.found.last_attempt + 1, limit))
                yield [entry for frame in log for entry in frame]

        for shard, attempts in wanted:
            logs = logs_of(work, shard, attempts)
            frames[shard.number] = tuple(map(len, logs))
            runs = losses.runs_of(shard, attempts)
            raised = [losses.retries.get(run) for run in runs]
            better = [number for number, limit in enumerate(raised) if limit is not None]
            builder.add(entries(logs, raised), better=better)
            losses.add(shard, logs, runs)
    return Collected(
        builder.found, losses.rows(), tuple(losses.dead), frames, tuple(limits if losses.retries else ())
    )


def rebuild_all(journal: Path, plan: ClusterPlan, work: WorkFolder) -> Collected:
    """Builds a journal from everything in a work folder; see ``rebuild``."""
    return rebuild(journal, [(shard, attempts_at(work, shard)) for shard in plan.shards], work)


def check_logs(found: Collected, state: JobState, work: WorkFolder) -> None:
    """Checks that a journal was made of every answer that finished its shards.

    Args:
        found: What it was made of.
        state: What the job has finished.
        work: The work folder.

    Raises:
        StorageFailure: A part of a log is missing, or not visible on this machine yet. What it has would be paid again.
    """
    for shard in state.plan.shards:
        wanted = state.done.get(shard.number, {}).get("frames", ())
        for number, (there, all_) in enumerate(
            zip_longest(found.frames[shard.number], wanted, fillvalue=0), 1
        ):
            if there < all_:
                raise StorageFailure(
                    f"{work}/{log_name(shard, number)} has {there} of {all_} pieces on this machine; run the same "
                    "command again when the others are visible here. If they are lost, remove "
                    f"{work}/{done_name(shard)}: then what is missing of rows {shard.first_row + 1:,} to "
                    f"{shard.first_row + shard.rows:,} is asked again"
                )


def has_answers(work: WorkFolder, shard: Shard) -> bool:
    """Whether the logs of a shard have an answer."""
    logs = logs_of(work, shard, attempts_at(work, shard))
    return any(has_answer(entry) for log in logs for entry in last_entries(log).values())


def unanswered(work: WorkFolder, shard: Shard) -> list[int]:
    """Returns the rows of a shard, from 0 in the whole input, to which its logs have no reply."""
    entries = (
        entry
        for log in logs_of(work, shard, attempts_at(work, shard))
        for entry in last_entries(log).values()
    )
    answered = {entry.row_index for entry in entries if entry.reply is not None}
    return [shard.first_row + row for row in range(shard.rows) if row not in answered]


def find_rows(job: Job, paths: JobPaths, rows: RowRange | None = None) -> None:
    """Passes over the rows of a job as a run does, as far as its journal has answers, and sends nothing.

    The journal then knows which answer is whose, and has those that ``--reuse`` names.

    Args:
        job: The job.
        paths: Its files.
        rows: The only rows wanted; ``None`` for all.
    """
    with prepare_job(job, paths, rows) as prepared, journals_of(job.reuse, paths.journal) as reuse:
        asyncio.run(_find_rows(prepared, None if rows is None else rows.chosen, reuse))


async def _find_rows(prepared: PreparedJob, chosen: Chosen, reuse: Sequence[JournalReader]) -> None:
    rows = prepared.statistics.rows if chosen is None else len(chosen)
    resumed = ResumedJob(prepared, rows=rows, chosen=chosen)
    journal = resumed.journal
    try:
        resumed.begin()
        plan = plan_of(
            prepared,
            journal,
            continued=False,
            counters=RunCounters(rows=rows),
            chosen=chosen,
            reuse=Reuse(reuse, journal) if reuse else None,
            since=journal.next_attempt,
        )
        async for _ in plan.batches():
            pass
        await journal.flush()
    finally:
        journal.close(0)


def _later_key(root_id: int, path: str, identity: bytes) -> bytes:
    return later_key(root_id, Ask(path, identity, None, None))  # type: ignore[arg-type]
