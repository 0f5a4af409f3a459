"""What answers show as left, and the pace that follows: buckets, windows, days, and headers that lie."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.limiter.dimension import Dimension
from batchllm.limiter.found import Sent
from batchllm.limiter.headers import Level
from batchllm.limiter.stock import AFTER_EDGE_S, LAST_GAP_S, Nature, Stock
from tests.limiter_worlds.servers import Grant, grant_of
from tests.limiter_worlds.spec import Limit

PING_S = 0.05
TAU_S = 2.0


class Shown:
    """A dimension that sees a true limit: each request arrives at once, each answer after 50 ms."""

    def __init__(self, limit: Limit, *, resets: bool = True, whole_seconds: bool = False) -> None:
        self.grant: Grant = grant_of(limit)
        self.dimension, self.now = Dimension("requests", 0.0), 0.0
        self.stock = self.dimension.stock = Stock("requests")
        self.refused = 0
        self._resets, self._whole_seconds = resets, whole_seconds

    def send(self) -> bool:
        """One request leaves now and its answer is seen; whether it was let in."""
        grant, now, dimension = self.grant, self.now, self.dimension
        entry = dimension.take(now, 1.0, dimension.rate(now, PING_S))
        position = dimension.sent.total
        let_in = grant.opens_at(now, 1.0) <= now
        if let_in:
            grant.take(now, 1.0)
        else:
            self.refused += 1
            dimension.refused(position, now, 1.0, entry)
        reset_s = grant.reset_s(now)
        if self._whole_seconds:
            reset_s = float(math.ceil(reset_s))
        level = Level(
            "requests",
            grant.limit.amount,
            math.floor(grant.free(now)),
            reset_s if self._resets else None,
            None,
        )
        self.stock.observe(now + PING_S, now, position, dimension.sent, level, let_in=let_in)
        self.now += PING_S
        return let_in

    def drive(self, seconds: float) -> int:
        """Sends as soon as pace and stock allow; returns how many were let in."""
        let_in, until, dimension = 0, self.now + seconds, self.dimension
        while self.now < until:
            paced = dimension.pacer.ready_at(dimension.rate(self.now, PING_S))
            at = max(paced, dimension.fits_at(self.now, 1.0))
            if at > self.now:
                self.now = min(at + 1e-6, self.now + 0.5)
            else:
                let_in += self.send()
        return let_in


@given(
    st.sampled_from(["bucket", "fixed", "log", "counter"]),
    st.integers(2, 5000),
    st.floats(0.0, 1.0),
    st.floats(0.0, 1.0),
    st.lists(st.tuples(st.floats(0.0, 30.0), st.integers(1, 40)), min_size=1, max_size=25),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_it_never_promises_more_than_the_limit(
    kind: str,
    amount: int,
    used: float,
    phase: float,
    steps: list[tuple[float, int]],
    resets: bool,
    whole_seconds: bool,
) -> None:
    shown = Shown(
        Limit(kind, float(amount), used=used, phase=phase), resets=resets, whole_seconds=whole_seconds
    )
    stock = shown.stock
    for wait, count in steps:
        shown.now += wait
        for _ in range(count):
            shown.send()
        for ahead in (0.0, 1.0, 100.0, 1e6):
            at = shown.now + ahead
            assert stock.left(at) <= amount
            assert stock.rate(at, 1.0, TAU_S) <= max(amount / TAU_S, 1.0 / LAST_GAP_S)
            fits = stock.fits_at(at, 1.0)
            assert fits is None or fits >= at or not stock.believed
            assert fits != at or stock.left(at) >= 1.0 or not stock.believed


@given(st.sampled_from(["bucket", "fixed"]), st.integers(100, 600), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
@settings(max_examples=10, deadline=None)
def test_one_client_that_keeps_to_what_is_shown_is_next_to_never_refused(
    kind: str, rpm: int, used: float, phase: float
) -> None:
    shown = Shown(Limit(kind, float(rpm), used=used, phase=phase))
    shown.drive(65.0)
    refused = shown.refused
    assert shown.drive(60.0) >= 0.9 * rpm
    assert shown.refused <= refused + 0.01 * rpm


def test_a_slow_bucket_that_shows_its_reset_is_not_asked_before_it_has_room() -> None:
    shown = Shown(Limit("bucket", 60.0))
    let_in = shown.drive(240.0)
    assert shown.stock.kind == "minute"
    assert shown.refused <= 0.01 * let_in


@pytest.mark.parametrize("kind", ["bucket", "fixed"])
def test_what_a_minute_grants_is_used(kind: str) -> None:
    shown = Shown(Limit(kind, 600.0))
    shown.drive(60.0)
    assert shown.drive(180.0) >= 0.95 * 3 * 600


@pytest.mark.parametrize(("kind", "most"), [("bucket", 0.01), ("fixed", 0.05)])
def test_a_limit_without_a_reset_is_still_a_limit(kind: str, most: float) -> None:
    shown = Shown(Limit(kind, 600.0), resets=False)
    shown.drive(90.0)
    refused = shown.refused
    assert shown.drive(180.0) >= 0.9 * 3 * 600
    assert shown.refused - refused <= most * 3 * 600


def seen(nature: Nature, second: float, used: float, reset_s: float, limit: float = 500.0) -> str | None:
    """What is known after one more answer."""
    nature.observe(second, second + PING_S, Level("requests", limit, limit - used, reset_s, None))
    return nature.kind


def test_a_bucket_is_known_after_three_answers_a_second_apart_that_agree() -> None:
    nature = Nature()
    assert [seen(nature, float(i), 20.0, 2.4) for i in range(4)] == [None, None, "minute", "minute"]


def test_answers_of_one_instant_count_once() -> None:
    nature = Nature()
    assert {seen(nature, 0.001 * i, 20.0, 2.4) for i in range(100)} == {None}


def test_a_counter_that_starts_anew_is_known_by_its_edge() -> None:
    nature = Nature()
    kinds = [seen(nature, float(i), 20.0 + 5.0 * i, 30.0 - i) for i in range(9)]
    assert kinds[-1] == "window"


def test_a_day_is_known_for_what_it_is() -> None:
    nature = Nature()
    kinds = [seen(nature, float(used), used, used * 86.4, 1000.0) for used in (2, 3, 4)]
    assert kinds[-1] == "day"


def test_an_edge_that_does_not_turn_makes_no_window() -> None:
    nature = Nature()
    for i in range(9):
        seen(nature, float(i), 20.0 + 5.0 * i, 30.0 - i)
    nature.deny_window()
    assert {seen(nature, 9.0 + i, 70.0 + 5.0 * i, 21.0 - i) for i in range(9)} == {None}


@given(st.lists(st.tuples(st.floats(0.0, 500.0), st.floats(0.0, 5000.0)), min_size=1, max_size=60))
def test_a_kind_is_only_said_where_three_answers_agree(answers: list[tuple[float, float]]) -> None:
    nature = Nature()
    fits = 0
    for second, (used, reset_s) in enumerate(answers):
        fits += used >= 2.0
        kind = seen(nature, float(second), used, reset_s)
        assert kind is None or fits >= 3


def stock_of(level: Level, *, sent_at: float = 0.0) -> tuple[Stock, Sent]:
    """A stock after one answer."""
    stock, sent = Stock("requests"), Sent()
    sent.add(sent_at, 1.0)
    stock.observe(sent_at + PING_S, sent_at, sent.total, sent, level, let_in=True)
    return stock, sent


def test_what_has_left_since_the_newest_answer_is_taken_off() -> None:
    stock, sent = stock_of(Level("requests", 500.0, 100.0, None, None))
    for _ in range(30):
        sent.add(0.1, 1.0)
        stock.take(0.1, 1.0)
    assert stock.left(0.1) == 70.0
    assert stock.rate(0.1, 1.0, TAU_S) == 35.0


def test_what_was_refused_is_given_back_unless_the_newest_answer_knows_of_it() -> None:
    stock, sent = stock_of(Level("requests", 500.0, 100.0, None, None))
    sent.add(0.1, 1.0)
    stock.take(0.1, 1.0)
    stock.give_back(sent.total, 1.0)
    assert stock.left(0.1) == 100.0
    stock.give_back(0.5, 1.0)
    assert stock.left(0.1) == 100.0


def test_answers_out_of_order_are_left_out() -> None:
    stock, sent = stock_of(Level("requests", 500.0, 100.0, None, None), sent_at=5.0)
    stock.observe(9.0, 4.0, 0.5, sent, Level("requests", 500.0, 3.0, None, None), let_in=True)
    assert stock.left(9.0) == 100.0


def test_a_limit_without_what_is_left_of_it_bounds_nothing() -> None:
    stock, _ = stock_of(Level("requests", 500.0, None, None, None))
    assert stock.rate(1.0, 1.0, TAU_S) == math.inf
    assert stock.fits_at(1.0, 1.0) == 1.0


def test_a_level_that_stays_at_nothing_while_requests_are_let_in_is_no_level() -> None:
    stock, sent = stock_of(Level("requests", 500.0, 0.0, 60.0, None))
    for i in range(1, 6):
        sent.add(float(i), 1.0)
        level = Level("requests", 500.0, 0.0, 60.0, None)
        stock.observe(i + PING_S, float(i), sent.total, sent, level, let_in=True)
    assert not stock.believed
    assert stock.rate(6.0, 1.0, TAU_S) == math.inf
    assert stock.fits_at(6.0, 1.0) == 6.0
    sent.add(7.0, 1.0)
    stock.observe(7.1, 7.0, sent.total, sent, Level("requests", 500.0, 12.0, 50.0, None), let_in=True)
    assert stock.believed


def test_a_spent_limit_that_says_nothing_of_its_return_names_no_instant() -> None:
    stock, _ = stock_of(Level("requests", 500.0, 0.0, None, None))
    assert stock.fits_at(1.0, 1.0) is None


def test_a_window_is_whole_again_just_after_its_edge() -> None:
    shown = Shown(Limit("fixed", 100.0))
    for _ in range(9):
        shown.send()
        shown.now += 1.0
    stock = shown.stock
    while shown.send():
        shown.now += 0.1
    assert stock.kind == "window"
    fits = stock.fits_at(shown.now, 1.0)
    assert fits is not None
    assert 60.0 < fits < 60.0 + 2.0 * AFTER_EDGE_S
    assert stock.left(fits) == 100.0
    stock.take(fits, 1.0)
    assert stock.left(fits) == 99.0


def test_what_is_left_of_a_day_counts_down_between_answers_and_leaks_back() -> None:
    stock, sent = Stock("requests"), Sent()
    for i in range(4):
        sent.add(2.0 * i, 1.0)
        used = 85_000.0 + i
        level = Level("requests", 86_400.0, 86_400.0 - used, used, None)
        stock.observe(2.0 * i + PING_S, 2.0 * i, sent.total, sent, level, let_in=True)
    assert (stock.daily, stock.leaks) == (True, True)
    left = stock.left(6.0)
    for _ in range(int(left)):
        stock.take(6.0, 1.0)
    assert stock.left(6.0) < 1.0
    fits = stock.fits_at(6.0, 1.0)
    assert fits is not None
    assert 6.0 < fits <= 7.0
    assert stock.left(66.0) == pytest.approx(stock.left(6.0) + 60.0)
    assert stock.rate(66.0, 1.0, TAU_S) == math.inf


def test_a_day_that_does_not_leak_comes_back_at_its_edge_and_says_so() -> None:
    stock, _ = stock_of(Level("requests", 1000.0, 0.0, 7200.0, None))
    assert stock.daily
    assert stock.fits_at(10.0, 1.0) == pytest.approx(7200.0, abs=1.0)
    assert stock.whole_at(10.0) == 7200.0
    assert "1,000 requests" in stock.sentence(10.0)
    assert "1,000 more fit in 2.0 h" in stock.sentence(10.0)
