"""Every dialect of refusal, one verdict; and the policy of trying again."""

import ast
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import batchllm.retry as retry
from batchllm.errors import ExitStatus
from batchllm.records import Failure, FailureKind, Paid, Response
from batchllm.retry import Disposition, RetryPolicy, Verdict, classify, reason_text, seconds

DATE = "Thu, 01 Jan 2026 00:00:00 GMT"


def response(status: int, body: object = b"", **headers: str) -> Response:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Response(status, {name.replace("_", "-"): value for name, value in headers.items()}, raw, 0.1)


def openai(message: str = "no", code: object = None, kind: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


CHOICE = {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
ANSWER = {"id": "x", "choices": [CHOICE], "usage": {"total_tokens": 3}}


@pytest.mark.parametrize(
    "body",
    [
        ANSWER,
        {**ANSWER, "error": None},
        {**ANSWER, "choices": [{**CHOICE, "message": {"content": None}, "finish_reason": "content_filter"}]},
        {**ANSWER, "choices": [{**CHOICE, "finish_reason": "length"}]},
        {**ANSWER, "choices": []},
        {"id": "no choices at all", "usage": {"prompt_tokens": 3}},
        b"\n\n\n" + json.dumps(ANSWER).encode(),
        b'{"choices": [{"message": {"content": "\\ud800"}, "finish_reason": "stop"}]}',
        b'{"choices": [{"message": {"content": "x"}}], "usage": {"total_tokens": NaN}}',
        b'{"choices": [{"message": {"content": "x"}}], "deep": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"choices": [{"message": {"content": "x"}}], "number": ' + b"9" * 5000 + b"}",
    ],
)
def test_a_2xx_with_an_answer_is_final_whatever_it_says(body: object) -> None:
    assert classify(response(200, body)).disposition is Disposition.ANSWERED


@pytest.mark.parametrize(
    "body", [b"<html>502 Bad Gateway</html>", b"", b"null", b'"text"', b"[]", b"{", b"\xff\xfe"]
)
def test_a_2xx_that_is_no_json_object_was_not_paid_and_is_counted(body: bytes) -> None:
    verdict = classify(response(200, body))
    assert (verdict.disposition, verdict.reason) == (Disposition.TRANSIENT, "bad_body")


QUOTA = ["insufficient_quota", "credit_balance_exhausted", "organization_spend_limit_exceeded",
         "project_spend_limit_exceeded", "organization_usage_limit_exceeded", "billing_hard_limit_reached",
         "enforced_spend_limit_reached"]  # fmt: skip
TOO_LARGE = (
    "Request too large for gpt-x in organization org on tokens per min (TPM): Limit 30000, Requested 30601. "
    "The input or output tokens must be reduced in order to run successfully."
)
RATE = "Rate limit reached for gpt-x on tokens per min (TPM): Limit 10000, Used 8554, Requested 3082. " \
       "Please try again in 9.816s. Visit"  # fmt: skip
GEMINI = [{"error": {"code": 429, "message": "You exceeded your current quota, please check your plan and billing",
                     "status": "RESOURCE_EXHAUSTED", "details": [
                         {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34s"}]}}]  # fmt: skip


@pytest.mark.parametrize(
    ("status", "body", "disposition", "reason"),
    [
        (401, openai("Incorrect API key provided", "invalid_api_key"), Disposition.FATAL, "http_401"),
        (403, openai("Country not supported"), Disposition.FATAL, "http_403"),
        (403, openai("Input was flagged by moderation", 403), Disposition.REJECTED, "http_403"),
        (404, openai("The model `gpt-9` does not exist", "model_not_found"), Disposition.FATAL, "http_404"),
        (404, b"404 page not found", Disposition.FATAL, "http_404"),
        (404, b"", Disposition.FATAL, "http_404"),
        (404, {"detail": "Not Found"}, Disposition.FATAL, "http_404"),
        (404, openai("No such file: file-1"), Disposition.REJECTED, "http_404"),
        (405, b"", Disposition.FATAL, "http_405"),
        (402, openai("Insufficient Balance"), Disposition.FATAL, "quota"),
        *[(429, openai("You exceeded", code), Disposition.FATAL, "quota") for code in QUOTA],
        (429, openai("You exceeded your current quota", None, "insufficient_quota"), Disposition.FATAL, "quota"),
        (400, {"type": "error", "error": {"type": "invalid_request_error",
               "message": "Your credit balance is too low"}}, Disposition.FATAL, "quota"),
        (429, openai(TOO_LARGE, "rate_limit_exceeded", "tokens"), Disposition.REJECTED, "request_too_large"),
        (400, openai("This model's maximum context length is 8192 tokens", "context_length_exceeded"),
         Disposition.REJECTED, "context_length"),
        (400, {"error": {"message": "prompt is too long: 210000 tokens"}}, Disposition.REJECTED, "context_length"),
        (400, openai("bad parameter"), Disposition.REJECTED, "http_400"),
        (413, b"too big", Disposition.REJECTED, "request_too_large"),
        (422, {"detail": [{"loc": ["body"], "msg": "required"}]}, Disposition.REJECTED, "http_422"),
        (429, openai(RATE, "rate_limit_exceeded", "tokens"), Disposition.REFUSED, "rate_limit"),
        (429, b"", Disposition.REFUSED, "rate_limit"),
        (429, {"error": {"code": "429", "message": "Rate limit is exceeded. Try again in 1 seconds."}},
         Disposition.REFUSED, "rate_limit"),
        (429, {"statusCode": 429, "message": "Rate limit is exceeded"}, Disposition.REFUSED, "rate_limit"),
        (429, GEMINI, Disposition.REFUSED, "rate_limit"),
        (429, {"type": "error", "error": {"type": "rate_limit_error"}}, Disposition.REFUSED, "rate_limit"),
        (429, openai("", "slow_down", "rate_limit_error"), Disposition.REFUSED, "slow_down"),
        (503, openai("Slow down", "slow_down"), Disposition.REFUSED, "slow_down"),
        (529, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
         Disposition.REFUSED, "overloaded"),
        (503, {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}},
         Disposition.REFUSED, "loading"),
        (503, {"error": "server busy, please try again.  maximum pending requests exceeded"},
         Disposition.OVERLOADED, "overloaded"),
        (503, b"", Disposition.OVERLOADED, "overloaded"),
        (498, b"", Disposition.OVERLOADED, "overloaded"),
        (500, openai("The server had an error", None, "server_error"), Disposition.TRANSIENT, "http_500"),
        *[
            (status, b"<html>", Disposition.TRANSIENT, f"http_{status}")
            for status in (408, 409, 425, 500, 502, 504, 520, 524)
        ],
        (200, openai("Rate limit exceeded", 429), Disposition.REFUSED, "rate_limit"),
        (200, openai("Rate limit", "rate_limit_exceeded"), Disposition.REFUSED, "rate_limit"),
        (200, {"error": {"message": "Provider returned error", "code": 502, "metadata": {"raw": "boom"}}},
         Disposition.TRANSIENT, "http_502"),
        (200, {"error": {"message": "Insufficient credits", "code": 402}}, Disposition.FATAL, "quota"),
        (200, {"error": "something broke"}, Disposition.TRANSIENT, "http_500"),
        (200, {"choices": [{**CHOICE, "finish_reason": "error", "error": {"code": 502, "message": "gone"}}]},
         Disposition.TRANSIENT, "http_502"),
        (200, {"choices": [{**CHOICE, "finish_reason": "error"}]}, Disposition.TRANSIENT, "http_500"),
    ],
)  # fmt: skip
def test_every_dialect_is_read(status: int, body: object, disposition: Disposition, reason: str) -> None:
    verdict = classify(response(status, body))
    assert (verdict.disposition, verdict.reason) == (disposition, reason), verdict


def test_fatal_verdicts_carry_their_exit_status() -> None:
    assert classify(response(401)).exit_status is ExitStatus.USAGE
    assert classify(response(404)).exit_status is ExitStatus.USAGE
    assert classify(response(402)).exit_status is ExitStatus.UNAVAILABLE
    assert classify(response(429, openai("", "insufficient_quota"))).exit_status is ExitStatus.UNAVAILABLE


def test_a_redirect_is_never_followed_and_names_its_target() -> None:
    verdict = classify(response(307, location="https://evil.example:8443/v1/chat?key=1"))
    assert verdict.disposition is Disposition.FATAL
    assert verdict.exit_status is ExitStatus.USAGE
    assert "https://evil.example:8443 " in verdict.message
    assert "key=1" not in verdict.message


def test_too_large_says_what_the_endpoint_charges() -> None:
    verdict = classify(response(429, openai(TOO_LARGE, "rate_limit_exceeded")))
    assert (verdict.limit_tokens, verdict.requested_tokens) == (30000, 30601)
    verdict = classify(response(429, openai(RATE, "rate_limit_exceeded")))
    assert (verdict.disposition, verdict.requested_tokens) == (Disposition.REFUSED, 3082)


@pytest.mark.parametrize(
    ("headers", "body", "pause"),
    [
        ({"retry_after": "7"}, b"", 7.0),
        ({"retry_after": "1.5"}, b"", 1.5),
        ({"retry_after": "12ms"}, b"", 0.012),
        ({"retry_after_ms": "250", "retry_after": "9"}, b"", 0.25),
        ({"retry_after": "Thu, 01 Jan 2026 00:00:30 GMT", "date": DATE}, b"", 30.0),
        ({"retry_after": "2026-01-01T00:00:05Z", "date": DATE}, b"", 5.0),
        ({"retry_after": "5, 20"}, b"", 20.0),
        ({"retry_after": "86400000"}, b"", 86_400.0),
        ({"retry_after": "nan"}, b"", None),
        ({"retry_after": "inf"}, b"", None),
        ({"retry_after": "-1"}, b"", None),
        ({"retry_after": "1" + "0" * 400}, b"", None),
        ({"retry_after": "soon"}, openai(RATE), 9.816),
        ({}, openai("Please try again in 6m0s."), 360.0),
        ({}, openai("Please retry after 644ms."), 0.644),
        ({}, GEMINI, 34.0),
        ({}, openai("no"), None),
    ],
)
def test_the_pause_is_read_in_all_its_forms(
    headers: dict[str, str], body: object, pause: float | None
) -> None:
    assert classify(response(429, body, **headers)).retry_after_s == pause


def test_a_date_is_held_against_the_response_s_own_date() -> None:
    assert seconds("Thu, 01 Jan 2026 00:01:00 GMT", DATE) == 60.0
    assert seconds("Thu, 01 Jan 2026 00:01:00 GMT") == 0.0  # long ago by the local clock
    assert seconds("1767225605000", DATE) == 5.0
    assert seconds("1767225605", DATE) == 5.0


@given(
    st.text(max_size=40) | st.floats().map(str) | st.from_regex(r"\d{1,9}(ms|s|m|h)"), st.text(max_size=30)
)
@settings(max_examples=300)
def test_a_duration_is_sane_or_nothing(text: str, date: str) -> None:
    found = seconds(text, date)
    assert found is None or 0.0 <= found <= 86_400.0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.floats(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["error", "choices", "code", "type", "message", "details", "retryDelay", "finish_reason"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


@given(st.integers(100, 599), JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=60),
       st.dictionaries(st.sampled_from(["retry-after", "retry-after-ms", "x-should-retry", "location", "date"]),
                       st.text(max_size=20)))  # fmt: skip
@settings(max_examples=400)
def test_no_body_makes_the_reader_raise(status: int, body: bytes, headers: dict[str, str]) -> None:
    verdict = classify(Response(status, headers, body, 0.1))
    assert (verdict.exit_status is not None) == (verdict.disposition is Disposition.FATAL)


@pytest.mark.parametrize(
    ("kind", "paid", "disposition"),
    [
        (FailureKind.CONNECT, Paid.NO, Disposition.TRANSIENT),
        (FailureKind.DNS, Paid.NO, Disposition.TRANSIENT),
        (FailureKind.TLS, Paid.NO, Disposition.FATAL),
        (FailureKind.TIMEOUT, Paid.MAYBE, Disposition.UNKNOWN),
        (FailureKind.RESET, Paid.MAYBE, Disposition.UNKNOWN),
        (FailureKind.RESET, Paid.NO, Disposition.TRANSIENT),
        (FailureKind.CUT, Paid.MAYBE, Disposition.UNKNOWN),
        (FailureKind.TOO_LARGE, Paid.MAYBE, Disposition.REJECTED),
        (FailureKind.REDIRECT, Paid.NO, Disposition.FATAL),
    ],
)
def test_whether_it_may_be_paid_decides_about_a_failure(
    kind: FailureKind, paid: Paid, disposition: Disposition
) -> None:
    assert classify(Failure(kind, "words", paid, 1.0)).disposition is disposition


def test_x_should_retry_is_obeyed_but_never_against_a_quota() -> None:
    policy = RetryPolicy(5, random.Random(1))
    stop = classify(response(500, b"", x_should_retry="false"))
    assert policy.delay_s(1, 0, stop) is None
    go = classify(response(400, openai("odd"), x_should_retry="true"))
    assert go.disposition is Disposition.TRANSIENT
    assert classify(response(402, b"", x_should_retry="true")).disposition is Disposition.FATAL
    assert classify(response(429, b"", x_should_retry="false")).disposition is Disposition.REFUSED


TRANSIENT = Verdict(Disposition.TRANSIENT, "http_500")
UNKNOWN = Verdict(Disposition.UNKNOWN, "timeout")


def test_backoff_is_full_jitter_doubling_from_half_a_second_to_a_minute() -> None:
    policy = RetryPolicy(100, random.Random(1))
    for attempts, ceiling in ((1, 0.5), (2, 1.0), (3, 2.0), (8, 60.0), (90, 60.0)):
        said = [policy.delay_s(attempts, 0, TRANSIENT) for _ in range(300)]
        delays = [delay_s for delay_s in said if delay_s is not None]
        assert len(delays) == 300
        assert 0.0 <= min(delays) < 0.05 * ceiling
        assert 0.95 * ceiling < max(delays) <= ceiling


def test_attempts_are_counted_with_the_first() -> None:
    policy = RetryPolicy(3)
    assert policy.delay_s(2, 0, TRANSIENT) is not None
    assert policy.delay_s(3, 0, TRANSIENT) is None


def test_what_may_have_been_paid_is_tried_at_most_twice_more() -> None:
    policy = RetryPolicy(10)
    assert policy.delay_s(1, 1, UNKNOWN) is not None
    assert policy.delay_s(2, 2, UNKNOWN) is not None
    assert policy.delay_s(3, 3, UNKNOWN) is None


@pytest.mark.parametrize("disposition", [Disposition.ANSWERED, Disposition.REJECTED, Disposition.FATAL])
def test_what_is_final_is_never_tried_again(disposition: Disposition) -> None:
    assert RetryPolicy(10).delay_s(1, 0, Verdict(disposition, "x")) is None


def test_a_refusal_never_uses_up_attempts() -> None:
    assert RetryPolicy(2).delay_s(99, 0, Verdict(Disposition.REFUSED, "rate_limit")) == 0.0


def test_a_retry_waits_as_long_as_the_endpoint_asked() -> None:
    assert (
        RetryPolicy(5).delay_s(1, 0, Verdict(Disposition.TRANSIENT, "http_502", retry_after_s=40.0)) == 40.0
    )


def test_narrow_exceptions_come_before_wide_ones_everywhere() -> None:
    """An ``except`` that stands behind one that catches its base class is dead."""
    import builtins

    for path in Path(retry.__file__).parent.parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Try):
                continue
            seen: list[type] = []
            for handler in node.handlers:
                names = (
                    [n.id for n in ast.walk(handler.type) if isinstance(n, ast.Name)] if handler.type else []
                )
                found = [getattr(builtins, n) for n in names if isinstance(getattr(builtins, n, None), type)]
                assert not any(issubclass(f, s) for f in found for s in seen), (
                    f"{path}:{handler.lineno} is dead"
                )
                seen += found


def test_reasons_are_said_in_words() -> None:
    assert [reason_text(each) for each in ("http_503", "cut", "timeout", "rate_limit", "bad_body")] == [
        "HTTP 503", "answer broken off", "timeout", "rate limit", "unreadable answer",
    ]  # fmt: skip
