"""The bench, shortened: the bars of its table in virtual time. ``benchmarks/limiter.py`` runs all of it."""

from collections.abc import Callable
from functools import partial

import pytest

from batchllm.limiter import Limiter
from batchllm.records import Pace
from tests.limiter_bench import scenarios as s
from tests.limiter_bench.grants import FixedWindow, LeakyBucket
from tests.limiter_bench.peers import PEERS
from tests.limiter_bench.servers import BROKEN, Api, Faulty
from tests.limiter_bench.world import Reply, Row, World

pytestmark = pytest.mark.proof

CASES: dict[str, Callable[[], s.Result]] = {
    **{
        f"S1 {kind} {rpm:g}": partial(s.known_requests, kind, rpm, 600.0 if rpm < 6000 else 120.0)
        for kind in (s.SLIDING, s.BUCKET, s.FIXED, s.FIXED10)
        for rpm in (60.0, 600.0, 6000.0)
    },
    "S1 30000": lambda: s.known_requests(s.SLIDING, 30_000.0, 75.0),
    "S1 sliding counter": lambda: s.known_requests(s.COUNTER, 600.0, 600.0),
    "S2": lambda: s.known_requests(s.BUCKET1, 600.0, 600.0),
    "S3 bins": lambda: s.hard_bins(s.BINS, 600.0, 1800.0, 97.5),
    "S3 one request": lambda: s.hard_bins(s.BUCKET1, 60.0, 3600.0, 94.0),
    "S4": lambda: s.known_tokens(s.SLIDING, 2_000_000, s.uneven_rows(), 300.0, 99.4, "S4"),
    "S5": lambda: s.known_tokens(s.FIXED, 200_000, s.uneven_rows(), 1200.0, 98.9, "S5"),
    "S5 two sizes": lambda: s.known_tokens(s.SLIDING, 200_000, s.two_sizes(200_000), 1800.0, 97.0, "S5"),
    "S6 requests": lambda: s.both_limits(1000, 2_000_000, 240.0),
    "S6 tokens": lambda: s.both_limits(3000, 2_000_000, 240.0),
    "charged by usage": lambda: s.charged_as("usage", 400.0),
    "charged by estimate": lambda: s.charged_as("estimate", 400.0),
    "S7 exact": lambda: s.lawful("exact", 600.0),
    "S7 bias": lambda: s.lawful("bias", 900.0, bias=0.8),
    "S7 foreign": lambda: s.lawful("foreign", 1200.0, tpm=500_000, foreign=0.3),
    "S7 slow answers": lambda: s.lawful(
        "slow", 900.0, tpm=500_000, latency_s=lambda row, world: world.rng.lognormvariate(2.5, 0.6)
    ),
    "S7 lost headers": lambda: s.lawful("lost", 600.0, headers="late"),
    "S8 bucket": lambda: s.found(s.BUCKET, 600.0, 2400.0),
    "S8 sliding": lambda: s.found(s.SLIDING, 600.0, 2400.0),
    "S8 fixed, no Retry-After": lambda: s.found(s.FIXED, 600.0, 2400.0, tells="none"),
    "S8 60 RPM": lambda: s.found(s.SLIDING, 60.0, 7200.0),
    "S8 bucket 60 RPM": lambda: s.found(s.BUCKET, 60.0, 7200.0, tells="none"),
    "S8 changing": lambda: s.changing(s.SLIDING),
    "S9 4 slots": lambda: s.engine(4, 1200.0),
    "S9 256 slots": lambda: s.engine(256, 900.0),
    "S9 1024 slots, -c 1024": lambda: s.engine(1024, 240.0, explicit=1024),
    "S9 bounded queue": lambda: s.engine(64, 1200.0, queue=32),
    "S11": lambda: s.ramp(1200.0),
}


@pytest.mark.parametrize("case", CASES)
def test_a_scenario_passes_its_bar(case: str) -> None:
    result = CASES[case]()
    assert result.passes, result


