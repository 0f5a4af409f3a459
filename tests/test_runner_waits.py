"""What a run waits for, in words: pure functions of the limiter's view and two clocks."""

from dataclasses import replace
from datetime import datetime

import pytest

from batchllm.limiter import View
from batchllm.online.waits import (
    MOST_OUTAGES,
    Events,
    clock,
    limit_words,
    outage_line,
    pause_line,
    waiting_words,
)
from batchllm.records import Response
from batchllm.retry import Verdict, classify

NOON = datetime(2026, 11, 27, 12, 0, 0)
NOW = 5_000.0
URL = "http://127.0.0.1:9/v1"
FREE = View(
    limits="nothing", requests_per_minute=597.0, tokens_per_minute=59_700.0, concurrency=32, in_flight=5,
    waiting=100, granted=50, refused=0, resumes_at=None, searching=False,
)  # fmt: skip


def pause(seconds: float) -> View:
    return replace(FREE, limits="pause", resumes_at=NOW + seconds, gives_up_at=NOW + 3_600)


def outage(seconds: float, trouble: str = "no connection to 127.0.0.1:9: connection refused") -> View:
    return replace(
        FREE, limits="outage", resumes_at=NOW + 2, gives_up_at=NOW + seconds, trouble=trouble
    )  # fmt: skip


def refusal(status: int, message: str, **headers: str) -> Verdict:
    """What the retry module makes of a reply."""
    body = f'{{"error": {{"message": "{message}"}}}}'.encode()
    return classify(Response(status, {k.replace("_", "-"): v for k, v in headers.items()}, body, 0.1))


@pytest.mark.parametrize(
    ("view", "words"),
    [
        (FREE, ""),
        (replace(FREE, limits="requests"), "limit: 597 requests/min"),
        (replace(FREE, limits="requests", requests_per_minute=2.5), "limit: 2.5 requests/min"),
        (replace(FREE, limits="requests", requests_per_minute=None), "limit: requests"),
        (replace(FREE, limits="tokens"), "limit: 59.7k tokens/min"),
        (replace(FREE, limits="tokens", searching=True), "finding the limit: 59.7k tokens/min"),
        (replace(FREE, limits="concurrency"), "limit: 32 requests in flight"),
        (replace(FREE, limits="concurrency", granted=1, in_flight=1), "waiting for the first answer"),
        (pause(11.8), "waiting 12 s for the rate limit"),
        (pause(0.2), "waiting 1 s for the rate limit"),
        (pause(-0.1), "waiting for the rate limit"),
        (pause(1_800), "waiting until 12:30 for the rate limit"),
        (pause(50_000), "waiting until 28 Nov 01:53 (rate limit)"),
        (outage(600), "endpoint unreachable, trying until 12:10"),
        (outage(27.5), "endpoint unreachable, trying for 28 s"),
        (outage(-0.5), "endpoint unreachable, the last try"),
        (outage(50_000), "endpoint unreachable, until 28 Nov 01:53"),
        (outage(600, refusal(500, "boom").message), "endpoint failing, trying until 12:10"),
        (replace(outage(600), gives_up_at=None), "endpoint unreachable"),
    ],
)
def test_the_bar_says_what_is_waited_for_and_until_when(view: View, words: str) -> None:
    assert (waiting_words(view, NOW, NOON) or limit_words(view)) == words
    assert len(words) <= 40


@pytest.mark.parametrize(
    ("status", "headers", "words"),
    [
        (429, {}, "waiting 12 s for the rate limit"),
        (529, {}, "waiting 12 s for the busy endpoint"),
        (503, {"retry_after": "12"}, "waiting 12 s for the busy endpoint"),
    ],
)
def test_a_pause_names_its_cause(status: int, headers: dict[str, str], words: str) -> None:
    assert waiting_words(pause(12), NOW, NOON, refusal(status, "no", **headers)) == words


def test_the_line_of_a_pause_says_who_asked_why_and_until_when() -> None:
    asked = refusal(429, "Rate limit reached.", retry_after="12")
    assert pause_line(pause(11.8), NOW, NOON, asked) == (
        "The endpoint asks for a pause of 12 s (429: Rate limit reached); everything waits until 12:00:11."
    )


def test_a_pause_that_nobody_asked_for_is_not_laid_at_the_endpoints_door() -> None:
    unasked = refusal(429, "Slow down")
    assert pause_line(pause(4), NOW, NOON, unasked) == (
        "The endpoint refuses requests (429: Slow down); everything waits until 12:00:04."
    )


def test_the_line_of_an_outage_says_what_why_and_until_when() -> None:
    assert outage_line(outage(600), NOW, NOON, URL) == (
        f"Cannot reach {URL} (no connection to 127.0.0.1:9: connection refused); trying until 12:10."
    )
    failing = outage(600, refusal(500, "boom").message)
    assert (
        outage_line(failing, NOW, NOON, URL)
        == f"Every request to {URL} fails (500: boom); trying until 12:10."
    )


@pytest.mark.parametrize(
    "trouble",
    [
        "the answer was cut off",
        "the connection broke: Server disconnected",
        "no whole answer within 60 s",
        "the stream of events ended before the answer did",
    ],
)
def test_an_endpoint_that_breaks_its_answers_off_can_be_reached(trouble: str) -> None:
    line = outage_line(outage(600, trouble), NOW, NOON, URL)
    assert line == f"Every request to {URL} fails ({trouble}); trying until 12:10."


def test_a_reason_is_one_short_line() -> None:
    line = pause_line(pause(5), NOW, NOON, refusal(429, "slow\\n down " * 100))
    assert "\n" not in line
    assert len(line) < 260
    assert "…" in line


@pytest.mark.parametrize(
    ("seconds", "time"),
    [(7, "12:00:07"), (119, "12:01:59"), (150, "12:03"), (3_600, "13:00"), (86_400, "28 Nov 12:00")],
)
def test_a_time_has_seconds_where_it_is_near_and_a_date_on_another_day(seconds: float, time: str) -> None:
    assert clock(NOW + seconds, NOW, NOON) == time


def lines(views: list[View]) -> list[str]:
    events = Events(URL)
    return [line for view in views if (line := events.line(view, NOW, NOON)) is not None]


def test_a_pause_is_told_once_and_a_short_one_never() -> None:
    assert lines([pause(1.9), pause(0.1), FREE]) == []
    assert len(lines([pause(11.8), pause(11.5), pause(0.1), FREE, pause(12), pause(20)])) == 1


def test_a_pause_ten_times_longer_is_told_again() -> None:
    assert len(lines([pause(3), FREE, pause(31), pause(30), FREE, pause(32), pause(3_000)])) == 3


def test_an_outage_is_told_at_its_beginning_and_again_when_it_comes_back() -> None:
    assert len(lines([outage(600), outage(599), FREE, outage(600), outage(599)])) == 2


def test_an_endpoint_that_comes_and_goes_does_not_fill_a_log() -> None:
    assert len(lines([outage(600), FREE] * 50)) == MOST_OUTAGES


def test_nothing_is_told_of_a_pace() -> None:
    assert lines([FREE, replace(FREE, limits="requests"), replace(FREE, limits="concurrency")]) == []
