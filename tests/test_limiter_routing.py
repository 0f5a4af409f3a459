"""The router over random endpoints, told the time: nothing is lost, nothing stands still, each endpoint has its own."""

import heapq
import random
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.errors import Unavailable
from batchllm.limiter import Cost, EndpointRouter, Target
from batchllm.records import Pace, Usage
from batchllm.retry import Disposition, Verdict, classify
from tests.fakes import status

COST = Cost(10, 10)


@dataclass(eq=False)
class Item:
    number: int
    endpoint: int = 0
    away: Mapping[int, float] = field(default_factory=dict)
    went_to: list[int] = field(default_factory=list)
    lane: str = "model"
    cost: Cost = COST


@dataclass
class Server:
    """An endpoint: it refuses beyond its limit, is down for a while, and answers a share with other statuses."""

    rpm: float | None = None
    latency_s: float = 0.2
    bad: Mapping[int, float] = field(default_factory=dict)
    down: tuple[float, float] = (0.0, 0.0)
    seed: int = 0
    served: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    _window: deque[float] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)

    def reply(self, now: float) -> int:
        code = self._code(now)
        self.statuses[code] += 1
        return code

    def _code(self, now: float) -> int:
        if self.down[0] <= now < self.down[1]:
            return 500
        draw = self._rng.random()
        for code, share in self.bad.items():
            if draw < share:
                return code
            draw -= share
        if self.rpm is not None:
            while self._window and self._window[0] <= now - 60.0:
                self._window.popleft()
            if len(self._window) >= self.rpm:
                return 429
            self._window.append(now)
        self.served.append(now)
        return 200


@dataclass
class World:
    """Drives a router until every item has an end, as a run would."""

    servers: list[Server]
    rows: int
    weights: tuple[float, ...] = ()
    pace: Pace = field(default_factory=Pace)
    max_outage_s: float = 600.0
    most_s: float = 3600.0
    seed: int = 0

    def run(self) -> "World":
        self.now = 0.0
        paces = [replace(self.pace, requests_per_minute=server.rpm) for server in self.servers]
        weights = self.weights or (1.0,) * len(paces)
        targets = [
            Target(f"e{n}", pace, "max_tokens", weight)
            for n, (pace, weight) in enumerate(zip(paces, weights, strict=True))
        ]
        self.router: EndpointRouter[Item] = EndpointRouter(
            targets, now=0.0, max_outage_s=self.max_outage_s, rng=random.Random(self.seed)
        )
        self.ended: Counter[str] = Counter()
        self.items = [Item(n) for n in range(self.rows)]
        self._flying: list[tuple[float, int, Item, float, int]] = []
        for item in self.items:
            self.router.offer(item, COST, lane=item.lane)
        count = 0
        while sum(self.ended.values()) < self.rows:
            poll = self.router.poll(self.now)
            assert not poll.too_large
            for item in poll.grants:
                server = self.servers[item.endpoint]
                item.went_to.append(item.endpoint)
                count += 1
                code = server.reply(self.now)
                delay = server.latency_s if code == 200 else 0.05
                heapq.heappush(self._flying, (self.now + delay, count, item, self.now, code))
            times = [self._flying[0][0]] if self._flying else []
            times += [poll.wake_at] if poll.wake_at is not None else []
            assert times, f"everything waits for ever: {self.router.states(self.now)}"
            self.now = max(self.now, min(times))
            assert self.now < self.most_s, f"too slow: {self.ended}"
            while self._flying and self._flying[0][0] <= self.now:
                _, _, item, _, code = heapq.heappop(self._flying)
                self._end(item, code)
        return self

    def _end(self, item: Item, code: int) -> None:
        outcome = status(code, "no such key" if code == 401 else "no")
        verdict = classify(outcome) if code != 200 else Verdict(Disposition.ANSWERED, "answered")
        router, now = self.router, self.now
        if verdict.disposition is Disposition.ANSWERED:
            router.answered(now, item, {}, Usage(5, 5, 10))
            router.released(now, item)
            self.ended["answered"] += 1
        elif verdict.disposition is Disposition.REFUSED:
            router.refused(now, item, verdict, outcome.headers)
        elif verdict.disposition in (Disposition.REJECTED, Disposition.FATAL):
            again = router.asks_elsewhere(item, verdict)
            router.failed(now, item, verdict, {})
            router.released(now, item)
            if again:
                router.offer(item, COST, lane=item.lane, again=True)
            else:
                self.ended["rejected"] += 1
        else:
            router.failed(now, item, verdict, {})
            router.released(now, item)
            router.offer(item, COST, lane=item.lane, again=True, not_before=now + 0.5)

    def state(self, number: int) -> str:
        return self.router.states(self.now)[number].state


