"""The limiter on servers of the field, over real sockets: each test holds one situation in which a limiter can stall.

The command runs as a process of its own. Scenes are played several at once, so the slow ones together
(``-m slow``) take little more than the longest.
"""

import random
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.field_runs import CommandRun, Ran, scene, seen, stage, wait_until
from tests.field_servers import (
    RESETS,
    Bucket,
    Buckets,
    DailyQuota,
    FieldServer,
    FirstRefused,
    RefusesAtRandom,
    Reply,
    SpentWindow,
    TwoHang,
    refusal,
)

__all__ = ["seen", "stage"]

pytestmark = pytest.mark.timeout(900)
GRACE_S = 2.0
HANG_SLACK_S = 2.0
Seen = tuple[Any, Ran]


def alone(
    make: Callable[..., FieldServer], rows: int, *words: object, limit_s: float
) -> Callable[..., tuple[FieldServer, Ran]]:
    """A scene of one run on one server, which is made from the test's parameters."""

    def play(folder: Path, **params: Any) -> tuple[FieldServer, Ran]:
        with make(**params) as server:
            return server, CommandRun(folder, server.base_url, rows, *words, clock=server.now).wait(limit_s)

    return play


def assert_all_answered(ran: Ran, rows: int) -> None:
    assert ran.status == 0, f"status {ran.status} after {ran.seconds:.0f} s: {ran.err[-500:]}"
    assert ran.summary["answered"] == rows


# L1


@scene(alone(FirstRefused, 12, limit_s=20))
def test_a_refusal_of_the_very_first_request_costs_its_pause_and_no_more(seen: Seen) -> None:
    server, ran = seen
    assert_all_answered(ran, 12)
    assert server.refused == 1
    assert server.arrivals[-1].at_s - server.arrivals[0].at_s <= 5
    assert server.longest_gap_s() <= 2.5


def _first_refused_then_more_rows(folder: Path) -> tuple[FieldServer, Ran]:
    with FirstRefused() as server:
        first = CommandRun(folder, server.base_url, 12, "--grace", 1, clock=server.now)
        if not wait_until(lambda: len(server.admitted) == 12, 8):
            first.interrupt()
        first.wait(20)
        return server, CommandRun(folder, server.base_url, 40, clock=server.now).wait(10)


@scene(_first_refused_then_more_rows)
def test_a_refusal_of_the_very_first_request_does_not_slow_the_next_run(seen: Seen) -> None:
    server, ran = seen
    assert_all_answered(ran, 40)
    assert server.refused == 1


# L2


@pytest.mark.proof
@pytest.mark.parametrize("seed", [1, 2, 3])
@scene(alone(lambda seed: RefusesAtRandom(0.25, seed), 60, "--max-attempts", 20, limit_s=50))
def test_refusals_at_random_cost_about_a_pause_each(seen: Seen, seed: int) -> None:
    server, ran = seen
    assert_all_answered(ran, 60)
    assert server.span_s <= 5 + 1.5 * server.refused
    assert server.longest_gap_s() <= 4


# L3

TELLS = ["nothing", "retry-after", "headers"]


def assert_done_soon_after_the_turn(
    server: SpentWindow, ran: Ran, tells: str, rows: int, block_s: float
) -> None:
    assert_all_answered(ran, rows)
    # A block whose end is unknown is found by probes that are at most 3 s, or a tenth of the block, apart.
    found_s = 1.5 if tells != "nothing" else max(3.0, 0.1 * block_s) + 0.5
    assert server.admitted[0] - server.turns_s <= found_s
    assert server.admitted[-1] - server.turns_s <= found_s + 8
    assert server.refused <= (2 if tells != "nothing" else 5 + 25 * block_s / 60)


@pytest.mark.parametrize("tells", TELLS)
@scene(alone(lambda tells: SpentWindow(60, 6.0, 5.0, tells), 20, limit_s=20))
def test_a_short_window_that_was_spent_before_the_job_is_gone_on_with_when_it_turns(
    seen: Seen, tells: str
) -> None:
    assert_done_soon_after_the_turn(*seen, tells, rows=20, block_s=5)


@pytest.mark.proof
@pytest.mark.parametrize("left_s", [20.0, 45.0])
@pytest.mark.parametrize("tells", TELLS)
@scene(alone(lambda tells, left_s: SpentWindow(600, 60.0, left_s, tells), 200, limit_s=75))
def test_a_minute_that_was_spent_before_the_job_is_gone_on_with_when_it_turns(
    seen: Seen, tells: str, left_s: float
) -> None:
    assert_done_soon_after_the_turn(*seen, tells, rows=200, block_s=left_s)


# L4


