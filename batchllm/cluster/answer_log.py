"""Copies what a shard's journal commits into the shard's answer log, in a thread beside the run."""

import math
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batchllm.cluster.journal_from_logs import Collected
from batchllm.cluster.log_format import encode
from batchllm.cluster.plan import Shard
from batchllm.cluster.work import WorkFolder, claim_name, log_name, state_name, stop_name
from batchllm.errors import Interrupted, NotNow
from batchllm.journal import AttemptEntry, Entry, JournalTail
from batchllm.stopping import StopSwitch

FLUSH_S = 1.0
"""How often the log is written."""
FLUSH_ENTRIES = 256
"""Entries for which it is written earlier."""
AHEAD_S = 3.0
"""How long before the end of an attempt the next one may begin, beside the time that beginning takes."""
LOOK_S = 0.1
"""How often the journal is looked at."""
RATE_OVER_S = 10.0
"""The time over which the rate of a shard is measured."""
STATE_S = 2.0
"""How often the state is written, and looked whether to stop."""


@dataclass(frozen=True, slots=True)
class ShardAttempt:
    """One attempt at one shard.

    Attributes:
        work: The work folder.
        shard: The shard.
        number: The number of the attempt, from 1.
        run: The name of the run of the whole job.
        node: The machine, as it calls itself.
    """

    work: WorkFolder
    shard: Shard
    number: int
    run: str
    node: str


@dataclass(slots=True, eq=False)
class ShardProgress:
    """How far a shard is; the run calls it as its display.

    Args:
        clock: Tells the time, in seconds.

    Attributes:
        total: Rows of the shard.
        done, failed, tokens, waits: What the run showed last.
        ends_soon: By its rate it ends, or was to end, within ``AHEAD_S`` and the time that its beginning took.
    """

    clock: Callable[[], float] = time.monotonic
    total: int = 0
    done: int = 0
    failed: int = 0
    tokens: int | None = 0
    waits: str = ""
    ends_soon: bool = False
    _seen: deque[tuple[float, int]] = field(default_factory=deque)
    _made_at: float = 0.0
    _began_at: float = math.inf

    def __post_init__(self) -> None:
        self._made_at = self.clock()

    def start(self, total: int, done: int) -> None:
        """Begins at ``done`` rows."""
        self.total, self.done, self._began_at = total, done, self.clock()

    def show(self, done: int, failed: int, tokens: int | None, note: str, waits: str = "") -> None:
        """Takes the current state."""
        self.done, self.failed, self.tokens, self.waits = done, failed, tokens, waits
        now = self.clock()
        self._seen.append((now, done))
        while self._seen[0][0] < now - RATE_OVER_S:
            self._seen.popleft()
        began, before = self._seen[0]
        ahead_s = AHEAD_S + self._began_at - self._made_at
        by_rate = (self.total - done) * (now - began) <= (done - before) * ahead_s
        self.ends_soon = self.ends_soon or done == self.total or (done > before and by_rate)

    def tell(self, line: str) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""


class AnswerLog:
    """Writes the answer log of an attempt while its run goes on; use it as a context manager around the run.

    Where the log cannot be written, or another attempt has begun, the run is stopped: what it would receive from then
    on could be lost with this machine, or is paid twice. At the end of the ``with`` block that error is raised.

    Args:
        attempt: The attempt.
        journal: The run's journal; it need not exist yet.
        known: What it was made of.
        progress: How far the run is.
        switch: Stops the run.
    """

    def __init__(
        self,
        attempt: ShardAttempt,
        journal: Path,
        known: Collected,
        progress: ShardProgress,
        switch: StopSwitch,
    ) -> None:
        self._attempt = attempt
        self._journal = journal
        self._after = known.found.last_attempt
        self._before = known.frames[attempt.shard.number]
        self._progress = progress
        self._switch = switch
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="answer-log", daemon=True)
        self._began = time.time()
        self._sequence = 0
        self._waiting: list[Entry] = []
        self._sent: set[int] = set()
        self._replied: set[int] = set()
        self._statuses: Counter[int | None] = Counter()
        self._failure: BaseException | None = None

    def __enter__(self) -> "AnswerLog":
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._ended.set()
        self._thread.join()
        if error is None and self._failure is not None:
            raise self._failure

    def figures(self) -> dict[str, Any]:
        """Returns how far the attempt is, JSON-able."""
        answers = sum(count for status, count in self._statuses.items() if status and 200 <= status < 300)
        return {
            "run": self._attempt.run,
            "attempt": self._attempt.number,
            "node": self._attempt.node,
            "pid": os.getpid(),
            "began": self._began,
            "time": time.time(),
            "done": self._progress.done,
            "failed": self._progress.failed,
            "tokens": self._progress.tokens,
            "waits": self._progress.waits,
            "sent": len(self._sent),
            "answers": answers,
            "rate_limited": self._statuses[429],
            "frames": [*self._before, self._sequence],
        }

    def _follow(self) -> None:
        try:
            tail = self._opened()
            if tail is None:
                return
            try:
                self._copy(tail)
            finally:
                tail.close()
        except BaseException as error:  # noqa: BLE001 - raised by the run, which it stops
            self._failure = error
            self._switch.stop(error)

    def _opened(self) -> JournalTail | None:
        """Waits until the run has opened its journal; returns ``None`` if it ends without one."""
        log = Path(f"{self._journal}-wal")
        while not log.exists():
            if self._ended.wait(LOOK_S):
                break
        return JournalTail(self._journal, self._after) if self._journal.exists() else None

    def _copy(self, tail: JournalTail) -> None:
        flushed = time.monotonic()
        stated = -STATE_S
        ended = False
        while not ended:
            ended = self._ended.wait(LOOK_S)
            entries = tail.new()
            self._count(entries)
            self._waiting += entries
            now = time.monotonic()
            if self._waiting and (ended or now - flushed >= FLUSH_S or len(self._waiting) >= FLUSH_ENTRIES):
                self._flush()
                flushed = now
            if ended or now - stated >= STATE_S:
                self._state(ended=ended)
                stated = now
        self._flush()  # an empty frame: everything was received

    def _flush(self) -> None:
        attempt = self._attempt
        attempt.work.append(log_name(attempt.shard, attempt.number), self._sequence, encode(self._waiting))
        self._sequence += 1
        self._waiting = []

    def _state(self, *, ended: bool) -> None:
        """Writes how far the attempt is, and looks whether it is to stop."""
        attempt = self._attempt
        state = {**self.figures(), "ended": ended}
        attempt.work.put_json(state_name(attempt.shard, attempt.number), state)
        if attempt.work.has(claim_name(attempt.shard, attempt.number + 1)):
            self._switch.stop(NotNow(f"another worker has shard {attempt.shard.number}"))
        if attempt.work.has(stop_name(attempt.run)):
            self._switch.stop(Interrupted(2))

    def _count(self, entries: list[Entry]) -> None:
        for entry in entries:
            if isinstance(entry, AttemptEntry) and entry.sent_at is not None:
                self._sent.add(entry.attempt_id)
                if entry.reply is not None and entry.attempt_id not in self._replied:
                    self._replied.add(entry.attempt_id)
                    self._statuses[entry.reply[2]] += 1
