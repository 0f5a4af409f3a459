"""The scenarios of the bench, each with the bar that it must pass."""

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from batchllm.limiter import Limiter
from batchllm.records import Pace
from batchllm.retry import Disposition, Verdict

from .grants import FixedWindow, Grant, LeakyBucket, SlidingCounter, SlidingLog, second_bins, second_bucket
from .peers import PEERS
from .servers import Api, Engine
from .world import Client, Network, Reply, Row, World

SLIDING, BUCKET, FIXED, FIXED10 = "sliding 60 s", "bucket 60 s", "fixed 60 s", "fixed 10 s"
COUNTER, BUCKET1, BINS = "sliding counter", "bucket 1 s", "bins of 1 s"

GRANTS: dict[str, Callable[[float], Grant]] = {
    SLIDING: SlidingLog,
    BUCKET: LeakyBucket,
    FIXED: lambda limit: FixedWindow(limit, phase_s=17.3),
    FIXED10: lambda limit: FixedWindow(limit / 6.0, 10.0),
    COUNTER: SlidingCounter,
    BUCKET1: second_bucket,
    BINS: second_bins,
}


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the table: shares in per cent, and the bar."""

    name: str
    use: float
    refused: float
    least_use: float = 0.0
    most_refused: float = math.inf
    note: str = ""

    @property
    def passes(self) -> bool:
        return self.use >= self.least_use and self.refused <= self.most_refused


def equal_rows() -> Iterator[Row]:
    while True:
        yield Row()


def uneven_rows(seed: int = 3, mean: float = 1200.0, most: int = 30_000) -> Iterator[Row]:
    """Lognormal sizes."""
    rng = random.Random(seed)
    while True:
        tokens = max(3, min(most, int(rng.lognormvariate(math.log(mean) - 0.32, 0.8))))
        yield Row(tokens // 2, tokens - tokens // 2, max(1, tokens // 3))


def two_sizes(limit: float, seed: int = 3, large: float = 0.1) -> Iterator[Row]:
    """Three rows in a hundred take a tenth of the limit each, or another part of it."""
    rng = random.Random(seed)
    while True:
        tokens = int(large * limit) if rng.random() < 0.03 else int(rng.lognormvariate(math.log(1000), 0.6))
        yield Row(tokens // 2, tokens - tokens // 2, tokens // 3)


def drive(
    limiter: Any, server: Any, rows: Iterator[Row], until: float, *, seed: int = 1, network: Network | None = None,
    events: tuple[tuple[float, Callable[[], None]], ...] = (), **options: Any,
) -> Client:  # fmt: skip
    """Runs a limiter against a server."""
    world = World(seed)
    client = Client(world, limiter, server, rows, network, **options)
    for when, action in events:
        world.at(when, action)
    client.start()
    world.run(until, client.finished)
    return client


def limiter(pace: Pace, charge: str = "max_tokens", seed: int = 1, **options: Any) -> Limiter[Row]:
    return Limiter(pace, charge=charge, now=0.0, rng=random.Random(seed), **options)


def share(bins: dict[int, float], limit: float, start: float, end: float) -> float:
    """What was admitted, as per cent of limit times time."""
    admitted = sum(value for second, value in bins.items() if start <= second < end)
    return 100.0 * admitted / (limit * (end - start) / 60.0)


def known_requests(kind: str, rpm: float, until: float, seed: int = 1, start: float = 10.0) -> Result:
    """S1 and S2: the limit is known. The first request goes alone, so the first seconds are not counted."""
    api = Api(GRANTS[kind](rpm))
    drive(limiter(Pace(requests_per_minute=rpm, concurrency=4000)), api, equal_rows(), until, seed=seed)
    use = share(api.admitted_requests, rpm, start, until)
    refused = 100.0 * api.refused / max(1.0, api.refused + sum(api.admitted_requests.values()))
    return Result(f"S1 {kind}, {rpm:g} RPM known", use, refused, 99.4, 0.0)


def hard_bins(kind: str, rpm: float, until: float, least_use: float, seed: int = 1) -> Result:
    """S3: servers that no pace near the limit fits into; the margin widens until it does."""
    api = Api(GRANTS[kind](rpm))
    client = drive(
        limiter(Pace(requests_per_minute=rpm, concurrency=4000)), api, equal_rows(), until, seed=seed
    )
    use = share(api.admitted_requests, rpm, min(600.0, until / 2), until)
    refused = 100.0 * client.record.refusal_share(min(600.0, until / 2), until)
    # At one request a second, one late packet in a thousand is one refusal in a thousand: the same bar as S8's.
    most = 0.25 if rpm <= 60 else 0.1
    note = f"{api.refused} refusals in all"
    return Result(f"S3 {kind}, {rpm:g} RPM known", use, refused, least_use, most, note)


def known_tokens(
    kind: str, tpm: float, rows: Iterator[Row], until: float, least_use: float, name: str
) -> Result:
    """S4 and S5: tokens, of all sizes."""
    api = Api(tokens=GRANTS[kind](tpm), charge="estimate")
    client = drive(
        limiter(Pace(tokens_per_minute=tpm, concurrency=2000), "sum"), api, rows, until, look_ahead=80
    )
    use = share(api.admitted_tokens, tpm, 60.0, until)
    note = f"longest wait {client.record.longest_wait_s:.0f} s"
    return Result(
        f"{name} {kind}, {tpm:g} TPM known", use, 100.0 * client.record.refusal_share(), least_use, 0.0, note
    )


def both_limits(rpm: float, tpm: float, until: float) -> Result:
    """S6: requests and tokens, one of them binding."""
    api = Api(SlidingLog(rpm), SlidingLog(tpm), charge="estimate")
    pace = Pace(requests_per_minute=rpm, tokens_per_minute=tpm, concurrency=2000)
    client = drive(limiter(pace, "sum"), api, uneven_rows(), until)
    uses = share(api.admitted_requests, rpm, 60.0, until), share(api.admitted_tokens, tpm, 60.0, until)
    name = f"S6 {rpm:g} RPM and {tpm:g} TPM, {'requests' if uses[0] > uses[1] else 'tokens'} bind"
    return Result(name, max(uses), 100.0 * client.record.refusal_share(), 98.4, 0.0)


def charged_as(kind: str, until: float, tpm: float = 500_000) -> Result:
    """Tokens charged by ``max_tokens``, an estimate or actual usage, the preset saying which."""
    api = Api(tokens=SlidingLog(tpm) if kind != "usage" else LeakyBucket(tpm), charge=kind)
    named = {"max_tokens": "max_tokens", "estimate": "sum", "usage": "usage"}[kind]
    client = drive(limiter(Pace(tokens_per_minute=tpm, concurrency=2000), named), api, uneven_rows(), until)
    use = share(api.admitted_tokens, tpm, 60.0, until)
    return Result(f"TPM charged by {kind}", use, 100.0 * client.record.refusal_share(), 98.4, 0.02)


def lawful(name: str, until: float, tpm: float = 2_000_000, *, told: bool = False, **changes: Any) -> Result:
    """S7: nobody tells the limit but the headers, which are right; estimates and keys are not."""
    foreign = changes.pop("foreign", None)
    api = Api(tokens=LeakyBucket(tpm), charge="estimate", **{"headers": "lawful", **changes})
    granted = 1.0
    if foreign:
        start, end = 0.25 * until, 0.75 * until
        api.foreign = lambda now: foreign if start < now < end else 0.0
        granted -= foreign * (end - start) / (until - 60.0)
    pace = Pace(tokens_per_minute=tpm if told else None, concurrency=2000)
    client = drive(limiter(pace, "sum"), api, uneven_rows(), until)
    use = share(api.admitted_tokens, tpm * granted, 60.0, until)
    return Result(
        f"S7 lawful headers, {name}",
        use,
        100.0 * client.record.refusal_share(),
        99.5,
        0.05 if foreign else 0.02,
    )


def found(kind: str, rpm: float, until: float, *, tells: str = "seconds", seed: int = 1) -> Result:
    """S8: no limit is told and no header shows it; once found means after ten minutes."""
    api = Api(GRANTS[kind](rpm), tells=tells)
    client = drive(limiter(Pace()), api, equal_rows(), until, seed=seed)
    use = share(api.admitted_requests, rpm, 600.0, until)
    refused = 100.0 * client.record.refusal_share(600.0, until)
    told = "" if tells == "seconds" else ", no Retry-After"
    whole = f"whole run: {100.0 * client.record.refusal_share():.2f} % refused"
    name = f"S8 {kind}, {rpm:g} RPM searched for{told}"
    # A bucket of one request leaves no room for jitter: S3 asks 94 % of it where the limit is known.
    # A sliding window of 60 is left at 98 % of what it let in, and looked above at most every 300 s.
    least_use = 93.0 if kind == BUCKET1 and rpm <= 60 else 92.0 if kind == SLIDING and rpm <= 60 else 95.0
    # A look above a window that tells nothing ends in a block, which costs four or five probes.
    blocked = kind == FIXED and tells == "none"
    most = 100.0 / 300 if rpm <= 60 else 0.2 if blocked else 0.1
    return Result(name, use, refused, least_use, most, whole)


def changing(kind: str, *, tells: str = "seconds", seed: int = 1) -> Result:
    """S8: 1,200 RPM, halved, then tripled; nobody tells."""
    grant = GRANTS[kind](1200.0)
    api = Api(grant, tells=tells)
    events = (
        (2000.0, lambda: setattr(grant, "limit", 600.0)),
        (4000.0, lambda: setattr(grant, "limit", 1800.0)),
    )
    client = drive(limiter(Pace()), api, equal_rows(), 6000.0, seed=seed, events=events)
    admitted = sum(value for second, value in api.admitted_requests.items() if second >= 600)
    use = 100.0 * admitted / (1400 * 20 + 2000 * 10 + 2000 * 30)
    refused = 100.0 * client.record.refusal_share(600.0, 6000.0)
    told = "" if tells == "seconds" else ", no Retry-After"
    return Result(f"S8 {kind}, 1200 then 600 then 1800 RPM searched for{told}", use, refused, 89.5, 1.0)


def engine(slots: int, until: float, *, explicit: int | None = None, queue: int | None = None) -> Result:
    """S9: nothing limits the pace but the engine; share of the best that the cap of 256 (or ``-c``) allows."""
    rng = random.Random(5)

    def rows() -> Iterator[Row]:
        while True:
            yield Row(200, 1000, max(5, int(rng.lognormvariate(5.5, 0.5))))

    server = Engine(slots, queue=queue)
    client = drive(limiter(Pace(concurrency=explicit)), server, rows(), until)
    batch = min(slots, explicit or 256)
    best = batch / (server._step_s + server._per_s * batch)
    start = min(600.0, until / 2)
    tokens = sum(value for second, value in client.record.output.items() if start <= second < until)
    busy = 100.0 * server.busy_replies / max(1.0, client.record.total(client.record.sent))
    name = (
        f"S9 engine of {slots} slots"
        + (f", -c {explicit}" if explicit else "")
        + (f", queue of {queue}" if queue else "")
    )
    note = f"cap {client.limiter.view(until).concurrency}"
    return Result(name, 100.0 * tokens / (until - start) / best, busy, 97.0, 0.5, note)


def day(max_wait_s: float = 3600.0) -> tuple[Client, Api]:
    """500 RPM that nobody tells, and 10,000 a day shown only by the day's headers."""
    api = Api(LeakyBucket(500), day=LeakyBucket(10_000, 86_400.0))
    return drive(limiter(Pace(max_wait_s=max_wait_s)), api, equal_rows(), 7200.0), api


