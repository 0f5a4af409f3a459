"""The bugs of naive limiters, one test each; ``test_limiter_mutations`` seeds every one of them."""

import random
import time
from collections.abc import Iterator

import pytest

from batchllm.limiter import Cost, Limiter
from batchllm.limiter.pace import MARGIN
from batchllm.records import Pace, Response
from batchllm.retry import Disposition, RetryPolicy, Verdict, classify, seconds
from tests.limiter_bench import scenarios as s
from tests.limiter_bench.grants import FixedWindow, SlidingLog
from tests.limiter_bench.servers import BROKEN, CONNECT, Api, Faulty
from tests.limiter_bench.world import Client, Network, Reply, Row, World


def few(rows: int) -> Iterator[Row]:
    return iter([Row() for _ in range(rows)])


def most_in_a_minute(admitted: dict[int, float]) -> float:
    last = max(admitted)
    return max(sum(admitted.get(t, 0.0) for t in range(start, start + 60)) for start in range(last + 1))


def test_01_no_timestamp_is_older_than_its_request() -> None:
    api = Api(SlidingLog(600))
    s.drive(s.limiter(Pace(requests_per_minute=600, concurrency=400)), api, s.equal_rows(), 300.0)
    assert api.refused == 0


def test_02_no_herd_goes_at_the_edge_of_a_window() -> None:
    api = Api()
    s.drive(s.limiter(Pace(requests_per_minute=600, concurrency=400)), api, s.equal_rows(), 200.0)
    assert most_in_a_minute(api.admitted_requests) <= 600 + 10  # whole seconds: one may reach into the next


def test_03_no_burst_at_the_start_nor_after_an_idle_time() -> None:
    limiter = s.limiter(Pace(requests_per_minute=600, concurrency=900))
    for start in (0.0, 600.0):
        for _ in range(900):
            limiter.offer(Row(), Cost(1, 1), lane="m")
        now, sent = start, 0
        while now < start + 10.0:
            poll = limiter.poll(now)
            for row in poll.grants:
                sent += 1
                limiter.answered(now, row, {}, None)
                limiter.released(now, row)
            now = now if poll.wake_at is None else poll.wake_at
        assert sent <= 102


def test_04_a_refusal_is_read_by_status_and_by_code() -> None:
    for status, body in ((429, b'{"error": {"code": "rate_limit_exceeded"}}'), (429, b""),
                         (200, b'{"error": {"code": 429}}')):  # fmt: skip
        assert classify(Response(status, {}, body, 0.1)).disposition is Disposition.REFUSED


def test_05_the_sdk_never_retries_behind_our_back() -> None:
    import ast
    from pathlib import Path

    import batchllm

    folder = Path(batchllm.__file__).parent / "client"
    values = [
        node.value.value
        for path in folder.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.keyword)
        and node.arg == "max_retries"
        and isinstance(node.value, ast.Constant)
    ]
    assert values == [0]


def test_06_backing_off_holds_no_slot() -> None:
    limiter = s.limiter(Pace(concurrency=2))
    for row in few(50):
        limiter.offer(row, row.cost, lane="m")
    (first,) = limiter.poll(0.0).grants
    limiter.failed(0.1, first, BROKEN, {})
    limiter.released(0.1, first)
    limiter.offer(first, first.cost, lane="m", again=True, not_before=60.0)
    done = 0
    for step in range(1, 30):
        for row in limiter.poll(float(step)).grants:
            assert row is not first
            limiter.answered(float(step), row, {}, None)
            limiter.released(float(step), row)
            done += 1
    assert done == 49


def test_07_one_event_costs_no_more_refusals_than_are_in_flight() -> None:
    closed = Verdict(Disposition.REFUSED, "rate_limit", retry_after_s=1.0)
    server = Faulty(Api(), lambda w: (closed, 0.005) if 20.0 <= w.now < 30.0 else None)
    client = s.drive(s.limiter(Pace(concurrency=50, requests_per_minute=3000)), server, s.equal_rows(), 40.0)
    first = min(client.record.refusal_times)
    at_close = sum(1 for t in client.record.refusal_times if t < first + 0.5)
    assert at_close <= 8  # what left within one round trip at 50/s
    assert len(client.record.refusal_times) - at_close <= 11  # one probe a second


