"""The dispatcher's contract: who goes when, what a refusal does, what stops a job."""

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.errors import Unavailable
from batchllm.limiter import Cost, Limiter
from batchllm.limiter.concurrency import NEW_SLOTS_AT_ONCE, NEW_SLOTS_PER_S
from batchllm.limiter.pace import BIN_S, GUARD_S
from batchllm.records import Pace, Usage
from batchllm.retry import Disposition, Verdict

COST = Cost(100, 200)
USED = Usage(100, 50, 150)
REFUSED = Verdict(Disposition.REFUSED, "rate_limit", "requests per min (RPM)")
BROKEN = Verdict(Disposition.TRANSIENT, "http_500", "it answered 500")
CONNECT = Verdict(Disposition.TRANSIENT, "connect", "no connection")
OVERLOADED = Verdict(Disposition.OVERLOADED, "overloaded", "server busy")


class Item:
    """What waits: equal to every other one, so only its identity tells it apart."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


def make(rows: int = 0, *, charge: str = "max_tokens", **pace: Any) -> Limiter[Item]:
    limiter: Limiter[Item] = Limiter(Pace(**pace), charge=charge, now=0.0, rng=random.Random(1))
    for _ in range(rows):
        limiter.offer(Item(), COST, lane="m")
    return limiter


def answer(limiter: Limiter[Item], now: float, item: Item, headers: dict[str, str] | None = None) -> None:
    limiter.answered(now, item, headers or {}, USED)
    limiter.released(now, item)


def warm(limiter: Limiter[Item], now: float = 0.0) -> None:
    """Answers the first request, which goes alone."""
    (item,) = limiter.poll(now).grants
    answer(limiter, now, item)


def fill(limiter: Limiter[Item], now: float) -> list[Item]:
    """All that goes within a second without any further event."""
    granted: list[Item] = []
    wake: float | None = now
    while wake is not None and wake < now + 1.0:
        poll = limiter.poll(wake)
        granted += poll.grants
        wake = poll.wake_at
    return granted


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


def test_a_refused_row_goes_first_and_alone_when_the_pause_is_over() -> None:
    limiter = make(10, concurrency=3)
    warm(limiter)
    in_flight = limiter.poll(0.0).grants
    limiter.refused(1.0, in_flight[1], Verdict(Disposition.REFUSED, "rate_limit", retry_after_s=20.0), {})
    poll = limiter.poll(1.0)
    assert (poll.grants, poll.wake_at) == ([], 21.0)
    assert limiter.view(1.0).limits == "pause"
    assert limiter.view(1.0).resumes_at == 21.0
    assert limiter.view(1.0).gives_up_at == 1.0 + Pace().max_wait_s
    (probe,) = limiter.poll(21.0).grants
    assert probe is in_flight[1]
    assert limiter.poll(21.0).grants == []


def test_a_burst_of_refusals_is_one_event() -> None:
    limiter = make(100, concurrency=50)
    warm(limiter)
    in_flight = fill(limiter, 0.0)
    for item in in_flight:
        limiter.refused(0.3, item, REFUSED, {})
    assert limiter.view(0.3).refused == 50
    assert len(limiter.poll(0.6).grants) == 1


def test_a_probe_that_is_not_refused_soon_counts_as_accepted() -> None:
    limiter = make(10, concurrency=5)
    warm(limiter)
    item = limiter.poll(0.0).grants[0]
    limiter.refused(0.1, item, REFUSED, {})
    probe_at = limiter.poll(0.1).wake_at
    assert probe_at is not None
    assert len(limiter.poll(probe_at).grants) == 1
    quiet_at = limiter.poll(probe_at).wake_at
    assert quiet_at is not None and quiet_at < probe_at + 2.0
    limiter.poll(quiet_at)
    assert limiter.view(quiet_at).resumes_at is None


def test_a_longer_pause_than_max_wait_stops_the_job() -> None:
    limiter = make(10, concurrency=5, max_wait_s=60.0)
    warm(limiter)
    item = limiter.poll(0.0).grants[0]
    limiter.refused(0.1, item, Verdict(Disposition.REFUSED, "rate_limit", retry_after_s=86_400.0), {})
    with pytest.raises(Unavailable, match="--max-wait"):
        limiter.poll(0.2)


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


def test_a_row_larger_than_the_limit_is_given_back_at_once() -> None:
    limiter = make(0, tokens_per_minute=1000.0)
    big, small = Item(), Item()
    limiter.offer(big, Cost(100, 5000), lane="m")
    limiter.offer(small, COST, lane="m")
    poll = limiter.poll(0.0)
    assert poll.grants[0] is small
    ((item, words),) = poll.too_large
    assert item is big
    assert "5,000 tokens" in words and "1,000 a minute" in words
    assert limiter.waiting == 0


def test_a_rejected_first_row_proves_the_key() -> None:
    limiter = make(10, concurrency=4)
    (first,) = limiter.poll(0.0).grants
    limiter.failed(1.0, first, Verdict(Disposition.REJECTED, "http_400"), {})
    limiter.released(1.0, first)
    assert len(limiter.poll(1.0).grants) == 4


@pytest.mark.parametrize(("worked", "gives_up_at"), [(False, 31.0), (True, 601.0)])
def test_an_outage_shows_its_cause_and_when_the_run_gives_up(worked: bool, gives_up_at: float) -> None:
    limiter = make(20, concurrency=8)
    if worked:
        warm(limiter)
    for item in limiter.poll(0.5).grants:
        limiter.failed(1.0, item, Verdict(Disposition.TRANSIENT, "connect", "no\nconnection"), {})
        limiter.released(1.0, item)
    view = limiter.view(1.0)
    assert (view.limits, view.trouble, view.gives_up_at) == ("outage", "no connection", gives_up_at)
    assert view.resumes_at is not None
    assert 1.8 <= view.resumes_at <= 2.0


def test_no_connection_before_any_success_stops_within_half_a_minute() -> None:
    limiter = make(3)
    now, arrivals = 0.0, 0
    with pytest.raises(Unavailable, match="no connection"):
        while now < 100.0:
            poll = limiter.poll(now)
            for item in poll.grants:
                arrivals += 1
                limiter.failed(now, item, CONNECT, {})
                assert limiter.outage
                limiter.released(now, item)
                limiter.offer(item, COST, lane="m", again=True)
            now = poll.wake_at if poll.wake_at is not None else now
    assert 28.0 <= now <= 31.0
    assert arrivals <= 20


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


def found_after(seconds: float) -> tuple[Limiter[Item], float]:
    """A limiter that was let in twice a second for so long, was refused, and has resumed."""
    limiter = make(1000, concurrency=10)
    warm(limiter)
    now = 0.0
    while now < seconds:
        now += 0.5
        for item in limiter.poll(now).grants[:1]:
            answer(limiter, now, item)
    in_flight = [queued.item for queued in limiter._in_flight.values()]
    for item in in_flight:
        limiter.refused(now, item, REFUSED, {})
    probe_at = limiter.poll(now).wake_at
    assert probe_at is not None
    (probe,) = limiter.poll(probe_at).grants
    answer(limiter, probe_at + 0.1, probe)
    return limiter, probe_at + 0.1


def test_what_was_found_is_remembered_for_the_next_run() -> None:
    limiter, now = found_after(80.0)
    found = limiter.view(now).requests_per_minute
    assert found == pytest.approx(120.0, rel=0.05)
    again: Limiter[Item] = Limiter(Pace(), charge="max_tokens", now=0.0, learned=limiter.learned())
    again.offer(Item(), COST, lane="m")
    assert again.view(0.0).searching
    assert again.view(0.0).requests_per_minute == pytest.approx(found, rel=0.15)


def test_an_estimate_of_less_than_a_minute_does_not_go_to_the_next_run() -> None:
    limiter, now = found_after(40.0)
    assert limiter.view(now).searching
    assert limiter.learned()["lanes"] == {}


def test_a_job_that_fits_into_what_remains_is_not_stretched_over_a_minute() -> None:
    limiter = make(100, concurrency=200)
    used, now, done = 0, 0.0, 0
    while done < 100:
        poll = limiter.poll(now)
        for item in poll.grants:
            used += 1
            headers = {"x-ratelimit-limit-requests": "500", "x-ratelimit-remaining-requests": f"{500 - used}",
                    "x-ratelimit-reset-requests": f"{used * 120}ms"}  # fmt: skip
            answer(limiter, now, item, headers)
            done += 1
        now = now if poll.wake_at is None else poll.wake_at
        assert now < 3.0


def test_a_dimension_that_the_endpoint_settles_gives_back_what_was_not_used() -> None:
    limiter = make(2, tokens_per_minute=6000.0, charge="usage", concurrency=5)
    (item,) = limiter.poll(0.0).grants
    tokens = limiter._lanes["m"].limits.dimension("tokens")
    limiter.answered(1.0, item, {}, USED)
    assert tokens.sent.accepted == 150.0
    assert tokens.log is not None
    assert tokens.log.total == 150.0


def test_the_wall_clock_is_never_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    def forbidden() -> float:
        raise AssertionError("the limiter is told the time")

    for name in ("time", "monotonic", "perf_counter"):
        monkeypatch.setattr(time, name, forbidden)
    limiter = make(5, requests_per_minute=60.0)
    (item,) = limiter.poll(1e9).grants
    limiter.refused(1e9, item, REFUSED, {})
    limiter.poll(1e9 + 1)


@pytest.mark.parametrize("pace", [{"requests_per_minute": 1.0}, {"tokens_per_minute": 300.0}])
def test_while_a_row_waits_for_a_pace_somebody_looks_twice_a_second(pace: dict[str, Any]) -> None:
    limiter = make(3, **pace)
    warm(limiter)
    now, sent = 0.0, 0
    while not sent:
        poll = limiter.poll(now)
        sent += len(poll.grants)
        assert poll.grants or poll.wake_at is not None
        if poll.wake_at is not None:
            assert now < poll.wake_at <= now + 0.5
            now = poll.wake_at
    assert 50.0 < now < 70.0


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["offer", "poll", "answer", "refuse", "fail", "cancel", "wait"]), st.integers(0, 9)
    ),
    max_size=120,
)


@given(EVENTS, st.sampled_from(["usage", "max_tokens"]))
@settings(max_examples=150, deadline=None)
def test_any_sequence_of_events_conserves_what_was_granted(
    events: list[tuple[str, int]], charge: str
) -> None:
    limiter = make(0, requests_per_minute=600.0, tokens_per_minute=60_000.0, concurrency=5, charge=charge)
    tokens = limiter._lane("m").limits.dimension("tokens")
    now, in_flight = 0.0, []
    granted = 0.0
    taken: list[list[float]] = []  # [when, what it takes in the end]
    entries: dict[int, list[float]] = {}
    for event, pick in events:
        match event:
            case "offer":
                limiter.offer(
                    Item(), COST, lane="m", again=pick > 7, not_before=now + pick if pick == 9 else 0.0
                )
            case "wait":
                now += pick * 0.3
            case "poll":
                grants = limiter.poll(now).grants
                in_flight += grants
                for item in grants:
                    amount = limiter._in_flight[id(item)].amounts[1]
                    granted += amount
                    entries[id(item)] = [now, amount]
                    taken.append(entries[id(item)])
        if not in_flight:
            continue
        if event in ("answer", "refuse", "fail", "cancel"):
            item = in_flight.pop(pick % len(in_flight))
        if event == "answer":
            answer(limiter, now, item)
            if charge == "usage":
                entries[id(item)][1] = 150.0
        elif event == "refuse":
            limiter.refused(now, item, REFUSED, {})
            entries[id(item)][1] = 0.0
        elif event in ("fail", "cancel"):
            if event == "fail":
                limiter.failed(now, item, BROKEN, {})
            limiter.released(now, item)
    assert limiter.in_flight == len(in_flight)
    assert tokens.sent.total == pytest.approx(granted)
    assert tokens.log is not None
    tokens.log.fits_at(now, 0.0)
    within = [amount for at, amount in taken if at > now - 60.0 - GUARD_S - BIN_S]
    assert tokens.log.total == pytest.approx(sum(within))


@given(EVENTS)
@settings(max_examples=150, deadline=None)
def test_no_wake_up_is_lost(events: list[tuple[str, int]]) -> None:
    """Whatever happened: once everything in flight has ended, waking when told to sends all that waits."""
    limiter = make(0, requests_per_minute=600.0, concurrency=5)
    now, in_flight = 0.0, []
    for event, pick in events:
        if event == "offer":
            limiter.offer(Item(), COST, lane="m", again=pick > 7, not_before=now + pick if pick == 9 else 0.0)
        elif event == "wait":
            now += pick * 0.3
        elif event == "poll":
            in_flight += limiter.poll(now).grants
        elif in_flight:
            item = in_flight.pop(pick % len(in_flight))
            if event == "answer":
                answer(limiter, now, item)
            elif event == "refuse":
                limiter.refused(now, item, REFUSED, {})
            else:
                if event == "fail":
                    limiter.failed(now, item, BROKEN, {})
                limiter.released(now, item)
    for _ in range(2000):
        while in_flight:
            answer(limiter, now, in_flight.pop())
        poll = limiter.poll(now)
        in_flight = poll.grants
        if not in_flight and not limiter.waiting:
            return
        if not in_flight:
            assert poll.wake_at is not None, "something waits, nothing is in flight, and nobody will wake"
            assert poll.wake_at > now - 1e-9
            now = max(now + 1e-6, poll.wake_at)
    raise AssertionError("not everything was sent")


@given(st.lists(st.tuples(st.floats(0.0, 5.0), st.integers(1, 900)), min_size=1, max_size=80))
@settings(max_examples=100, deadline=None)
def test_no_minute_holds_more_than_the_grant(arrivals: list[tuple[float, int]]) -> None:
    limiter = make(0, requests_per_minute=120.0, tokens_per_minute=5000.0, concurrency=100)
    limiter._lane("m").answered = True
    now, sent = 0.0, []
    costs = {}
    for wait, tokens in arrivals:
        target = now + wait
        item = Item()
        costs[id(item)] = (item, tokens)
        limiter.offer(item, Cost(1, tokens), lane="m")
        while True:
            poll = limiter.poll(now)
            for granted in poll.grants:
                sent.append((now, costs[id(granted)][1]))
                answer(limiter, now, granted)
            if poll.grants:
                continue
            if poll.wake_at is None or poll.wake_at > target:
                break
            now = poll.wake_at
        now = max(now, target)
    for start, _ in sent:
        window = [tokens for at, tokens in sent if start <= at < start + 60.0]
        assert sum(window) <= 5000.0
        assert len(window) <= 121


def test_an_endpoint_that_is_loading_for_ever_stops_the_job_after_max_outage() -> None:
    limiter = make(3, max_outage_s=60.0)
    now = 0.0
    with pytest.raises(Unavailable, match="refused every request"):
        while now < 1000.0:
            poll = limiter.poll(now)
            for item in poll.grants:
                limiter.refused(now, item, Verdict(Disposition.REFUSED, "loading", retry_after_s=2.0), {})
            now = poll.wake_at if poll.wake_at is not None else now
    assert 60.0 < now < 70.0


def test_what_the_endpoint_charges_is_remembered_too() -> None:
    limiter = make(2, tokens_per_minute=60_000.0, concurrency=3)
    warm(limiter)
    (item,) = limiter.poll(0.0).grants
    limiter.refused(
        0.1, item, Verdict(Disposition.REFUSED, "rate_limit", "TPM", 1.0, requested_tokens=400), {}
    )
    again: Limiter[Item] = Limiter(
        Pace(tokens_per_minute=60_000.0), charge="max_tokens", now=0.0, learned=limiter.learned()
    )
    again.offer(Item(), COST, lane="m")
    again.poll(0.0)
    assert again._lanes["m"].limits.dimension("tokens").sent.total == 300.0


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


ANTHROPIC = {
    "anthropic-ratelimit-requests-limit": "50", "anthropic-ratelimit-requests-remaining": "40",
    "anthropic-ratelimit-input-tokens-limit": "50000", "anthropic-ratelimit-input-tokens-remaining": "0",
    "anthropic-ratelimit-input-tokens-reset": "2026-01-01T00:00:10Z", "date": "Thu, 01 Jan 2026 00:00:00 GMT",
}  # fmt: skip


def test_a_refusal_may_show_a_limit_that_was_not_known_when_its_request_left() -> None:
    limiter = make(20, concurrency=8)
    (first,) = limiter.poll(0.0).grants
    others = limiter.poll(2.0).grants
    answer(limiter, 3.0, first, ANTHROPIC)
    limiter.refused(3.1, others[0], REFUSED, ANTHROPIC)
    assert limiter.view(3.1).limits == "pause"
    resumes_at = limiter.view(3.1).resumes_at
    assert resumes_at == pytest.approx(13.1)


def test_what_an_earlier_stretch_gives_back_is_not_taken_off_the_present_one() -> None:
    limiter = make(20, tokens_per_minute=600_000.0, concurrency=8, charge="usage")
    warm(limiter)
    in_flight = fill(limiter, 0.0)
    tokens = limiter._lanes["m"].limits.dimension("tokens")
    tokens.sent.start_stretch(1.0)
    for item in in_flight:
        limiter.answered(2.0, item, {}, Usage(100, 5, 105))
    assert tokens.sent.accepted == 0.0


def test_a_burst_of_refusals_whose_probe_is_let_in_does_not_overrule_what_the_user_told() -> None:
    limiter = make(400, requests_per_minute=600.0, concurrency=50)
    warm(limiter)
    in_flight: list[Item] = []
    now = 0.0
    while len(in_flight) < 24:
        in_flight += limiter.poll(now).grants
        for item in in_flight[:20]:
            if id(item) in limiter._in_flight:
                answer(limiter, now, item)
        now += 0.05
    for item in in_flight[20:]:
        limiter.refused(now, item, REFUSED, {})
    probe_at = limiter._lanes["m"].gate.until
    (probe,) = limiter.poll(probe_at).grants
    answer(limiter, probe_at + 0.1, probe)
    limiter.poll(probe_at + 0.2)
    assert limiter.view(probe_at + 0.2).resumes_at is None
    assert not limiter.view(probe_at + 0.2).searching
