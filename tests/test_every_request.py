"""One job of each kind through the command: the body that a server receives, byte for byte, and the written columns.

The bodies are the API's own examples (roles, temperature, turns, vision, the three usual tasks) as JSON has them;
``wire`` writes them down the way they go out: compact, UTF-8, model and messages first, parameters by name.
"""

import base64
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from batchllm.simulator import ScriptedResponse
from tests.bench import CALL, WEATHER, Bench, wire
from tests.fakes import chat_body

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


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
    rows: list[dict[str, Any]] = [
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
        (0.3, 100),
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
    rows: list[dict[str, Any]] = [
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
    assert bench.bodies == [
        wire({"model": "gpt-4", "messages": messages[:2]}),
        wire({"model": "gpt-4", "messages": messages}),
    ]
    assert [row["response"] for row in bench.out("turns.run.jsonl")] == ["15 * 12 = 180", "30"]


def test_rows_with_their_own_messages_are_turns_too(bench: Bench) -> None:
    call = {**orjson.loads(chat_body(None))["choices"][0], "finish_reason": "tool_calls"}
    call["message"] = {"role": "assistant", "content": None, "tool_calls": [CALL]}

    def answers(body: dict[str, Any]) -> ScriptedResponse | None:
        asked = body["messages"][-1]["role"] == "user"
        return ScriptedResponse(body=orjson.loads(chat_body("")) | {"choices": [call]}) if asked else None

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
    return {"model": "gpt-4", "messages": messages, "max_tokens": 300}


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
    assert out[0]["response"].startswith("Simulated answer: I received 1 image (detail: high)")


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
