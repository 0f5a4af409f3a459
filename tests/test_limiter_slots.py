"""How many requests are in flight: the first one alone, new slots one after another, and when a slot is free."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchllm.limiter.concurrency import NEW_SLOTS_AT_ONCE, NEW_SLOTS_PER_S
from tests.limiter_items import BROKEN, COST, OVERLOADED, USED, Item, answer, fill, make, warm


def test_the_first_request_goes_alone_until_it_is_answered() -> None:
    limiter = make(10, concurrency=4)
    (first,) = limiter.poll(0.0).grants
    poll = limiter.poll(1.0)
    assert (poll.grants, poll.wake_at) == ([], 2.0)
    answer(limiter, 1.5, first)
    assert len(limiter.poll(1.5).grants) == 4


def test_a_slow_first_answer_holds_the_others_for_two_seconds_and_then_eight_are_out() -> None:
    limiter = make(50, concurrency=30)
    (first,) = limiter.poll(0.0).grants
    assert limiter.poll(1.9).grants == []
    assert len(limiter.poll(2.0).grants) == 7
    poll = limiter.poll(500.0)
    assert (poll.grants, poll.wake_at, limiter.in_flight) == ([], None, 8)
    answer(limiter, 501.0, first)
    assert len(fill(limiter, 501.0)) == 30 - 7


def test_the_first_request_of_each_model_goes_alone() -> None:
    limiter = make(0, concurrency=8)
    for lane in ("a", "b"):
        for _ in range(3):
            limiter.offer(Item(), COST, lane=lane)
    assert len(limiter.poll(0.0).grants) == 2


def test_an_explicit_concurrency_is_used_from_the_first_second_and_never_exceeded() -> None:
    limiter = make(100, concurrency=30)
    warm(limiter)
    assert len(fill(limiter, 0.0)) == 30
    assert limiter.poll(1.0).grants == []
    assert limiter.in_flight == 30
    assert limiter.view(1.0).limits == "concurrency"


def test_slots_that_are_new_open_one_after_another_and_all_within_the_first_second() -> None:
    limiter = make(500, concurrency=400)
    warm(limiter)
    at = {}
    wake: float | None = 0.0
    while wake is not None:
        at[wake] = len((poll := limiter.poll(wake)).grants)
        wake = poll.wake_at
    assert sum(at.values()) == limiter.in_flight == 400
    assert max(at.values()) == NEW_SLOTS_AT_ONCE
    assert max(at) == pytest.approx(400 / NEW_SLOTS_PER_S, rel=0.05)
    assert max(at) < 1.0


@given(asked_at=st.lists(st.floats(0.0, 0.3), max_size=60))
def test_new_slots_open_at_their_pace_however_often_the_limiter_is_asked(asked_at: list[float]) -> None:
    limiter = make(500, concurrency=400)
    warm(limiter)
    for now in sorted(asked_at):
        limiter.poll(now)
        assert limiter.in_flight <= 1 + NEW_SLOTS_AT_ONCE + now * NEW_SLOTS_PER_S


def test_a_slot_that_was_used_before_is_taken_at_once() -> None:
    limiter = make(1000, concurrency=400)
    warm(limiter)
    for item in fill(limiter, 0.0):
        answer(limiter, 1.0, item)
    assert len(limiter.poll(1.0).grants) == 400


def test_nobody_is_woken_for_a_new_slot_that_nobody_waits_for() -> None:
    limiter = make(2 + NEW_SLOTS_AT_ONCE, concurrency=400)
    warm(limiter)
    assert len(fill(limiter, 0.0)) == 1 + NEW_SLOTS_AT_ONCE
    assert limiter.poll(1.0).wake_at is None


def test_a_slot_is_free_when_it_is_released_not_when_it_is_answered() -> None:
    limiter = make(5, concurrency=1)
    (item,) = limiter.poll(0.0).grants
    limiter.answered(1.0, item, {}, USED)
    assert limiter.poll(1.0).grants == []
    limiter.released(2.0, item)
    assert len(limiter.poll(2.0).grants) == 1


def test_equal_items_are_told_apart() -> None:
    limiter = make(3, concurrency=2)
    warm(limiter)
    first, second = limiter.poll(0.0).grants
    answer(limiter, 1.0, second)
    answer(limiter, 1.0, first)
    assert limiter.in_flight == 0


def test_backoff_waits_outside_the_slots_and_goes_before_new_rows() -> None:
    limiter = make(10, concurrency=1)
    warm(limiter)
    (item,) = limiter.poll(0.0).grants
    limiter.failed(1.0, item, BROKEN, {})
    limiter.released(1.0, item)
    limiter.offer(item, COST, lane="m", again=True, not_before=5.0)
    (other,) = limiter.poll(1.0).grants
    assert other is not item
    answer(limiter, 6.0, other)
    assert limiter.poll(6.0).grants[0] is item


def test_overload_shrinks_an_explicit_concurrency_and_it_comes_back() -> None:
    limiter = make(5000, concurrency=100)
    warm(limiter)
    in_flight = limiter.poll(0.0).grants
    limiter.failed(1.0, in_flight[0], OVERLOADED, {})
    assert limiter.view(1.0).concurrency == 80
    for item in in_flight:
        limiter.released(1.0, item)
    now = 1.0
    while now < 120.0:
        now += 1.0
        for item in limiter.poll(now).grants:
            answer(limiter, now + 0.5, item)
    assert limiter.view(now).concurrency == 100


def test_a_slot_whose_answer_has_landed_may_be_taken_before_it_is_read() -> None:
    limiter = make(20, concurrency=5)
    warm(limiter)
    in_flight = limiter.poll(0.0).grants
    assert len(in_flight) == 5
    limiter.received(in_flight[0])
    limiter.received(in_flight[1])
    assert len(limiter.poll(0.0).grants) == 2
    answer(limiter, 1.0, in_flight[0])
    answer(limiter, 1.0, in_flight[1])
    assert limiter.poll(1.0).grants == []
    answer(limiter, 1.0, in_flight[2])
    assert len(limiter.poll(1.0).grants) == 1


def test_the_first_request_keeps_its_slot_until_it_has_been_read() -> None:
    limiter = make(20, concurrency=5)
    (first,) = limiter.poll(0.0).grants
    limiter.received(first)
    assert limiter.poll(0.0).grants == []
