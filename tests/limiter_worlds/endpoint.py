"""An endpoint: its limits, what it tells, its moods, and a stranger who uses it as well."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from batchllm.records import Response, Usage
from batchllm.retry import Disposition, Verdict, classify

from . import noise, tells
from .clock import Clock
from .servers import Cap, grant_of
from .spec import DAY_S, Spec

ANSWERED = Verdict(Disposition.ANSWERED, "answered")
STRANGER_TICK_S = 0.2


class Row:
    """A row of the job, and what is known of its way."""

    __slots__ = ("attempts", "let_in_at", "max_tokens", "prompt", "tokens", "waits")

    def __init__(self, prompt: int, max_tokens: int, charge: str) -> None:
        self.prompt, self.max_tokens = prompt, max_tokens
        self.tokens = prompt + max_tokens if charge == "estimate" else max(prompt, max_tokens)
        self.attempts = 0
        self.let_in_at: float | None = None
        self.waits = False


@dataclass(slots=True)
class Reply:
    """What comes back, the pause that it asks for (which only the judge reads), and whether an answer is of no use."""

    verdict: Verdict = ANSWERED
    headers: dict[str, str] = field(default_factory=dict)
    usage: Usage | None = None
    pause_s: float = 0.0
    useless: bool = False


@dataclass(slots=True)
class Counts:
    """What an endpoint has seen."""

    let_in: list[tuple[float, float]] = field(default_factory=list)  # instant, tokens
    limited: list[float] = field(default_factory=list)  # instants of refusals that a limit caused
    by_chance: int = 0
    faults: int = 0
    last_new_at: float = 0.0  # when a row was let in for the first time, the latest


class Endpoint:
    """Decides each request at the instant of its arrival."""

    def __init__(self, spec: Spec, clock: Clock) -> None:
        self.spec, self.clock = spec, clock
        self.grants = [grant_of(limit) for limit in spec.limits]
        self._caps = [grant for grant in self.grants if isinstance(grant, Cap)]
        self.counts = Counts()
        self.changed: Callable[[], None] = lambda: None
        self.before: Callable[[], None] = lambda: None
        self.stranger_took: list[tuple[float, float]] = []
        self._seen = 0
        self._owed = 0.0
        self._stranger_at = 0.0
        if spec.stranger:
            clock.at(STRANGER_TICK_S, self._stranger)

    def amounts(self, requests: float, tokens: float) -> list[float]:
        """What each limit is asked for."""
        return [tokens if grant.limit.of == "tokens" else requests for grant in self.grants]

    def opens_at(self, now: float, amounts: list[float]) -> float:
        """The first instant at which amounts are let in, if nothing else comes."""
        if self.spec.outage is not None and noise.down(self.spec, now):
            now = sum(self.spec.outage)
        at = now
        for grant, amount in zip(self.grants, amounts, strict=True):
            at = max(at, grant.opens_at(now, amount))
        return at

    def stranger_share(self, now: float) -> float:
        """The share of the limits that the stranger asks for."""
        steps = self.spec.stranger
        return steps[int(now / self.spec.stranger_s) % len(steps)] if steps else 0.0

    def _stranger(self) -> None:
        self.before()
        now = self.clock.now
        share = self.stranger_share(now)
        tick = now - self._stranger_at
        self._stranger_at = now
        for grant in self.grants:
            if grant.limit.kind != "cap" and grant.limit.window_s < DAY_S:
                self._owed += share * grant.limit.amount / grant.limit.window_s * tick
                whole = min(int(self._owed), int(max(0.0, grant.free(now)) + 1e-6))
                self._owed = min(self._owed - whole, 1.0)
                if whole:
                    grant.take(now, whole)
                    self.stranger_took.append((now, whole))
        self.clock.at(now + STRANGER_TICK_S, self._stranger)
        self.changed()

    def submit(self, row: Row, reply: Callable[[Reply], None]) -> None:
        """Takes a request at the instant of its arrival."""
        spec, clock, now = self.spec, self.clock, self.clock.now
        rng, counts = clock.rng, self.counts
        self._seen += 1
        if spec.outage is not None and noise.down(spec, now):
            counts.faults += 1
            clock.at(now + 0.01, reply, Reply(noise.CONNECT))
            return
        if self._seen <= spec.odd_first:
            counts.by_chance += 1
            clock.at(now + 0.005, reply, self._odd())
            return
        amounts = self.amounts(1.0, row.tokens)
        if spec.noise and rng.random() < spec.noise:
            counts.by_chance += 1
            clock.at(now + spec.refusal_s, reply, self._by_chance("Too Many Requests", 429))
            return
        if spec.busy and rng.random() < spec.busy:
            counts.by_chance += 1
            clock.at(now + spec.refusal_s, reply, self._by_chance("Service unavailable", 503))
            return
        fault = noise.fault(spec, rng)
        if fault is noise.CONNECT:
            counts.faults += 1
            clock.at(now + 0.01, reply, Reply(noise.CONNECT))
            return
        opens_at = self.opens_at(now, amounts)
        if opens_at > now:
            counts.limited.append(now)
            clock.at(now + 0.005, reply, self._limited(now, opens_at, amounts))
            return
        for grant, amount in zip(self.grants, amounts, strict=True):
            grant.take(now, amount)
        counts.let_in.append((now, row.tokens))
        if row.let_in_at is None:
            row.let_in_at = counts.last_new_at = now
        if fault is None:
            told = tells.headers(self.grants, spec, now)
            answer = Reply(
                headers=told, usage=Usage(row.prompt, row.max_tokens // 2, row.prompt + row.max_tokens // 2)
            )
        else:
            counts.faults += 1
            answer = Reply(fault)
        clock.at(now + noise.work_s(spec, rng), self._finish, answer, reply)

    def _finish(self, answer: Reply, reply: Callable[[Reply], None]) -> None:
        if self._caps:
            self.before()
            for cap in self._caps:
                cap.give_back()
            self.changed()
        reply(answer)

    def _limited(self, now: float, opens_at: float, amounts: list[float]) -> Reply:
        short = [
            grant
            for grant, amount in zip(self.grants, amounts, strict=True)
            if grant.opens_at(now, amount) > now
        ]
        of = short[0].limit.of if short else "requests"
        words = "tokens per min (TPM)" if of == "tokens" else "requests"
        wait_s = 1.0 if opens_at == float("inf") else opens_at - now
        told = tells.headers(self.grants, self.spec, now) | tells.retry_after(self.spec.retry_after, wait_s)
        pause_s = tells.pause_s(told, self.grants, amounts, self.spec, now)
        return self._refusal(f"Rate limit reached for {words}", told, pause_s)

    def _by_chance(self, words: str, status: int) -> Reply:
        told = tells.retry_after(self.spec.chance_retry_after, 1.0)
        pause_s = float(told.get("retry-after", 0.0))
        return self._refusal(
            words, tells.headers(self.grants, self.spec, self.clock.now) | told, pause_s, status
        )

    def _odd(self) -> Reply:
        told = tells.retry_after(self.spec.odd_retry_after, 1.0)
        return self._refusal("Too Many Requests", told, float(told.get("retry-after", 0.0)))

    @staticmethod
    def _refusal(words: str, told: dict[str, str], pause_s: float, status: int = 429) -> Reply:
        body = f'{{"error":{{"message":"{words}","code":{status}}}}}'.encode()
        verdict: Any = classify(Response(status, told, body, 0.01))
        return Reply(verdict, told, pause_s=pause_s)
