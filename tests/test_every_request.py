"""One job of each kind through the command: the body that a server receives, byte for byte, and the written columns.

The bodies are the API's own examples (roles, temperature, turns, vision, the three usual tasks) as JSON has them;
``wire`` writes them down the way they go out: compact, UTF-8, model and messages first, parameters by name.
"""

import base64
import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest

from batchllm.simulator import Running, Scripted, SimulatorSettings, start_in_thread
from tests.command import Command, Said
from tests.fakes import chat_body

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'},
}


def wire(body: dict[str, Any]) -> bytes:
    """A body as it goes out."""
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of an output."""
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


Answers = Callable[[dict[str, Any]], Scripted | None]


@dataclass
class Bench:
    """A folder, the command, and a server that keeps what it receives.

    Attributes:
        answers: Dictates answers; ``None`` leaves one to the simulator.
    """

    folder: Path
    command: Command
    server: Running = field(init=False)
    answers: Answers = lambda body: None

    def file(self, name: str, content: str | bytes | list[dict[str, Any]]) -> Path:
        path = self.folder / name
        if isinstance(content, list):
            content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def run(self, *words: object, status: int = 0) -> Said:
        """Runs a command on this server."""
        said = self.command(*words, "--base-url", self.server.base_url, "-m", "gpt-4")
        assert said.status == status, said.err
        return said

    def out(self, name: str) -> list[dict[str, Any]]:
        return read(self.folder / name)

    @property
    def bodies(self) -> list[bytes]:
        """The bodies received, in the order of their arrival."""
        return [received.body for received in self.server.received]

    def dictate(self, *texts: str) -> None:
        """Answers with these texts in turn, the last one again and again."""
        left = list(texts)
        self.answers = lambda body: Scripted(body=chat_body(left.pop(0) if len(left) > 1 else left[0]))

    def complete(self, **choice: Any) -> None:
        """Answers with one choice of this shape, and usage with details."""
        message = {"role": "assistant", "content": None, **choice.pop("message", {})}
        usage = {
            "prompt_tokens": 9, "completion_tokens": 20, "total_tokens": 29,
            "prompt_tokens_details": {"cached_tokens": 4},
            "completion_tokens_details": {"reasoning_tokens": 16},
        }  # fmt: skip
        body = orjson.loads(chat_body("")) | {
            "choices": [{"index": 0, "message": message, **choice}],
            "usage": usage,
        }
        self.answers = lambda _: Scripted(body=body)


@pytest.fixture
def bench(tmp_path: Path, batchllm: Command) -> Iterator[Bench]:
    bench = Bench(tmp_path, batchllm)
    settings = SimulatorSettings(keep_requests=100)
    with start_in_thread(settings, script=lambda body: bench.answers(body)) as bench.server:
        yield bench


# -- roles, messages, parameters -------------------------------------------------------------------------------


def test_messages_of_every_role_go_out_as_they_are(bench: Bench) -> None:
    weather = [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "What's the weather like?"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": "22 °C"},
    ]
    bench.file("jobs.jsonl", [{"id": 1, "messages": weather, "temperature": 0.7, "max_tokens": 150}])
    bench.run("run", bench.folder / "jobs.jsonl")
    sent = {"model": "gpt-4", "messages": weather, "max_tokens": 150, "temperature": 0.7}
    assert bench.bodies == [wire(sent)]
    (row,) = bench.out("jobs.run.jsonl")
    assert row["response"] == "Simulated answer (turn 1) to: What's the weather like? The tool said: 22 °C"
    assert (row["finish_reason"], row["error"], row["id"]) == ("stop", None, 1)
    assert row["total_tokens"] == row["prompt_tokens"] + row["completion_tokens"] > 0


def test_every_parameter_that_the_api_knows_can_stand_beside_the_messages(bench: Bench) -> None:
    hello = [{"role": "user", "content": "Hello"}]
    parameters = {
        "frequency_penalty": 0.5, "logit_bias": {"50256": -100}, "logprobs": True, "max_tokens": 5,
        "metadata": {"batch": "a"}, "parallel_tool_calls": False, "presence_penalty": -0.5,
        "response_format": {"type": "text"}, "seed": 7, "service_tier": "flex", "stop": ["\n", "END"], "temperature": 0,
        "tool_choice": "none", "tools": [WEATHER], "top_logprobs": 2, "top_p": 0.25, "user": "u-1",
    }  # fmt: skip
    bench.file("jobs.jsonl", [{"messages": hello, "model": "another", "note": "mine", **parameters}])
    bench.run("run", bench.folder / "jobs.jsonl")
    assert bench.bodies == [wire({"model": "another", "messages": hello, **parameters})]
    (row,) = bench.out("jobs.run.jsonl")
    assert (row["model"], row["response_model"], row["note"]) == ("another", "simulator", "mine")


def test_an_extra_body_goes_into_the_body_unchanged(bench: Bench) -> None:
    extra = {
        "top_k": 5,
        "provider": {"order": ["a", "b"]},
        "chat_template_kwargs": {"enable_thinking": False},
    }
    bench.file(
        "jobs.jsonl", [{"text": "Hello", "extra_body": extra, "temperature": None, "max_tokens": None}]
    )
    bench.run("run", bench.folder / "jobs.jsonl")
    sent = orjson.loads(bench.bodies[0])
    assert {name: sent[name] for name in extra} == extra
    assert sent["messages"][-1] == {"role": "user", "content": "Hello"}


def test_rows_with_tasks_are_mixed_in_one_file(bench: Bench) -> None:
    bench.file("mine.toml", '[[messages]]\nrole = "user"\ncontent = "Shout: {{ text }}"\n')
    rows = [
        {"task": "summarize", "text": "One thing. Another thing. A third.", "bullets": 2},
        {"task": "classify", "text": "I love it"},
        {"task": "codegen", "text": "a function that adds", "language": "Go"},
        {"task": "mine.toml", "text": "quiet"},
        {"text": "Nothing but text"},
    ]
    bench.file("jobs.jsonl", rows)
    bench.run("run", bench.folder / "jobs.jsonl", "-c", 1)
    sent = [orjson.loads(body) for body in bench.bodies]
    assert "2 bullet points" in sent[0]["messages"][0]["content"]
    assert [body["messages"][-1]["content"].partition("\n")[0] for body in sent[3:]] == [
        "Shout: quiet", "Nothing but text",
    ]  # fmt: skip
    assert [(body["temperature"], body["max_tokens"]) for body in sent[:3]] == [
        (0.3, 150),
        (0.0, 10),
        (0.2, 500),
    ]
    answers = [row["response"] for row in bench.out("jobs.run.jsonl")]
    assert answers[0] == "- One thing.\n- Another thing."
    assert answers[1] == "positive"
    assert answers[2].startswith("// a function that adds")


def test_lines_of_the_batch_api_are_sent_as_their_bodies(bench: Bench) -> None:
    bodies = [
        {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": f"Hello {n}"}], "max_tokens": n}
        for n in (1, 2)
    ]
    lines = [
        {"custom_id": f"request-{n}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        for n, body in enumerate(bodies, 1)
    ]
    bench.file("requests.jsonl", lines)
    bench.run("run", bench.folder / "requests.jsonl", "-c", 1)
    assert bench.bodies == [wire(body) for body in bodies]
    rows = bench.out("requests.run.jsonl")
    assert [row["custom_id"] for row in rows] == ["request-1", "request-2"]
    assert [row["body"] for row in rows] == bodies
    assert [row["finish_reason"] for row in rows] == ["length", "length"], "the cut text is an answer"
    assert all(row["response"] and row["error"] is None for row in rows)


def test_a_row_that_is_wrong_fails_alone_before_it_is_sent(bench: Bench) -> None:
    rows = [
        {"messages": [{"role": "usr", "content": "x"}]},
        {"task": "sumarize", "text": "x"},
        {"text": "fine"},
    ]
    bench.file("jobs.jsonl", rows)
    bench.run("run", bench.folder / "jobs.jsonl", status=1)
    assert len(bench.bodies) == 1
    errors = [row["error"] for row in bench.out("jobs.run.jsonl")]
    assert "did you mean user?" in errors[0]
    assert "did you mean summarize?" in errors[1]
    assert errors[2] is None


def test_a_template_has_examples_and_takes_parameters_from_columns(bench: Bench) -> None:
    template = """\
