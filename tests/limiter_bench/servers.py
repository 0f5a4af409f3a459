"""Endpoints: an API with limits, headers and other clients, and an inference engine with slots and a queue."""

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush

from batchllm.records import Usage
from batchllm.retry import Disposition, Verdict

from .grants import Grant, LeakyBucket
from .world import Reply, Row, World

CONNECT = Verdict(Disposition.TRANSIENT, "connect", "no connection")
BROKEN = Verdict(Disposition.TRANSIENT, "http_500", "the endpoint answered 500")
BUSY = Verdict(Disposition.OVERLOADED, "overloaded", "server busy")
TIMEOUT = Verdict(Disposition.UNKNOWN, "timeout", "no whole answer in time")


def charged(row: Row, kind: str) -> float:
    """What a request takes of a token limit, by the way the endpoint counts."""
    bound = row.cost.max_tokens
    if kind == "max_tokens":
        return max(row.prompt, bound or 0)
    if kind == "estimate":
        return row.prompt + (bound or 0)
    return row.prompt + row.output


class Api:
    """An endpoint with limits.

    Args:
        requests, tokens: The grants held against every request; both must take it.
        latency_s: Seconds of work for an answer, as a function of the row and a random source.
        charge: How tokens are counted: ``max_tokens``, ``estimate``, ``usage`` (``usage``: added when the
            answer is ready, so that refusals come late).
        bias: The endpoint's token charge, to the client's.
        headers: ``lawful`` (limit, remaining, reset of a leaky bucket), ``none``, or ``late`` (lost now and
            then).
        tells: How a refusal says when: ``seconds``, ``none`` or ``constant`` (always 60).
        day: A grant over a day, whose headers take the place of the minute's.
    """

    def __init__(
        self, requests: Grant | None = None, tokens: Grant | None = None, *,
        latency_s: Callable[[Row, World], float] = lambda row, world: world.rng.lognormvariate(-0.1, 0.4),
        charge: str = "max_tokens", bias: float = 1.0, headers: str = "none", tells: str = "seconds",
        day: LeakyBucket | None = None,
    ) -> None:  # fmt: skip
        self.requests, self.tokens, self.day = requests, tokens, day
        self._latency_s, self._charge, self.bias = latency_s, charge, bias
        self._headers, self._tells = headers, tells
        self.admitted_requests: dict[int, float] = {}
        self.admitted_tokens: dict[int, float] = {}
        self.refused = 0
        self.foreign: Callable[[float], float] | None = None
        self._foreign_at = 0.0

    def submit(self, world: World, row: Row, reply: Callable[[Reply], None]) -> None:
        now = world.now
        self._others(now)
        tokens = charged(row, self._charge) * self.bias
        wait, what = self._takes(now, tokens)
        if wait is not None:
            self.refused += 1
            world.at(now + 0.005, reply, self._refusal(now, wait, what, row, tokens))
            return
        second = int(now)
        self.admitted_requests[second] = self.admitted_requests.get(second, 0.0) + 1
        self.admitted_tokens[second] = self.admitted_tokens.get(second, 0.0) + tokens
        usage = Usage(row.prompt, row.output, row.prompt + row.output)
        answer = Reply(headers=self._told(now, world), usage=usage)
        world.at(now + self._latency_s(row, world), self._answer, answer, tokens, world, reply)

    def _answer(self, answer: Reply, tokens: float, world: World, reply: Callable[[Reply], None]) -> None:
        if self._charge == "usage" and self.tokens is not None:
            self.tokens.add(world.now, tokens)
        reply(answer)

    def _others(self, now: float) -> None:
        """Another client on the same key takes its share, a little at a time."""
        if self.foreign is not None and now > self._foreign_at:
            share = self.foreign(now)
            for grant in (self.requests, self.tokens):
                if grant is not None and share:
                    grant.takes(now, share * grant.limit / grant.window_s * (now - self._foreign_at))
        self._foreign_at = now

    def _takes(self, now: float, tokens: float) -> tuple[float | None, str]:
        if self.day is not None and (wait := self.day.takes(now, 1.0)) is not None:
            return wait, "requests"
        if self.requests is not None and (wait := self.requests.takes(now, 1.0)) is not None:
            return wait, "requests"
        if self.tokens is not None:
            wait = self.tokens.takes(now, 0.0 if self._charge == "usage" else tokens)
            if wait is not None:
                if self.requests is not None:
                    self.requests.give_back(1.0)
                return wait, "tokens"
        return None, ""

    def _refusal(self, now: float, wait: float, what: str, row: Row, tokens: float) -> Reply:
        pause = {"seconds": wait, "none": None, "constant": 60.0}[self._tells]
        unit = "tokens per min (TPM)" if what == "tokens" else "requests per min (RPM)"
        said = Verdict(
            Disposition.REFUSED, "rate_limit", f"Rate limit reached on {unit}", retry_after_s=pause,
            requested_tokens=round(tokens) if what == "tokens" and self._headers != "none" else None,
        )  # fmt: skip
        return Reply(said)

    def _told(self, now: float, world: World) -> dict[str, str]:
        if self._headers == "none" and self.day is None:
            return {}
        if self._headers == "late" and world.rng.random() < 0.3:
            return {}
        told: dict[str, str] = {}
        requests = self.day or (self.requests if self._headers != "none" else None)
        for name, grant in (
            ("requests", requests),
            ("tokens", self.tokens if self._headers != "none" else None),
        ):
            if isinstance(grant, LeakyBucket):
                level = grant.level(now)
                told[f"x-ratelimit-limit-{name}"] = f"{grant.limit:.0f}"
                told[f"x-ratelimit-remaining-{name}"] = f"{int(grant.limit - level)}"
                told[f"x-ratelimit-reset-{name}"] = _go(level * grant.window_s / grant.limit)
        return told


