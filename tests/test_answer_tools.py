"""Tool calls are held against the tools that were offered, whatever the kind of the answer."""

import json
from typing import Any

import pytest

from batchllm.answer import Reader
from batchllm.records import Answer, AnswerSpec
from batchllm.simulator import ScriptedResponse
from tests.bench import CALL, WEATHER, Bench
from tests.fakes import chat_body

CITY = {"type": "function", "function": {"name": "get_weather"}}
SPECS = {
    "text": AnswerSpec("response"),
    "label": AnswerSpec("label", "label", ("a", "b")),
    "json": AnswerSpec("r", "json", schema="topic"),
    "code": AnswerSpec("code", "code"),
}


def call(name: Any = "get_weather", arguments: Any = '{"city": "Paris"}') -> dict[str, Any]:
    return {"id": "c", "type": "function", "function": {"name": name, "arguments": arguments}}


def read(
    *calls: Any, kind: str = "text", offered: Any = (WEATHER,), choice: Any = None, finish: str = "tool_calls",
    text: str | None = None,
) -> Answer:  # fmt: skip
    spec = SPECS[kind]
    spec = AnswerSpec(spec.column, spec.read, spec.labels, spec.schema, offered, choice)
    message = {"content": text, "tool_calls": list(calls)}
    body = {"choices": [{"message": message, "finish_reason": finish}]}
    return Reader(spec).read(200, json.dumps(body).encode())


@pytest.mark.parametrize("kind", SPECS)
def test_a_tool_call_where_no_tools_were_offered_is_a_failure(kind: str) -> None:
    answer = read(CALL, kind=kind, offered=())
    assert answer.error == "the model called the tool get_weather, but no tools were offered"
    assert (answer.reason, answer.columns) == ("tool_call", {})


@pytest.mark.parametrize("kind", SPECS)
def test_a_call_of_an_offered_tool_is_an_answer(kind: str) -> None:
    answer = read(CALL, kind=kind)
    assert (answer.error, answer.tool_calls) == (None, [CALL])


@pytest.mark.parametrize(
    ("calls", "more", "said"),
    [
        ([call("get_wether")], {}, "the tool get_wether, which was not offered"),
        ([call(None)], {}, "names no tool"),
        ([call(), call("other")], {}, "the tool other, which was not offered"),
        ([call(arguments='{"city": "Par')], {}, "the arguments of get_weather are not JSON: it is cut off"),
        ([call(arguments="Paris, please")], {}, "the arguments of get_weather are not JSON"),
        ([call(arguments="[1]")], {}, "the arguments of get_weather are not a JSON object"),
        ([call(arguments='{"town": "Paris"}')], {}, "'city' is a required property"),
        (
            [call(arguments='{"city": "Par')],
            {"finish": "length"},
            "cut within the arguments of get_weather; raise",
        ),
        (
            [],
            {"choice": "required", "text": "It is sunny."},
            "a tool call was required, and the answer has none: It",
        ),
        ([], {"choice": CITY, "text": "It is sunny."}, "a tool call was required"),
        ([call()], {"choice": "none"}, "no tools were offered"),
        ([call("other")], {"text": "It is sunny."}, "the tool other, which was not offered"),
    ],
)
def test_a_call_that_cannot_be_made_is_a_failure_that_says_so(
    calls: list[Any], more: dict[str, Any], said: str
) -> None:
    answer = read(*calls, **more)
    assert answer.error is not None and said in answer.error
    assert answer.columns == {}


@pytest.mark.parametrize(
    ("arguments", "written"),
    [
        ("{'city': 'Paris',}", '{"city": "Paris"}'),
        ('{"city": "Pa\nris"}', '{"city": "Pa\\nris"}'),
        ('{"city": "Paris"} ', '{"city": "Paris"} '),
    ],
)
def test_arguments_that_are_read_leniently_are_written_as_json(arguments: str, written: str) -> None:
    answer = read(call(arguments=arguments))
    assert answer.error is None and answer.tool_calls is not None
    assert answer.tool_calls[0]["function"]["arguments"] == written


@pytest.mark.parametrize("arguments", ["", None, {}, "{}"])
def test_a_tool_without_parameters_needs_no_arguments(arguments: Any) -> None:
    tool = {"type": "function", "function": {"name": "now"}}
    assert read(call("now", arguments), offered=(tool,)).error is None


def test_an_object_as_arguments_is_taken() -> None:
    assert read(call(arguments={"city": "Paris"})).error is None


def test_tools_of_other_kinds_are_not_checked() -> None:
    assert read(call("search", "{}"), offered=({"type": "web_search"},)).error is None


def test_the_older_form_of_a_call_is_a_call() -> None:
    body = {
        "choices": [{"message": {"function_call": {"name": "f", "arguments": "{}"}}, "finish_reason": "stop"}]
    }
    answer = Reader(AnswerSpec("r")).read(200, json.dumps(body).encode())
    assert answer.tool_calls == [{"type": "function", "function": {"name": "f", "arguments": "{}"}}]


def test_the_tools_that_a_row_brings_are_its_own(bench: Bench) -> None:
    own = {"type": "function", "function": {"name": "own", "parameters": {"type": "object"}}}
    path = bench.file("in.jsonl", [{"text": "one", "tools": [own]}, {"text": "two"}])

    def answers(asked: dict[str, Any]) -> ScriptedResponse:
        body = json.loads(chat_body(None))
        body["choices"][0]["message"]["tool_calls"] = [call("own", "{}")]
        return ScriptedResponse(body=json.dumps(body).encode(), headers={"content-type": "application/json"})

    bench.answers = answers
    for _ in range(2):
        bench.run("run", path, "-o", bench.folder / "out.jsonl", status=1)
        assert [bool(row["error"]) for row in bench.out("out.jsonl")] == [False, True]
    assert bench.server.ledger.requests == 2


def test_a_prompt_with_required_tools_answered_in_text_fails_its_row(bench: Bench) -> None:
    tools = bench.file("tools.json", json.dumps([WEATHER]))
    path = bench.file("in.csv", "text\none\n")
    bench.dictate("It is sunny.")
    words = ("--tools", tools, "--tool-choice", "required", "-o", bench.folder / "out.csv")
    bench.run("run", "-p", "{{ text }}", path, *words, status=1)
    assert "a tool call was required" in bench.out("out.csv")[0]["error"]
