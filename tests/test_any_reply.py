"""Whatever a reply holds, reading it gives a verdict, an answer and limits, and no exception, in any run."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.answer import Reader
from batchllm.limiter.headers import read as levels
from batchllm.records import Response
from batchllm.retry import Disposition, classify
from batchllm.simulator import ScriptedResponse
from batchllm.template import AnswerSpec
from tests.bench import Bench
from tests.fakes import chat_body

READERS = [
    Reader(AnswerSpec("response")),
    Reader(AnswerSpec("code", read="code")),
    Reader(AnswerSpec("label", read="label", labels=("good", "bad"))),
    Reader(AnswerSpec("response", read="json", schema="topic, number int, ok bool")),
]

odd_text = st.text(st.characters(codec=None), max_size=40) | st.sampled_from(
    ["²", "٤٢٩", "429", "\ud800", "1" * 5000, "inf", "NaN", "insufficient_quota", "rate_limit", "-1", "1e999"]
)
scalars = (
    st.none() | st.booleans() | st.integers() | st.sampled_from([10**30, 10**4000, -(10**4200)])
    | st.floats() | odd_text
)  # fmt: skip
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(odd_text, inner, max_size=3), max_leaves=8
)  # fmt: skip


def shape(**fields: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


WORDS = {"message": values, "code": values, "type": values, "status": values, "param": values}
DETAILS = values | st.lists(shape(retryDelay=values, **{"@type": values}), max_size=2)
OPENROUTER = values | shape(raw=values, headers=values | st.dictionaries(odd_text, values, max_size=3))
errors = st.one_of(
    shape(error=values | shape(**WORDS)),  # OpenAI, Groq, Together
    shape(error=shape(**WORDS, innererror=values | shape(code=values))),  # Azure
    shape(type=values, error=shape(**WORDS), request_id=values),  # Anthropic
    st.lists(shape(error=shape(**WORDS, details=DETAILS)), max_size=2),  # Gemini
    shape(error=shape(**WORDS, metadata=OPENROUTER), user_id=values),  # OpenRouter
    shape(detail=values | st.lists(shape(loc=values, msg=values), max_size=2)),  # FastAPI, vLLM
    shape(object=values, **WORDS),  # vLLM, Mistral, DeepInfra
    shape(errors=values | st.lists(shape(**WORDS), max_size=2)),
    shape(error=values, error_type=values, error_description=values, message=values),  # Ollama, gateways
    shape(base_resp=shape(status_code=values, status_msg=values), choices=values),  # MiniMax
    shape(statusCode=values, message=values, msg=values),  # gateways of clouds
    shape(error_code=values, error_msg=values, id=values),  # Qianfan
    shape(Response=values | shape(Error=values | shape(Code=values, Message=values))),  # Tencent
    shape(__type=values, message=values, Message=values, Output=values | shape(__type=values)),  # Bedrock
    shape(success=values, errors=values | st.lists(shape(**WORDS), max_size=2), result=values),  # Cloudflare
    shape(fault=values | shape(faultstring=values, detail=values | shape(errorcode=values))),  # Apigee
    shape(title=values, status=values, detail=values, instance=values, errors=values),  # RFC 9457, Replicate
    shape(error=values, error_type=values, estimated_time=values, retry_after=values),  # TGI
    shape(header=values | shape(code=values, message=values, status=values), payload=values),  # Spark
    shape(status=values | shape(code=values, description=values, details=values), data=values),  # Clarifai
    shape(
        choices=values
        | st.lists(
            shape(
                finish_reason=values,
                error=values,
                message=values | shape(content=values, tool_calls=values, refusal=values, reasoning=values),
            ),
            max_size=2,
        ),
        usage=values | shape(prompt_tokens=values, completion_tokens=values, prompt_tokens_details=values),
        created=values, model=values, id=values, error=values,
    ),
)  # fmt: skip
nested = st.integers(1, 6000).map(lambda depth: b'{"error":' + b"[" * depth + b"]" * depth + b"}")
chunks = shape(
    choices=values | st.lists(
        shape(
            index=values, finish_reason=values, text=values, message=values,
            delta=values | shape(
                content=values, reasoning_content=values, refusal=values,
                tool_calls=values | st.lists(
                    shape(index=values, id=values, function=values | shape(name=values, arguments=values)), max_size=2
                ),
            ),
        ),
        max_size=2,
    ),
    usage=values, error=values,
)  # fmt: skip
digits = st.integers(1, 6000).map(lambda count: b'{"error":{"code":' + b"9" * count + b"}}")


def written(value: Any) -> bytes:
    """JSON with NaN, integers of any size and lone surrogates, escaped."""
    return json.dumps(value).encode()


def streamed(events: list[Any]) -> bytes:
    return b"".join(b"data: " + written(event) + b"\n\n" for event in events)


streams = st.lists(chunks | values, max_size=4).map(streamed) | st.binary(max_size=99).map(b"data: ".__add__)
bodies = st.binary(max_size=200) | streams | (values | errors).map(written) | nested | digits
names = st.sampled_from(
    ["retry-after", "retry-after-ms", "date", "x-ratelimit-limit-requests", "x-ratelimit-remaining-requests",
     "x-ratelimit-reset-requests", "x-ratelimit-reset", "x-ratelimit-limit", "x-ratelimit-remaining", "ratelimit",
     "ratelimit-policy", "ratelimit-reset", "x-should-retry", "location", "anthropic-ratelimit-tokens-reset"]
) | odd_text  # fmt: skip
headers = st.dictionaries(names, odd_text, max_size=6)
statuses = st.sampled_from(
    [200, 201, 302, 400, 401, 402, 403, 404, 413, 422, 429, 500, 503, 529]
) | st.integers(100, 999)


def holds(status: int, headers: dict[str, str], body: bytes) -> None:
    verdict = classify(Response(status, headers, body, 0.1))
    verdict.message.encode()
    assert verdict.retry_after_s is None or 0 <= verdict.retry_after_s <= 86_400
    assert all(level.limit > 0 for level in levels(headers))
    for reader in READERS:
        answer = reader.read(status, body)
        assert answer.reason != "unreadable"
        (answer.error or "").encode()


@settings(max_examples=400, deadline=None)
@given(statuses, headers, bodies)
def test_nothing_that_a_reply_holds_raises(status: int, headers: dict[str, str], body: bytes) -> None:
    holds(status, headers, body)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from([200, 400, 403, 429, 500]), errors)
def test_no_field_of_an_error_in_any_vendors_shape_raises(status: int, body: Any) -> None:
    holds(status, {}, written(body))


def test_what_no_reader_foresees_is_its_rows_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(body: bytes) -> Any:
        raise ArithmeticError("odd")

    monkeypatch.setattr("batchllm.answer.reader.parse_reply", broken)
    monkeypatch.setattr("batchllm.retry.reading.parse_reply", broken)
    monkeypatch.setattr("batchllm.retry.reading.read_error", broken)
    answer = READERS[0].read(200, chat_body())
    assert (answer.reason, answer.error) == ("unreadable", "the response cannot be read (ArithmeticError)")
    assert classify(Response(200, {}, chat_body(), 0.1)).disposition is Disposition.ANSWERED
    assert classify(Response(429, {}, b"{}", 0.1)).disposition is Disposition.REJECTED


@pytest.mark.parametrize(
    "body",
    [
        '{"error":{"message":"quota","code":"²"}}'.encode(),
        b'{"error":{"message":{"a":' + b"[" * 900 + b"]" * 900 + b'},"code":1e400}}',
        b'{"choices":[{"message":{"content":"\\ud800"}}],"error":{"code":' + b"7" * 5000 + b"}}",
    ],
)
def test_a_saved_reply_that_cannot_be_read_fails_its_row_in_this_run_and_in_later_ones(
    bench: Bench, body: bytes
) -> None:
    path = bench.file("in.csv", "text\nfirst\nodd\nlast\n")
    headers = {"content-type": "application/json"}
    bench.answers = lambda asked: ScriptedResponse(
        headers=headers,
        body=body if asked["messages"][-1]["content"] == "odd" else chat_body("fine"),
    )
    words = ("run", "-p", "{{ text }}", path, "-o", bench.folder / "out.csv", "--max-attempts", 1)
    for _ in range(2):
        bench.run(*words, status=1)
        errors = [row["error"] for row in bench.out("out.csv")]
        assert [bool(error) for error in errors] == [False, True, False]
