"""Lines of results, whatever they hold: raw bodies kept, oddities told apart, nothing ever raised."""

import json

import orjson
from hypothesis import given
from hypothesis import strategies as st

from batchllm.batch.lines import ResultLine, error_response, read_line, request_line
from batchllm.records import Failure, FailureKind, Paid, Response
from batchllm.retry import Disposition, classify

BODY = b'{"n": 1e5, "big":123456789012345678901234567890,"half":"\\ud83d", "x":"\xc3\xa9","choices":[]}'


def line(**members: object) -> bytes:
    return json.dumps({"id": "batch_req_1", "custom_id": "b-7", **members}).encode() + b"\n"


def outcome(raw: bytes) -> Response | Failure:
    read = read_line(raw, "b")
    assert isinstance(read, ResultLine)
    assert read.number == 7
    return read.outcome


def test_a_request_line_is_what_the_batch_api_takes() -> None:
    body = b'{"model":"m","messages":[{"role":"user","content":"a\\nb"}]}'
    made = request_line("b", 7, "/v1/chat/completions", body)
    assert made.endswith(b"}\n")
    assert made.count(b"\n") == 1
    assert json.loads(made) == {
        "custom_id": "b-7", "method": "POST", "url": "/v1/chat/completions", "body": json.loads(body),
    }  # fmt: skip


def test_the_body_of_a_result_is_kept_byte_for_byte() -> None:
    raw = (
        b'{"custom_id":"b-7", "response" : {"status_code": 200,"request_id":"r1","body": '
        + BODY
        + b'},"error":null}'
    )
    assert outcome(raw) == Response(200, {"x-request-id": "r1"}, BODY, 0.0)


def test_members_come_in_any_order() -> None:
    raw = b'{"error":null,"response":{"body":' + BODY + b',"status_code":200},"custom_id":"b-7","id":"x"}\r\n'
    assert outcome(raw) == Response(200, {}, BODY, 0.0)


def test_an_expired_request_was_not_paid_and_is_to_be_sent_again() -> None:
    found = outcome(line(response=None, error={"code": "batch_expired", "message": "too late"}))
    assert isinstance(found, Failure)
    assert (found.kind, found.paid) == (FailureKind.UNSENT, Paid.NO)
    assert classify(found).disposition is Disposition.TRANSIENT


def test_an_error_without_a_response_reads_as_the_refusal_it_is() -> None:
    wrong = outcome(line(response=None, error={"code": "invalid_request", "message": "no"}))
    broken = outcome(line(response=None, error={"code": "server_error", "message": "no"}))
    numbered = outcome(line(error={"code": 404, "message": "model not found"}))
    assert [classify(found).disposition for found in (wrong, broken, numbered)] == [
        Disposition.REJECTED, Disposition.TRANSIENT, Disposition.FATAL,
    ]  # fmt: skip


def test_a_line_with_neither_response_nor_error_may_have_been_paid() -> None:
    found = outcome(line(response=None, error=None))
    assert isinstance(found, Failure)
    assert (found.kind, found.paid) == (FailureKind.NO_RESULT, Paid.MAYBE)


def test_what_is_not_ours_is_told_apart_from_what_cannot_be_read() -> None:
    assert read_line(b'{"custom_id":"other-7","response":null}', "b") == "unknown"
    assert read_line(b'{"custom_id":"b-x","response":null}', "b") == "unknown"
    assert read_line(b'{"id":"x"}', "b") == "unknown"
    for raw in (
        b'{"id": "batch_req_cut", "custom_id"\n',
        b"<html>",
        b"[1,2]",
        b"null",
        b"{" * 5000,
        b'{"a":1',
    ):
        assert read_line(raw, "b") == "unreadable", raw


def test_a_line_of_validation_errors_reads_as_a_rejection() -> None:
    found = classify(error_response({"code": "invalid_json_line", "line": 3, "message": "not JSON"}))
    assert found.disposition is Disposition.REJECTED
    assert "not JSON" in found.message


@given(st.binary(max_size=200))
def test_no_bytes_raise(raw: bytes) -> None:
    assert isinstance(read_line(raw, "b"), ResultLine | str)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


@given(JSON, st.sampled_from([200, 400, 429, 500]), st.booleans())
def test_any_json_body_comes_back_as_it_was(value: object, status: int, spaced: bool) -> None:
    body = orjson.dumps(value, option=orjson.OPT_INDENT_2 if spaced else 0).replace(b"\n", b"  ")
    raw = b'{"custom_id":"b-7","response":{"status_code":%d,"body":%s},"error":null}' % (status, body)
    assert outcome(raw) == Response(status, {}, body, 0.0)
