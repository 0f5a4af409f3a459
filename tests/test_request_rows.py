from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.records import ChatRequest, Row
from batchllm.request import RequestBuilder, Skipped, Unsendable
from batchllm.template import KNOWN_PARAMETERS
from tests.request_jobs import body_of, builder_of, built, make_job, make_row

USER = {"role": "user", "content": "Hi"}
MATHS = [
    {"role": "system", "content": "你是一个数学导师。"},
    {"role": "user", "content": "15 * 12 是多少?"},
    {"role": "assistant", "content": "15 * 12 = 180"},
    {"role": "user", "content": "现在把它除以 6"},
]
JOB = make_job(None)


def completion(text: str) -> bytes:
    return orjson.dumps({"choices": [{"message": {"content": text}}]})


def sent_by(builder: RequestBuilder, row: Row) -> dict[str, Any]:
    request = builder.build(row)
    assert isinstance(request, ChatRequest), request
    body: dict[str, Any] = orjson.loads(request.body)
    return body


def test_messages_of_a_row_go_out_as_they_are() -> None:
    assert built(JOB, make_row(messages=MATHS, note="a column")).body == orjson.dumps(
        {"model": "gpt-4", "messages": MATHS}
    )


def test_tool_results_and_calls_are_messages_too() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        USER,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
    ]
    assert body_of(JOB, make_row(messages=messages))["messages"] == messages


def test_known_names_are_parameters_and_every_other_name_is_a_column() -> None:
    row = make_row(
        messages=[USER], model="gpt-4o", temperature=0.5, max_tokens=7, stop="\n", top_p=None, colour="red"
    )
    request = built(JOB, row)
    assert orjson.loads(request.body) == {
        "model": "gpt-4o",
        "messages": [USER],
        "max_tokens": 7,
        "stop": "\n",
        "temperature": 0.5,
    }
    assert (request.model, request.max_tokens) == ("gpt-4o", 7)


def test_the_rows_own_parameters_go_over_those_of_the_job() -> None:
    job = make_job(None, parameters={"temperature": 0.1, "seed": 3})
    body = body_of(job, make_row(messages=[USER], temperature=0.9))
    assert (body["temperature"], body["seed"]) == (0.9, 3)


def test_extra_body_passes_through_unchanged() -> None:
    extra = {"top_k": 5, "nested": {"a": [None, 1.5]}, "temperature": 2}
    body = body_of(JOB, make_row(messages=[USER], temperature=1, extra_body=extra))
    assert (body["top_k"], body["nested"], body["temperature"]) == (5, {"a": [None, 1.5]}, 2)
    assert "extra_body" not in body


def test_a_line_of_the_batch_api_is_its_body() -> None:
    body = {"model": "gpt-4o", "messages": [USER], "max_tokens": 5, "unheard_of": True}
    row = make_row(custom_id="r-1", method="POST", url="/v1/chat/completions", body=body)
    assert body_of(JOB, row) == body
    without = {"messages": [USER]}
    assert body_of(JOB, make_row(custom_id="r-2", body=without))["model"] == "gpt-4"


def test_tasks_may_be_mixed_and_each_answer_is_read_its_way() -> None:
    builder = RequestBuilder(JOB, ("task", "text"), (), None)
    found: dict[str, Any] = {}
    answers = {"summarize": "- a", "classify": "**Negative**.", "codegen": "```py\nx\n```"}
    for name, answer in answers.items():
        row = make_row(task=name, text="Some text")
        body = sent_by(builder, row)
        found[name] = (body["max_tokens"], builder.reader(row).read(200, completion(answer)).columns)
    assert found == {
        "summarize": (150, {"response": "- a"}),
        "classify": (10, {"response": "negative"}),
        "codegen": (500, {"response": "x"}),
    }
    assert builder.answer_columns == ("response",)


def test_a_row_may_set_the_variables_and_parameters_of_its_task() -> None:
    builder = RequestBuilder(JOB, ("task", "text", "labels"), (), None)
    row = make_row(task="classify", text="It crashes", labels=["bug", "idea"], max_tokens=3)
    assert "bug, idea" in sent_by(builder, row)["messages"][0]["content"]
    assert sent_by(builder, row)["max_tokens"] == 3
    assert builder.reader(row).read(200, completion("Bug")).columns == {"response": "bug"}
    other = make_row(task="classify", text="It crashes", labels="crash, wish")
    assert builder.reader(other).read(200, completion("Wish")).columns == {"response": "wish"}
    assert (
        "Rust expert"
        in sent_by(builder, make_row(task="codegen", text="x", language="Rust"))["messages"][0]["content"]
    )


