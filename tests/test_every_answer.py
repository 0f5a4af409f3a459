"""Answers of every kind through the command: tool calls, data, refusals, reasoning; asked for and read."""

import json
from typing import Any

import orjson
import pytest

from tests.bench import CALL, WEATHER, Bench, wire


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ((), {}),
        (("--tool-choice", "required"), {"tool_choice": "required"}),
        (
            ("--tool-choice", "get_weather"),
            {"tool_choice": {"type": "function", "function": {"name": "get_weather"}}},
        ),
    ],
)
def test_tool_calls_come_back_in_a_column(
    bench: Bench, choice: tuple[str, ...], sent: dict[str, Any]
) -> None:
    bench.file("tools.json", json.dumps([WEATHER]))
    bench.file("questions.csv", "text\nHow is the weather in Paris?\n")
    said = bench.run(
        "run",
        "-p",
        "{{ text }}",
        bench.folder / "questions.csv",
        "--tools",
        bench.folder / "tools.json",
        *choice,
    )
    body = {
        "model": "gpt-4",
        "messages": [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": "How is the weather in Paris?"},
        ],
        **sent,
        "tools": [WEATHER],
    }
    assert bench.bodies == [wire(body)]
    (row,) = bench.out("questions.run.csv")
    assert (row["finish_reason"], row["response"], row["error"]) == ("tool_calls", "", "")
    (call,) = json.loads(row["tool_calls"])
    assert call["function"]["name"] == "get_weather"
    assert set(json.loads(call["function"]["arguments"])) == {"city"}
    assert "Finish reasons: tool_calls 1" in said.err


SHORT = "topic, urgent bool, score float: from 0 to 1"
SCHEMA = {
    "type": "object",
    "properties": {
        "topic": {"type": "string"},
        "urgent": {"type": "boolean"},
        "score": {"type": "number", "description": "from 0 to 1"},
    },
    "required": ["topic", "urgent", "score"],
    "additionalProperties": False,
}
FITS = '{"topic": "toaster", "urgent": true, "score": 0.5}'


@pytest.mark.parametrize("given_as", ["short", "file"])
def test_a_schema_is_asked_for_and_its_fields_are_columns(bench: Bench, given_as: str) -> None:
    schema: object = SHORT if given_as == "short" else bench.file("schema.json", json.dumps(SCHEMA))
    bench.file("mails.csv", "text\nThe toaster burns!\n")
    bench.dictate(f"```json\n{FITS}\n```")
    bench.run("run", "-p", "{{ text }}", bench.folder / "mails.csv", "--schema", schema)
    body = orjson.loads(bench.bodies[0])
    asked = {"name": "answer", "schema": SCHEMA, "strict": True}
    assert body["response_format"] == {"type": "json_schema", "json_schema": asked}
    (row,) = bench.out("mails.run.csv")
    assert list(row)[:4] == ["text", "topic", "urgent", "score"]
    assert (row["topic"], row["urgent"], row["score"], row["error"]) == ("toaster", "true", "0.5", "")


def test_an_answer_that_does_not_fit_is_asked_for_once_more_with_the_reason(bench: Bench) -> None:
    wrong = '{"topic": "toaster", "urgent": "very", "score": 0.5}'
    bench.dictate(wrong, FITS)
    bench.file("mails.jsonl", [{"text": "The toaster burns!"}])
    words = ("run", "-p", "{{ text }}", bench.folder / "mails.jsonl", "--schema", SHORT)
    said = bench.run(*words)
    first, second = map(orjson.loads, bench.bodies)
    answer, complaint = second["messages"][len(first["messages"]) :]
    assert second == {**first, "messages": [*first["messages"], answer, complaint]}
    assert answer == {"role": "assistant", "content": wrong}
    assert complaint["role"] == "user"
    assert "$.urgent: 'very' is not of type 'boolean'" in complaint["content"]
    output = bench.folder / "mails.run.jsonl"
    (row,) = bench.out("mails.run.jsonl")
    assert (row["topic"], row["urgent"], row["attempts"], row["error"]) == ("toaster", True, 2, None)
    assert "Tried again: schema 1" in said.err
    bench.run(*words)
    assert len(bench.bodies) == 2, "what was asked for once more is paid, too"
    copy = bench.folder / "copy.jsonl"
    assert bench.command("export", output, "-o", copy).status == 0
    assert copy.read_bytes() == output.read_bytes(), "the last answer is the row's"
    shown = bench.command("show", output, 1).out
    assert wire(second).decode() in shown and "'very' is not of type" in shown


