import json
import math
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.answer import ASK_AGAIN, Reader, answer_columns, visible_text
from batchllm.error_body import ErrorBody, read_error
from batchllm.errors import UsageError
from batchllm.records import Answer, AnswerSpec, Usage

TEXT = AnswerSpec("summary")
LABEL = AnswerSpec("label", "label", ("positive", "negative"))
CODE = AnswerSpec("code", "code")
JSON = AnswerSpec("response", "json", schema="topic, urgent bool")
SPECS = (TEXT, LABEL, CODE, JSON, AnswerSpec("data", "json"))

STANDARD = {
    "id": "chatcmpl-abc123",
    "object": "chat.completion",
    "created": 1677858242,
    "model": "gpt-4",
    "usage": {"prompt_tokens": 13, "completion_tokens": 17, "total_tokens": 30},
    "choices": [
        {
            "message": {"role": "assistant", "content": "法国的首都是巴黎。"},
            "finish_reason": "stop",
            "index": 0,
        }
    ],
}


def completion(content: Any, finish: Any = "stop", usage: Any = None, **message: Any) -> bytes:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": content, **message},
        "finish_reason": finish,
    }
    return json.dumps({**STANDARD, "choices": [choice], "usage": usage}).encode()


def read(body: bytes, spec: AnswerSpec = TEXT, status: int = 200) -> Answer:
    return Reader(spec).read(status, body)


def test_the_standard_answer_is_read_whole() -> None:
    assert read(json.dumps(STANDARD).encode()) == Answer(
        columns={"summary": "法国的首都是巴黎。"},
        text="法国的首都是巴黎。",
        finish_reason="stop",
        usage=Usage(13, 17, 30),
        model="gpt-4",
        response_id="chatcmpl-abc123",
        created=1677858242,
        raw_finish_reason="stop",
    )


def test_reasoning_and_cached_tokens_are_read_where_they_are_said() -> None:
    usage = {
        "prompt_tokens": 9,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 5},
    }
    assert read(completion("x", usage=usage)).usage == Usage(9, None, None, 5, 4)
    assert read(completion("x", usage={"prompt_cache_hit_tokens": 3})).usage.cached_tokens == 3


@pytest.mark.parametrize(
    "usage",
    [
        None,
        [],
        "none",
        7,
        {"input_tokens": 5, "output_tokens": 6},
        {"prompt_tokens": -1, "completion_tokens": 1.5, "total_tokens": "30"},
        {"prompt_tokens": 2**70, "completion_tokens": True, "total_tokens": None},
        {"prompt_tokens_details": [], "completion_tokens_details": {"reasoning_tokens": {}}},
    ],
)
def test_a_missing_or_odd_usage_is_empty_cells(usage: Any) -> None:
    answer = read(completion("x", usage=usage))
    assert (answer.usage, answer.error) == (Usage(), None)


@pytest.mark.parametrize("finish", ["stop", "length", "tool_calls", "eos", None, 7])
def test_a_finish_reason_of_any_kind_leaves_the_text_an_answer(finish: Any) -> None:
    answer = read(completion("cut te", finish))
    assert answer.columns == {"summary": "cut te"}
    assert answer.error is None
    assert answer.raw_finish_reason == (finish if isinstance(finish, str) else None)


def test_a_filter_that_left_some_text_left_an_answer() -> None:
    assert read(completion("so far", "content_filter")).error is None


def test_tool_calls_without_text_are_an_answer() -> None:
    calls = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    answer = read(completion(None, "tool_calls", tool_calls=calls))
    assert (answer.tool_calls, answer.columns, answer.error) == (calls, {"summary": ""}, None)
    assert read(completion("text", tool_calls=[])).tool_calls is None


@pytest.mark.parametrize(
    ("body", "reason", "said"),
    [
        (b"", "bad_json", "is empty"),
        (b"<html><title>502</title>", "bad_json", "not JSON"),
        (b"[1]", "bad_json", "not an object"),
        (b"{}", "no_choices", "no choices"),
        (b'{"choices": []}', "no_choices", "no choices"),
        (b'{"choices": [null]}', "no_choices", "no choices"),
        (b'{"choices": {"0": 1}}', "no_choices", "no choices"),
        (b'{"error": {"message": "it broke", "code": 502}}', "error", "it broke (code 502)"),
        (b'{"error": "it broke", "choices": [{"message": {"content": "x"}}]}', "error", "it broke"),
        (
            b'{"choices": [{"error": {"message": "upstream"}, "message": {"content": "x"}}]}',
            "error",
            "upstream",
        ),
        (completion("half", "error"), "error", "finish_reason error"),
        (completion(None, "content_filter"), "content_filter", "content filter"),
        (completion("", "content_filter"), "content_filter", "content filter"),
        (completion(None, refusal="I cannot help."), "refusal", "I cannot help."),
        (completion([{"type": "refusal", "refusal": "No."}]), "refusal", "No."),
        (completion(""), "empty", "neither text nor tool calls"),
        (completion("  \n "), "empty", "neither text nor tool calls"),
        (completion(None, None), "empty", "finish_reason missing"),
        (completion(7), "empty", "neither text nor tool calls"),
        (completion("", "length"), "empty", "--max-tokens"),
        (completion("<think>hm", "length"), "reasoning", "--reasoning-effort"),
        (completion(None, "length", reasoning_content="hm"), "reasoning", "--max-tokens"),
        (
            completion("", "length", {"completion_tokens_details": {"reasoning_tokens": 9}}),
            "reasoning",
            "--reasoning-effort",
        ),
    ],
)
def test_what_is_no_answer_fails_with_a_reason(body: bytes, reason: str, said: str) -> None:
    answer = read(body)
    assert answer.reason == reason
    assert answer.error is not None and said in answer.error
    assert answer.columns == {}