[[messages]]
role = "system"
content = "Give the opposite."
[[messages]]
role = "user"
content = "hot"
[[messages]]
role = "assistant"
content = "cold"
[[messages]]
role = "user"
content = "{{ word }}"
[parameters]
temperature = "{{ heat }}"
max_tokens = 3
[answer]
column = "opposite"
"""
    bench.file("opposite.toml", template)
    bench.file("words.csv", "word,heat\nbig,0.25\n")
    bench.run("run", "-t", bench.folder / "opposite.toml", bench.folder / "words.csv")
    messages = [
        {"role": "system", "content": "Give the opposite."},
        {"role": "user", "content": "hot"},
        {"role": "assistant", "content": "cold"},
        {"role": "user", "content": "big"},
    ]
    assert bench.bodies == [
        wire({"model": "gpt-4", "messages": messages, "max_tokens": 3, "temperature": 0.25})
    ]
    assert bench.out("words.opposite.csv")[0]["opposite"]


@pytest.mark.parametrize(
    ("words", "row", "system", "user", "parameters"),
    [
        (("summarize",), "text\nA long text.\n", "3 bullet points", "A long text.", (0.3, 150)),
        (("classify",), "text\n我喜欢这个产品！\n", "positive", "我喜欢这个产品！", (0.0, 10)),
        (("codegen",), "task\n编写一个计算斐波那契数的函数\n", "Python", "编写一个计算斐波那契数的函数", (0.2, 500)),
    ],
)  # fmt: skip
def test_the_three_tasks_ask_as_the_api_shows_it(
    bench: Bench, words: tuple[str, ...], row: str, system: str, user: str, parameters: tuple[float, int]
) -> None:
    bench.file("rows.csv", row)
    bench.run(*words, bench.folder / "rows.csv")
    body = orjson.loads(bench.bodies[0])
    assert list(body) == ["model", "messages", "max_tokens", "temperature"]
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert system in body["messages"][0]["content"]
    assert user in body["messages"][1]["content"]
    assert (body["temperature"], body["max_tokens"]) == parameters
    assert user.encode() in bench.bodies[0], "UTF-8, not escapes"


# -- conversations ---------------------------------------------------------------------------------------------


def test_turns_carry_what_was_said_before_them(bench: Bench) -> None:
    bench.dictate("15 * 12 = 180", "30")
    rows = [{"chat": "m", "text": "15 * 12 是多少?"}, {"chat": "m", "text": "现在把它除以 6"}]
    bench.file("turns.jsonl", rows)
    words = ("run", "-p", "{{ text }}", "-s", "你是一个数学导师。", bench.folder / "turns.jsonl")
    bench.run(*words, "--conversation", "chat")
    messages = [
        {"role": "system", "content": "你是一个数学导师。"},
        {"role": "user", "content": "15 * 12 是多少?"},
        {"role": "assistant", "content": "15 * 12 = 180"},
        {"role": "user", "content": "现在把它除以 6"},
    ]
    end = {"max_tokens": 150, "temperature": 0.7}
    assert bench.bodies == [
        wire({"model": "gpt-4", "messages": messages[:2], **end}),
        wire({"model": "gpt-4", "messages": messages, **end}),
    ]
    assert [row["response"] for row in bench.out("turns.run.jsonl")] == ["15 * 12 = 180", "30"]


def test_rows_with_their_own_messages_are_turns_too(bench: Bench) -> None:
    call = {**orjson.loads(chat_body(None))["choices"][0], "finish_reason": "tool_calls"}
    call["message"] = {"role": "assistant", "content": None, "tool_calls": [CALL]}

    def answers(body: dict[str, Any]) -> Scripted | None:
        asked = body["messages"][-1]["role"] == "user"
        return Scripted(body=orjson.loads(chat_body("")) | {"choices": [call]}) if asked else None

    bench.answers = answers
    rows = [
        {"chat": 1, "messages": [{"role": "user", "content": "The weather in Paris?"}], "tools": [WEATHER]},
        {
            "chat": 1,
            "messages": [{"role": "tool", "tool_call_id": "call_1", "content": "22 °C"}],
            "tools": [WEATHER],
        },
    ]
    bench.file("turns.jsonl", rows)
    bench.run("run", bench.folder / "turns.jsonl", "--conversation", "chat", "--add", "tool_calls")
    assert orjson.loads(bench.bodies[1])["messages"] == [
        {"role": "user", "content": "The weather in Paris?"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": "22 °C"},
    ]
    first, second = bench.out("turns.run.jsonl")
    assert (first["finish_reason"], first["tool_calls"], first["error"]) == ("tool_calls", [CALL], None)
    assert second["response"].endswith("The tool said: 22 °C")


# -- vision ----------------------------------------------------------------------------------------------------


def seen(url: str, detail: str) -> dict[str, Any]:
    content = [
        {"type": "text", "text": "这张图片里有什么?"},
        {"type": "image_url", "image_url": {"url": url, "detail": detail}},
    ]
    messages = [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": content},
    ]
    return {"model": "gpt-4", "messages": messages, "max_tokens": 300, "temperature": 0.7}


def test_images_are_parts_of_the_message_and_files_become_data(bench: Bench) -> None:
    data = "data:image/png;base64," + base64.b64encode(PNG).decode()
    (bench.folder / "photos").mkdir()
    bench.file("photos/dot.png", PNG)
    bench.file("secret.png", PNG)
    rows = [
        "https://example.com/image.jpg",
        data,
        "dot.png",
        "../secret.png",
        "file:///etc/passwd",
        "/etc/passwd",
    ]
    bench.file("images.jsonl", [{"photo": cell, "text": "这张图片里有什么?"} for cell in rows])
    words = ("run", "-p", "{{ text }}", bench.folder / "images.jsonl", "--image", "photo", "--detail", "high")
    said = bench.run(*words, "--media-root", bench.folder / "photos", "-c", 1, status=1)
    assert bench.bodies == [
        wire(seen("https://example.com/image.jpg", "high")), wire(seen(data, "high")), wire(seen(data, "high")),
    ]  # fmt: skip
    out = bench.out("images.run.jsonl")
    assert [row["error"] is None for row in out] == [True, True, True, False, False, False]
    assert "outside of --media-root" in out[3]["error"]
    assert "only http(s) and data URLs" in out[4]["error"]
    assert "Failed: 3 (image 3)" in said.err
    assert out[0]["response"].startswith("模拟回答：我收到了 1 张图片（detail: high）")


def test_several_image_columns_and_low_detail(bench: Bench) -> None:
    bench.file("pairs.csv", "before,after,text\nhttps://a/1.png,https://a/2.png,这张图片里有什么?\n")
    bench.run(
        "run", "-p", "{{ text }}", bench.folder / "pairs.csv", "--image", "before", "--image", "after",
        "--detail", "low", "--max-tokens", 20,
    )  # fmt: skip
    body = seen("https://a/1.png", "low") | {"max_tokens": 20}
    second = {"type": "image_url", "image_url": {"url": "https://a/2.png", "detail": "low"}}
    body["messages"][1]["content"].append(second)
    assert bench.bodies == [wire(body)]


# -- tools and structured answers ------------------------------------------------------------------------------


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
        "max_tokens": 150,
        "temperature": 0.7,
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
    (row,) = read(output)
    assert (row["topic"], row["urgent"], row["attempts"], row["error"]) == ("toaster", True, 2, None)
    assert "tried again: schema 1" in said.err
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
    words = ("run", "-p", "{{ text }}", bench.folder / "mails.jsonl", "--schema", SHORT, "--no-brake")
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
    assert '"urgent":{"type":"boolean"}' in body["messages"][1]["content"]
    assert bench.out("mails.run.csv")[0]["urgent"] == "true"


# -- finish reasons and reasoning ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "status", "columns"),
    [
        ({"message": {"content": "x"}, "finish_reason": "stop"}, 0, ("x", "stop", None)),
        ({"message": {"content": "cut te"}, "finish_reason": "length"}, 0, ("cut te", "length", None)),
        ({"message": {"tool_calls": [CALL]}, "finish_reason": "tool_calls"}, 0, ("", "tool_calls", None)),
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
    said = bench.run("run", "-p", "{{ text }}", bench.folder / "rows.jsonl", "--no-brake", status=status)
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


# -- tokens ----------------------------------------------------------------------------------------------------


def test_long_texts_fail_or_are_cut_as_asked_and_the_cut_ones_are_counted(bench: Bench) -> None:
    bench.file("texts.csv", f"id,text\n1,short\n2,{'word ' * 40}\n3,{'字' * 40}\n")
    words = ("run", "-p", "{{ text }}", bench.folder / "texts.csv", "--max-input-tokens", 10, "-c", 1)
    bench.run(*words, status=1)
    assert len(bench.bodies) == 1
    assert "the text has" in bench.out("texts.run.csv")[1]["error"]
    said = bench.run(*words, "--on-long", "truncate", "--accept-change")
    cut = [orjson.loads(body)["messages"][-1]["content"] for body in bench.bodies[1:]]
    assert cut[0] == ("word " * 10).rstrip()
    assert set(cut[1]) == {"字"} and 0 < len(cut[1]) <= 10
    assert "Cut to --max-input-tokens: 2 texts" in said.err
    assert bench.out("texts.run.csv")[1]["text"] == "word " * 40, "the cell itself stays"


def test_a_named_token_limit_is_held_by_counts_and_nothing_else_loads_a_vocabulary(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    from batchllm import tokens

    counted: list[str] = []

    def counter(model: str) -> Callable[[str], int]:
        counted.append(model)
        return len

    monkeypatch.setattr(tokens, "counter", counter)
    bench.file("rows.csv", "text\nHello\n")
    bench.run("run", "-p", "{{ text }}", bench.folder / "rows.csv")
    assert counted == []
    bench.run(
        "run", "-p", "{{ text }}", bench.folder / "rows.csv", "--tpm", 100_000, "-o", bench.folder / "o.csv"
    )
    assert counted == ["gpt-4"]


# -- job files -------------------------------------------------------------------------------------------------

JOB = """\
[job]
input = "data/rows.csv"
output = "out/answers.jsonl"
tools = "data/tools.json"
model = "from-the-file"
temperature = 0.9
max_tokens = 44
base_url = "{url}"

