"""Runs worlds of several endpoints: one router shares the rows among them, and a judge says what is wrong."""

import argparse
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from multiprocessing import get_context
from typing import Any

from batchllm.limiter import Cost, EndpointRouter, Target
from batchllm.records import Pace
from batchllm.retry import Disposition

from .clients import LANE, Client
from .clock import Clock
from .endpoint import Endpoint, Reply, Row
from .several_spec import FAST_S, FAULTS, HANG_S, HANGS, SLOWER, Server, Several, several
from .spec import Spec

MOST_S = 7200.0
START_S = 3.0
MOST, LEAST_SHARE, MOST_LATE = 0.99, 0.95, 2


class TroubledEndpoint(Endpoint):
    """An endpoint in whose troubles requests end otherwise."""

    def __init__(self, server: Server, clock: Clock) -> None:
        super().__init__(server.spec, clock)
        self.server = server
        self.in_trouble: Counter[int] = Counter()

    def submit(self, row: Row, reply: Callable[[Reply], None]) -> None:
        now, normal = self.clock.now, self.spec
        for place, trouble in enumerate(self.server.troubles):
            if trouble.start <= now < trouble.end:
                self.in_trouble[place] += 1
                if trouble.kind in FAULTS:
                    self.clock.at(now + FAST_S, reply, FAULTS[trouble.kind]())
                    return
                if trouble.kind == "hang":
                    self.clock.at(now + HANG_S, reply, Reply(HANGS))
                    return
                self.spec = replace(normal, latency_s=SLOWER * normal.latency_s)
        super().submit(row, reply)
        self.spec = normal


class RoutedRow(Row):
    """A row that may go to one of several endpoints."""

    __slots__ = ("answered_at", "away", "billed", "cost", "endpoint", "lane", "useless", "went_to")

    def __init__(self, prompt: int, max_tokens: int, charge: str) -> None:
        super().__init__(prompt, max_tokens, charge)
        self.cost = Cost(prompt, max_tokens)
        self.lane = LANE
        self.endpoint = 0
        self.away: Mapping[int, float] = {}
        self.went_to: list[tuple[float, int]] = []
        self.billed = 0
        self.answered_at = inf
        self.useless = False


class RoutedClient(Client):
    """Drives a router as the runner does."""

    def __init__(self, router: Any, endpoints: Sequence[Endpoint], rows: Sequence[RoutedRow]) -> None:
        super().__init__(router, endpoints[0], iter(rows))
        self.endpoints = endpoints
        self.all_rows = rows
        self.rows_left = len(rows)
        self.ended_at = 0.0
        self.sent_at: list[float] = []

    def _step(self) -> None:
        self.limiter.left = float(self.rows_left - self.in_flight)
        super()._step()

    def _arrive(self, row: Row) -> None:
        assert isinstance(row, RoutedRow)
        row.went_to.append((self.clock.now, row.endpoint))
        self.sent_at.append(self.clock.now)
        self.endpoints[row.endpoint].submit(row, lambda reply: self._on_the_way(row, reply))

    def _saved(self, row: Row, reply: Reply) -> None:
        assert isinstance(row, RoutedRow)
        row.useless = reply.useless
        self.limiter.excluded.judged(self.clock.now, row, "empty" if reply.useless else None)
        self.rows_left -= 1
        self.ended_at = row.answered_at = self.clock.now
        super()._saved(row, reply)

    def _failed(self, row: Row, reply: Reply) -> None:
        assert isinstance(row, RoutedRow)
        now, router, verdict = self.clock.now, self.limiter, reply.verdict
        self.in_flight -= 1
        router.failed(now, row, verdict, reply.headers)
        router.released(now, row)
        if router.outage_of(row) and verdict.disposition is not Disposition.UNKNOWN:
            self._offer(row, again=True, not_before=now)
            return
        row.attempts += 1
        row.billed += verdict.disposition is Disposition.UNKNOWN
        delay_s = self._policy.delay_s(row.attempts, row.billed, verdict)
        if delay_s is None:
            self.lost += 1
            self.unfinished -= 1
            self.rows_left -= 1
            self.ended_at = now
        else:
            self._offer(row, again=True, not_before=now + delay_s)


@dataclass(frozen=True, slots=True)
class SeveralOutcome:
    """How a world of several endpoints went.

    Attributes:
        world: The world.
        ended: ``done``, ``late``, or why the router gave up.
        ended_s: When the last row ended.
        most_s: When all rows but one in a hundred were answered, of those whose answers could come soon.
        share: Of the rows that are answered until then if each endpoint is the only one of a job.
        late: Rows that went to a slow endpoint last, when all that were left could be answered before.
        lost, useless: Rows that failed, and rows with an answer that is of no use.
        gap_s, gap_at: The longest time without a request while an endpoint lived; and when it began.
        in_trouble: By endpoint and trouble, the requests sent there.
    """

    world: Several
    ended: str
    ended_s: float
    most_s: float
    share: float
    late: int
    lost: int
    useless: int
    gap_s: float
    gap_at: float
    in_trouble: tuple[Mapping[int, int], ...]

    def faults(self) -> list[str]:
        """What is not as it should be."""
        world = self.world
        found = [] if self.ended == "done" else [self.ended]
        if self.lost:
            found.append(f"{self.lost} rows are lost")
        if self.share < LEAST_SHARE:
            found.append(f"{self.share:.3f} of what the endpoints grant, in {self.most_s:.1f} s")
        if self.late > MOST_LATE:
            found.append(f"{self.late} of the last rows went to slow endpoints")
        if self.gap_s > 3.0 + 2.0 / min(server.rate for server in world.servers):
            found.append(f"nothing leaves for {self.gap_s:.1f} s from {self.gap_at:.1f} s on")
        for number, (server, counts) in enumerate(zip(world.servers, self.in_trouble, strict=True)):
            for place, sent in counts.items():
                if sent > server.most_sent(server.troubles[place], self.ended_s):
                    found.append(f"{sent} requests to {number} in {server.troubles[place]}")
        return found