def test_a_failed_answer_keeps_its_usage() -> None:
    assert read(completion(None, "content_filter", {"prompt_tokens": 3})).usage.prompt_tokens == 3


def test_content_in_parts_is_joined() -> None:
    parts = [
        {"type": "text", "text": "one "},
        {"type": "image_url"},
        {"type": "output_text", "text": "two"},
        "!",
        7,
    ]
    assert read(completion(parts)).text == "one two!"


def test_an_answer_of_the_older_completions_is_read() -> None:
    assert read(b'{"choices": [{"text": " so "}]}').columns == {"summary": "so"}


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("<think>a\nb</think>\n\nanswer", "answer"),
        ("<think>a</think>one<THINK>b</THINK> two", "one two"),
        ("<thinking>a</thinking>answer", "answer"),
        ("no beginning</think>answer", "answer"),
        ("<think>no end", ""),
        ("answer <think>cut", "answer"),
        ("I think so < you", "I think so < you"),
        ("  x \n", "x"),
    ],
)
def test_reasoning_blocks_are_not_part_of_the_answer(text: str, seen: str) -> None:
    assert visible_text(text) == seen


def test_a_label_is_read_behind_the_reasoning() -> None:
    answer = read(completion("<think>negative? no, positive or negative</think>**Positive**"), LABEL)
    assert answer.columns == {"label": "positive"}


def test_without_a_label_the_error_shows_the_answer() -> None:
    answer = read(completion("I cannot\ntell"), LABEL)
    assert (answer.error, answer.reason, answer.columns) == ("no label: I cannot tell", "no_label", {})
    assert answer.text == "I cannot\ntell"


def test_code_is_the_fenced_block() -> None:
    assert read(completion("```py\nx = 1\n```"), CODE).columns == {"code": "x = 1"}


def test_the_fields_of_a_schema_are_columns() -> None:
    assert answer_columns(JSON) == ("topic", "urgent")
    assert answer_columns(TEXT) == ("summary",)
    answer = read(completion('```json\n{"urgent": true, "topic": "x"}\n```'), JSON)
    assert answer.columns == {"topic": "x", "urgent": True}


@pytest.mark.parametrize(
    ("text", "finish", "reason"),
    [("sorry", "stop", "not_json"), ('{"topic": 1}', "stop", "schema"), ('{"topic": "lo', "length", "cut")],
)
def test_an_answer_that_is_not_the_data_fails(text: str, finish: str, reason: str) -> None:
    answer = read(completion(text, finish), JSON)
    assert answer.reason == reason
    assert (reason in ASK_AGAIN) == (reason != "cut")


def test_data_without_a_schema_is_the_value() -> None:
    assert read(completion('{"a": [1]}'), AnswerSpec("data", "json")).columns == {"data": {"a": [1]}}


@pytest.mark.parametrize(
    "spec",
    [AnswerSpec("x", "magic"), AnswerSpec("x", "label"), AnswerSpec("x", "json", schema={"type": "objekt"})],
)
def test_a_way_of_reading_that_cannot_work_is_refused_at_once(spec: AnswerSpec) -> None:
    with pytest.raises(UsageError):
        Reader(spec)


