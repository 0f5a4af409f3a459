"""What holds after any sequence of events: nothing is lost, nobody sleeps for ever, no minute holds too much."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.limiter import Cost
from batchllm.limiter.pace import BIN_S, GUARD_S
from tests.limiter_items import BROKEN, COST, REFUSED, Item, answer, make


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
    tokens = limiter.lane("m").limits.dimension("tokens")
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
    limiter.lane("m").answered = True
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
