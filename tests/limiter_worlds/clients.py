"""A client of ours: drives a limiter as the runner does, and knows what of it waits."""

import random
from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from math import inf
from typing import Any

from batchllm.errors import Unavailable
from batchllm.limiter import Cost
from batchllm.retry import Disposition, RetryPolicy

from . import noise
from .endpoint import Endpoint, Reply, Row

LANE = "model"
LOOK_AHEAD_ROWS = 300


class Client:
    """Offers ahead, polls after each event, wakes when told to.

    Args:
        limiter: Anything with the methods of ``batchllm.limiter.Limiter``.
        endpoint: Where requests go.
        rows: The job.
        before, sent, arrived, changed: Told before anything changes, when rows have left, when one is at the
            endpoint, and after a change.
    """

    def __init__(self, limiter: Any, endpoint: Endpoint, rows: Iterator[Row]) -> None:
        self.limiter, self.endpoint, self.rows = limiter, endpoint, rows
        self.clock = endpoint.clock
        self.before: Callable[[], None] = lambda: None
        self.changed: Callable[[], None] = lambda: None
        self.sent: Callable[[Client, list[Row]], None] = lambda client, rows: None
        self.arrived: Callable[[Row], None] = lambda row: None
        self.unfinished = 0
        self.in_flight = 0
        self.sends = 0
        self.lost = 0
        self.stopped: str | None = None
        self.paused_until = self.paused_s = 0.0
        self.saw_headers = self.saw_answer = False
        self.refused_since: float | None = None
        self._policy = RetryPolicy(rng=random.Random(7))
        self._dry = False
        self._alarm = inf
        self._largest: list[tuple[int, int, Row]] = []
        self._ripens: list[float] = []
        self._waiting = 0
        self._count = 0

    def start(self) -> None:
        """Begins the job now."""
        self.before()
        self._step()

    def finished(self) -> bool:
        """Nothing is left to do, or the limiter has given up."""
        return self.stopped is not None or (self._dry and not self.unfinished)

    def largest(self) -> int | None:
        """Tokens of the largest row that waits."""
        heap = self._largest
        while heap and not heap[0][2].waits:
            heappop(heap)
        return -heap[0][0] if heap else None

    def ripe_at(self, now: float) -> float:
        """When a row waits that no backoff holds."""
        ripens = self._ripens
        while ripens and ripens[0] <= now:
            heappop(ripens)
        if not self._waiting:
            return inf
        return now if self._waiting > len(ripens) else ripens[0]

    def _offer(self, row: Row, again: bool = False, not_before: float = 0.0) -> None:
        self._wait(row)
        if not_before > self.clock.now:
            heappush(self._ripens, not_before)
        cost = Cost(row.prompt, row.max_tokens)
        if again:
            self.limiter.offer(row, cost, lane=LANE, again=True, not_before=not_before)
        else:
            self.limiter.offer(row, cost, lane=LANE)

    def _wait(self, row: Row) -> None:
        row.waits = True
        self._waiting += 1
        self._count += 1
        heappush(self._largest, (-row.tokens, self._count, row))

    def _fill(self) -> None:
        for _ in range(LOOK_AHEAD_ROWS - self.limiter.waiting):
            row = next(self.rows, None)
            if row is None:
                self._dry = True
                return
            self.unfinished += 1
            self._offer(row)

    def _step(self) -> None:
        """Callers have called ``before``."""
        if self.stopped is not None:
            return
        now, clock = self.clock.now, self.clock
        while True:
            if not self._dry:
                self._fill()
            try:
                poll = self.limiter.poll(now)
            except Unavailable as error:
                self.stopped = str(error)
                return
            for row, _ in poll.too_large:
                self.lost += 1
                self._leave(row)
                self.unfinished -= 1
            if not poll.grants:
                break
            for row in poll.grants:
                self._leave(row)
                self.in_flight += 1
                self.sends += 1
                clock.at(now + noise.way_s(clock.rng), self._arrive, row)
            self.sent(self, poll.grants)
        self.changed()
        if poll.wake_at is None:
            self._alarm = inf
        elif poll.wake_at != self._alarm:
            self._alarm = poll.wake_at
            clock.at(max(now + 1e-4, poll.wake_at + noise.timer_s(clock.rng)), self._wake, poll.wake_at)

    def _leave(self, row: Row) -> None:
        row.waits = False
        self._waiting -= 1

    def _wake(self, alarm: float) -> None:
        if alarm == self._alarm:
            self._alarm = inf
            self.before()
            self._step()

    def _arrive(self, row: Row) -> None:
        self.before()
        self.arrived(row)
        self.endpoint.submit(row, lambda reply: self._on_the_way(row, reply))
        self.changed()

    def _on_the_way(self, row: Row, reply: Reply) -> None:
        self.clock.at(self.clock.now + noise.way_s(self.clock.rng), self._receive, row, reply)

    def _receive(self, row: Row, reply: Reply) -> None:
        if self.stopped is not None:
            return
        self.before()
        disposition = reply.verdict.disposition
        if disposition is Disposition.ANSWERED:
            self.limiter.received(row)
            self.clock.at(self.clock.now + noise.SAVING_S, self._saved, row, reply)
        elif disposition is Disposition.REFUSED:
            self._refused(row, reply)
        else:
            self._failed(row, reply)
        self._step()

    def _saved(self, row: Row, reply: Reply) -> None:
        if self.stopped is not None:
            return
        self.before()
        now = self.clock.now
        self.saw_answer, self.refused_since = True, None
        self.saw_headers = self.saw_headers or len(reply.headers) > 1
        self.in_flight -= 1
        self.unfinished -= 1
        self.limiter.answered(now, row, reply.headers, reply.usage)
        self.limiter.released(now, row)
        self._step()

    def _refused(self, row: Row, reply: Reply) -> None:
        now = self.clock.now
        self.in_flight -= 1
        if self.refused_since is None:
            self.refused_since = now
        until = now + reply.pause_s
        self.paused_s += max(0.0, until - max(now, self.paused_until))
        self.paused_until = max(self.paused_until, until)
        self._wait(row)
        self.limiter.refused(now, row, reply.verdict, reply.headers)

    def _failed(self, row: Row, reply: Reply) -> None:
        now, limiter = self.clock.now, self.limiter
        self.in_flight -= 1
        if self.refused_since is None:
            self.refused_since = now
        limiter.failed(now, row, reply.verdict, reply.headers)
        limiter.released(now, row)
        if limiter.outage:
            self._offer(row, again=True, not_before=now)
            return
        row.attempts += 1
        delay_s = self._policy.delay_s(row.attempts, 0, reply.verdict)
        if delay_s is None:
            self.lost += row.let_in_at is None
            self.unfinished -= 1
        else:
            self._offer(row, again=True, not_before=now + delay_s)
