"""Worlds of several endpoints, each with its limits and its troubles."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import exp, inf, log

from batchllm.records import Response, Usage
from batchllm.retry import Disposition, Verdict, classify

from . import generate as g
from . import noise
from .endpoint import Reply
from .ideal import rate_per_s
from .spec import Spec

HANG_S = 30.0
SLOWER = 10.0
FAST_S = 0.005
HANGS = Verdict(Disposition.UNKNOWN, "timeout", "no answer came")


def _reply(status: int, body: bytes) -> Reply:
    return Reply(classify(Response(status, {}, body, FAST_S)))


FAULTS: dict[str, Callable[[], Reply]] = {
    "connect": lambda: Reply(noise.CONNECT),
    "500": lambda: Reply(noise.BROKEN),
    "503": lambda: _reply(503, b'{"error":{"message":"Service unavailable"}}'),
    "page": lambda: _reply(200, b"<html>Maintenance</html>"),
    "429": lambda: _reply(429, b'{"error":{"message":"Too Many Requests"}}'),
    "empty": lambda: Reply(usage=Usage(10, 0, 10), useless=True),
}
"""What is answered at once in a trouble, by its kind; ``slow`` and ``hang`` are the others."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """A time in which an endpoint does not work: its kind, when it begins and when it is over."""

    kind: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Server:
    """An endpoint of a world: its limits (one client's), its troubles in order, and its weight."""

    spec: Spec
    troubles: tuple[Trouble, ...] = ()
    weight: float = 1.0

    @property
    def rate(self) -> float:
        """Requests a second that can be had for sure; half where nothing tells the limit."""
        spec = self.spec
        rates = [rate_per_s(limit, spec) for limit in spec.limits if limit.kind != "cap"]
        slots = [limit.amount for limit in spec.limits if limit.kind == "cap"] + [spec.concurrency or 16.0]
        by_slots = min(slots) / (noise.mean_work_s(spec) + 0.1)
        known = spec.told or spec.headers
        if spec.concurrency is None and len(slots) == 1:
            by_slots = inf if rates else by_slots
        return min([*rates, by_slots]) * (1.0 if known or not rates else 0.5)

    def lives(self, now: float) -> bool:
        """Whether it works, and has had the time to be found working again."""
        return not any(each.start <= now < each.end + _found_after_s(each) for each in self.troubles)

    def known_latency_s(self, now: float) -> float:
        """The latency of an answer, as it has been for long enough to be seen."""
        usual_s = self.spec.latency_s
        for each in self.troubles:
            if each.kind == "slow" and each.start + 3.0 * SLOWER * usual_s <= now < each.end:
                return SLOWER * usual_s
        return usual_s

    def most_sent(self, trouble: Trouble, ended_s: float) -> float:
        """How many requests may go there in a trouble: those until it is noticed, and probes."""
        lasted = max(0.0, min(trouble.end, ended_s) - trouble.start)
        if trouble.kind == "slow":
            return inf
        noticed_s = HANG_S if trouble.kind == "hang" else 1.0
        slots = self.spec.concurrency or max(32.0, 2.0 * self.rate * (2.0 * self.spec.latency_s + noticed_s))
        return slots + 20.0 + 12.0 * log(1.0 + lasted)


def _found_after_s(trouble: Trouble) -> float:
    """How long after its end an endpoint may be thought to be in a trouble still: until the next probe."""
    lasted = trouble.end - trouble.start
    late = HANG_S if trouble.kind == "hang" else 0.0
    return min(60.0, 1.0 + 0.1 * (lasted + late)) + late + 8.0


@dataclass(frozen=True, slots=True)
class Several:
    """A world of several endpoints."""

    seed: int
    rows: int
    servers: tuple[Server, ...]

    def lives(self, *times: float) -> bool:
        """Whether an endpoint works at all these times."""
        return any(all(server.lives(at) for at in times) for server in self.servers)

    def late(self, sent: Sequence[tuple[float, int]], known: Sequence[float]) -> int:
        """How many of the last rows went to an endpoint that was known to be slow, when the others were enough.

        Args:
            sent: When each row went for the last time, and where.
            known: By endpoint, when its first answer came.
        """
        usual = sorted(server.spec.latency_s for server in self.servers)[(len(self.servers) - 1) // 2]
        last = max(at for at, _ in sent)
        return sum(
            at > known[number]
            and self.servers[number].known_latency_s(at) > 1.5 * (last - at) + 5.0 + 5.0 * usual
            for at, number in sent
        )


KINDS = ("connect", "500", "503", "page", "429", "slow", "hang")
LIMITS = (
    g.told(), g.told(), g.lawful(), g.known(g.other_windows("sliding")), g.silent(retry_after="true"), g.capped(20),
    g.unlimited(),
)  # fmt: skip


def several(seed: int, most_rows: float = 3000.0) -> Several:
    """The world of a seed."""
    rng = random.Random(f"several {seed}")
    lasts_s = exp(rng.uniform(log(40.0), log(150.0)))
    servers = []
    latency_s = exp(rng.uniform(log(0.1), log(4.0)))
    for number in range(rng.randint(2, 9)):
        parts = g.base(rng) | rng.choice(LIMITS)(rng)
        if all(limit.kind == "cap" for limit in parts.get("limits", ())):
            parts["concurrency"] = rng.choice((4, 8, 16))
        parts |= {
            "latency_s": latency_s * (SLOWER if rng.random() < 0.1 and number else rng.uniform(0.5, 2.0)),
            "latency_sigma": 0.2, "late_share": 0.0, "prompt_tokens": 200, "size_sigma": 0.0, "rows": 1,
            "charge": "max_tokens",
        }  # fmt: skip
        servers.append(Server(Spec(name="several", seed=seed, **parts), weight=rng.choice((1.0, 1.0, 2.0))))
    rate = sum(server.rate for server in servers)
    rows = int(max(50.0, min(most_rows, lasts_s * rate)))
    lasts_s = rows / rate
    troubled = [replace(server, troubles=_troubles(rng, lasts_s)) for server in servers]
    return Several(seed, rows, (servers[0], *troubled[1:]))


def _troubles(rng: random.Random, lasts_s: float) -> tuple[Trouble, ...]:
    found: list[Trouble] = []
    at = rng.uniform(0.0, 0.5) * lasts_s
    while rng.random() < 0.5 and at < 0.7 * lasts_s:
        lasted = inf if rng.random() < 0.2 else exp(rng.uniform(log(3.0), log(60.0)))
        found.append(Trouble(rng.choice(KINDS), at, at + lasted))
        at += lasted + rng.uniform(10.0, 60.0)
    return tuple(found)
