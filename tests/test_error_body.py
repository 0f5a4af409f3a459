"""One reading of error bodies, in every dialect; the row's error and the verdict rest on it."""

import json
from typing import Any

import pytest
from hypothesis import given

from batchllm.error_body import ErrorBody, error_in, read_error
from tests.test_any_reply import bodies


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ({"error": {"message": "m", "type": "t", "code": "c"}}, ErrorBody(message="m", type="t", code="c")),
        ({"type": "error", "error": {"type": "overloaded_error", "message": "m"}},
         ErrorBody(message="m", type="overloaded_error")),
        ({"error": {"message": "m", "code": "content_filter", "innererror": {"code": "Jailbreak"}}},
         ErrorBody(message="m", code="content_filter Jailbreak")),
        ([{"error": {"code": 429, "message": "m", "status": "RESOURCE_EXHAUSTED",
                     "details": [{"retryDelay": "34s"}, {"other": 1}]}}],
         ErrorBody(message="m", code="429", type="RESOURCE_EXHAUSTED", retry_delays=("34s",))),
        ({"error": {"message": "m", "code": 0, "metadata": {"raw": "theirs", "headers": {"Retry-After": 17}}}},
         ErrorBody(message="m: theirs", code="0", headers={"retry-after": "17"})),
        ({"error": "model not found"}, ErrorBody(message="model not found")),
        ({"error": "insufficient_quota", "message": "pay first"},
         ErrorBody(message="pay first", code="insufficient_quota")),
        ({"error": "Bad Request", "message": "m", "statusCode": 400}, ErrorBody(message="m", code="400")),
        ({"detail": "Not Found"}, ErrorBody(message="Not Found")),
        ({"detail": {"message": "m", "code": "c"}}, ErrorBody(message="m", code="c")),
        ({"detail": [{"loc": ["body", "n"], "msg": "too big"}, {"loc": ["q", 0], "msg": "bad"}]},
         ErrorBody(message="body.n: too big; q.0: bad")),
        ({"errors": [{"message": "m", "code": 7}]}, ErrorBody(message="m", code="7")),
        ({"object": "error", "message": "Unauthorized", "code": 7, "type": "t"},
         ErrorBody(message="Unauthorized", code="7", type="t")),
        ({}, ErrorBody()),
        ([], ErrorBody()),
        ("words", ErrorBody(message="words", is_json=False)),
        (None, ErrorBody(is_json=False)),
    ],
)  # fmt: skip
def test_an_error_of_every_dialect_is_read(body: Any, wanted: ErrorBody) -> None:
    assert read_error(json.dumps(body).encode()) == error_in(body) == wanted


def test_a_page_is_its_title_and_no_json() -> None:
    page = b"<html><head><title>502 Bad &amp; Gone</title></head><body>x</body></html>"
    assert read_error(page) == ErrorBody(message="502 Bad & Gone", is_json=False)
    assert read_error(b"<html><p>gone</p></html>").message == "gone"
    assert read_error(b"busy\n") == ErrorBody(message="busy", is_json=False)


@given(bodies)
def test_whatever_a_body_holds_is_text_of_bounded_length(body: bytes) -> None:
    error = read_error(body)
    for text in (error.message, error.code, error.type, *error.retry_delays):
        text.encode()
    assert len(error.message) <= 2_000
    assert len(error.code) <= 201
    assert len(error.type) <= 100


@pytest.mark.parametrize(
    ("status", "error", "fault"),
    [
        (400, ErrorBody(message="maximum context length is 9"), "context_length"),
        (429, ErrorBody(message="maximum context length is 9"), None),
        (429, ErrorBody(code="context_length_exceeded"), "context_length"),
        (413, ErrorBody(), "too_large"),
        (429, ErrorBody(message="Request too large for m"), "too_large"),
        (403, ErrorBody(message="flagged"), "content_filter"),
        (401, ErrorBody(message="flagged"), None),
        (500, ErrorBody(code="content_filter"), None),
    ],
)
def test_an_error_blames_the_row_only_where_it_says_so(
    status: int, error: ErrorBody, fault: str | None
) -> None:
    assert error.row_fault(status) == fault
