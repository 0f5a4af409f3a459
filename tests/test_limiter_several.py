"""Several endpoints in random worlds: no row is lost, no time is lost, and none of them holds up the others.

``python -m tests.limiter_worlds.several --worlds 200`` runs others.
"""

from math import inf

import pytest

from batchllm.limiter import EndpointRouter, Target
from batchllm.limiter.last_rows import all_answered_s
from batchllm.records import Pace
from batchllm.retry import Disposition, Verdict
from tests.limiter_worlds import noise
from tests.limiter_worlds.several import RoutedRow, SeveralOutcome, SeveralWorld, run_several
from tests.limiter_worlds.several_spec import SLOWER, Server, Several, Trouble, several
from tests.limiter_worlds.spec import Spec

FEW, SMALL = 4, 200.0
PROOF, PROOF_FROM, LARGE = 200, 1000, 500.0


def failing(outcomes: list[SeveralOutcome]) -> dict[int, list[str]]:
    return {outcome.world.seed: faults for outcome in outcomes if (faults := outcome.faults())}


def test_in_few_worlds_the_endpoints_are_used_and_none_holds_up_the_others() -> None:
    assert failing([SeveralWorld(several(seed, SMALL)).run() for seed in range(FEW)]) == {}


@pytest.mark.proof
@pytest.mark.timeout(900)
def test_in_many_worlds_the_endpoints_are_used_and_none_holds_up_the_others() -> None:
    found = failing(run_several(range(PROOF_FROM, PROOF_FROM + PROOF), LARGE))
    assert len(found) <= PROOF * 0.01, found


def server(latency_s: float = 0.5, *troubles: Trouble, slots: int = 8) -> Server:
    spec = Spec(latency_s=latency_s, latency_sigma=0.1, concurrency=slots, charge="max_tokens")
    return Server(spec, troubles)


def of(*servers: Server, rows: int = 400) -> tuple[SeveralWorld, SeveralOutcome]:
    world = SeveralWorld(Several(1, rows, servers))
    return world, world.run()


@pytest.mark.parametrize(
    ("kind", "start"),
    [("500", 0.0), ("503", 3.0), ("page", 3.0), ("connect", 0.0), ("429", 3.0), ("hang", 3.0)],
)
def test_an_endpoint_that_fails_everything_at_once_does_not_attract_the_rows(kind: str, start: float) -> None:
    _, outcome = of(server(0.5, Trouble(kind, start, inf)), server(), server(), rows=150)
    assert outcome.faults() == []
    assert outcome.in_trouble[0][0] <= 30


@pytest.mark.parametrize(("start", "most"), [(0.0, 12 + 2 * 8), (3.0, 12 * (8 + 1))])
@pytest.mark.parametrize("others", [1, 4])
def test_an_endpoint_whose_answers_are_of_no_use_is_left_out_after_a_few_rows(
    others: int, start: float, most: int
) -> None:
    """Each good answer that is still on its way when it breaks lets it go on."""
    world, outcome = of(server(0.5, Trouble("empty", start, inf)), *[server()] * others)
    assert outcome.ended == "done"
    assert outcome.useless <= most
    assert world.router.states(0.0)[0].state == "out"
    assert "of no use" in world.router.excluded.news[0]
    assert len(world.router.excluded.news) == 1


def test_what_ends_at_an_endpoint_that_is_left_out_does_not_take_it_out_again() -> None:
    """Answers of no use, and refusals of the key, that were on their way when it was left out."""
    targets = [Target(name, Pace(), "max_tokens") for name in ("a", "b")]
    router: EndpointRouter[RoutedRow] = EndpointRouter(targets, now=0.0, max_outage_s=60.0)
    refused = Verdict(Disposition.FATAL, "http_401", "the key is revoked")
    for _ in range(30):
        assert router.asks_elsewhere(RoutedRow(1, 1, "max_tokens"), refused)
    assert len(router.excluded.news) == 1
    for _ in range(30):
        router.excluded.judged(1.0, RoutedRow(1, 1, "max_tokens"), "empty")
        good = RoutedRow(1, 1, "max_tokens")
        good.endpoint = 1
        router.excluded.judged(1.0, good, None)
        router.poll(1.0)
    assert len(router.excluded.news) == 1


def test_where_the_answers_of_all_are_of_no_use_none_is_left_out() -> None:
    bad = server(0.5, Trouble("empty", 0.0, inf))
    world, outcome = of(bad, bad, bad)
    assert outcome.ended == "done"
    assert {state.state for state in world.router.states(0.0)} == {"works"}


