"""Server-sent events though no stream was asked for are one answer, paid once."""

import json
from typing import Any

import pytest

from batchllm.answer import Reader
from batchllm.event_stream import parse_reply
from batchllm.records import AnswerSpec, Response, Usage
from batchllm.retry import Disposition, classify
from batchllm.simulator import ScriptedResponse
from tests.bench import Bench


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return {
        "id": "c",
        "object": "chat.completion.chunk",
        "created": 7,
        "model": "m",
        "choices": choices,
        **more,
    }


def stream(*events: Any, end: str = "\n\n", done: bool = True) -> bytes:
    lines = [f"data: {json.dumps(event)}" for event in events] + (["data: [DONE]"] if done else [])
    return "".join(line + end for line in lines).encode()


USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
TALK = [chunk({"role": "assistant", "content": ""}), chunk({"content": "Hel"}), chunk({"content": "lo"}),
        chunk({}, "stop"), chunk(usage=USAGE)]  # fmt: skip


@pytest.mark.parametrize(
    "body",
    [
        stream(*TALK),
        stream(*TALK, end="\r\n\r\n"),
        stream(*TALK, end="\n"),
        stream(*TALK, done=False),
        b": OPENROUTER PROCESSING\n\n" + stream(*TALK),
        b"\xef\xbb\xbf\n" + stream(*TALK),
        stream(*TALK).replace(b"data: ", b"event: message\nid: 1\ndata:"),
        stream(*TALK).rstrip(),
    ],
)
def test_the_deltas_of_a_stream_are_one_answer(body: bytes) -> None:
    assert classify(Response(200, {}, body, 0.1)).disposition is Disposition.ANSWERED
    answer = Reader(AnswerSpec("response")).read(200, body)
    assert answer.error is None
    assert (answer.columns, answer.finish_reason, answer.usage) == (
        {"response": "Hello"},
        "stop",
        Usage(5, 2, 7),
    )
    assert (answer.model, answer.response_id, answer.created) == ("m", "c", 7)


def test_a_whole_completion_in_one_event_is_an_answer() -> None:
    whole = {
        "choices": [{"index": 0, "message": {"content": "Hello"}, "finish_reason": "stop"}],
        "usage": USAGE,
    }
    assert Reader(AnswerSpec("response")).read(200, stream(whole)).text == "Hello"


def test_tool_calls_of_a_stream_are_joined() -> None:
    def call(index: int, **function: str) -> dict[str, Any]:
        return {"index": index, "function": function}

    body = stream(
        chunk({"tool_calls": [call(0, name="f", arguments="") | {"id": "a", "type": "function"}]}),
        chunk({"tool_calls": [call(0, arguments='{"x"')]}),
        chunk({"tool_calls": [call(1, name="g", arguments="{}") | {"id": "b", "type": "function"}]}),
        chunk({"tool_calls": [call(0, arguments=": 1}")]}, "tool_calls"),
    )
    calls = parse_reply(body)["choices"][0]["message"]["tool_calls"]
    assert calls == [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}},
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]


def test_a_stream_without_its_end_is_no_answer_and_may_have_been_billed() -> None:
    body = stream(*TALK[:3], done=False)
    verdict = classify(Response(200, {}, body, 0.1))
    assert (verdict.disposition, verdict.reason) == (Disposition.UNKNOWN, "stream_cut")
    answer = Reader(AnswerSpec("response")).read(200, body)
    assert answer.columns == {} and "ended before the answer did" in str(answer.error)


@pytest.mark.parametrize(
    ("status", "event", "disposition"),
    [
        (200, {"error": {"message": "Rate limit exceeded", "code": 429}}, Disposition.REFUSED),
        (429, {"error": {"message": "Rate limit exceeded"}}, Disposition.REFUSED),
        (200, {"error": {"message": "it broke", "code": 502}}, Disposition.TRANSIENT),
    ],
)
def test_an_error_in_a_stream_is_an_error(status: int, event: Any, disposition: Disposition) -> None:
    body = b"event: error\n" + stream(event, done=False)
    assert classify(Response(status, {}, body, 0.1)).disposition is disposition
    answer = Reader(AnswerSpec("response")).read(status, body)
    assert event["error"]["message"] in str(answer.error)


def test_an_error_after_half_an_answer_is_an_error() -> None:
    body = stream(*TALK[:2], {"error": {"message": "upstream gone", "code": 502}}, done=False)
    assert classify(Response(200, {}, body, 0.1)).reason == "http_502"


def test_a_stream_costs_one_attempt(bench: Bench) -> None:
    path = bench.file("in.csv", "text\none\n")
    headers = {"content-type": "text/event-stream"}
    bench.answers = lambda asked: ScriptedResponse(headers=headers, body=stream(*TALK))
    bench.run("run", "-p", "{{ text }}", path, "-o", bench.folder / "out.csv")
    (row,) = bench.out("out.csv")
    assert (row["response"], row["attempts"], row["completion_tokens"], row["error"]) == (
        "Hello",
        "1",
        "2",
        "",
    )
    assert bench.server.ledger.requests == 1


def test_a_reply_is_parsed_once_to_be_judged_and_read(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[bytes] = []

    def parse(body: bytes) -> Any:
        parsed.append(body)
        return json.loads(body)

    monkeypatch.setattr("batchllm.event_stream.parse_json", parse)
    reader = Reader(AnswerSpec("response", "text"))
    for text in ("one", "two"):
        body = json.dumps({"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}).encode()
        assert classify(Response(200, {}, body, 0.0)).disposition is Disposition.ANSWERED
        assert reader.read(200, body).text == text
    assert len(parsed) == 2