[[messages]]
role = "user"
content = "{{{{ tone }}}} answer to {{{{ text }}}}"

[variables]
tone = "Friendly"

[answer]
column = "reply"
"""


@pytest.fixture
def job(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A job file in a folder of its own, with the working directory elsewhere."""
    folder = bench.folder / "project"
    for path in (folder / "data", folder / "out", bench.folder / "elsewhere"):
        path.mkdir(parents=True)
    bench.file("project/data/rows.csv", "text\nHello\n")
    bench.file("project/data/tools.json", json.dumps([WEATHER]))
    monkeypatch.chdir(bench.folder / "elsewhere")
    return bench.file("project/job.toml", JOB.format(url=bench.server.base_url))


def test_a_job_file_runs_from_anywhere_with_its_own_paths(bench: Bench, job: Path) -> None:
    said = bench.command("run", job)
    assert said.status == 0, said.err
    messages = [{"role": "user", "content": "Friendly answer to Hello"}]
    body = {
        "model": "from-the-file",
        "messages": messages,
        "max_tokens": 44,
        "temperature": 0.9,
        "tools": [WEATHER],
    }
    assert bench.bodies == [wire(body)]
    (row,) = bench.out("project/out/answers.jsonl")
    assert row["reply"] == ""
    assert row["tool_calls"][0]["function"]["name"] == "get_weather"


