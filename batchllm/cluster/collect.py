"""Reads a work folder: its plan, and a journal made of its answer logs."""

import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Any

from batchllm.answer import Reader
from batchllm.cluster.frames import decode, lost_rows, most_sent
from batchllm.cluster.plan import ClusterPlan, Shard
from batchllm.cluster.work import PLAN, RETRIES, WorkFolder, attempts_at, claim_name, done_name, log_name
from batchllm.errors import InputError, StorageFailure
from batchllm.flows import Ask, later_key
from batchllm.job import Job
from batchllm.journal import AttemptEntry, Entry, JournalBuilder, Rebuilt
from batchllm.records import AnswerSpec

READERS = 16

Done = Mapping[str, Any]
"""The summary of a finished shard, or of the rows of it that are wanted, as the work folder has it."""

_READER = Reader(AnswerSpec("answer"))


@dataclass(slots=True)
class DeadAttempt:
    """What the log of a worker that died has, for the summary of the run.

    Attributes:
        run: The name of its run.
        attempts, answers, rate_limited: Requests sent, answers, and refusals for a rate limit.
        prompt_tokens, completion_tokens, total_tokens: Of the answers; ``None`` is unknown.
    """

    run: str
    attempts: int = 0
    answers: int = 0
    rate_limited: int = 0
    prompt_tokens: int | None = 0
    completion_tokens: int | None = 0
    total_tokens: int | None = 0


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
    """Returns the summary of a shard, or of the rows of it that are wanted; ``None`` if these are not finished."""
    done: dict[str, Any] | None = work.get_json(done_name(shard))
    if done is None and shard.trial is not None:
        done = work.get_json(done_name(replace(shard, trial=None)))
    return done


def asked_again(done: Done, job: Job, run: str) -> int:
    """Returns how many rows of a finished shard are asked again (``--retry-failed``, ``--retry-cut-off``), at most.

    Args:
        done: Its summary.
        job: The job.
        run: The run of the job, which does so once.
    """
    if done["run"] == run:
        return 0
    summary = done["summary"]
    is_raised = job.retry_cut_off and (done.get("raised") or 0) < (job.raised_max_tokens or 0)
    failed: int = summary["failed"] if job.retry_failed else 0
    cut_off: int = summary["finish_reasons"].get("length", 0) if is_raised else 0
    return failed + cut_off


def all_done(work: WorkFolder, shards: Sequence[Shard]) -> dict[int, Done]:
    """Returns the summaries of those shards that are finished, by number; several are asked for at once."""
    with ThreadPoolExecutor(READERS, thread_name_prefix="done") as pool:
        found = zip(shards, pool.map(lambda shard: done_of(work, shard), shards), strict=True)
        return {shard.number: done for shard, done in found if done is not None}


def answers_of(work: WorkFolder, shard: Shard) -> int:
    """Returns how many answers the logs of a shard have."""
    logs = [_frames(work, shard, number) for number in range(1, attempts_at(work, shard) + 1)]
    return sum(_dead(None, log).answers for log in logs)


def unanswered(work: WorkFolder, shard: Shard) -> list[int]:
    """Returns the rows of a shard, from 0 in the whole input, to which its logs have no reply."""
    logs = [_frames(work, shard, number) for number in range(1, attempts_at(work, shard) + 1)]
    entries = (entry for log in logs for frame in log for entry in frame if isinstance(entry, AttemptEntry))
    answered = {entry.row_index for entry in entries if entry.reply is not None}
    return [shard.first_row + row for row in range(shard.rows) if row not in answered]


def rebuild(journal: Path, wanted: Sequence[tuple[Shard, int]], work: WorkFolder) -> Collected:
    """Builds a journal from answer logs.

    Args:
        journal: The journal; it must not exist.
        wanted: The shards, in order, each with the number of its attempts.
        work: The work folder.
    """
    losses = _Losses(work)
    limits: list[tuple[int, int | None]] = []
    frames: dict[int, tuple[int, ...]] = {}
    with JournalBuilder(journal, _later_key, time.time()) as builder:

        def entries(logs: Sequence[list[list[Entry]]], raised: Sequence[int | None]) -> Iterator[list[Entry]]:
            for log, limit in zip(logs, raised, strict=True):
                limits.append((builder.found.last_attempt + 1, limit))
                yield [entry for frame in log for entry in frame]

        for shard, attempts in wanted:
            logs = [_frames(work, shard, number) for number in range(1, attempts + 1)]
            frames[shard.number] = tuple(map(len, logs))
            runs = losses.runs_of(shard, attempts)
            raised = [losses.retries.get(run) for run in runs]
            better = [number for number, limit in enumerate(raised) if limit is not None]
            builder.add(entries(logs, raised), better=better)
            losses.add(shard, logs, runs)
    return Collected(
        builder.found, losses.rows(), tuple(losses.dead), frames, tuple(limits if losses.retries else ())
    )


