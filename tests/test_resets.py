"""The pause that a refusal asks for, in every dialect: one table, and whatever else may come."""

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.limiter.headers import Level, read
from batchllm.records import Response
from batchllm.retry import Disposition, classify, seconds

DATE = "Thu, 01 Jan 2026 00:00:00 GMT"
NOW_S = 1_767_225_600


def refusal(headers: dict[str, str], error: Any = None) -> Response:
    return Response(429, headers, b"" if error is None else json.dumps({"error": error}).encode(), 0.1)


def openrouter(**headers: Any) -> dict[str, Any]:
    words = "Rate limit exceeded: free-models-per-day"
    named = {f"X-RateLimit-{name}": value for name, value in headers.items()}
    return {"message": words, "code": 429, "metadata": {"headers": named}}


def said(words: str) -> dict[str, Any]:
    return {"message": words, "code": 429}


@pytest.mark.parametrize(
    ("headers", "error", "pause_s"),
    [
        ({"retry-after": "4"}, None, 4.0),
        ({"retry-after-ms": "1500"}, None, 1.5),
        ({"retry-after": "1m30s"}, None, 90.0),
        ({"retry-after": "250ms"}, None, 0.25),
        ({"retry-after": "2026-01-01T00:00:07Z", "date": DATE}, None, 7.0),
        ({"retry-after": "Thu, 01 Jan 2026 00:01:00 GMT", "date": DATE}, None, 60.0),
        ({"retry-after": str(NOW_S + 9), "date": DATE}, None, 9.0),
        ({"retry-after": f"{NOW_S + 9}000", "date": DATE}, None, 9.0),
        ({}, said("retry after 4 seconds"), 4.0),
        ({}, said("Please try again in 1m30s."), 90.0),
        ({}, said("Please retry in 34.5s."), 34.5),
        ({}, said("Try again in 2 minutes and 5 seconds"), 125.0),
        ({}, said("Retry-After: 12"), 12.0),
        ({}, said("Please wait 20 seconds"), 20.0),
        ({"date": DATE}, said("Try again at 2026-01-01T00:00:30Z."), 30.0),
        ({}, said("Please retry 3 times, or try again in 8s"), 8.0),
        ({}, {"message": "x", "details": [{"@type": "RetryInfo", "retryDelay": "34s"}]}, 34.0),
        ({"date": DATE}, openrouter(Limit="50", Remaining="0", Reset=f"{NOW_S + 3600}000"), 3600.0),
        ({"date": DATE}, openrouter(Limit=50, Remaining=0, Reset=(NOW_S + 3600) * 1000), 3600.0),
        ({"date": DATE}, openrouter(Limit="50", Remaining="7", Reset=f"{NOW_S + 3600}000"), None),
        ({}, {"message": "x", "metadata": {"headers": {"Retry-After": 17}}}, 17.0),
        ({"x-ratelimit-reset": f"{NOW_S + 86_000}000", "date": DATE}, None, 86_000.0),
        ({"x-ratelimit-reset": str(NOW_S + 50), "x-ratelimit-remaining": "0", "date": DATE}, None, 50.0),
        ({"x-ratelimit-reset": "30", "x-ratelimit-limit": "10"}, None, 30.0),
        ({"x-ratelimit-reset-requests": "1m0s"}, None, 60.0),
        ({"x-ratelimit-reset-after": "2.5"}, None, 2.5),
        ({"x-ratelimit-reset": "30", "x-ratelimit-remaining": "4"}, None, None),
        ({"ratelimit": '"default";r=0;t=30'}, None, 30.0),
        ({"ratelimit": "limit=100, remaining=0, reset=30"}, None, None),
        ({"anthropic-ratelimit-tokens-reset": "2026-01-01T00:00:10Z", "date": DATE}, None, 10.0),
        ({"x-ratelimit-reset": "soon"}, said("slow down"), None),
    ],
)  # fmt: skip
def test_a_refusal_tells_its_pause(headers: dict[str, str], error: Any, pause_s: float | None) -> None:
    verdict = classify(refusal(headers, error))
    assert verdict.disposition is Disposition.REFUSED
    assert verdict.retry_after_s == pause_s


def test_an_instant_without_a_date_is_held_against_the_local_clock() -> None:
    for text in (str(int(time.time()) + 600), f"{int(time.time()) + 600}000"):
        assert seconds(text) == pytest.approx(600, abs=5)
    assert seconds(str(int(time.time()) - 600)) == 0.0
    assert seconds(str(int(time.time()) + 10 * 86_400)) == 86_400.0


def test_a_reset_of_what_refused_nothing_is_no_pause() -> None:
    assert classify(Response(500, {"x-ratelimit-reset": "30"}, b"", 0.1)).retry_after_s is None


@pytest.mark.parametrize(
    ("headers", "level"),
    [
        ({"x-ratelimit-limit-requests": "10", "x-ratelimit-remaining-requests": "3"},
         Level("requests", 10, 3, None, None)),
        ({"x-ratelimit-limit": "50", "x-ratelimit-remaining": "0", "x-ratelimit-reset": str(NOW_S + 5), "date": DATE},
         Level("requests", 50, 0, 5.0, None)),
        ({"x-ratelimit-limit": "50", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "25"},
         Level("requests", 50, 0, 25.0, None)),
        ({"ratelimit": "limit=100, remaining=50, reset=30"}, Level("requests", 100, 50, 30.0, None)),
        ({"ratelimit": '"default";r=50;t=30', "ratelimit-policy": '"default";q=100;w=60'},
         Level("requests", 100, 50, 30.0, 60.0)),
        ({"ratelimit": '"tokens";r=5', "ratelimit-policy": '"tokens";q=900;w=60'}, Level("tokens", 900, 5, None, 60.0)),
    ],
)  # fmt: skip
def test_a_limit_is_read_with_and_without_a_reset(headers: dict[str, str], level: Level) -> None:
    assert read(headers) == [level]


TEXTS = (
    st.text(max_size=30)
    | st.sampled_from(["-5", "1e99", "nan", "²", "0", "1m-3s", "9" * 60])
    | st.floats().map(str)
)
NAMES = st.sampled_from([
    "retry-after", "retry-after-ms", "x-ratelimit-reset", "x-ratelimit-remaining", "x-ratelimit-limit", "ratelimit",
    "ratelimit-policy", "ratelimit-reset", "date",
])  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(NAMES, TEXTS), TEXTS, st.dictionaries(TEXTS, TEXTS | st.integers() | st.floats()))
def test_no_hint_raises_or_asks_for_less_than_nothing_or_more_than_a_day(
    headers: dict[str, str], words: str, inner: dict[str, Any]
) -> None:
    error = {
        "message": f"try again in {words}",
        "metadata": {"headers": {**inner, "X-RateLimit-Reset": words}},
    }
    pause = classify(refusal(headers, error)).retry_after_s
    assert pause is None or 0.0 <= pause <= 86_400.0
    assert all(level.reset_s is None or 0 <= level.reset_s <= 86_400 for level in read(headers))