class RampServer:
    """``slow_down`` as soon as input tokens grow by more than half within 15 minutes above a million a minute."""

    def __init__(self) -> None:
        self._bins: dict[int, float] = {}  # of 15 s
        self._inside = Api()

    def submit(self, world: World, row: Row, reply: Callable[[Reply], None]) -> None:
        place = int(world.now // 15)
        before = sum(self._bins.get(place - 60 - i, 0.0) for i in range(1, 5))
        allowed = max(1_000_000.0, 1.5 * before) / 4.0 * 1.05
        if self._bins.get(place, 0.0) + row.prompt > allowed:
            verdict = Verdict(Disposition.REFUSED, "slow_down", "slow down", retry_after_s=5.0)
            world.at(world.now + 0.005, reply, Reply(verdict))
            return
        self._bins[place] = self._bins.get(place, 0.0) + row.prompt
        self._inside.submit(world, row, reply)


def ramp(until: float) -> Result:
    """S11."""
    rows = (Row(1000, 200, 100) for _ in iter(int, 1))
    client = drive(limiter(Pace(concurrency=400)), RampServer(), rows, until)
    refused = 100.0 * client.record.refusal_share(60.0, until)
    per_minute = client.record.total(client.record.accepted, until - 60.0, until) * 1000
    ceiling = 1_000_000 * 1.5 ** (
        until // 900
    )  # half as much again every 15 minutes, taken to the last token
    return Result(
        "S11 slow_down ramp",
        100.0 * per_minute / ceiling,
        refused,
        0.0,
        0.1,
        f"{per_minute / 1e6:.2f} M TPM at the end",
    )


def peer(name: str, kind: str, rpm: float, until: float, seed: int = 1) -> Result:
    """A peer's algorithm, told the limit, with 400 workers."""
    api = Api(GRANTS[kind](rpm))
    client = drive(PEERS[name](rpm, 400), api, equal_rows(), until, seed=seed)
    use = share(api.admitted_requests, rpm, 0.0, until)
    return Result(f"{name}: {kind}, {rpm:g} RPM known", use, 100.0 * client.record.refusal_share())