def test_08_a_retry_takes_the_pace_again() -> None:
    server = Faulty(Api(), lambda w: (BROKEN, 0.05) if w.rng.random() < 0.2 else None)
    client = s.drive(s.limiter(Pace(requests_per_minute=600, concurrency=100)), server, s.equal_rows(), 120.0)
    assert len(server.arrivals) <= 600 * 2 + 2
    assert client.record.total(client.record.failed) > 100


def test_09_after_a_pause_requests_go_at_the_pace() -> None:
    api = Api(FixedWindow(600, phase_s=30.0))
    limiter = s.limiter(Pace(requests_per_minute=650, concurrency=300))
    client = s.drive(limiter, api, s.equal_rows(), 200.0)
    first = client.record.refusal_times[0]
    gate = next(t for t in sorted(api.admitted_requests) if t > first + 1.0)
    assert sum(api.admitted_requests.get(gate + i, 0.0) for i in range(2)) <= 2 * 650 / 60 + 2


def test_10_what_can_never_fit_is_given_back_and_what_is_merely_large_goes() -> None:
    limiter = s.limiter(Pace(tokens_per_minute=60_000.0, concurrency=9))
    huge, large = Row(10, 70_000), Row(10, 30_000)
    limiter.offer(huge, huge.cost, lane="m")
    limiter.offer(large, large.cost, lane="m")
    poll = limiter.poll(0.0)
    assert [row for row, _ in poll.too_large] == [huge]
    assert poll.grants == [large]


def test_11_one_large_row_does_not_stop_all_others() -> None:
    rows = s.two_sizes(200_000, large=0.3)
    result = s.known_tokens(s.SLIDING, 200_000, rows, 900.0, 94.0, "two sizes")
    assert result.passes, result


def longest_head_wait(limiter: Limiter[Row], until: float) -> float:
    rng, now, longest = random.Random(1), 0.0, 0.0
    offered: dict[int, float] = {}
    big = Row(10, 6000)
    for i in range(10_000):
        row = big if i == 2000 else Row(10, rng.randrange(100, 300))
        limiter.offer(row, row.cost, lane="m")
    while now < until:
        poll = limiter.poll(now)
        head = limiter._lanes["m"].queue.head()
        offered.setdefault(id(head), now)
        longest = max(longest, now - offered[id(head)])
        for row in poll.grants:
            limiter.answered(now, row, {}, None)
            limiter.released(now, row)
        now = max(now + 1e-4, poll.wake_at if poll.wake_at is not None else now)
    return longest


def test_12_no_large_row_starves_behind_small_ones() -> None:
    limiter = s.limiter(Pace(tokens_per_minute=10_000.0, concurrency=9999))
    assert longest_head_wait(limiter, 3000.0) <= 75.0


def test_13_a_jump_of_the_wall_clock_changes_nothing() -> None:
    def sent_times(jump: float) -> list[float]:
        real = time.time
        times: list[float] = []
        time.time = lambda: real() + jump
        try:
            limiter, now = s.limiter(Pace(requests_per_minute=600, concurrency=9)), 0.0
            for row in few(50):
                limiter.offer(row, row.cost, lane="m")
            while len(times) < 50:
                poll = limiter.poll(now)
                for row in poll.grants:
                    times.append(now)
                    limiter.answered(now, row, {}, None)
                    limiter.released(now, row)
                now = now if poll.wake_at is None else poll.wake_at
        finally:
            time.time = real
        return times

    assert sent_times(3600.0) == sent_times(-3600.0) == sent_times(0.0)