def test_flags_rows_and_environment_go_before_the_job_file(
    bench: Bench, job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.file("elsewhere/mine.jsonl", [{"text": "Goodbye"}])
    monkeypatch.setenv("BATCHLLM_MAX_TOKENS", "33")
    monkeypatch.setenv("BATCHLLM_MODEL", "from-the-environment")
    words = ("--model", "from-the-flag", "--var", "tone=Cold", "-o", "mine.csv")
    said = bench.command("run", job, "mine.jsonl", *words)
    assert said.status == 0, said.err
    body = orjson.loads(bench.bodies[0])
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("from-the-flag", 33, 0.9)
    assert body["messages"][0]["content"] == "Cold answer to Goodbye"
    assert (bench.folder / "elsewhere" / "mine.csv").exists()


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("temperature", "temprature", "unknown key temprature (did you mean temperature?)"),
        ("temperature = 0.9", 'temperature = "hot"', "temperature in"),
        ("max_tokens = 44", "max_tokens = 0", "max_tokens in"),
        ("data/tools.json", "data/tolls.json", "tolls.json"),
        ("[job]", "[jobs]", "[job]"),
        ("{{{{ text }}}}", "{{{{ txet }}}}", "txet"),
        ("data/rows.csv", "data/none.csv", "none.csv"),
    ],
)
def test_what_is_wrong_in_a_job_file_is_said_with_its_place_before_anything_is_sent(
    bench: Bench, job: Path, old: str, new: str, says: str
) -> None:
    job.write_text(JOB.replace(old, new).format(url=bench.server.base_url))
    said = bench.command("run", job)
    assert said.status in (2, 65)
    assert says in said.err
    assert len(said.err.splitlines()) == 1
    assert bench.bodies == []