def _buckets_of_a_minute(seed: int, charge: int = 140) -> Buckets:
    """600 RPM and 60,000 TPM; how long answers take and how much is left differ with the seed."""
    draw = random.Random(seed)
    left = draw.uniform(0.75, 1.0) if charge == 140 else 1.0
    median_s = draw.choice([0.1, 0.4, 1.0])
    return Buckets(
        Bucket(600, level=600 * left),
        Bucket(60_000, level=60_000 * left),
        charge=charge,
        latency_s=lambda: min(8.0, median_s * draw.lognormvariate(0, 0.8)),
    )


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
@scene(alone(_buckets_of_a_minute, 300, "-c", 32, limit_s=40))
def test_a_job_that_fits_into_what_is_shown_as_remaining_is_done_at_once(seen: Seen, seed: int) -> None:
    server, ran = seen
    assert_all_answered(ran, 300)
    assert server.refused <= 1
    assert server.longest_gap_s() <= 4
    assert server.span_s <= 18


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(1, 9))
@scene(alone(lambda seed: _buckets_of_a_minute(seed, charge=260), 300, "-c", 32, limit_s=75))
def test_a_job_that_only_seems_to_fit_goes_on_at_the_pace_of_the_limit(seen: Seen, seed: int) -> None:
    """Each request is charged 260 tokens, nearly twice what its text and ``max_tokens`` are: 78,000 in all."""
    server, ran = seen
    assert_all_answered(ran, 300)
    ideal_s = (300 * 260 - 60_000) / 1_000
    assert server.span_s <= ideal_s + 12
    assert server.longest_gap_s() <= 4
    assert server.refused <= 12


# L5


def _three_processes(folder: Path, delays_s: tuple[float, ...]) -> tuple[Buckets, list[Ran]]:
    draw = random.Random(5)
    with Buckets(Bucket(600), latency_s=lambda: draw.uniform(0.2, 0.8)) as server:
        runs = []
        for number, delay_s in enumerate(delays_s):
            time.sleep(delay_s)
            runs.append(CommandRun(folder / str(number), server.base_url, 300, clock=server.now))
        return server, [run.wait(75) for run in runs]


@pytest.mark.proof
@pytest.mark.parametrize("delays_s", [(0, 0, 0), (0, 2, 4)], ids=["together", "one after another"])
@scene(_three_processes)
def test_three_processes_share_a_limit_without_a_standstill(
    seen: tuple[Buckets, list[Ran]], delays_s: tuple[float, ...]
) -> None:
    server, runs = seen
    for ran in runs:
        assert_all_answered(ran, 300)
    ideal_s = (900 - 600) / 10
    assert server.span_s <= 1.3 * ideal_s
    assert server.longest_gap_s() <= 3
    assert server.refused <= 0.05 * 900


# L6

PLACES = ["header", "body"]


def _spent_for_hours(place: str, form: str) -> DailyQuota:
    return DailyQuota(5 if place == "header" else 0, 6 * 3600 + 25 * 60, place, form)


def says_when(text: str, at: float) -> bool:
    """Whether the instant stands in the text: as a time of day, here or in UTC, or as a time from the run on."""
    clocks = {f"{datetime.fromtimestamp(at + d, zone):%H:%M}" for zone in (None, UTC) for d in (-60, 0, 60)}
    from_now = re.search(r"\b6\.4 h|\b6 ?h(ours?)? ?2[45]|\b6:2[45]\b|\b23,[01]\d\d s|\b385 min", text)
    return from_now is not None or any(clock in text for clock in clocks)


@pytest.mark.parametrize("form", list(RESETS))
@pytest.mark.parametrize("place", PLACES)
@scene(alone(_spent_for_hours, 30, "--max-wait", "1h", limit_s=15))
def test_a_quota_that_returns_beyond_max_wait_ends_the_run_and_says_when(
    seen: Seen, place: str, form: str
) -> None:
    server, ran = seen
    assert ran.status == 69, f"status {ran.status}: {ran.err[-500:]}"
    assert server.refused <= 30
    assert server.arrivals[-1].at_s - server.arrivals[0].at_s <= 5
    assert says_when(ran.err, server.returns_at), ran.err[-500:]


@pytest.mark.parametrize("form", list(RESETS))
@pytest.mark.parametrize("place", PLACES)
@scene(alone(lambda place, form: DailyQuota(0, 7.0, place, form), 30, limit_s=25))
def test_a_quota_that_returns_soon_is_waited_for_and_not_asked_for(seen: Seen, place: str, form: str) -> None:
    server, ran = seen
    assert_all_answered(ran, 30)
    assert server.refused <= 2
    assert server.admitted[0] - 7.0 <= 2.5
    assert server.span_s <= 6


# L7


def _hanging(
    make: Callable[[], FieldServer], *words: object, interrupt_after_s: float | None = None
) -> Callable[[Path], tuple[FieldServer, Ran, float]]:
    """A scene with two hanging requests; the third result is when a signal or a bad answer came first."""

    def play(folder: Path) -> tuple[FieldServer, Ran, float]:
        with make() as server:
            run = CommandRun(folder, server.base_url, 60, "--timeout", 100, "-c", 8, *words, clock=server.now)
            stopped_s = None
            if interrupt_after_s is not None:
                wait_until(lambda: len(server.arrivals) >= 20, 10)
                time.sleep(interrupt_after_s)
                stopped_s = server.now()
                run.interrupt()
            ran = run.wait(35)
        bad = [arrival.at_s for arrival in server.arrivals if arrival.status != 200]
        return server, ran, min([*bad[:1], *([] if stopped_s is None else [stopped_s])], default=0.0)

    return play


