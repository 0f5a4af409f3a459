"""Virtual time: a heap of events, a network, and a client that drives a limiter as the runner does."""

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any, Protocol

from batchllm.errors import Unavailable
from batchllm.limiter import Cost
from batchllm.records import Usage
from batchllm.retry import Disposition, RetryPolicy, Verdict

LANE = "model"
LOOK_AHEAD_ROWS = 300
_DONE = Verdict(Disposition.ANSWERED, "answered")


class Row:
    """One row: what it says it takes, and what its answer will be."""

    __slots__ = ("attempts", "cost", "maybe", "offered_at", "output", "prompt", "refusals")

    def __init__(self, prompt: int = 100, max_tokens: int | None = 200, output: int = 100) -> None:
        self.cost = Cost(prompt, max_tokens)
        self.prompt, self.output = prompt, output
        self.attempts = self.maybe = self.refusals = 0
        self.offered_at = 0.0


@dataclass(slots=True)
class Reply:
    """What a server sends back."""

    verdict: Verdict = _DONE
    headers: dict[str, str] = field(default_factory=dict)
    usage: Usage | None = None


class Server(Protocol):
    """Takes a request at the instant it arrives, and calls ``reply`` when it has one."""

    def submit(self, world: "World", row: Row, reply: Callable[[Reply], None]) -> None: ...


class World:
    """The clock and the heap of events."""

    def __init__(self, seed: int = 1) -> None:
        self.now = 0.0
        self.rng = random.Random(seed)
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0

    def at(self, when: float, action: Callable[..., None], *args: Any) -> None:
        self._count += 1
        heappush(self._heap, (when, self._count, action, args))

    def run(self, until: float, stop: Callable[[], bool] = lambda: False) -> None:
        heap = self._heap
        while heap and heap[0][0] <= until and not stop():
            self.now, _, action, args = heappop(heap)
            action(*args)


@dataclass
class Network:
    """Seconds on the way there: uniform, with rare spikes. And how late a timer fires."""

    least_s: float = 0.005
    most_s: float = 0.025
    spike_s: float = 0.1
    spike_share: float = 0.002
    timer_s: tuple[float, float] = (-0.001, 0.005)

    def delay(self, rng: random.Random) -> float:
        delay = self.least_s + (self.most_s - self.least_s) * rng.random()
        if self.spike_share and rng.random() < self.spike_share:
            delay += self.spike_s * rng.random()
        return delay


class Record:
    """What happened, in bins of a second: what the tests and the table read."""

    def __init__(self) -> None:
        self.accepted: dict[int, float] = {}
        self.tokens: dict[int, float] = {}
        self.output: dict[int, float] = {}
        self.refused: dict[int, int] = {}
        self.failed: dict[int, int] = {}
        self.sent: dict[int, int] = {}
        self.refusal_times: list[float] = []
        self.lost = 0
        self.wakes = 0
        self.longest_wait_s = 0.0
        self.most_in_flight = 0
        self.too_large: list[str] = []
        self.stopped: str | None = None

    @staticmethod
    def total(bins: Mapping[int, float], start: float = 0.0, end: float = 1e18) -> float:
        return sum(value for second, value in bins.items() if start <= second < end)

    def refusal_share(self, start: float = 0.0, end: float = 1e18) -> float:
        accepted, refused = self.total(self.accepted, start, end), self.total(self.refused, start, end)
        return refused / max(1.0, accepted + refused)


