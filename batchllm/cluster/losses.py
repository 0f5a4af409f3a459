"""Finds what is paid twice because workers died or were replaced, and what those workers did."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from batchllm.answer import Reader
from batchllm.cluster.log_format import Log, has_answer, last_entries, logs_of
from batchllm.cluster.plan import Shard
from batchllm.cluster.work import RETRIES, WorkFolder, claim_name
from batchllm.journal import AttemptEntry
from batchllm.records import AnswerSpec

_REFUSED, _IN_FLIGHT, _ANSWERED = 0, 1, 2

_Request = tuple[bytes, int, str | None, bytes | None]
"""The key and ordinal of a row's first request, and of a later one its path and what it asks."""

_READER = Reader(AnswerSpec("answer"))


@dataclass(slots=True)
class DeadAttempt:
    """What the log of a worker that died has, for the summary of the run.

    Attributes:
        run: The name of its run.
        attempts, answers, rate_limited: Requests sent, answers, and refusals for a rate limit.
        rows: Rows with an answer.
        prompt_tokens, completion_tokens, total_tokens: Of the answers; ``None`` is unknown.
    """

    run: str
    attempts: int = 0
    answers: int = 0
    rate_limited: int = 0
    rows: int = 0
    prompt_tokens: int | None = 0
    completion_tokens: int | None = 0
    total_tokens: int | None = 0


class Losses:
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

    def add(self, shard: Shard, logs: Sequence[Log], runs: Sequence[str]) -> None:
        """Takes the logs of all attempts at a shard, with their runs."""
        self._most = max(self._most, *map(most_sent, logs), 0)
        starts = [at for at, run in enumerate(runs) if at and run != runs[at - 1] and run in self.retries]
        for start, end in pairwise([0, *starts, len(logs)]):
            lost, begun_after = lost_rows(logs[start:end])
            self._lost |= {shard.first_row + row for row in lost}
            self._begun_after += [[shard.first_row + row for row in rows] for rows in begun_after]
        for number, log in enumerate(logs, 1):
            if not log or log[-1]:
                self.dead.append(_dead_attempt(self._work.get_json(claim_name(shard, number)), log))

    def rows(self) -> frozenset[int]:
        """Returns rows of the whole input; of those begun after a log, as many as a worker sends at most."""
        return frozenset(self._lost.union(*(rows[: self._most] for rows in self._begun_after)))


def lost_in(work: WorkFolder, shard: Shard, attempts: int) -> dict[str, Any]:
    """Returns the rows of a shard that are paid twice, or may be, and what its workers that died did, JSON-able."""
    losses = Losses(work)
    losses.add(shard, logs_of(work, shard, attempts), losses.runs_of(shard, attempts))
    return {"rows": sorted(losses.rows()), "dead": [asdict(each) for each in losses.dead]}


def most_sent(log: Log) -> int:
    """Returns how many attempts of a log were new in one frame, at most."""
    known: set[int] = set()
    most = 0
    for frame in log:
        sent = {entry.attempt_id for entry in frame if isinstance(entry, AttemptEntry)} - known
        most = max(most, len(sent))
        known |= sent
    return most


def lost_rows(logs: Sequence[Log]) -> tuple[set[int], list[list[int]]]:
    """Returns the rows of a shard that are paid twice, or may be.

    What a worker that died sent after its log was written last, the next attempts sent again, unless nobody did. A
    worker that ends in order writes an empty frame last.

    Args:
        logs: What the logs of all attempts have, oldest attempt first.

    Returns:
        The rows of requests that two attempts sent, that were in flight when the log of a worker that died was written
        last, or of rows that it had begun and not finished. And for each worker that died the rows that it may have
        begun after that, in the order in which the next attempts began them.
    """
    lost: set[int] = set()
    begun_after = []
    for number, log in enumerate(logs):
        again: dict[_Request, int] = {}
        for later in logs[number + 1 :]:
            again |= {name: row for name, (row, _) in _sent(later).items()}
        sent = _sent(log)
        lost |= {again[name] for name, (_, state) in sent.items() if state == _ANSWERED and name in again}
        if log and not log[-1]:
            continue
        lost |= {row for row, state in sent.values() if state == _IN_FLIGHT}
        last = max((row for row, _ in sent.values()), default=-1)
        lost |= {row for row in again.values() if row <= last}
        begun_after.append([row for row in dict.fromkeys(again.values()) if row > last])
    return lost, begun_after


def _sent(log: Log) -> dict[_Request, tuple[int, int]]:
    """Returns the requests that an attempt at a shard sent, in order, with their rows and the most that is known."""
    found: dict[_Request, tuple[int, int]] = {}
    for entry in last_entries(log).values():
        if entry.row_index is not None and entry.sent_at is not None:
            state = _IN_FLIGHT if entry.reply is None else _ANSWERED if has_answer(entry) else _REFUSED
            name = (entry.key, entry.ordinal, entry.path, entry.identity)
            found[name] = entry.row_index, max(state, found.get(name, (0, _REFUSED))[1])
    return found


def _dead_attempt(claim: Mapping[str, Any] | None, log: Log) -> DeadAttempt:
    found = DeadAttempt((claim or {}).get("run", ""))
    rows = set()
    for entry in last_entries(log).values():
        found.attempts += entry.sent_at is not None
        if entry.reply is None:
            continue
        status = entry.reply[2] or 0
        found.rate_limited += status == 429
        if has_answer(entry):
            found.answers += 1
            rows.add(entry.row_index)
            usage = _READER.read(status, entry.reply[-1]).usage
            for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
                sums = (getattr(found, name), getattr(usage, name))
                setattr(found, name, None if None in sums else sum(sums))
    found.rows = len(rows)
    return found