def test_an_answer_that_never_fits_fails_its_row_with_the_reason(bench: Bench) -> None:
    bench.dictate("no JSON at all")
    bench.file("mails.jsonl", [{"text": "The toaster burns!"}])
    words = ("run", "-p", "{{ text }}", bench.folder / "mails.jsonl", "--schema", SHORT, "--no-early-stop")
    bench.run(*words, status=1)
    assert len(bench.bodies) == 2
    (row,) = bench.out("mails.run.jsonl")
    assert "the answer is not JSON" in row["error"]
    assert (row["topic"], row["attempts"]) == (None, 2)
    bench.run(*words, "--reask", 0, "--retry-failed", status=1)
    assert len(bench.bodies) == 3


def test_an_endpoint_without_schemas_is_asked_in_words_and_held_to_them(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEEPSEEK_API_KEY", "sk-x")
    bench.dictate(FITS)
    bench.file("mails.csv", "text\nThe toaster burns!\n")
    bench.run(
        "run", "-p", "{{ text }}", bench.folder / "mails.csv", "--schema", SHORT, "--provider", "deepseek"
    )
    body = orjson.loads(bench.bodies[0])
    assert body["response_format"] == {"type": "json_object"}
    assert '"urgent":{"type":"boolean"}' in body["messages"][0]["content"]
    assert bench.out("mails.run.csv")[0]["urgent"] == "true"


# -- finish reasons and reasoning ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "status", "columns"),
    [
        ({"message": {"content": "x"}, "finish_reason": "stop"}, 0, ("x", "stop", None)),
        ({"message": {"content": "cut te"}, "finish_reason": "length"}, 0, ("cut te", "length", None)),
        (
            {"message": {"tool_calls": [CALL]}, "finish_reason": "tool_calls"},
            1,
            (None, "tool_calls", "called the tool get_weather, but no tools were offered"),
        ),
        ({"message": {"content": "x"}}, 0, ("x", None, None)),
        ({"finish_reason": "content_filter"}, 1, (None, "content_filter", "content filter")),
        (
            {"message": {"refusal": "I cannot."}, "finish_reason": "stop"},
            1,
            (None, "stop", "refused: I cannot."),
        ),
        ({"finish_reason": "stop"}, 1, (None, "stop", "neither text nor tool calls")),
        ({"finish_reason": "length"}, 1, (None, "length", "--max-tokens, or lower --reasoning-effort")),
    ],
)
def test_every_finish_reason_is_a_status_and_is_counted(
    bench: Bench, choice: dict[str, Any], status: int, columns: tuple[str | None, str | None, str | None]
) -> None:
    bench.complete(**choice)
    bench.file("rows.jsonl", [{"text": "Hello"}])
    said = bench.run("run", "-p", "{{ text }}", bench.folder / "rows.jsonl", "--no-early-stop", status=status)
    (row,) = bench.out("rows.run.jsonl")
    response, finish_reason, error = columns
    assert (row["response"], row["finish_reason"]) == (response, finish_reason)
    assert (error or "") in (row["error"] or "")
    assert (error is None) == (row["error"] is None)
    assert f"Finish reasons: {finish_reason or 'none'} 1" in said.err


def test_a_reasoning_model_is_asked_for_the_visible_answer_and_read_without_its_thoughts(
    bench: Bench,
) -> None:
    bench.complete(message={"content": "<think>positive? yes</think>\n\npositive"}, finish_reason="stop")
    bench.file("rows.jsonl", [{"text": "I love it"}])
    words = ("classify", bench.folder / "rows.jsonl", "--add", "reasoning_tokens,cached_tokens")
    said = bench.command(*words, "--base-url", bench.server.base_url, "-m", "gpt-5-mini")
    assert said.status == 0, said.err
    body = orjson.loads(bench.bodies[0])
    assert list(body) == ["model", "messages", "max_completion_tokens", "reasoning_effort"]
    assert body["reasoning_effort"] == "minimal"
    assert body["max_completion_tokens"] > 10
    (row,) = bench.out("rows.classify.jsonl")
    assert (row["label"], row["reasoning_tokens"], row["cached_tokens"]) == ("positive", 16, 4)
