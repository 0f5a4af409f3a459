"""Pauses and outages: one probe, what it means, and when they end the run."""

import pytest

from batchllm.errors import Unavailable
from batchllm.records import Pace
from batchllm.retry import Disposition, Verdict
from tests.limiter_items import CONNECT, COST, REFUSED, Item, answer, fill, make, warm


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
