"""How far a job is on all machines together: for the bar, and for ``status``."""

import math
import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from batchllm.cluster.plan import ClusterPlan, Shard
from batchllm.cluster.summaries import READERS, done_of
from batchllm.cluster.work import WorkFolder, attempts_at, state_name
from batchllm.printable import counted, printable

ALIVE_S = 15.0
"""A worker whose last report is older counts as gone."""

_REPORTED = ("began", "time", "node", "done", "failed", "sent", "answers", "rate_limited", "tokens", "waits")

BREAK_S = 5.0
"""Without a report for so long, nothing is at work; workers report every two seconds."""


@dataclass(slots=True)
class ClusterFigures:
    """How far a job is.

    Attributes:
        rows: Rows of the job.
        shards, finished: Shards, and how many of them are finished.
        done, failed: Rows that are finished, and those of them that failed.
        sent, answers, rate_limited: Attempts, answers, and refusals for a rate limit, of all workers so far.
        tokens: Tokens of the answers of this run; ``None`` is unknown.
        workers: The machines that are at work, by shard.
        processes: How many processes are at work there; one may end a shard and begin the next.
        waits: What one of them waits for; empty while requests leave.
        per_minute: Answers a minute, since machines are at work without a break; ``None`` is not known.
    """

    rows: int
    shards: int
    finished: int = 0
    done: int = 0
    failed: int = 0
    sent: int = 0
    answers: int = 0
    rate_limited: int = 0
    tokens: int | None = 0
    workers: dict[int, str] = field(default_factory=dict)
    processes: int = 0
    waits: str = ""
    per_minute: float | None = None

    @property
    def seconds_left(self) -> float | None:
        """Seconds until every row is finished at that rate; ``None`` is not known."""
        return (self.rows - self.done) * 60.0 / self.per_minute if self.per_minute else None

    def note(self) -> str:
        """Returns rate, time left and workers in words, for the bar."""
        left = self.seconds_left
        words = [] if left is None else [f"{self.per_minute:,.0f}/min", f"{left:,.0f} s left"]
        refused = [f"{self.rate_limited:,} refused"] if self.rate_limited else []
        return ", ".join([*words, counted(self.processes, "worker"), *refused])

    def to_json(self) -> dict[str, Any]:
        """Returns them as a JSON object."""
        names = [name for name in ClusterFigures.__slots__ if name != "workers"]
        nodes = [{"shard": shard, "node": node} for shard, node in sorted(self.workers.items())]
        return {
            **{name: getattr(self, name) for name in names},
            "workers": nodes,
            "seconds_left": self.seconds_left,
        }

    def to_text(self, work: str) -> str:
        """Returns them as lines of text.

        Args:
            work: The name of the work folder.
        """
        is_finished = self.finished == self.shards
        state = "running now" if self.workers else "finished" if is_finished else "not finished"
        at_work = ", ".join(f"{node} (shard {shard})" for shard, node in sorted(self.workers.items()))
        left = self.seconds_left
        lines = [
            f"{printable(work, keep='')}: {state}",
            f"rows       {self.done:,} of {self.rows:,} finished, {self.failed:,} failed",
            f"shards     {self.finished:,} of {self.shards:,} finished",
            f"workers    {at_work or 'none'}",
            f"requests   {self.sent:,} sent, {self.answers:,} answered, {self.rate_limited:,} refused for a limit",
        ]
        if self.workers and left is not None:
            lines.append(f"rate       {self.per_minute:,.0f} answers a minute, about {left:,.0f} s left")
        return "\n".join([*lines, *([f"state      {self.waits}"] if self.waits else [])])


class FiguresReader:
    """Reads the figures of a job from its work folder; what is finished is read once.

    How many rows of a shard are done never goes down, though an attempt counts from 0 until it has read the logs.

    Args:
        work: The work folder.
        plan: Its plan.
    """

    def __init__(self, work: WorkFolder, plan: ClusterPlan) -> None:
        self._work = work
        self._plan = plan
        self._known: dict[int, tuple[dict[str, Any] | None, list[dict[str, Any]]]] = {}

    def read(self, among: Collection[int] | None = None) -> ClusterFigures:
        """Returns the figures.

        Args:
            among: The only shards that may have changed since the last time; ``None`` for all.
        """
        figures = ClusterFigures(self._plan.wanted, len(self._plan.shards))
        spans = []
        processes = set()
        now = time.time()
        for shard in self._plan.shards:
            done, states = self._look(shard, among)
            if done is not None:
                figures.finished += 1
                figures.done += shard.wanted
                figures.failed += done["summary"]["failed"]
            elif states:
                furthest = max(states, key=lambda state: state["done"])
                figures.done += furthest["done"]
                figures.failed += furthest["failed"]
                if now - states[-1]["time"] < ALIVE_S and not states[-1].get("ended"):
                    figures.workers[shard.number] = states[-1]["node"]
                    processes.add((states[-1]["node"], states[-1].get("pid")))
                    figures.waits = figures.waits or states[-1]["waits"]
            for state in states:
                figures.sent += state["sent"]
                figures.answers += state["answers"]
                figures.rate_limited += state["rate_limited"]
                known = None not in (figures.tokens, state["tokens"])
                figures.tokens = figures.tokens + state["tokens"] if known else None
                spans.append((state["began"], state["time"], state["answers"]))
        figures.processes = len(processes)
        figures.per_minute = _per_minute(spans)
        return figures

    def _look(
        self, shard: Shard, among: Collection[int] | None
    ) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
        known = self._known.get(shard.number, (None, []))
        if known[0] is not None or (among is not None and shard.number not in among):
            return known
        done = done_of(self._work, shard)  # before the states, the last of which is then written
        self._known[shard.number] = done, _states(self._work, shard)
        return self._known[shard.number]


def begun_rows(work: WorkFolder, shards: Collection[Shard]) -> int:
    """Returns how many rows of shards that are not finished have an answer, by the last reports of their attempts."""

    def furthest(shard: Shard) -> int:
        answered = (state["done"] - state["failed"] for state in _states(work, shard))
        return min(shard.wanted, max(answered, default=0))

    with ThreadPoolExecutor(READERS, thread_name_prefix="state") as pool:
        return sum(pool.map(furthest, shards))


def _states(work: WorkFolder, shard: Shard) -> list[dict[str, Any]]:
    numbers = range(1, attempts_at(work, shard) + 1)
    found = [work.get_json(state_name(shard, number), *_REPORTED) for number in numbers]
    return [state for state in found if state is not None]


def _per_minute(spans: Collection[tuple[float, float, int]]) -> float | None:
    """Returns the answers a minute since the last break in which nothing was at work, such as between two commands.

    Args:
        spans: The beginning of each attempt, its last report, and its answers.
    """
    began, last, answers = math.inf, max((last for _, last, _ in spans), default=0.0), 0
    for first, end, count in sorted(spans, key=lambda span: span[1], reverse=True):
        if end < began - BREAK_S and began < math.inf:
            break
        began, answers = min(began, first), answers + count
    return answers * 60.0 / (last - began) if last - began >= 1 else None
