"""What answers show as left, and the pace that follows: buckets, windows, days, and headers that lie."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.limiter.dimension import Dimension
from batchllm.limiter.header_pacer import AFTER_EDGE_S, LAST_GAP_S, HeaderKind, HeaderPacer
from batchllm.limiter.headers import Level
from batchllm.limiter.rate_estimate import SendRecord
from tests.limiter_worlds.servers import Grant, grant_of
from tests.limiter_worlds.spec import Limit

PING_S = 0.05
TAU_S = 2.0


class Shown:
    """A dimension that sees a true limit: each request arrives at once, each answer after 50 ms."""

    def __init__(self, limit: Limit, *, resets: bool = True, whole_seconds: bool = False) -> None:
        self.grant: Grant = grant_of(limit)
        self.dimension, self.now = Dimension("requests", 0.0), 0.0
        self.header_pacer = self.dimension.header_pacer = HeaderPacer("requests")
        self.refused = 0
        self._resets, self._whole_seconds = resets, whole_seconds

    def send(self) -> bool:
        """One request leaves now and its answer is seen; whether it was let in."""
        grant, now, dimension = self.grant, self.now, self.dimension
        entry = dimension.take(now, 1.0, dimension.rate(now, PING_S))
        position = dimension.sent.total
        accepted = grant.opens_at(now, 1.0) <= now
        if accepted:
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
        self.header_pacer.observe(now + PING_S, now, position, dimension.sent, level, accepted=accepted)
        self.now += PING_S
        return accepted

    def drive(self, seconds: float) -> int:
        """Sends as soon as pace and pacer allow; returns how many were let in."""
        accepted, until, dimension = 0, self.now + seconds, self.dimension
        while self.now < until:
            paced = dimension.pacer.ready_at(dimension.rate(self.now, PING_S))
            at = max(paced, dimension.fits_at(self.now, 1.0))
            if at > self.now:
                self.now = min(at + 1e-6, self.now + 0.5)
            else:
                accepted += self.send()
        return accepted


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
    pacer = shown.header_pacer
    for wait, count in steps:
        shown.now += wait
        for _ in range(count):
            shown.send()
        for ahead in (0.0, 1.0, 100.0, 1e6):
            at = shown.now + ahead
            assert pacer.left(at) <= amount
            most = max(amount / TAU_S, 1.0 / LAST_GAP_S) if pacer.trusted else math.inf
            assert pacer.rate(at, 1.0, TAU_S) <= most
            fits = pacer.fits_at(at, 1.0)
            assert fits is None or fits >= at or not pacer.trusted
            assert fits != at or pacer.left(at) >= 1.0 or not pacer.trusted


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
    accepted = shown.drive(240.0)
    assert shown.header_pacer.kind == "minute"
    assert shown.refused <= 0.01 * accepted


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


def seen(
    header_kind: HeaderKind, second: float, used: float, reset_s: float, limit: float = 500.0
) -> str | None:
    """What is known after one more answer."""
    header_kind.observe(second, second + PING_S, Level("requests", limit, limit - used, reset_s, None))
    return header_kind.kind


def test_a_bucket_is_known_after_three_answers_a_second_apart_that_agree() -> None:
    header_kind = HeaderKind()
    assert [seen(header_kind, float(i), 20.0, 2.4) for i in range(4)] == [None, None, "minute", "minute"]


def test_answers_of_one_instant_count_once() -> None:
    header_kind = HeaderKind()
    assert {seen(header_kind, 0.001 * i, 20.0, 2.4) for i in range(100)} == {None}


def test_a_counter_that_starts_anew_is_known_by_its_edge() -> None:
    header_kind = HeaderKind()
    kinds = [seen(header_kind, float(i), 20.0 + 5.0 * i, 30.0 - i) for i in range(9)]
    assert kinds[-1] == "window"


def test_a_day_is_known_for_what_it_is() -> None:
    header_kind = HeaderKind()
    kinds = [seen(header_kind, float(used), used, used * 86.4, 1000.0) for used in (2, 3, 4)]
    assert kinds[-1] == "day"


def test_an_edge_that_does_not_turn_makes_no_window() -> None:
    header_kind = HeaderKind()
    for i in range(9):
        seen(header_kind, float(i), 20.0 + 5.0 * i, 30.0 - i)
    header_kind.deny_window()
    assert {seen(header_kind, 9.0 + i, 70.0 + 5.0 * i, 21.0 - i) for i in range(9)} == {None}


@given(st.lists(st.tuples(st.floats(0.0, 500.0), st.floats(0.0, 5000.0)), min_size=1, max_size=60))
def test_a_kind_is_only_said_where_three_answers_agree(answers: list[tuple[float, float]]) -> None:
    header_kind = HeaderKind()
    fits = 0
    for second, (used, reset_s) in enumerate(answers):
        fits += used >= 2.0
        kind = seen(header_kind, float(second), used, reset_s)
        assert kind is None or fits >= 3


def pacer_of(level: Level, *, sent_at: float = 0.0) -> tuple[HeaderPacer, SendRecord]:
    """A pacer after one answer."""
    pacer, sent = HeaderPacer("requests"), SendRecord()
    sent.add(sent_at, 1.0)
    pacer.observe(sent_at + PING_S, sent_at, sent.total, sent, level, accepted=True)
    return pacer, sent


def test_what_has_left_since_the_newest_answer_is_taken_off() -> None:
    pacer, sent = pacer_of(Level("requests", 500.0, 100.0, None, None))
    for _ in range(30):
        sent.add(0.1, 1.0)
        pacer.take(0.1, 1.0)
    assert pacer.left(0.1) == 70.0
    assert pacer.rate(0.1, 1.0, TAU_S) == 35.0


def test_what_was_refused_is_given_back_unless_the_newest_answer_knows_of_it() -> None:
    pacer, sent = pacer_of(Level("requests", 500.0, 100.0, None, None))
    sent.add(0.1, 1.0)
    pacer.take(0.1, 1.0)
    pacer.give_back(sent.total, 1.0)
    assert pacer.left(0.1) == 100.0
    pacer.give_back(0.5, 1.0)
    assert pacer.left(0.1) == 100.0


def test_answers_out_of_order_are_left_out() -> None:
    pacer, sent = pacer_of(Level("requests", 500.0, 100.0, None, None), sent_at=5.0)
    pacer.observe(9.0, 4.0, 0.5, sent, Level("requests", 500.0, 3.0, None, None), accepted=True)
    assert pacer.left(9.0) == 100.0


def test_a_limit_without_what_is_left_of_it_bounds_nothing() -> None:
    pacer, _ = pacer_of(Level("requests", 500.0, None, None, None))
    assert pacer.rate(1.0, 1.0, TAU_S) == math.inf
    assert pacer.fits_at(1.0, 1.0) == 1.0


def test_a_level_that_stays_at_nothing_while_requests_are_let_in_is_no_level() -> None:
    pacer, sent = pacer_of(Level("requests", 500.0, 0.0, 60.0, None))
    for i in range(1, 6):
        sent.add(float(i), 1.0)
        level = Level("requests", 500.0, 0.0, 60.0, None)
        pacer.observe(i + PING_S, float(i), sent.total, sent, level, accepted=True)
    assert not pacer.trusted
    assert pacer.rate(6.0, 1.0, TAU_S) == math.inf
    assert pacer.fits_at(6.0, 1.0) == 6.0
    sent.add(7.0, 1.0)
    pacer.observe(7.1, 7.0, sent.total, sent, Level("requests", 500.0, 12.0, 50.0, None), accepted=True)
    assert pacer.trusted


def test_a_spent_limit_that_says_nothing_of_its_return_names_no_instant() -> None:
    pacer, _ = pacer_of(Level("requests", 500.0, 0.0, None, None))
    assert pacer.fits_at(1.0, 1.0) is None


def test_a_window_is_whole_again_just_after_its_edge() -> None:
    shown = Shown(Limit("fixed", 100.0))
    for _ in range(9):
        shown.send()
        shown.now += 1.0
    pacer = shown.header_pacer
    while shown.send():
        shown.now += 0.1
    assert pacer.kind == "window"
    fits = pacer.fits_at(shown.now, 1.0)
    assert fits is not None
    assert 60.0 < fits < 60.0 + 2.0 * AFTER_EDGE_S
    assert pacer.left(fits) == 8.0  # until an answer shows that it started anew
    shown.now = fits
    assert shown.send()
    shown.now += 1.0
    assert shown.send()
    assert pacer.left(shown.now) == 98.0
    while shown.send():
        shown.now += 0.1
    fits = pacer.fits_at(shown.now, 1.0)
    assert fits is not None
    assert pacer.left(fits) == 100.0
    pacer.take(fits, 1.0)
    assert pacer.left(fits) == 99.0


def test_what_is_left_of_a_day_counts_down_between_answers_and_leaks_back() -> None:
    pacer, sent = HeaderPacer("requests"), SendRecord()
    for i in range(4):
        sent.add(2.0 * i, 1.0)
        used = 85_000.0 + i
        level = Level("requests", 86_400.0, 86_400.0 - used, used, None)
        pacer.observe(2.0 * i + PING_S, 2.0 * i, sent.total, sent, level, accepted=True)
    assert (pacer.daily, pacer.leaks) == (True, True)
    left = pacer.left(6.0)
    for _ in range(int(left)):
        pacer.take(6.0, 1.0)
    assert pacer.left(6.0) < 1.0
    fits = pacer.fits_at(6.0, 1.0)
    assert fits is not None
    assert 6.0 < fits <= 7.0
    assert pacer.left(66.0) == pytest.approx(pacer.left(6.0) + 60.0)
    assert pacer.rate(66.0, 1.0, TAU_S) == math.inf


def test_a_day_that_does_not_leak_comes_back_at_its_edge_and_says_so() -> None:
    pacer, _ = pacer_of(Level("requests", 1000.0, 0.0, 7200.0, None))
    assert pacer.daily
    assert pacer.fits_at(10.0, 1.0) == pytest.approx(7200.0, abs=1.0)
    assert pacer.full_at(10.0) == 7200.0
    assert "1,000 requests" in pacer.to_text(10.0)
    assert "1,000 more fit in 2.0 h" in pacer.to_text(10.0)
