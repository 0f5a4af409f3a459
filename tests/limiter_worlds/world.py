"""Builds a world from its description, lets it run, and says how it went."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any

from batchllm.limiter import Limiter
from batchllm.records import Pace

from .clients import Client
from .clock import Clock
from .endpoint import Endpoint, Row
from .ideal import Ideal, ideal, rate_per_s
from .judge import Liveness
from .spec import DAY_S, Spec

Maker = Callable[..., Any]
MAX_WAIT_S = 3600.0
SHARE_FROM_S = 60.0
FOUND_FROM_S = 180.0
FOUND_LEAST_ROWS = 300


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a world went.

    Attributes:
        spec: The world.
        ended: ``done``, ``quota`` (a quota that is truly spent), or why it never finishes: ``late``, ``floods``,
            ``spins``, ``gave up``, ``lost`` (rows that would have been let in were given back).
        excess_s: The longest standstill beyond its bound; ``since_s`` says when it began.
        last_s: When the last row was let in.
        allowed_s: When it should have been, at the latest.
        ideal_s: When it could have been.
        refused: Refusals that a limit caused; ``refused_first`` of them before anything was let in.
        block_s: How long the endpoint lets nothing in at the start.
        share: Of the quota that could be used, from the second minute on; ``None``: too short to say.
        found: Refusals per request let in after three minutes; ``None``: too short to say.
    """

    spec: Spec
    ended: str
    excess_s: float
    since_s: float
    last_s: float
    allowed_s: float
    ideal_s: float
    refused: int
    refused_first: int
    block_s: float
    share: float | None
    found: float | None
    sends: int

    @property
    def unfinished(self) -> bool:
        """It never finishes."""
        return self.ended not in ("done", "quota")

    @property
    def slow_s(self) -> float:
        """Seconds beyond the time that it may take; negative within it."""
        return inf if self.unfinished else self.last_s - self.allowed_s

    @property
    def fails(self) -> bool:
        """It misses what is asked of every world: it finishes, within its bounds."""
        return self.unfinished or self.excess_s > 1.0 or self.slow_s > 0.0

    def __str__(self) -> str:
        share = "-" if self.share is None else f"{self.share:.3f}"
        return (
            f"{self.spec.name}: {self.ended}, last in at {self.last_s:.1f} s (ideal {self.ideal_s:.1f}, allowed"
            f" {self.allowed_s:.1f}), excess {self.excess_s:.1f} s from {self.since_s:.1f} s, refused {self.refused},"
            f" share {share}"
        )


def product(pace: Pace, **options: Any) -> Any:
    """The limiter of the product."""
    return Limiter(pace, **options)


def rows_of(spec: Spec) -> list[Row]:
    """The rows of all clients, client after client."""
    rng = random.Random(f"{spec.seed} rows")
    largest = (
        min([limit.amount / 4.0 for limit in spec.limits if limit.of == "tokens"] + [1e9]) - spec.max_tokens
    )
    rows = []
    for _ in range(spec.rows * spec.clients):
        prompt = spec.prompt_tokens * rng.lognormvariate(0.0, spec.size_sigma)
        rows.append(Row(int(max(1.0, min(prompt, largest))), spec.max_tokens, spec.charge))
    return rows


