"""What a refusal means: a limit, a cap of requests in flight, or nothing."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.limiter import Cost, Limiter
from batchllm.limiter.queue import REFUSED, QueuedItem
from batchllm.limiter.refusals import (
    CAP_RESTS_S,
    MIN_UNEXPLAINED,
    Conclusion,
    PaceBasis,
    RefusalKind,
    Refusals,
)
from batchllm.records import Pace, Usage
from batchllm.retry import Disposition, Verdict

QUIET_S = 0.3
BACK_S = 0.05
BARE = Verdict(Disposition.REFUSED, "rate_limit", "too many requests")


class Endpoint:
    """Tells ``Refusals`` what becomes of requests that leave one after another."""

    def __init__(self, gap_s: float = 0.1) -> None:
        self.refusals: Refusals[object] = Refusals()
        self.now, self._gap_s = 0.0, gap_s
        self.said: list[RefusalKind] = []

    def leave(self, others_in_flight: int = 0) -> QueuedItem[object]:
        """A request leaves."""
        self.now += self._gap_s
        queued: QueuedItem[object] = QueuedItem(object(), Cost(1, 1), "m", 1)
        queued.sent_at = self.now
        self.refusals.sent(queued, others_in_flight)
        return queued

    def accepted(self, count: int = 1, others_in_flight: int = 0) -> None:
        """Requests are let in."""
        for _ in range(count):
            self.refusals.accepted(self.leave(others_in_flight))

    def refuse(self, others_in_flight: int = 0, *, within_span: bool = True) -> RefusalKind:
        """A request is refused."""
        queued = self.leave(others_in_flight)
        said = self.refusals.refused(self.now + BACK_S, queued, within_span=within_span, quiet_s=QUIET_S)
        self.said.append(said)
        return said

    def unexplained_refusal(self, *, lowered: bool = True) -> Conclusion:
        """The refusal should have been prevented by the present pace."""
        return self.refusals.judge_unexplained(
            self.now + BACK_S, PaceBasis(True, weak=False, lowered=lowered), quiet_s=QUIET_S
        )


def with_noise(share: float, seed: int = 1) -> Endpoint:
    """An endpoint of which it is known that it refuses at random."""
    endpoint, rng = Endpoint(), random.Random(seed)
    for _ in range(2000):
        if rng.random() >= share:
            endpoint.accepted()
        else:
            endpoint.refuse()
            if endpoint.unexplained_refusal() is Conclusion.NOISE:
                break
    assert endpoint.refusals.noise
    return endpoint


def test_one_refusal_among_many_that_were_let_in_means_nothing() -> None:
    endpoint = Endpoint()
    endpoint.accepted(20)
    assert endpoint.refuse() is RefusalKind.ISOLATED


def test_the_first_refusal_of_all_means_a_limit() -> None:
    assert Endpoint().refuse() is RefusalKind.LIMIT


def test_a_refusal_of_a_pace_that_is_being_raised_means_a_limit() -> None:
    endpoint = Endpoint()
    endpoint.accepted(20)
    assert endpoint.refuse(within_span=False) is RefusalKind.LIMIT


@given(st.integers(0, 7))
def test_two_refusals_near_each_other_mean_a_limit(between: int) -> None:
    endpoint = Endpoint()
    endpoint.accepted(20)
    endpoint.refuse()
    endpoint.accepted(between)
    assert endpoint.refuse() is RefusalKind.LIMIT


def test_what_is_out_for_long_counts_as_let_in() -> None:
    endpoint = Endpoint()
    for _ in range(20):
        endpoint.leave(others_in_flight=3)
    assert endpoint.refuse() is RefusalKind.ISOLATED


def test_what_has_just_left_does_not() -> None:
    endpoint = Endpoint(gap_s=0.01)
    for _ in range(8):
        endpoint.leave()
    assert endpoint.refuse() is RefusalKind.LIMIT


def test_refusals_that_a_lower_pace_does_not_prevent_are_noise() -> None:
    endpoint = Endpoint()
    answers = []
    for _ in range(MIN_UNEXPLAINED[False]):
        endpoint.accepted(9)
        endpoint.refuse()
        answers.append(endpoint.unexplained_refusal())
    assert answers == [Conclusion.WAIT] * (MIN_UNEXPLAINED[False] - 1) + [Conclusion.NOISE]
    assert 0.1 <= endpoint.refusals.noise <= 0.2


def test_before_refusals_are_noise_a_lower_pace_is_tried() -> None:
    endpoint = Endpoint()
    answers = []
    for _ in range(2 * MIN_UNEXPLAINED[False]):
        endpoint.accepted(9)
        endpoint.refuse()
        answers.append(endpoint.unexplained_refusal(lowered=False))
    assert answers[MIN_UNEXPLAINED[False] - 1] is Conclusion.LOWER
    assert answers[-1] is Conclusion.NOISE
    assert answers.count(Conclusion.WAIT) == 2 * MIN_UNEXPLAINED[False] - 2


def test_a_limit_that_refuses_most_of_what_is_sent_is_no_noise() -> None:
    endpoint = Endpoint()
    for _ in range(20):
        endpoint.accepted(2)
        for _ in range(5):
            endpoint.refuse()
        assert endpoint.unexplained_refusal() is not Conclusion.NOISE
    assert endpoint.refusals.noise == 0.0


@given(st.sampled_from([0.02, 0.1, 0.3]), st.integers(0, 10_000))
@settings(max_examples=100, deadline=None)
def test_where_chance_refuses_most_refusals_mean_nothing(share: float, seed: int) -> None:
    endpoint, rng = with_noise(share, seed), random.Random(seed + 1)
    endpoint.said.clear()
    for _ in range(1000):
        if endpoint.refusals.noise == 0.0:
            break  # it is found anew
        if rng.random() >= share:
            endpoint.accepted()
        elif endpoint.refuse() is RefusalKind.LIMIT:
            endpoint.refusals.judge_pause(
                endpoint.now + BACK_S,
                PaceBasis(True, weak=True, lowered=True),
                contradicted=True,
                accepted=9.0,
                quiet_s=QUIET_S,
            )
    assert endpoint.said.count(RefusalKind.LIMIT) <= 5 + 0.2 * len(endpoint.said)


@given(st.sampled_from([0.02, 0.1, 0.3]), st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_where_everything_is_refused_noise_is_forgotten_soon(share: float, seed: int) -> None:
    endpoint = with_noise(share, seed)
    assert RefusalKind.LIMIT in [endpoint.refuse() for _ in range(20)]


def test_refusals_whenever_as_many_are_in_flight_are_a_cap() -> None:
    endpoint = Endpoint()
    said = []
    for _ in range(6):
        for others_in_flight in range(4):
            endpoint.accepted(others_in_flight=others_in_flight)
        said.append(endpoint.refuse(others_in_flight=4))
    assert said[-1] is RefusalKind.CAP
    assert endpoint.refusals.cap == 4
    assert endpoint.refusals.room(endpoint.now, 3) == 1
    assert endpoint.refusals.room(endpoint.now, 4) == 0


def test_a_cap_is_tried_again_after_half_a_minute_by_one_more() -> None:
    endpoint = Endpoint()
    for _ in range(6):
        endpoint.accepted(others_in_flight=1)
        endpoint.refuse(others_in_flight=2)
    refusals = endpoint.refusals
    assert refusals.cap == 2
    assert refusals.room(refusals.cap_at + CAP_RESTS_S + 1.0, 1) == 1
    assert refusals.cap == 2
    assert refusals.room(refusals.cap_at + CAP_RESTS_S + 1.0, 2) == 1
    assert refusals.cap == 3


def test_a_cap_that_rises_beyond_what_is_counted_is_given_up() -> None:
    endpoint = Endpoint()
    for _ in range(6):
        endpoint.accepted(others_in_flight=1)
        endpoint.refuse(others_in_flight=2)
    refusals, caps = endpoint.refusals, []
    while (cap := refusals.cap) is not None:
        caps.append(cap)
        refusals.room(refusals.cap_at + CAP_RESTS_S + 1.0, cap)
    assert caps == list(range(2, 65))
    endpoint.refuse(others_in_flight=70)
    assert refusals.cap is None


def test_a_refusal_of_the_only_request_in_flight_denies_a_cap() -> None:
    endpoint = Endpoint()
    for _ in range(6):
        endpoint.accepted(others_in_flight=1)
        endpoint.refuse(others_in_flight=2)
    assert endpoint.refuse(others_in_flight=0) is not RefusalKind.CAP
    assert endpoint.refusals.cap is None


@given(st.lists(st.tuples(st.integers(0, 60), st.booleans()), max_size=200))
@settings(deadline=None)
def test_no_cap_is_seen_where_refusals_do_not_depend_on_what_is_in_flight(
    events: list[tuple[int, bool]],
) -> None:
    endpoint = Endpoint()
    for others_in_flight, refused in events:
        if refused:
            endpoint.refuse(others_in_flight=0)
        else:
            endpoint.accepted(others_in_flight=others_in_flight)
    assert endpoint.refusals.cap is None
    assert RefusalKind.CAP not in endpoint.said


class Chance:
    """A limiter at an endpoint that refuses a share of the requests at random, and answers after 50 ms."""

    def __init__(self, share: float, rows: int, seed: int = 1) -> None:
        self.limiter: Limiter[object] = Limiter(
            Pace(concurrency=8), charge="max_tokens", now=0.0, rng=random.Random(seed)
        )
        self._share, self._rng = share, random.Random(seed)
        for _ in range(rows):
            self.limiter.offer(object(), Cost(100, 200), lane="m")
        self.now, self.refused = 0.0, 0

    def run(self) -> None:
        """Until every row is let in."""
        while self.limiter.waiting:
            poll = self.limiter.poll(self.now)
            for item in poll.grants:
                if self._rng.random() < self._share:
                    self.refused += 1
                    self.limiter.refused(self.now + BACK_S, item, BARE, {})
                else:
                    self.limiter.answered(self.now + BACK_S, item, {}, Usage(100, 50, 150))
                    self.limiter.released(self.now + BACK_S, item)
            self.now = self.now + BACK_S if poll.grants else max(self.now + 1e-3, poll.wake_at or 0.0)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3])
def test_random_refusals_cost_less_than_a_pause_each(share: float) -> None:
    chance = Chance(share, 2000)
    chance.run()
    assert chance.now <= 10.0 + 2000 * BACK_S / 4.0 + 0.25 * chance.refused


def test_a_refusal_stays_one_when_its_row_is_let_in_later() -> None:
    limiter: Limiter[object] = Limiter(Pace(concurrency=8), charge="max_tokens", now=0.0)
    for _ in range(40):
        limiter.offer(object(), Cost(100, 200), lane="m")
    now, refused = 0.0, 0
    while limiter.waiting:
        poll = limiter.poll(now)
        for i, item in enumerate(poll.grants):
            if refused < 3 and i == 0 and now > 0.5:
                refused += 1
                limiter.refused(now + BACK_S, item, BARE, {})
            else:
                limiter.answered(now + BACK_S, item, {}, None)
                limiter.released(now + BACK_S, item)
        now = now + 0.2 if poll.grants else max(now + 0.05, poll.wake_at or 0.0)
    known = limiter._lanes["m"].refusals._known(now + 10.0, QUIET_S)
    assert len(known) == 43
    assert known.count(REFUSED) == refused == 3