def test_14_early_and_late_timers_lose_nothing_and_never_spin() -> None:
    api = Api(SlidingLog(6000))
    network = Network(timer_s=(-0.001, 0.005))
    pace = Pace(requests_per_minute=6000, concurrency=500)
    client = s.drive(s.limiter(pace), api, s.equal_rows(), 200.0, network=network)
    assert s.share(api.admitted_requests, 6000, 10.0, 200.0) >= 99.4
    assert api.refused == 0
    assert client.record.wakes <= 2 * client.record.total(client.record.sent)


def test_15_what_is_cancelled_leaves_nothing_behind() -> None:
    limiter = s.limiter(Pace(requests_per_minute=600, concurrency=3))
    rows = list(few(20))
    for row in rows:
        limiter.offer(row, row.cost, lane="m")
    (first,) = limiter.poll(0.0).grants
    limiter.released(0.0, first)
    assert limiter.in_flight == 0
    (second,) = limiter.poll(1.0).grants
    limiter.refused(1.0, second, Verdict(Disposition.REFUSED, "rate_limit", retry_after_s=1.0), {})
    (probe,) = limiter.poll(2.0).grants
    limiter.released(2.0, probe)
    assert len(limiter.poll(2.1).grants) == 1


def test_16_a_new_rate_carries_the_debt_as_an_amount() -> None:
    from batchllm.limiter.pace import Pacer

    pacer = Pacer(0.0)
    pacer.take(0.0, 10_000.0, 1000.0)
    assert pacer.ready_at(100.0) == pytest.approx(100.0, abs=0.2)
    assert pacer.ready_at(10_000.0) == pytest.approx(1.0, abs=0.2)


def test_17_nothing_is_given_back_that_the_endpoint_keeps() -> None:
    result = s.charged_as("max_tokens", 300.0)
    assert result.passes, result


def test_18_refusals_never_use_up_a_row_s_attempts() -> None:
    closed = Verdict(Disposition.REFUSED, "rate_limit", retry_after_s=5.0)
    server = Faulty(Api(), lambda w: (closed, 0.005) if 10.0 <= w.now < 610.0 else None)
    client = s.drive(s.limiter(Pace(concurrency=20)), server, few(2000), 2000.0)
    assert client.record.lost == 0
    assert client.record.total(client.record.accepted) == 2000
    assert RetryPolicy(2).delay_s(50, 0, closed) is not None


def test_19_a_spent_quota_is_never_tried_again() -> None:
    body = b'{"error": {"message": "You exceeded your quota", "type": "insufficient_quota", "code": null}}'
    verdict = classify(Response(429, {}, body, 0.1))
    assert verdict.disposition is Disposition.FATAL
    assert RetryPolicy(5).delay_s(1, 0, verdict) is None


def test_20_a_pause_is_read_in_all_its_forms() -> None:
    date = "Thu, 01 Jan 2026 00:00:00 GMT"
    assert seconds("1.5") == 1.5
    assert seconds("12ms") == 0.012
    assert seconds("Thu, 01 Jan 2026 00:00:09 GMT", date) == 9.0
    assert seconds("nan") is None
    assert seconds("86400000") == 86_400.0


def test_21_fifty_late_refusals_are_one_event_and_one_cut() -> None:
    limiter = s.limiter(Pace(concurrency=60, requests_per_minute=60_000.0))
    for row in few(200):
        limiter.offer(row, row.cost, lane="m")
    (first,) = limiter.poll(0.0).grants
    limiter.answered(0.3, first, {}, None)
    limiter.released(0.3, first)
    in_flight = [row for ms in range(400, 500, 5) for row in limiter.poll(ms / 1e3).grants]
    assert len(in_flight) >= 50
    refused = Verdict(Disposition.REFUSED, "rate_limit", retry_after_s=0.1)
    for row in in_flight[:25]:
        limiter.refused(0.7, row, refused, {})
    (probe,) = limiter.poll(0.9).grants
    limiter.answered(1.0, probe, {}, None)
    limiter.released(1.0, probe)
    once = limiter.view(1.1).requests_per_minute
    assert once is not None
    assert once < 60_000.0 * (1.0 - MARGIN)
    for row in in_flight[25:50]:
        limiter.refused(1.1, row, refused, {})
    assert limiter.view(1.1).resumes_at is None
    assert limiter.view(1.1).requests_per_minute == once