def test_a_slow_endpoint_gets_none_of_the_last_rows_and_does_its_share_before() -> None:
    world, outcome = of(server(0.5), server(0.5), server(SLOWER), rows=1000)
    at_slow = [row.went_to[-1][0] for row in world.rows if row.went_to[-1][1] == 2]
    fast = max(row.went_to[-1][0] for row in world.rows)
    assert len(at_slow) > 12
    assert max(at_slow) < fast - SLOWER / 2
    assert outcome.ended_s < fast + 2.0


def test_a_row_that_failed_is_no_probe_of_another_endpoint_that_is_down() -> None:
    """It would hang there once more, and count as possibly billed a second and a third time."""
    down = [server(0.5, Trouble("hang", 2.0 + n, inf)) for n in range(4)]
    world, outcome = of(*down, server(0.5), rows=900)
    assert outcome.lost == 0
    assert max(row.billed for row in world.rows) <= 2


def test_the_last_row_is_not_kept_for_endpoints_that_cannot_take_it() -> None:
    """The fast endpoint goes down with rows left: the slow one gets them all the same."""
    _, outcome = of(server(0.2, Trouble("500", 4.0, inf)), server(5.0), rows=180)
    assert outcome.ended == "done"
    assert outcome.lost == 0
    assert outcome.ended_s < 60.0


@pytest.mark.parametrize("all_down", [True, False])
def test_an_outage_ends_the_run_only_if_all_are_down(all_down: bool) -> None:
    down = Trouble("500", 2.0, inf)
    servers = [server(0.5, down), server(0.5, *([down] if all_down else []))]
    world = SeveralWorld(Several(1, 600, tuple(servers)), max_outage_s=60.0)
    assert ("no endpoint is available" in world.run().ended) is all_down


def test_the_time_for_all_is_the_least_over_the_fastest_endpoints() -> None:
    assert all_answered_s(10.0, [(1.0, 10.0)]) == 2.0
    assert all_answered_s(10.0, [(1.0, 10.0), (1.5, 10.0)]) == 2.0
    assert all_answered_s(100.0, [(1.0, 10.0), (1.5, 10.0)]) == 6.5
    assert all_answered_s(1.0, [(0.0, 0.0), (5.0, 1.0)]) == 6.0
    assert all_answered_s(1.0, []) == inf


def test_a_failed_item_goes_to_an_endpoint_that_works_and_not_to_one_that_is_down() -> None:
    targets = [Target(f"e{n}", Pace(concurrency=8), "sum") for n in range(3)]
    router: EndpointRouter[RoutedRow] = EndpointRouter(targets, now=0.0, max_outage_s=600.0)
    now = 0.0
    while not all(state.state == "down" for state in router.states(now)[:2]):
        row = RoutedRow(10, 10, "sum")
        router.offer(row, row.cost, lane=row.lane)
        now += 0.01
        for granted in router.poll(now).grants:
            if granted.endpoint == 2:
                router.answered(now, granted, {}, None)
                router.released(now, granted)
            else:
                router.failed(now, granted, noise.BROKEN, {})
                router.released(now, granted)
        assert now < 5.0
    while router.waiting:
        now += 0.01
        for granted in router.poll(now).grants:
            assert granted.endpoint == 2
    failed = RoutedRow(10, 10, "sum")
    failed.away = {0: now + 5.0}
    router.offer(failed, failed.cost, lane=failed.lane, again=True)
    assert [row.endpoint for row in router.poll(now + 3.0).grants] == [2], "the probe of the other is due"


def test_the_last_row_leaves_where_only_a_slow_endpoint_can_take_it() -> None:
    targets = [
        Target("small", Pace(tokens_per_minute=1000.0), "sum"),
        Target("slow", Pace(tokens_per_minute=100_000.0), "sum"),
    ]
    router: EndpointRouter[RoutedRow] = EndpointRouter(targets, now=0.0, max_outage_s=600.0)
    first = [RoutedRow(10, 10, "sum") for _ in range(2)]
    for row in first:
        router.offer(row, row.cost, lane=row.lane)
    assert {row.endpoint for row in router.poll(0.0).grants} == {0, 1}
    for row in sorted(first, key=lambda row: row.endpoint):
        at = 20.0 if row.endpoint else 0.1
        router.answered(at, row, {}, None)
        router.released(at, row)
    large = RoutedRow(3000, 10, "sum")
    router.offer(large, large.cost, lane=large.lane)
    now, router.left = 20.0, 1.0
    while not (poll := router.poll(now)).grants:
        assert poll.wake_at is not None
        now = max(now + 0.001, poll.wake_at)
        assert now < 25.0
    assert large.endpoint == 1