servers = st.builds(
    Server,
    rpm=st.sampled_from([None, 60.0, 300.0, 1200.0]),
    latency_s=st.sampled_from([0.05, 0.5, 4.0]),
    bad=st.sampled_from(
        [{}, {}, {500: 0.2}, {503: 0.1}, {429: 0.1}, {429: 1.0}, {401: 1.0}, {404: 1.0}, {400: 1.0}]
    ),
    down=st.sampled_from([(0.0, 0.0), (0.0, 20.0), (5.0, 60.0), (3.0, 1e9)]),
    seed=st.integers(0, 99),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(servers, min_size=1, max_size=4), st.integers(1, 120), st.integers(0, 9))
def test_with_one_good_endpoint_every_row_is_answered_whatever_the_others_do(
    bad: list[Server], rows: int, seed: int
) -> None:
    good = Server(rpm=600.0)
    world = World([*bad, good], rows, seed=seed, most_s=900.0).run()
    assert world.ended == {"answered": rows}
    # The good one alone would need so long; the others may only help, or cost a row some tries.
    assert world.now < 30.0 + rows / 9.0
    for number, server in enumerate(bad):
        if server.bad.get(401) and server.down == (0.0, 0.0) and server.statuses[401]:
            assert world.state(number) == "out"
            assert server.statuses[401] == 1


def test_limits_add_up_and_no_endpoint_refuses() -> None:
    every = [Server(rpm=rpm, latency_s=0.3, seed=n) for n, rpm in enumerate((600.0, 1200.0, 2400.0))]
    world = World(every, 4_200).run()
    assert world.now < 60.0 / 0.97
    assert sum(server.statuses[429] for server in every) == 0
    assert [len(server.served) for server in every] == pytest.approx([600, 1200, 2400], rel=0.02)


def test_while_one_is_down_the_others_go_on_and_it_is_used_again_when_it_is_back() -> None:
    every = [Server(rpm=rpm, latency_s=0.3) for rpm in (600.0, 1200.0)]
    every.append(Server(rpm=2400.0, latency_s=0.3, down=(20.0, 50.0)))
    world = World(every, 5_000).run()
    granted = 4200.0 / 60.0 * world.now - 2400.0 / 60.0 * 30.0
    assert 0.93 * granted <= 5_000, (world.now, granted)
    assert max(every[2].served) > 50.0
    assert every[2].statuses[500] < 60


def test_a_refusal_pauses_only_its_endpoint() -> None:
    every = [Server(bad={429: 1.0}), Server(latency_s=0.1)]
    world = World(every, 2_000, pace=Pace(concurrency=8)).run()
    assert world.now < 2_000 / 8 * 0.1 + 2.0
    assert every[0].statuses[429] < 60


def test_a_retry_goes_to_another_endpoint() -> None:
    every = [Server(bad={500: 0.15}), Server(bad={500: 0.15}, seed=5)]
    world = World(every, 1_000, pace=Pace(concurrency=8)).run()
    again = [(a, b) for item in world.items for a, b in zip(item.went_to, item.went_to[1:], strict=False)]
    assert len(again) > 100
    assert sum(a != b for a, b in again) > 0.9 * len(again)


def test_where_one_endpoint_is_left_a_retry_goes_there_again() -> None:
    world = World([Server(bad={401: 1.0}), Server(bad={500: 0.3})], 100).run()
    assert world.ended["answered"] == 100


@pytest.mark.parametrize("code", [400, 403, 404])
def test_an_endpoint_that_rejects_what_others_answer_is_left_out(code: int) -> None:
    every = [Server(bad={code: 1.0}), Server(rpm=600.0)]
    world = World(every, 300).run()
    assert world.state(0) == "out"
    assert world.ended == {"answered": 300}
    assert "e0 is left out" in world.router.excluded.news[0]


@pytest.mark.parametrize("code", [400, 403, 404])
def test_a_row_that_every_endpoint_rejects_is_asked_once_at_each_and_takes_none_out(code: int) -> None:
    every = [Server(bad={code: 0.1}, seed=n) for n in range(3)]
    world = World(every, 200).run()
    assert {world.state(n) for n in range(3)} == {"works"}
    assert all(len(set(item.went_to)) == len(item.went_to) for item in world.items)


def test_requests_are_shared_by_load_and_weight_where_all_have_room() -> None:
    router: EndpointRouter[Item] = EndpointRouter(
        [
            Target(f"e{n}", Pace(concurrency=300), "max_tokens", weight)
            for n, weight in enumerate((1.0, 2.0, 3.0))
        ],
        now=0.0,
        max_outage_s=60.0,
    )
    first = [Item(n) for n in range(3)]
    for item in first:
        router.offer(item, COST, lane="m")
    assert {item.endpoint for item in router.poll(0.0).grants} == {0, 1, 2}
    for item in first:
        router.answered(0.1, item, {}, None)
        router.released(0.1, item)
    granted: Counter[int] = Counter()
    for n in range(60):
        router.offer(Item(n), COST, lane="m")
        granted += Counter(item.endpoint for item in router.poll(0.2 + n * 0.01).grants)
    assert granted == {0: 10, 1: 20, 2: 30}