def test_22_a_starved_input_changes_neither_pace_nor_concurrency() -> None:
    limiter = s.limiter(Pace(concurrency=None))
    world = World(1)

    def trickle() -> Iterator[Row]:
        yield from few(3)

    client = Client(world, limiter, Api(), trickle())
    client.start()
    world.run(5.0)
    before = limiter.view(world.now).concurrency
    for second in range(600):
        world.now = 10.0 + second
        row = Row()
        limiter.offer(row, row.cost, lane="model")
        for granted in limiter.poll(world.now).grants:
            limiter.answered(world.now + 0.5, granted, {}, None)
            limiter.released(world.now + 0.5, granted)
        assert limiter.view(world.now).concurrency == before


def test_23_longer_answers_do_not_shrink_concurrency() -> None:
    server_rows = (Row(100, 1000, 20 if i < 8000 else 200) for i in range(30_000))
    from tests.limiter_bench.servers import Engine

    client = s.drive(s.limiter(Pace()), Engine(256), server_rows, 300.0)
    assert client.limiter.view(300.0).concurrency >= 180


def test_24_a_web_page_or_an_error_with_200_is_no_answer() -> None:
    for body in (b"<html></html>", b'{"error": {"message": "boom"}}', b"\n\n"):
        assert classify(Response(200, {}, body, 0.1)).disposition is not Disposition.ANSWERED
    assert (
        classify(Response(200, {}, b'\n\n{"choices": [{"finish_reason": "stop"}]}', 0.1)).disposition
        is Disposition.ANSWERED
    )


def test_25_the_limiter_keeps_nothing_of_what_is_done() -> None:
    limiter = s.limiter(Pace(concurrency=100))
    for _ in range(20_000):
        row = Row()
        limiter.offer(row, row.cost, lane="m")
        for granted in limiter.poll(1.0).grants:
            limiter.answered(1.0, granted, {}, None)
            limiter.released(1.0, granted)
    assert limiter.waiting + limiter.in_flight == 0
    assert not limiter._in_flight


def test_27_a_restart_costs_at_most_one_event() -> None:
    grant = SlidingLog(600)
    api = Api(grant)
    world = World(1)
    for start in (0.0, 65.0):
        client = Client(world, s.limiter(Pace(requests_per_minute=600, concurrency=100)), api, s.equal_rows())
        world.at(start, client.start)
        world.run(start + 60.0)
        client.record.stopped = "killed"
    assert api.refused <= 3


def test_28_an_outage_takes_no_row_with_it() -> None:
    server = Faulty(Api(), lambda w: (CONNECT, 0.005) if 50.0 <= w.now < 350.0 else None)
    client = s.drive(s.limiter(Pace(concurrency=64)), server, few(8000), 1000.0)
    assert client.record.lost == 0
    assert client.record.total(client.record.accepted) == 8000
    assert (
        len([t for t in server.arrivals if 53.0 <= t < 350.0]) <= 40
    )  # one second, then a tenth of the outage
    back = min(t for t in server.arrivals if t >= 350.0)
    answered = min(t for t in server.arrivals if t > back + 0.1)
    assert len([t for t in server.arrivals if answered <= t < answered + 0.5]) <= 17


def test_29_the_reply_of_a_hung_server_is_waited_for_without_losing_rows() -> None:
    timeout = Verdict(Disposition.UNKNOWN, "timeout")
    server = Faulty(Api(), lambda w: (timeout, 90.0) if 50.0 <= w.now < 140.0 else None)
    client = s.drive(s.limiter(Pace(concurrency=64)), server, few(6000), 1000.0)
    assert client.record.lost == 0
    assert isinstance(Reply(), Reply)
    assert client.record.total(client.record.accepted) == 6000