def _go(duration_s: float) -> str:
    if duration_s < 1.0:
        return f"{duration_s * 1000:.0f}ms"
    minutes, seconds = divmod(duration_s, 60.0)
    return f"{int(minutes)}m{seconds:.3f}s" if minutes else f"{seconds:.3f}s"


class Engine:
    """Continuous batching: ``slots`` sequences at once, each step slower the more there are, and a queue.

    Args:
        slots: Sequences decoded at once.
        queue: Requests that may wait; beyond it the engine answers 503.
        step_s, per_sequence_s: Seconds of a decoding step: the fixed part, and that of each sequence.
    """

    def __init__(
        self, slots: int, *, queue: int | None = None, step_s: float = 0.010, per_sequence_s: float = 60e-6
    ) -> None:
        self.slots, self._room, self._step_s, self._per_s = slots, queue, step_s, per_sequence_s
        self._waiting: deque[tuple[Row, Callable[[Reply], None]]] = deque()
        self._running: list[tuple[float, int, Row, Callable[[Reply], None]]] = []
        self._steps = 0.0  # decoding steps since the start
        self._at = 0.0
        self._version = 0
        self._count = 0
        self.busy_replies = 0

    def _advance(self, now: float) -> None:
        if self._running:
            self._steps += (now - self._at) / (self._step_s + self._per_s * len(self._running))
        self._at = now

    def submit(self, world: World, row: Row, reply: Callable[[Reply], None]) -> None:
        if self._room is not None and len(self._waiting) >= self._room and len(self._running) >= self.slots:
            self.busy_replies += 1
            reply(Reply(BUSY))
            return
        self._advance(world.now)
        self._waiting.append((row, reply))
        self._start(world)

    def _start(self, world: World) -> None:
        while self._waiting and len(self._running) < self.slots:
            row, reply = self._waiting.popleft()
            self._count += 1
            heappush(self._running, (self._steps + row.output, self._count, row, reply))
        self._version += 1
        if self._running:
            left = max(0.0, self._running[0][0] - self._steps)
            step_s = self._step_s + self._per_s * len(self._running)
            world.at(world.now + left * step_s, self._finish, world, self._version)

    def _finish(self, world: World, version: int) -> None:
        if version != self._version:
            return
        self._advance(world.now)
        while self._running and self._running[0][0] <= self._steps + 1e-6:
            _, _, row, reply = heappop(self._running)
            reply(Reply(usage=Usage(row.prompt, row.output, row.prompt + row.output)))
        self._start(world)


class Faulty:
    """An endpoint in trouble at times: ``trouble(now, rng)`` gives the verdict and its delay, or ``None``."""

    def __init__(self, inside: Api, trouble: Callable[[World], tuple[Verdict, float] | None]) -> None:
        self._inside, self._trouble = inside, trouble
        self.arrivals: list[float] = []

    def submit(self, world: World, row: Row, reply: Callable[[Reply], None]) -> None:
        self.arrivals.append(world.now)
        found = self._trouble(world)
        if found is None:
            self._inside.submit(world, row, reply)
        else:
            world.at(world.now + found[1], reply, Reply(found[0]))
