"""Encodings of a body: decoded where they can be, otherwise named once."""

import gzip
import json
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.client.encoding import TooLarge, Truncated, Undecodable, decoded
from batchllm.records import Failure, FailureKind, Paid
from batchllm.retry import Disposition, classify
from batchllm.simulator import ScriptedResponse
from tests.bench import Bench
from tests.fakes import chat_body

BODY = json.dumps({"text": "é" * 50}).encode()
BARE = zlib.compressobj(wbits=-15)
DEFLATE = BARE.compress(BODY) + BARE.flush()
MOST = 1_000_000


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(BODY)), ("x-gzip", gzip.compress(BODY)), ("deflate", zlib.compress(BODY)),
        ("deflate", DEFLATE), ("GZIP", gzip.compress(BODY)),
        ("gzip", gzip.compress(BODY[:9]) + gzip.compress(BODY[9:])),
        ("gzip, gzip", gzip.compress(gzip.compress(BODY))), ("identity", BODY), ("", BODY),
        ("", gzip.compress(BODY)), ("br", gzip.compress(BODY)), ("gzip", BODY), ("br", BODY), ("zstd", BODY),
        ("gzip", gzip.compress(BODY) + b"\0\0"), ("gzip", b""),
    ],
    ids=map(str, range(16)),  # gzip writes the time
)  # fmt: skip
def test_what_can_be_decoded_is_whatever_the_header_says(encoding: str, body: bytes) -> None:
    assert decoded(body, encoding, MOST) == (BODY if body else b"")


@pytest.mark.parametrize(
    ("encoding", "name"),
    [("br", "br (Brotli)"), ("zstd", "zstd (Zstandard)"), ("gzip, br", "br"), ("odd", "'odd'")],
)
def test_what_cannot_be_decoded_is_named(encoding: str, name: str) -> None:
    with pytest.raises(Undecodable) as raised:
        decoded(b"\x8b\x02\x80binary", encoding, MOST)
    assert name in str(raised.value)


def test_a_truncated_body_is_cut_off() -> None:
    for cut in (12, len(gzip.compress(BODY)) - 1):
        with pytest.raises(Truncated):
            decoded(gzip.compress(BODY)[:cut], "gzip", MOST)
    with pytest.raises(Truncated):
        decoded(b"\x00\xff binary that is nothing", "gzip", MOST)


def test_a_small_body_that_grows_beyond_the_bound_is_too_large() -> None:
    with pytest.raises(TooLarge):
        decoded(gzip.compress(b"a" * MOST * 2), "gzip", MOST)


@settings(max_examples=150, deadline=None)
@given(
    st.binary(max_size=60),
    st.sampled_from(["gzip", "deflate", "br", "", "gzip, deflate", ",,", "é"]),
    st.booleans(),
)
def test_any_bytes_are_decoded_or_refused(body: bytes, encoding: str, packed: bool) -> None:
    try:
        decoded(gzip.compress(body)[:-1] if packed else body, encoding, MOST)
    except (Undecodable, Truncated, TooLarge):
        pass


def test_an_encoding_that_nobody_asked_for_is_final() -> None:
    failure = Failure(FailureKind.ENCODING, "br", Paid.MAYBE, 0.1)
    assert classify(failure).disposition is Disposition.REJECTED


@pytest.mark.parametrize("encoding", ["br", "zstd"])
def test_it_fails_its_row_once_and_by_name(bench: Bench, encoding: str) -> None:
    path = bench.file("in.csv", "text\none\ntwo\n")
    odd = {"content-encoding": encoding, "content-type": "application/json"}
    bench.answers = lambda asked: (
        ScriptedResponse(headers=odd, body=b"\x8b\x02\x80binary")
        if asked["messages"][-1]["content"] == "two"
        else ScriptedResponse(body=chat_body("fine"))
    )
    words = ("run", "-p", "{{ text }}", path, "-o", bench.folder / "out.csv", "-c", 1)
    for _ in range(2):
        bench.run(*words, status=1)
        good, bad = bench.out("out.csv")
        assert (good["response"], bad["attempts"]) == ("fine", "1")
        assert f"in the encoding {encoding}" in bad["error"]
    assert bench.server.ledger.requests == 2


def test_an_answer_labelled_gzip_that_is_plain_is_read(bench: Bench) -> None:
    path = bench.file("in.csv", "text\none\n")
    headers = {"content-encoding": "gzip", "content-type": "application/json"}
    bench.answers = lambda asked: ScriptedResponse(headers=headers, body=chat_body("fine"))
    bench.run("run", "-p", "{{ text }}", path, "-o", bench.folder / "out.csv")
    assert bench.out("out.csv")[0]["response"] == "fine"
