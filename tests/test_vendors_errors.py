"""Errors within a 200, in the vendors' own shapes: each is what it says, unpaid, with the endpoint's words."""

import json
from typing import Any

import pytest

from batchllm.answer import Reader
from batchllm.error_body import error_within, read_error
from batchllm.errors import ExitStatus
from batchllm.records import AnswerSpec, Response
from batchllm.retry import Disposition, classify
from batchllm.simulator import ScriptedResponse
from tests.bench import Bench
from tests.fakes import chat_body

REFUSED, FATAL, REJECTED = Disposition.REFUSED, Disposition.FATAL, Disposition.REJECTED
OVERLOADED, TRANSIENT = Disposition.OVERLOADED, Disposition.TRANSIENT
NO_USAGE = {"total_tokens": 0}


def minimax(code: int, words: str) -> dict[str, Any]:
    return {
        "id": "0",
        "choices": None,
        "usage": NO_USAGE,
        "base_resp": {"status_code": code, "status_msg": words},
    }


@pytest.mark.parametrize(
    ("body", "disposition", "reason", "words"),
    [
        (minimax(1002, "rate limit"), REFUSED, "rate_limit", "rate limit"),
        (minimax(1008, "insufficient balance"), FATAL, "quota", "insufficient balance"),
        (minimax(1004, "login fail: Please carry the API secret key"), FATAL, "http_401", "login fail"),
        (minimax(1026, "input new_sensitive"), REJECTED, "http_400", "input new_sensitive"),
        (minimax(1013, "unknown error, 999"), TRANSIENT, "http_500", "unknown error, 999"),
        ({"code": "Throttling.RateQuota", "message": "Requests rate limit exceeded", "request_id": "r"},
         REFUSED, "rate_limit", "Requests rate limit exceeded"),
        ({"code": "Throttling.AllocationQuota", "message": "Allocated quota exceeded, please increase it"},
         REFUSED, "rate_limit", "Allocated quota exceeded"),
        ({"code": "Arrearage", "message": "Access denied, make sure your account is in good standing."},
         FATAL, "quota", "good standing"),
        ({"code": "DataInspectionFailed", "message": "Input data may contain inappropriate content."},
         REJECTED, "http_400", "inappropriate content"),
        ({"error_code": 18, "error_msg": "Open api qps request limit reached"}, REFUSED, "rate_limit", "qps"),
        ({"error_code": 336100, "error_msg": "the server is busy, please try again later"},
         OVERLOADED, "overloaded", "busy"),
        ({"code": 1302, "msg": "您的账户已达到速率限制", "success": False}, REFUSED, "rate_limit", "速率限制"),
        ({"code": 1113, "msg": "您的账户已欠费，请充值后重试", "success": False}, FATAL, "quota", "欠费"),
        ({"Response": {"Error": {"Code": "LimitExceeded", "Message": "too frequent"}, "RequestId": "r"}},
         REFUSED, "rate_limit", "too frequent"),
        ({"__type": "ThrottlingException", "message": "Too many requests, wait"}, REFUSED, "rate_limit", "wait"),
        ({"Output": {"__type": "com.amazon#ServiceUnavailableException"}, "Version": "1"},
         OVERLOADED, "overloaded", "ServiceUnavailable"),
        ({"success": False, "errors": [{"code": 3040, "message": "No capacity"}], "result": None},
         OVERLOADED, "overloaded", "No capacity"),
        ({"fault": {"faultstring": "Rate limit quota violation", "detail": {"errorcode": "policies.Quota"}}},
         REFUSED, "rate_limit", "Rate limit quota violation"),
        ({"title": "Insufficient credit", "status": 402, "detail": "You have insufficient credit"},
         FATAL, "quota", "insufficient credit"),
        ({"header": {"code": 11202, "message": "QPS limit exceeded", "sid": "s"}}, REFUSED, "rate_limit", "QPS"),
        ({"status": {"code": 11005, "description": "Rate limit", "details": "d"}}, REFUSED, "rate_limit", "Rate"),
        ({"message": "API rate limit exceeded"}, REFUSED, "rate_limit", "API rate limit exceeded"),
        ({"status": "error", "message": "model overloaded"}, OVERLOADED, "overloaded", "model overloaded"),
        ({"success": False, "error": True, "msg": "too many requests"}, REFUSED, "rate_limit", "too many"),
        ({"detail": "Invalid API key"}, FATAL, "http_401", "Invalid API key"),
        ({"errcode": 40003, "errmsg": "invalid parameter: model"}, REJECTED, "http_400", "invalid parameter"),
        ({"statusCode": 503, "message": "try later"}, OVERLOADED, "overloaded", "try later"),
        ({"error": "Model is overloaded", "error_type": "overloaded"}, OVERLOADED, "overloaded", "overloaded"),
        ({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
         OVERLOADED, "overloaded", "Overloaded"),
        ([{"error": {"code": 429, "message": "Resource has been exhausted", "status": "RESOURCE_EXHAUSTED"}}],
         REFUSED, "rate_limit", "exhausted"),
    ],
)  # fmt: skip
def test_an_error_within_a_200_is_what_it_says(
    body: Any, disposition: Disposition, reason: str, words: str
) -> None:
    raw = json.dumps(body).encode()
    verdict = classify(Response(200, {}, raw, 0.1))
    assert (verdict.disposition, verdict.reason) == (disposition, reason), verdict
    assert words.lower() in verdict.message.lower()
    answer = Reader(AnswerSpec("response")).read(200, raw)
    assert answer.error is not None and words.lower() in answer.error.lower()


@pytest.mark.parametrize(
    "body",
    [
        {
            "choices": [{"message": {"content": "hi"}}],
            "base_resp": {"status_code": 0, "status_msg": "success"},
        },
        {"choices": [{"message": {"content": "hi"}}], "code": 0, "message": "Success", "sid": "s"},
        {"choices": [], "usage": {"prompt_tokens": 4}},
        {"candidates": [{"content": {}}]},
        {"type": "message", "content": [{"type": "text", "text": "hi"}]},
    ],
)
def test_what_was_billed_is_no_error(body: dict[str, Any]) -> None:
    assert error_within(body) is None
    assert classify(Response(200, {}, json.dumps(body).encode(), 0.1)).disposition is Disposition.ANSWERED


@pytest.mark.parametrize("body", [{}, {"id": "x"}, {"choices": []}, {"choices": None, "usage": NO_USAGE}])
def test_a_200_with_neither_choices_nor_usage_was_not_billed(body: dict[str, Any]) -> None:
    verdict = classify(Response(200, {}, json.dumps(body).encode(), 0.1))
    assert (verdict.disposition, verdict.reason) == (Disposition.TRANSIENT, "no_choices")


@pytest.mark.parametrize(
    ("body", "pause"),
    [
        ({"error": "Model is currently loading", "estimated_time": 20.0}, 20.0),
        ({"message": "slow", "retry_after": 3}, 3.0),
        ({"error": {"message": "slow", "retry_after_ms": 1500}}, 1.5),
        ({"error": {"message": "slow", "retryAfter": "7s"}}, 7.0),
        ({"error": {"message": "slow", "retry_after": True}}, None),
    ],
)
def test_a_pause_that_the_body_names_is_kept(body: dict[str, Any], pause: float | None) -> None:
    assert classify(Response(429, {}, json.dumps(body).encode(), 0.1)).retry_after_s == pause


def test_a_400_that_says_throttling_is_a_refusal() -> None:
    body = {"__type": "ThrottlingException", "message": "Rate exceeded"}
    assert classify(Response(400, {}, json.dumps(body).encode(), 0.1)).disposition is Disposition.REFUSED


def test_words_of_a_row_that_a_400_repeats_do_not_stop_the_job() -> None:
    body = {
        "error": {"message": "cannot parse 'payment overdue, your balance is too low'", "code": "bad_row"}
    }
    assert classify(Response(400, {}, json.dumps(body).encode(), 0.1)).disposition is Disposition.REJECTED


def test_a_field_with_its_faults_is_read() -> None:
    assert read_error(b'{"errors": {"max_tokens": ["too large"]}}').message == "max_tokens: too large"


def test_an_empty_balance_within_a_200_ends_the_run_with_its_words_and_costs_nothing(bench: Bench) -> None:
    path = bench.file("in.csv", "text\n" + "".join(f"row {number}\n" for number in range(30)))
    bench.answers = lambda asked: ScriptedResponse(
        body=json.dumps(minimax(1008, "insufficient balance")).encode()
    )
    words = ("run", "-p", "{{ text }}", path, "-o", bench.folder / "out.csv")
    said = bench.run(*words, status=ExitStatus.UNAVAILABLE)
    assert "insufficient balance" in said.err and "template" not in said.err
    bench.answers = lambda asked: ScriptedResponse(body=chat_body("fine"))
    bench.run(*words)
    assert {row["response"] for row in bench.out("out.csv")} == {"fine"}


def test_a_rate_limit_within_a_200_is_waited_for(bench: Bench) -> None:
    path = bench.file("in.csv", "text\none\ntwo\n")
    refusals = [json.dumps(minimax(1002, "rate limit") | {"retry_after": 0.1}).encode()]
    bench.answers = lambda asked: ScriptedResponse(body=refusals.pop() if refusals else chat_body("fine"))
    bench.run("run", "-p", "{{ text }}", path, "-o", bench.folder / "out.csv")
    assert [row["response"] for row in bench.out("out.csv")] == ["fine", "fine"]
