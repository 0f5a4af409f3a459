"""A limit that nobody told is learned once, where it is divided: from headers, and from what is refused."""

import asyncio
from pathlib import Path

import pytest

from batchllm.leases import LeaseHolder
from batchllm.leases.learned import LearnedLimit
from batchllm.records import ChatRequest, Pace, Response
from tests.fakes import FakeClient, answered, status
from tests.test_leases_shares import Told
from tests.test_runner_leased import Workers

INF = float("inf")


def stretch(learned: LearnedLimit, now: float, seconds: float, per_s: float, told: float = INF) -> float:
    """Lets so much in for a while, then refuses; returns when it goes on."""
    for second in range(round(seconds)):
        learned.add(now + second, per_s, 0)
    end = now + seconds
    learned.add(end, 0.0, 1)
    learned.paused(end)
    learned.resumed(end, told)
    return end


def test_what_was_let_in_between_two_pauses_is_the_limit() -> None:
    learned = LearnedLimit()
    assert learned.limit(0.0, INF) == INF
    now = stretch(learned, 0.0, 20.0, per_s=50.0)  # with what a bucket had stored
    now = stretch(learned, now, 30.0, per_s=10.0)
    assert learned.limit(now, INF) == pytest.approx(600.0, rel=0.05)
    assert learned.limit(now + 50.0, INF) == pytest.approx(600.0, rel=0.05)
    assert learned.limit(now + 180.0, INF) > 1000.0, (
        "it is tried again, or a limit that rises would never be felt"
    )


def test_a_limit_that_was_told_gives_way_little_by_little() -> None:
    learned = LearnedLimit()
    now = stretch(learned, 0.0, 30.0, per_s=10.0, told=600.0)
    assert 590.0 < learned.limit(now, 600.0) < 600.0
    for _ in range(8):
        now = stretch(learned, now, 30.0, per_s=5.0, told=600.0)
    assert learned.limit(now, 600.0) == pytest.approx(300.0, rel=0.05)


def test_a_refusal_now_and_then_is_forgotten_after_half_an_hour() -> None:
    learned = LearnedLimit()
    now = stretch(learned, 0.0, 30.0, per_s=10.0, told=600.0)
    assert learned.limit(now + 1801.0, 600.0) == 600.0


def test_a_limit_that_headers_show_one_worker_is_divided_among_all() -> None:
    holder = LeaseHolder(0.0)
    first, second = Told(holder, "a"), Told(holder, "b")
    assert first.ask(0.0, limit_rpm=None).rpm is None
    for now in (1.0, 2.0, 3.0):
        shares = [
            worker.ask(now, limit_rpm=None, shown_rpm=300.0 if worker is first else None)
            for worker in (first, second)
        ]
    assert [share.rpm for share in shares] == [150.0, 150.0]


def test_a_reborn_holder_takes_over_what_was_learned_and_gives_nobody_more() -> None:
    holder = LeaseHolder(100.0, restarted=True)
    first, second = Told(holder, "a"), Told(holder, "b")
    share = first.ask(100.0, limit_rpm=None, holds_rpm=200.0, divided_rpm=300.0)
    assert share.rpm == 200.0
    assert second.ask(100.5, limit_rpm=None).rpm == 0.0
    for now in (111.0, 112.0, 113.0):
        shares = [worker.ask(now, limit_rpm=None) for worker in (first, second)]
    assert [share.rpm for share in shares] == pytest.approx([150.0, 150.0])


def test_a_reborn_holder_confirms_a_lease_without_a_limit_and_gives_no_other_one() -> None:
    holder = LeaseHolder(100.0, restarted=True)
    assert Told(holder, "a").ask(100.0, limit_rpm=None, holds_rpm=None).rpm is None
    assert Told(holder, "b").ask(100.5, limit_rpm=None).rpm == 0.0


class Bucket:
    """A server that grants so many requests a second to everybody together, with a second's worth in store."""

    def __init__(self, per_s: float) -> None:
        self.per_s = self.stored = per_s
        self.at = 0.0
        self.refused: list[float] = []
        self.accepted: list[float] = []

    def answer(self, request: ChatRequest, attempt: int) -> Response:
        now = asyncio.get_running_loop().time()
        self.stored = min(self.per_s, self.stored + (now - self.at) * self.per_s)
        self.at = now
        if self.stored < 1.0:
            self.refused.append(now)
            return status(429, "Rate limit reached")
        self.stored -= 1.0
        self.accepted.append(now)
        return answered()


@pytest.mark.proof
def test_three_runs_find_a_silent_limit_together(tmp_path: Path) -> None:
    bucket = Bucket(10.0)
    workers = Workers(tmp_path, pace=Pace(concurrency=16))
    workers.run(600, 600, 600, clients=[FakeClient(bucket.answer, latency_s=0.1) for _ in range(3)])
    assert workers.ends == [None, None, None]
    later = [at for at in bucket.accepted if at > 30.0]
    assert len(later) / (later[-1] - 30.0) >= 0.85 * 10.0
    assert len([at for at in bucket.refused if at > 30.0]) <= 0.01 * len(later)
    assert len(bucket.refused) <= 200, "at the start, each goes as if it were alone"