SPENT = refusal(
    status=402, message="Insufficient credits", type="insufficient_quota", code="insufficient_quota"
)


@scene(_hanging(lambda: TwoHang(18, SPENT), "--grace", GRACE_S))
def test_a_spent_quota_ends_a_run_within_its_grace(seen: tuple[FieldServer, Ran, float]) -> None:
    server, ran, stopped_s = seen
    assert ran.status == 69, f"status {ran.status}: {ran.err[-500:]}"
    assert ran.ended_s - stopped_s <= GRACE_S + HANG_SLACK_S
    assert server.arrivals[-1].at_s - stopped_s <= 0.5


@scene(_hanging(lambda: TwoHang(18, SPENT), "--grace", 6, interrupt_after_s=1.0))
def test_a_signal_while_a_spent_quota_ends_a_run_leaves_the_grace_as_it_is(
    seen: tuple[FieldServer, Ran, float],
) -> None:
    server, ran, stopped_s = seen
    assert ran.status in (69, 130)
    assert ran.ended_s - stopped_s <= 6 + HANG_SLACK_S
    assert server.arrivals[-1].at_s - stopped_s <= 0.5


@scene(_hanging(lambda: TwoHang(18, refusal(status=503)), "--grace", GRACE_S, "--max-outage", "3s"))
def test_an_outage_that_is_too_long_ends_a_run_within_its_grace(seen: tuple[FieldServer, Ran, float]) -> None:
    server, ran, began_s = seen
    assert ran.status == 69, f"status {ran.status}: {ran.err[-500:]}"
    decided_s = server.arrivals[-1].at_s
    assert ran.ended_s - decided_s <= GRACE_S + HANG_SLACK_S
    assert ran.ended_s - began_s <= 15


@scene(_hanging(lambda: TwoHang(18, Reply(after_s=0.5)), "--grace", GRACE_S, interrupt_after_s=0.1))
def test_a_signal_ends_a_run_within_its_grace(seen: tuple[FieldServer, Ran, float]) -> None:
    server, ran, stopped_s = seen
    assert ran.status == 130, f"status {ran.status}: {ran.err[-500:]}"
    assert ran.ended_s - stopped_s <= GRACE_S + HANG_SLACK_S
    assert server.arrivals[-1].at_s - stopped_s <= 0.5


# L8

PACES: dict[str, tuple[Callable[[], FieldServer], int, tuple[object, ...]]] = {
    "even": (lambda: FieldServer(lambda now, row: Reply(after_s=0.2)), 60, ("--rpm", 300)),
    "fast, then slow": (lambda: Buckets(Bucket(300, size=60)), 100, ()),
}


def _paced(folder: Path, kind: str) -> tuple[FieldServer, Ran]:
    make, rows, words = PACES[kind]
    return alone(make, rows, *words, limit_s=20)(folder)


@pytest.mark.parametrize("kind", list(PACES))
@scene(_paced)
def test_the_pace_of_the_summary_is_what_was_held_from_the_first_to_the_last_request(
    seen: Seen, kind: str
) -> None:
    server, ran = seen
    rows = PACES[kind][1]
    assert_all_answered(ran, rows)
    held = (rows - 1) * 60 / server.span_s
    said = re.search(r"^Pace: ([\d,]+) requests/min", ran.err, re.MULTILINE)
    assert said, ran.err[-500:]
    assert float(said[1].replace(",", "")) == pytest.approx(held, rel=0.1)
    assert ran.summary["requests_per_minute"] == pytest.approx(held, rel=0.1)


# L9


@scene(alone(lambda: Buckets(tokens=Bucket(60_000, size=2_000)), 100, limit_s=30))
def test_tokens_that_bind_by_headers_are_used_from_the_first_seconds_on(seen: Seen) -> None:
    server, ran = seen
    assert_all_answered(ran, 100)
    ideal_s = (100 * 140 - 2_000) / 1_000
    assert server.span_s <= ideal_s / 0.95 + 2
    assert server.refused <= 2


@pytest.mark.proof
@scene(alone(lambda: Buckets(tokens=Bucket(60_000, size=10_000)), 500, limit_s=110))
def test_tokens_that_bind_by_headers_are_used_to_at_least_95_percent(seen: Seen) -> None:
    """The bucket's 10,000 are free at the start and are not counted: what comes back in the span is the quota."""
    server, ran = seen
    assert_all_answered(ran, 500)
    assert (500 * 140 - 10_000) / server.span_s >= 0.95 * 1_000
    assert server.refused <= 5