def test_a_task_may_be_a_template_beside_the_input(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('[[messages]]\ncontent = "{{ title }}: {{ text }}"\n')
    job = make_job(None, template=None, per_row=True)
    object.__setattr__(job, "inputs", (tmp_path / "jobs.jsonl",))
    body = body_of(job, make_row(task="mine.toml", text="x", title="T"))
    assert body["messages"] == [{"role": "user", "content": "T: x"}]


def test_text_alone_is_a_user_message() -> None:
    assert body_of(JOB, make_row(text="Hi {{ there }}"))["messages"][-1] == {
        "role": "user",
        "content": "Hi {{ there }}",
    }
    assert body_of(make_job(None, column="q"), make_row(q="Hi"))["messages"][-1]["content"] == "Hi"
    assert built(JOB, make_row(text=" ")) == Skipped(0)


def test_a_system_message_of_the_job_is_for_rows_without_one() -> None:
    job = make_job(None, system="Be brief.")
    assert body_of(job, make_row(messages=[USER]))["messages"] == [
        {"role": "system", "content": "Be brief."},
        USER,
    ]
    assert body_of(job, make_row(messages=MATHS))["messages"] == MATHS
    assert body_of(job, make_row(text="x"))["messages"][0]["content"] == "Be brief."


def test_earlier_turns_go_behind_the_system_message() -> None:
    row = make_row(messages=[MATHS[0], USER])
    earlier = [{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}]
    contents = [message["content"] for message in body_of(JOB, row, earlier)["messages"]]
    assert contents == ["你是一个数学导师。", "1", "2", "Hi"]
    assert builder_of(JOB, row).turn(row) == [USER]


def test_images_in_messages_are_held_to_the_same_rules() -> None:
    def row(url: str) -> Any:
        return make_row(
            messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]
        )

    assert isinstance(built(JOB, row("https://h/x.png")), ChatRequest)
    assert isinstance(built(JOB, row("file:///etc/passwd")), Unsendable)


def test_a_schema_of_the_job_is_for_every_row() -> None:
    job = make_job(None, schema={"type": "object", "properties": {"a": {"type": "integer"}}})
    for values in ({"messages": [USER]}, {"task": "summarize", "text": "x"}):
        row = make_row(values)
        builder = builder_of(job, row)
        assert sent_by(builder, row)["response_format"]["type"] == "json_schema"
        assert builder.reader(row).read(200, completion('{"a": 1}')).columns == {"a": 1}


@pytest.mark.parametrize(
    ("values", "reason", "said"),
    [
        ({"x": 1}, "bad_row", "no messages, task, text or body"),
        ({"messages": []}, "bad_messages", "at least one message"),
        ({"messages": "Hi"}, "bad_messages", "must be a list"),
        ({"messages": [7]}, "bad_messages", "messages[0] is not an object"),
        ({"messages": [{"role": "usr", "content": "x"}]}, "bad_messages", "did you mean user?"),
        ({"messages": [{"content": "x"}]}, "bad_messages", "the role None"),
        ({"messages": [USER, {"role": "user"}]}, "bad_messages", "messages[1] (user) has no content"),
        ({"messages": [{"role": "user", "content": 7}]}, "bad_messages", "neither text nor"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "bad_messages", "object with a type"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "bad_messages",
            "without a url",
        ),
        ({"messages": [{"role": "tool", "content": "x"}]}, "bad_messages", "tool_call_id"),
        ({"messages": [USER], "stream": True}, "bad_parameter", "stream"),
        ({"messages": [USER], "n": 2}, "bad_parameter", "one answer"),
        ({"messages": [USER], "temperature": "hot"}, "bad_row", "not a number"),
        ({"custom_id": "1", "body": "x"}, "bad_row", "not an object"),
        ({"custom_id": "1", "body": {"model": "m"}}, "bad_messages", "must be a list"),
        ({"custom_id": "1", "url": "/v1/embeddings", "body": {}}, "bad_row", "/v1/embeddings"),
        ({"task": "sumarize", "text": "x"}, "bad_task", "did you mean summarize?"),
        ({"task": "/etc/passwd", "text": "x"}, "bad_task", "passwd"),
        ({"task": 7, "text": "x"}, "bad_row", "must be the name"),
        ({"task": "summarize"}, "bad_row", "'text'"),
        ({"task": "classify", "text": "x", "labels": ["a", "A"]}, "bad_task", "differ in case"),
        ({"task": "classify", "text": "x", "labels": 7}, "bad_task", ""),
    ],
)
def test_a_row_that_cannot_be_sent_says_why(values: dict[str, Any], reason: str, said: str) -> None:
    outcome = built(JOB, make_row(values))
    assert isinstance(outcome, Unsendable), outcome
    assert outcome.reason == reason
    assert said in outcome.error
    assert builder_of(JOB, make_row(values)).reader(make_row(values)).read(200, b"").reason == "bad_json"


def test_messages_longer_than_the_limit_fail_and_tasks_are_cut() -> None:
    job = make_job(None, max_input_tokens=5, on_long="truncate")
    assert built(job, make_row(messages=[USER, USER])).reason == "too_long"
    body = body_of(job, make_row(task="summarize", text="one two three four five six seven"))
    assert body["messages"][1]["content"].endswith(":\n\none two three four five")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "type", "image_url", "url", "text"]), inner, max_size=4
        )
    ),
    max_leaves=10,
)
NAMES = st.sampled_from(
    ["messages", "task", "text", "body", "custom_id", "labels", "bullets", *sorted(KNOWN_PARAMETERS)]
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(NAMES, JSON, max_size=6))
def test_whatever_a_row_holds_nothing_is_raised(values: dict[str, Any]) -> None:
    row = make_row(values)
    builder = RequestBuilder(JOB, tuple(values), (), None)
    assert isinstance(builder.build(row), ChatRequest | Skipped | Unsendable)
    builder.reader(row)


def test_a_variable_with_half_of_a_pair_does_not_stop_the_job() -> None:
    row = make_row(task="codegen", text="x", language="\ud800")
    assert isinstance(built(make_job(None), row), Unsendable)