def lost_in(work: WorkFolder, shard: Shard, attempts: int) -> dict[str, Any]:
    """Returns the rows of a shard that are paid twice, or may be, and what its workers that died did, JSON-able."""
    losses = _Losses(work)
    logs = [_frames(work, shard, number) for number in range(1, attempts + 1)]
    losses.add(shard, logs, losses.runs_of(shard, attempts))
    return {"rows": sorted(losses.rows()), "dead": [asdict(each) for each in losses.dead]}


class _Losses:
    """Finds what is paid twice because workers died or were replaced, and not because a run asks again.

    Attributes:
        retries: The runs that ask again, each with its raised limit, or ``None``.
        dead: The workers that died.
    """

    def __init__(self, work: WorkFolder) -> None:
        self._work = work
        self.retries: dict[str, int | None] = work.get_json(RETRIES) or {}
        self._most = 0
        self._lost: set[int] = set()
        self._begun_after: list[list[int]] = []
        self.dead: list[DeadAttempt] = []

    def runs_of(self, shard: Shard, attempts: int) -> list[str]:
        """Returns the runs of the attempts at a shard, if any run has asked again; otherwise nobody asks for them."""
        claims = (claim_name(shard, number) for number in range(1, attempts + 1))
        if not self.retries:
            return [""] * attempts
        return [(self._work.get_json(claim) or {}).get("run", "") for claim in claims]

    def add(self, shard: Shard, logs: Sequence[list[list[Entry]]], runs: Sequence[str]) -> None:
        """Takes the logs of all attempts at a shard, with their runs."""
        self._most = max(self._most, *map(most_sent, logs), 0)
        starts = [at for at, run in enumerate(runs) if at and run != runs[at - 1] and run in self.retries]
        for start, end in pairwise([0, *starts, len(logs)]):
            lost, begun_after = lost_rows(logs[start:end])
            self._lost |= {shard.first_row + row for row in lost}
            self._begun_after += [[shard.first_row + row for row in rows] for rows in begun_after]
        for number, log in enumerate(logs, 1):
            if not log or log[-1]:
                self.dead.append(_dead(self._work.get_json(claim_name(shard, number)), log))

    def rows(self) -> frozenset[int]:
        """Returns rows of the whole input; of those begun after a log, as many as a worker sends at most."""
        return frozenset(self._lost.union(*(rows[: self._most] for rows in self._begun_after)))


def rebuild_all(journal: Path, plan: ClusterPlan, work: WorkFolder) -> Collected:
    """Builds a journal from everything in a work folder; see ``rebuild``."""
    return rebuild(journal, [(shard, attempts_at(work, shard)) for shard in plan.shards], work)


def check_logs(found: Collected, plan: ClusterPlan, done: Mapping[int, Done], work: WorkFolder) -> None:
    """Checks that a journal was made of every answer that finished its shards.

    Args:
        found: What it was made of.
        plan: The shards.
        done: The summaries of those that are finished, by number.
        work: The work folder.

    Raises:
        StorageFailure: A part of a log is missing, or not visible on this machine yet. What it has would be paid again.
    """
    for shard in plan.shards:
        wanted = done.get(shard.number, {}).get("frames", ())
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


def _frames(work: WorkFolder, shard: Shard, attempt: int) -> list[list[Entry]]:
    return [frame for piece in work.log(log_name(shard, attempt)) for frame in decode(piece)]


def _dead(claim: Mapping[str, Any] | None, log: Sequence[Sequence[Entry]]) -> DeadAttempt:
    found = DeadAttempt((claim or {}).get("run", ""))
    last = {entry.attempt_id: entry for frame in log for entry in frame if isinstance(entry, AttemptEntry)}
    for entry in last.values():
        found.attempts += entry.sent_at is not None
        status = None if entry.reply is None else entry.reply[2]
        found.rate_limited += status == 429
        if entry.reply is not None and status is not None and 200 <= status < 300:
            found.answers += 1
            usage = _READER.read(status, entry.reply[-1]).usage
            for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
                sums = (getattr(found, name), getattr(usage, name))
                setattr(found, name, None if None in sums else sum(sums))
    return found


def _later_key(root_id: int, path: str, identity: bytes) -> bytes:
    return later_key(root_id, Ask(path, identity, None, None))  # type: ignore[arg-type]