def test_the_run_ends_only_when_every_endpoint_is_down_for_too_long() -> None:
    for_ever = (5.0, 1e9)
    with pytest.raises(Unavailable, match=r"no endpoint is available for \d+ s"):
        World([Server(down=for_ever), Server(down=(8.0, 1e9))], 4_000, max_outage_s=50.0).run()
    world = World([Server(down=for_ever), Server(down=(8.0, 40.0))], 3_000, max_outage_s=50.0).run()
    assert world.ended == {"answered": 3_000}


@pytest.mark.parametrize("code", [400, 404])
def test_rows_that_only_a_dead_endpoint_may_have_wait_for_it_no_longer_than_for_an_outage(code: int) -> None:
    world = World([Server(bad={code: 1.0}), Server(down=(0.0, 1e9))], 200, max_outage_s=20.0)
    with pytest.raises(
        Unavailable, match=r"no endpoint is available for \d+ s \(e0: rejects the rows: .*; e1: "
    ):
        world.run()
    assert world.now < 30.0
    assert not world.ended


def test_rows_that_one_endpoint_rejects_wait_for_another_that_comes_back() -> None:
    world = World([Server(bad={404: 1.0}), Server(down=(0.0, 15.0))], 200, max_outage_s=20.0).run()
    assert world.ended == {"answered": 200}


def test_endpoints_that_never_worked_are_given_up_after_half_a_minute() -> None:
    world = World([Server(down=(0.0, 1e9)), Server(down=(0.0, 1e9))], 10)
    with pytest.raises(Unavailable):
        world.run()
    assert 25.0 < world.now < 45.0


def test_an_item_too_large_for_one_endpoint_goes_to_another_and_fails_where_all_are_too_small() -> None:
    targets = [
        Target(f"e{n}", Pace(tokens_per_minute=limit), "sum") for n, limit in enumerate((1000.0, 9000.0))
    ]
    router: EndpointRouter[Item] = EndpointRouter(targets, now=0.0, max_outage_s=60.0)
    large, larger = Item(0, cost=Cost(3000, 100)), Item(1, cost=Cost(20_000, 100))
    for item in (large, larger):
        router.offer(item, item.cost, lane="model")
    poll = router.poll(0.0)
    assert poll.grants == [large]
    assert large.endpoint == 1
    router.answered(0.1, large, {}, None)
    router.released(0.1, large)
    assert [item for item, _ in [*poll.too_large, *router.poll(30.0).too_large]] == [larger]
    assert router.waiting == 0


def test_each_endpoint_keeps_what_it_learned() -> None:
    learned = {
        "lanes": {"m": {"requests_found_per_s": 4.0}},
        "endpoints": {"e1": {"lanes": {"m": {"x": 1.0}}}},
    }
    targets = [Target("e0", Pace(), "sum"), Target("e2", Pace(), "sum")]
    router: EndpointRouter[Item] = EndpointRouter(targets, now=0.0, max_outage_s=60.0, learned_before=learned)
    router.offer(Item(0), COST, lane="m")
    router.poll(0.0)
    found = router.learned()
    assert found["endpoints"]["e1"] == {"lanes": {"m": {"x": 1.0}}}, (
        "an endpoint of an earlier run is remembered"
    )
    assert found["endpoints"]["e0"]["lanes"]["m"]["requests_found_per_s"] == pytest.approx(4.0, rel=0.1)
    assert "m" not in found["endpoints"]["e2"]["lanes"]


def test_an_endpoint_that_asks_for_too_long_a_pause_is_left_out_until_all_do() -> None:
    targets = [Target(f"e{n}", Pace(max_wait_s=60.0), "sum") for n in range(2)]
    router: EndpointRouter[Item] = EndpointRouter(targets, now=0.0, max_outage_s=60.0)
    items = [Item(n) for n in range(6)]
    for item in items:
        router.offer(item, COST, lane="model")
    first = {item.endpoint: item for item in router.poll(0.0).grants}
    day = status(429, retry_after="7200")
    router.refused(0.1, first[0], classify(day), day.headers)
    router.answered(0.1, first[1], {}, None)
    router.released(0.1, first[1])
    granted = router.poll(0.2).grants
    assert granted
    assert {item.endpoint for item in granted} == {1}, "the one that was refused goes to the other at once"
    assert [state.state for state in router.states(0.2)] == ["spent", "works"]
    assert "asks for a pause of 7,200 s" in router.states(0.2)[0].why
    with pytest.raises(Unavailable, match="e0: .*pause.*e1: .*pause"):
        for step, item in enumerate(granted):
            router.refused(0.3, item, classify(day), day.headers)
            router.poll(0.4 + step / 10)