class World:
    """A world at work; ``watch`` may be replaced to see each event of interest."""

    def __init__(self, spec: Spec, make: Maker = product) -> None:
        self.spec = spec
        self.clock = Clock(spec.seed)
        self.rows = rows_of(spec)
        self.ideal: Ideal = ideal(spec, self.rows)
        self.endpoint = Endpoint(spec, self.clock)
        amounts = self.endpoint.amounts(1.0, max(row.tokens for row in self.rows))
        self.block_s = self.endpoint.opens_at(0.0, amounts)
        pace = Pace(
            requests_per_minute=spec.told_rpm, tokens_per_minute=spec.told_tpm,
            concurrency=spec.concurrency, max_wait_s=MAX_WAIT_S,
        )  # fmt: skip
        self.clients = []
        for index in range(spec.clients):
            starts_at = 0.0 if index == 0 else 3.0 * random.Random(f"{spec.seed} {index}").random()
            rng = random.Random(f"{spec.seed} limiter {index}")
            limiter = make(pace, charge=spec.charge, now=starts_at, learned=None, rng=rng)
            mine = self.rows[index * spec.rows : (index + 1) * spec.rows]
            client = Client(limiter, self.endpoint, iter(mine))
            self.clients.append(client)
            self.clock.at(starts_at, client.start)
        self.judge = Liveness(self.endpoint, self.clients)

    def run(self) -> Outcome:
        """Lets time pass until the job is done, or is late beyond hope."""
        clients, longest_s = self.clients, self.ideal.longest_s
        most_sends = 20_000 + 50 * len(self.rows)
        horizon_s = min(20.0 * longest_s + 600.0, 5.0 * longest_s + 3600.0) + self.block_s
        ok = True
        while True:  # pauses that were asked for prolong the time that it may take
            until = horizon_s + max(client.paused_s for client in clients)
            ok = self.clock.run(until, self._over(most_sends), 600_000 + 200 * len(self.rows))
            if not ok or self._over(most_sends)() or until >= horizon_s + max(c.paused_s for c in clients):
                break
        if ok and not self._over(most_sends)():
            self.clock.now = until  # nothing may be left to happen, but time goes on
        self.judge.settle()
        return self._outcome(self._ended(ok, most_sends))

    def _over(self, most_sends: int) -> Callable[[], bool]:
        clients = self.clients
        if len(clients) == 1:
            one = clients[0]
            return lambda: one.finished() or one.sends > most_sends
        return lambda: all(c.finished() for c in clients) or sum(c.sends for c in clients) > most_sends

    def _ended(self, ok: bool, most_sends: int) -> str:
        if not ok:
            return "spins"
        stopped = [client for client in self.clients if client.stopped is not None]
        if stopped:
            self.clock.run(self.clock.now + 1.0, lambda: False, 10_000)  # what has left may still arrive
            tokens = min(row.tokens for row in self.rows)
            opens = self.endpoint.opens_at(self.clock.now, self.endpoint.amounts(1.0, tokens))
            return "quota" if opens - self.clock.now > MAX_WAIT_S else "gave up"
        if not all(client.finished() for client in self.clients):
            return "floods" if sum(c.sends for c in self.clients) > most_sends else "late"
        lost = sum(client.lost for client in self.clients)
        return "lost" if lost > 1 + 0.03 * len(self.rows) else "done"

    def _outcome(self, ended: str) -> Outcome:
        counts, spec = self.endpoint.counts, self.spec
        first = counts.let_in[0][0] if counts.let_in else inf
        paused_s = max(client.paused_s for client in self.clients)
        worst = self.judge.worst
        return Outcome(
            spec, ended, worst.excess_s, worst.since, counts.last_new_at,
            1.5 * self.ideal.longest_s + 10.0 + paused_s, self.ideal.longest_s, len(counts.limited),
            sum(at < first for at in counts.limited), self.block_s, self._share(), self._found(),
            sum(client.sends for client in self.clients),
        )  # fmt: skip

    def _share(self) -> float | None:
        """What was let in of what could have been, in the dimension that comes nearest to its limit.

        Over whole minutes up to the end, so that it does not matter where in a window the job ends.
        """
        counts, spec, end = self.endpoint.counts, self.spec, self.endpoint.counts.last_new_at
        minutes = int((end - SHARE_FROM_S) / 60.0)
        if minutes < 1 or self.ideal.slots_s > 0.8 * self.ideal.even_s:
            return None
        start = end - 60.0 * minutes
        took = sum(amount for at, amount in self.endpoint.stranger_took if start < at <= end)
        shares = []
        for limit in spec.limits:
            if limit.window_s == DAY_S:
                return None
            if limit.kind != "cap":
                of_tokens = limit.of == "tokens"
                mine = sum(tokens if of_tokens else 1 for at, tokens in counts.let_in if start < at <= end)
                shares.append(mine / max(1.0, rate_per_s(limit, spec) * 60.0 * minutes - took))
        return max(shares, default=None)

    def _found(self) -> float | None:
        later = sum(at >= FOUND_FROM_S for at, _ in self.endpoint.counts.let_in)
        if later < FOUND_LEAST_ROWS:
            return None
        return sum(at >= FOUND_FROM_S for at in self.endpoint.counts.limited) / later


def run(spec: Spec, make: Maker = product) -> Outcome:
    """Runs one world."""
    return World(spec, make).run()