@pytest.mark.parametrize(
    ("status", "body", "error", "reason"),
    [
        (
            400,
            b'{"error":{"message":"Bad\\nvalue","type":"t","code":"c"}}',
            "HTTP 400: Bad value (c)",
            "http_400",
        ),
        (404, b'{"error":"model \'x\' not found"}', "HTTP 404: model 'x' not found", "http_404"),
        (422, b'{"detail":[{"loc":["body","n"],"msg":"too big"}]}', "HTTP 422: body.n: too big", "http_422"),
        (
            401,
            b'{"object":"error","message":"Unauthorized","code":7}',
            "HTTP 401: Unauthorized (code 7)",
            "http_401",
        ),
        (
            429,
            b'[{"error":{"code":429,"message":"slow","status":"X"}}]',
            "HTTP 429: slow (code 429)",
            "http_429",
        ),
        (502, b"<html><title>502 Bad &amp; Gone</title></html>", "HTTP 502: 502 Bad & Gone", "http_502"),
        (500, b"", "HTTP 500: HTTP 500 without a message", "http_500"),
        (500, b"{}", "HTTP 500: HTTP 500 without a message", "http_500"),
        (503, b"busy", "HTTP 503: busy", "http_503"),
        (
            400,
            b'{"error":{"message":"maximum context length is 9","code":"context_length_exceeded"}}',
            "HTTP 400: maximum context length is 9 (context_length_exceeded)",
            "context_length",
        ),
        (
            400,
            b'{"error":{"message":"no","code":"content_filter","innererror":{"code":"ResponsibleAIPolicyViolation"}}}',
            "HTTP 400: no (content_filter ResponsibleAIPolicyViolation)",
            "content_filter",
        ),
        (
            429,
            b'{"error":{"message":"Request too large for m"}}',
            "HTTP 429: Request too large for m",
            "too_large",
        ),
        (413, b"", "HTTP 413: HTTP 413 without a message", "too_large"),
        (
            403,
            b'{"error":{"message":"Provider returned error","code":403,"metadata":{"raw":"flagged by moderation"}}}',
            "HTTP 403: Provider returned error: flagged by moderation (code 403)",
            "content_filter",
        ),
    ],
)
def test_errors_of_every_dialect_are_one_line(status: int, body: bytes, error: str, reason: str) -> None:
    answer = read(body, status=status)
    assert (answer.error, answer.reason) == (error, reason)


def test_a_long_error_is_cut_and_control_characters_are_gone() -> None:
    error = read(json.dumps({"error": {"message": "\x1b[2J" + "x\n" * 9000}}).encode(), status=400).error
    assert error is not None
    assert len(error.removeprefix("HTTP 400: ")) <= 300
    assert error.isprintable()


def test_an_error_has_code_and_type() -> None:
    body = b'{"error":{"message":"m","type":"rate_limit_error","code":"slow_down"}}'
    assert read_error(body) == ErrorBody(message="m", type="rate_limit_error", code="slow_down")


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"choices":[{"message":{"content":NaN}}]}',
        b'{"created":1' + b"0" * 5000 + b"}",
        b'{"choices":[{"message":{"content":"\\ud800"}}]}',
        b'{"id":"\\udfff","choices":[{"message":{"content":"x\\ud83d"}}]}',
        b"\xff\xfe\x00",
        b'\xef\xbb\xbf{"choices":[{"message":{"content":"bom"}}]}',
        b'\n\n{"choices":[{"message":{"content":"blank lines first"}}]}',
        b'{"choices":[{"message":{"content":"a","content":"b"}}]}',
    ],
)
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.read)
def test_bytes_that_break_parsers_break_no_row(body: bytes, spec: AnswerSpec) -> None:
    for status in (200, 400):
        answer = read(body, spec, status)
        orjson.dumps(
            [
                dict(answer.columns),
                answer.text,
                answer.error,
                answer.model,
                answer.response_id,
                answer.finish_reason,
            ]
        )


def test_half_of_a_pair_becomes_a_replacement_character() -> None:
    assert read(b'{"choices":[{"message":{"content":"x\\ud83dy"}}]}').text == "x\ufffdy"
    assert read(b'{"choices":[{"message":{"content":"\\ud83d\\ude00\\ud800"}}]}').text == "\U0001f600\ufffd"


KEYS = st.sampled_from(
    [
        "choices",
        "message",
        "content",
        "finish_reason",
        "usage",
        "prompt_tokens",
        "error",
        "code",
        "refusal",
        "tool_calls",
        "model",
        "id",
        "created",
        "type",
        "text",
        "delta",
        "metadata",
        "raw",
        "detail",
        "loc",
        "msg",
        "innererror",
    ]
)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**80), 2**80),
    st.floats(),
    st.text(max_size=10),
    st.sampled_from(
        ["stop", "length", "content_filter", "error", "```", "{", "<think>", "positive", math.inf]
    ),
)
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=25,
)
READERS = [Reader(spec) for spec in SPECS]


@settings(max_examples=300, deadline=None)
@given(ANYTHING, st.sampled_from(READERS), st.sampled_from([200, 204, 400, 429, 500]))
def test_any_json_is_read_without_an_exception(value: Any, reader: Reader, status: int) -> None:
    answer = reader.read(status, json.dumps(value).encode())
    assert (answer.error is None) == (answer.reason is None)
    assert answer.columns or answer.error or answer.tool_calls


@settings(max_examples=300, deadline=None)
@given(ANYTHING, st.sampled_from(READERS))
def test_any_message_is_read_without_an_exception(value: Any, reader: Reader) -> None:
    reader.read(200, json.dumps({"choices": [{"message": value}]}).encode())
    reader.read(200, json.dumps({"choices": [{"message": {"content": value, "tool_calls": value}}]}).encode())


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(READERS), st.integers(100, 599))
def test_any_bytes_are_read_without_an_exception(body: bytes, reader: Reader, status: int) -> None:
    assert reader.read(status, body).error is not None
