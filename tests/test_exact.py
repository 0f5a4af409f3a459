"""Integers beyond 64 bits keep their digits, wherever JSON is read and written back."""

import json

import pytest

from batchllm.answer import Reader
from batchllm.batch.lines import error_response
from batchllm.exact import loads
from batchllm.simulator import ScriptedResponse
from batchllm.template import AnswerSpec
from tests.bench import Bench
from tests.fakes import chat_body

TRACKING = 9400111899223100001234


@pytest.mark.parametrize(
    "number", [0, -1, 2**63, -(2**63) - 1, 2**64 - 1, 2**64, TRACKING, -TRACKING, 10**4000]
)
def test_an_integer_of_any_length_is_read_as_it_is_written(number: int) -> None:
    text = json.dumps({"a": [number]})
    assert loads(text) == loads(text.encode()) == {"a": [number]}
    assert type(loads(text)["a"][0]) is int


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_schema_answer_keeps_its_digits(bench: Bench, suffix: str) -> None:
    path = bench.file(f"in.{suffix}", "text\nx\n" if suffix == "csv" else '{"text":"x"}\n')
    bench.dictate(f'Here it is: ```json\n{{"tracking": {TRACKING}, "parts": [{TRACKING}]}}\n```')
    schema = {"type": "object", "properties": {"tracking": {"type": "integer"}, "parts": {"type": "array"}}}
    file = bench.file("schema.json", json.dumps(schema))
    output = bench.folder / f"out.{suffix}"
    bench.run("run", "-p", "{{ text }}", path, "--schema", file, "-o", output)
    assert output.read_text("utf-8-sig").count(str(TRACKING)) == 2
    (row,) = bench.out(output.name)
    assert str(row["tracking"]) == str(TRACKING)


def test_the_short_form_of_a_schema_keeps_the_digits(bench: Bench) -> None:
    path = bench.file("in.csv", "text\nx\n")
    bench.dictate(f'{{"tracking": {TRACKING}}}')
    bench.run("run", "-p", "{{ text }}", path, "--schema", "tracking int", "-o", bench.folder / "out.csv")
    assert [row["tracking"] for row in bench.out("out.csv")] == [str(TRACKING)]


def test_digits_of_input_parameters_and_tool_calls_survive(bench: Bench) -> None:
    path = bench.file("in.jsonl", f'{{"text":"x","number":{TRACKING}}}\n')
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": {"number": TRACKING}}}
    bench.answers = lambda _: _calls(call)
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    tools = bench.file("tools.json", json.dumps([tool]))
    words = ("--tools", tools, "--param", f"other={TRACKING}", "-o", bench.folder / "out.jsonl")
    bench.run("run", "-p", "{{ row.number }} {{ row | tojson }}", path, *words)
    assert bench.bodies[0].count(str(TRACKING).encode()) == 3
    text = (bench.folder / "out.jsonl").read_text()
    assert text.count(str(TRACKING)) == 2


def test_a_second_question_repeats_the_digits_of_the_first(bench: Bench) -> None:
    path = bench.file("in.csv", "text\nx\n")
    bench.dictate("no json", f'{{"tracking": {TRACKING}}}')
    words = ("--schema", "tracking int", "--reask", 1, "--param", f"other={TRACKING}")
    bench.run("run", "-p", "{{ text }}", path, *words, "-o", bench.folder / "out.csv")
    assert [body.count(str(TRACKING).encode()) for body in bench.bodies] == [1, 1]


def test_a_huge_usage_figure_is_unknown_and_no_failure() -> None:
    body = json.loads(chat_body("fine"))
    body["usage"]["prompt_tokens"] = TRACKING
    answer = Reader(AnswerSpec("response")).read(200, json.dumps(body).encode())
    assert (answer.text, answer.error, answer.usage.prompt_tokens) == ("fine", None, None)


def test_what_a_batch_says_of_a_line_may_hold_any_number() -> None:
    assert loads(error_response({"code": TRACKING}).body) == {"error": {"code": TRACKING}}


def _calls(call: object) -> ScriptedResponse:
    body = json.loads(chat_body(None))
    body["choices"][0]["message"]["tool_calls"] = [call]
    return ScriptedResponse(body=json.dumps(body).encode(), headers={"content-type": "application/json"})