@dataclass
class SeveralWorld:
    """A world of several endpoints at work."""

    world: Several
    max_outage_s: float = MOST_S

    def run(self) -> SeveralOutcome:
        """Lets time pass until the job is done, or is late beyond hope."""
        world = self.world
        client = self._job(world.servers, world.rows)
        ok = self.clock.run(MOST_S, client.finished, 2_000_000)
        self.router, self.rows, endpoints = client.limiter, client.all_rows, self.endpoints
        ended = client.stopped or ("done" if client.finished() else "late" if ok else "spins")
        gaps = [(later - at, at) for at, later in zip(client.sent_at, client.sent_at[1:], strict=False)]
        known = [
            min(
                (row.answered_at for row in self.rows if row.went_to and row.went_to[-1][1] == number),
                default=inf,
            )
            for number in range(len(world.servers))
        ]
        answered = sorted(row.answered_at for row in self.rows if not self._is_late(row, known))
        most = max(1, int(MOST * len(answered)))
        most_s = min(answered[most - 1], client.ended_at) if answered else client.ended_at
        judged = [gap for gap in gaps if sum(gap) <= most_s and world.lives(gap[1], sum(gap))]
        late = world.late([row.went_to[-1] for row in self.rows if row.went_to], known)
        done = sum(row.answered_at <= most_s for row in self.rows)
        alone = sum(self._alone(server, most_s - START_S) for server in world.servers)
        return SeveralOutcome(
            world, ended, client.ended_at, most_s, done / max(1, alone), late, client.lost,
            sum(row.useless for row in self.rows), *max(judged, default=(0.0, 0.0)),
            tuple(each.in_trouble for each in endpoints),
        )  # fmt: skip

    def _is_late(self, row: RoutedRow, known: Sequence[float]) -> bool:
        """Whether a row was where answers came late or not at all, or where nothing was known of them yet."""
        return any(
            at < known[number]
            or any(
                trouble.kind in ("hang", "slow") and trouble.start <= at < trouble.end
                for trouble in self.world.servers[number].troubles
            )
            for at, number in row.went_to
        )

    def _alone(self, server: Server, until: float) -> int:
        """How many rows the endpoint answers if it is the only one, while it lives."""
        self._job((server,), self.world.rows)
        self.clock.run(until, lambda: False, 2_000_000)
        return sum(
            row.answered_at <= until and server.lives(row.went_to[-1][0]) for row in self.client.all_rows
        )

    def _job(self, servers: Sequence[Server], rows: int) -> RoutedClient:
        seed = self.world.seed
        self.clock = clock = Clock(seed)
        self.endpoints = [TroubledEndpoint(server, clock) for server in servers]
        targets = [
            Target(f"e{number}", _pace(server.spec), server.spec.charge, server.weight)
            for number, server in enumerate(servers)
        ]
        rng = random.Random(f"{seed} router")
        router: EndpointRouter[RoutedRow] = EndpointRouter(
            targets, now=0.0, max_outage_s=self.max_outage_s, rng=rng
        )
        spec = servers[0].spec
        every = [RoutedRow(spec.prompt_tokens, spec.max_tokens, spec.charge) for _ in range(rows)]
        self.client = RoutedClient(router, self.endpoints, every)
        clock.at(0.0, self.client.start)
        return self.client


def _pace(spec: Spec) -> Pace:
    return Pace(requests_per_minute=spec.told_rpm, concurrency=spec.concurrency, max_wait_s=3600.0)


def _one(seed: int, most_rows: float) -> SeveralOutcome:
    return SeveralWorld(several(seed, most_rows)).run()


def run_several(seeds: Iterable[int], most_rows: float, jobs: int = 2) -> list[SeveralOutcome]:
    """Runs worlds in several processes; the outcomes are in the order of the seeds."""
    with get_context("spawn").Pool(jobs) as pool:
        return pool.map(partial(_one, most_rows=most_rows), list(seeds), chunksize=2)


def main() -> int:
    """Prints what is wrong in random worlds, and how the shares are distributed; 1 where anything is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.limiter_worlds.several")
    parser.add_argument("--worlds", type=int, default=100)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--rows", type=float, default=3000.0, help="the most rows of a world")
    given = parser.parse_args()
    outcomes = run_several(range(given.first_seed, given.first_seed + given.worlds), given.rows)
    failing = [outcome for outcome in outcomes if outcome.faults()]
    for outcome in failing:
        print(outcome.world.seed, "; ".join(outcome.faults()))
    shares = sorted(outcome.share for outcome in outcomes)
    quantiles = [round(shares[int(at * (len(shares) - 1))], 3) for at in (0.0, 0.01, 0.05, 0.5)]
    print(f"{len(failing)} of {len(outcomes)} worlds fail; shares, least, 1 %, 5 %, median: {quantiles}")
    return 1 if failing else 0


if __name__ == "__main__":
    sys.exit(main())
