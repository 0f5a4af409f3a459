"""Headers in all the forms in use."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.limiter.header_pacer import period_of
from batchllm.limiter.headers import Level, read


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"x-ratelimit-limit-requests": "5000", "x-ratelimit-remaining-requests": "4999",
          "x-ratelimit-reset-requests": "12ms"}, Level("requests", 5000, 4999, 0.012, None)),
        ({"x-ratelimit-limit-tokens": "150000", "x-ratelimit-remaining-tokens": "149984",
          "x-ratelimit-reset-tokens": "6m0s"}, Level("tokens", 150000, 149984, 360.0, None)),
        ({"x-rate-limit-limit-tokens": "10", "x-rate-limit-reset-tokens": "7"}, Level("tokens", 10, None, 7.0, None)),
        ({"x-ratelimit-limit-project-tokens": "9", "x-ratelimit-remaining-project-tokens": "3"},
         Level("tokens", 9, 3, None, None)),
        ({"anthropic-ratelimit-input-tokens-limit": "80000", "anthropic-ratelimit-input-tokens-remaining": "0",
          "anthropic-ratelimit-input-tokens-reset": "2026-01-01T00:00:10Z", "date": "Thu, 01 Jan 2026 00:00:00 GMT"},
         Level("input_tokens", 80000, 0, 10.0, None)),
        ({"anthropic-ratelimit-output-tokens-limit": "8", "anthropic-ratelimit-output-tokens-remaining": "1"},
         Level("output_tokens", 8, 1, None, None)),
        ({"x-ratelimit-limit-requests-day": "1000", "x-ratelimit-remaining-requests-day": "1",
          "x-ratelimit-reset-requests-day": "33011.382867"}, Level("requests", 1000, 1, 33011.382867, 86400.0)),
        ({"x-ratelimit-limit-tokens-minute": "60", "x-ratelimit-remaining-tokens-minute": "50"},
         Level("tokens", 60, 50, None, 60.0)),
        ({"ratelimit-limit": "100, 100;w=60", "ratelimit-remaining": "5", "ratelimit-reset": "50"},
         Level("requests", 100, 5, 50.0, None)),
        ({"x-tokenlimit-limit": "100", "x-tokenlimit-remaining": "5"}, Level("tokens", 100, 5, None, None)),
        ({"x-ratelimit-limit": "20", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "1767225605000",
          "date": "Thu, 01 Jan 2026 00:00:00 GMT"}, Level("requests", 20, 0, 5.0, None)),
        ({"x-ratelimit-limit-requests": "10", "x-ratelimit-remaining-requests": "-3"},
         Level("requests", 10, None, None, None)),
        ({"x-ratelimit-limit-requests": "10", "x-ratelimit-remaining-requests": "11"},
         Level("requests", 10, None, None, None)),
    ],
)  # fmt: skip
def test_every_form_is_read(headers: dict[str, str], expected: Level) -> None:
    assert read(headers) == [expected]


@pytest.mark.parametrize("value", ["-1", "0", "nan", "inf", "", "many", "1e400", "9" * 400])
def test_an_insane_limit_is_as_if_it_were_not_there(value: str) -> None:
    assert read({"x-ratelimit-limit-requests": value, "x-ratelimit-remaining-requests": "1"}) == []


def test_a_reset_in_milliseconds_since_1970_is_read() -> None:
    headers = {"x-ratelimit-limit": "20", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "1767225605000",
            "date": "Thu, 01 Jan 2026 00:00:00 GMT"}  # fmt: skip
    (level,) = read(headers)
    assert level.reset_s == 5.0


NAMES = st.sampled_from([
    "x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests", "date",
    "anthropic-ratelimit-tokens-reset", "ratelimit-limit", "x-ratelimit-", "x-ratelimit-limit-images",
])  # fmt: skip


@given(st.dictionaries(NAMES | st.text(max_size=30), st.text(max_size=30) | st.floats().map(str)))
@settings(max_examples=300)
def test_no_header_makes_the_reader_raise(headers: dict[str, str]) -> None:
    for level in read(headers):
        assert level.limit > 0
        assert level.remaining is None or 0 <= level.remaining <= level.limit
        assert level.reset_s is None or 0 <= level.reset_s <= 86_400


@pytest.mark.parametrize(
    ("limit", "remaining", "reset_s", "period_s"),
    [
        (5000, 4999, 0.012, 60.0),
        (160_000, 159_976, 0.009, 60.0),
        (8000, 7927, 0.547, 60.0),
        (1000, 998, 172.8, 86_400.0),
        (150_000, 149_984, 360.0, None),
        (100, 60, 12.0, None),
    ],
)
def test_the_period_follows_from_one_answer(
    limit: float, remaining: float, reset_s: float, period_s: float | None
) -> None:
    assert period_of(Level("requests", limit, remaining, reset_s, None)) == period_s