def test_ten_thousand_a_day_are_spent_at_the_minute_s_pace_and_then_it_says_when() -> None:
    client, api = s.day()
    admitted = sum(api.admitted_requests.values())
    assert admitted >= 10_000
    assert client.world.now < 21.5 * 60.0
    assert client.record.stopped is not None
    assert "10,000 requests" in client.record.stopped and "417 more fit in an hour" in client.record.stopped
    assert client.record.refusal_share() < 0.005


def test_with_a_max_wait_of_a_day_it_goes_on_at_the_leak() -> None:
    client, api = s.day(max_wait_s=90_000.0)
    assert client.record.stopped is None
    late = sum(count for second, count in api.admitted_requests.items() if second >= 3600)
    assert late == pytest.approx(10_000 / 24.0, rel=0.03)


@pytest.mark.parametrize("tells", ["none", "constant", "seconds"])
def test_a_storm_of_refusals_is_one_epoch_an_event_and_nobody_comes_early(
    tells: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S12."""
    api = Api(FixedWindow(600, opens_with_first=True, counts_refused=True), tells=tells)
    arrivals: list[float] = []
    inside = api.submit

    def noted(world: World, row: Row, reply: Callable[[Reply], None]) -> None:
        arrivals.append(world.now)
        inside(world, row, reply)

    monkeypatch.setattr(api, "submit", noted)
    limiter: Limiter[Row] = s.limiter(Pace(requests_per_minute=1200, concurrency=200))
    client = s.drive(limiter, api, s.equal_rows(), 400.0)
    assert client.record.refusal_times
    if tells == "constant":
        first = client.record.refusal_times[0]
        assert not [t for t in arrivals if first + 0.05 < t < first + 60.0]
    assert client.record.refusal_share() < 0.02


def test_a_lower_limit_in_the_headers_wins_over_what_the_user_told() -> None:
    api = Api(LeakyBucket(300), headers="lawful")
    client = s.drive(s.limiter(Pace(requests_per_minute=600, concurrency=300)), api, s.equal_rows(), 900.0)
    assert s.share(api.admitted_requests, 300, 60.0, 900.0) >= 99.0
    assert client.record.refusal_share() < 0.001


def test_the_user_s_own_lower_limit_wins_over_the_headers() -> None:
    api = Api(LeakyBucket(600), headers="lawful")
    s.drive(s.limiter(Pace(requests_per_minute=300, concurrency=300)), api, s.equal_rows(), 600.0)
    assert 99.0 <= s.share(api.admitted_requests, 300, 60.0, 600.0) <= 100.0


def test_behind_a_rate_limit_as_many_fly_as_the_rate_needs() -> None:
    api = Api(LeakyBucket(6000), latency_s=lambda row, world: world.rng.uniform(4.0, 6.0))
    client = s.drive(s.limiter(Pace(requests_per_minute=6000)), api, s.equal_rows(), 300.0)
    assert s.share(api.admitted_requests, 6000, 60.0, 300.0) >= 99.0
    assert client.limiter.view(300.0).concurrency <= 900


def test_a_brownout_of_thirty_per_cent_opens_no_breaker_and_costs_only_what_chance_takes() -> None:
    """Five attempts at 30 % each: one row in four hundred fails by chance, and is recorded as failed."""
    server = Faulty(Api(), lambda w: (BROKEN, 0.3) if w.rng.random() < 0.3 else None)
    client = s.drive(s.limiter(Pace(concurrency=64)), server, iter([Row() for _ in range(3000)]), 900.0)
    assert client.record.total(client.record.accepted) + client.record.lost == 3000
    assert client.record.lost <= 3 * 3000 * 0.3**5


def test_every_peer_wastes_more_or_is_refused_more() -> None:
    ours = s.known_requests(s.SLIDING, 600.0, 600.0)
    for name in PEERS:
        theirs = s.peer(name, s.SLIDING, 600.0, 180.0)
        assert theirs.refused > 1.0 or theirs.use < ours.use - 2.0, (name, theirs)