class Client:
    """Drives a limiter as the runner does: offers ahead, polls after each event, wakes when told to."""

    def __init__(
        self, world: World, limiter: Any, server: Server, rows: Iterator[Row], network: Network | None = None,
        *, max_attempts: int = 5, look_ahead: int = LOOK_AHEAD_ROWS,
    ) -> None:  # fmt: skip
        self.world, self.limiter, self.server, self.rows = world, limiter, server, rows
        self.network = network or Network()
        self.record = Record()
        self.policy = RetryPolicy(max_attempts, random.Random(7))
        self.look_ahead = look_ahead
        self.unfinished = 0
        self._alarm = float("inf")
        self._dry = False
        self._in_flight = 0

    def start(self) -> None:
        self.world.at(self.world.now, self._step)

    def finished(self) -> bool:
        return self.record.stopped is not None or (self._dry and not self.unfinished)

    def _fill(self) -> None:
        limiter = self.limiter
        for _ in range(self.look_ahead - limiter.waiting):
            row = next(self.rows, None)
            if row is None:
                self._dry = True
                return
            row.offered_at = self.world.now
            self.unfinished += 1
            limiter.offer(row, row.cost, lane=LANE)

    def _step(self) -> None:
        if self.record.stopped is not None:
            return
        world, limiter = self.world, self.limiter
        now = world.now
        while True:
            if not self._dry:
                self._fill()
            try:
                poll = limiter.poll(now)
            except Unavailable as error:
                self.record.stopped = str(error)
                return
            for row, words in poll.too_large:
                self.record.too_large.append(words)
                self._end(row)
            if not poll.grants:
                break
            for row in poll.grants:
                self._send(row, now)
        if poll.wake_at is not None and poll.wake_at < self._alarm:
            self._alarm = poll.wake_at
            late = self.network.timer_s
            when = max(now + 1e-4, poll.wake_at + late[0] + (late[1] - late[0]) * world.rng.random())
            world.at(when, self._wake, poll.wake_at)

    def _wake(self, alarm: float) -> None:
        if alarm != self._alarm:
            return
        self._alarm = float("inf")
        self.record.wakes += 1
        self._step()

    def _send(self, row: Row, now: float) -> None:
        record = self.record
        second = int(now)
        record.sent[second] = record.sent.get(second, 0) + 1
        record.longest_wait_s = max(record.longest_wait_s, now - row.offered_at)
        self._in_flight += 1
        record.most_in_flight = max(record.most_in_flight, self._in_flight)
        self.world.at(now + self.network.delay(self.world.rng), self._arrive, row)

    def _arrive(self, row: Row) -> None:
        self.server.submit(self.world, row, lambda reply: self._back(row, reply))

    def _back(self, row: Row, reply: Reply) -> None:
        self.world.at(self.world.now + self.network.delay(self.world.rng), self._receive, row, reply)

    def _receive(self, row: Row, reply: Reply) -> None:
        if self.record.stopped is not None:
            return
        limiter, record, now = self.limiter, self.record, self.world.now
        self._in_flight -= 1
        second, disposition = int(now), reply.verdict.disposition
        if disposition is Disposition.ANSWERED:
            limiter.answered(now, row, reply.headers, reply.usage)
            limiter.released(now, row)
            record.accepted[second] = record.accepted.get(second, 0.0) + 1
            record.output[second] = record.output.get(second, 0.0) + row.output
            self._end(row)
        elif disposition is Disposition.REFUSED:
            record.refused[second] = record.refused.get(second, 0) + 1
            record.refusal_times.append(now)
            row.refusals += 1
            limiter.refused(now, row, reply.verdict, reply.headers)
        else:
            record.failed[second] = record.failed.get(second, 0) + 1
            self._failed(row, reply, now)
        self._step()

    def _failed(self, row: Row, reply: Reply, now: float) -> None:
        self.limiter.failed(now, row, reply.verdict, reply.headers)
        self.limiter.released(now, row)
        if not self.limiter.outage:
            row.attempts += 1
        row.maybe += reply.verdict.disposition is Disposition.UNKNOWN
        delay = self.policy.delay_s(max(1, row.attempts), row.maybe, reply.verdict)
        if delay is None:
            self.record.lost += reply.verdict.disposition is not Disposition.REJECTED
            self._end(row)
        else:
            self.limiter.offer(row, row.cost, lane=LANE, again=True, not_before=now + delay)

    def _end(self, row: Row) -> None:
        self.unfinished -= 1
