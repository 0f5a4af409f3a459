"""What the simulator answers, and that the answer fits the question."""

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from batchllm.simulator.completion import CompletionBuilder, limited_tokens
from batchllm.simulator.errors import ApiError
from batchllm.simulator.instance import instance
from batchllm.simulator.responder import choose_label, labels_in, respond, text_to_work_on
from batchllm.simulator.validation import check

SENTIMENT = (
    "Classify the sentiment of the text as positive, negative, or neutral. Answer with the label only."
)
STORY = "The sky is blue. Dogs bark at night. Cats sleep all day. Birds sing early."


def said(user: Any, system: str | None = None, **parameters: Any) -> str:
    messages = [{"role": "user", "content": user}]
    if system:
        messages.insert(0, {"role": "system", "content": system})
    content = respond({"messages": messages, **parameters}).content
    assert content is not None
    return content


def test_a_summary_is_as_many_leading_sentences_as_were_asked_for() -> None:
    answer = said(f"Summarize the text below in 2 bullet points.\n\n{STORY}")
    assert answer == "- The sky is blue.\n- Dogs bark at night."


def test_a_chinese_summary_splits_chinese_sentences() -> None:
    text = "天空是蓝色的。狗会叫！猫在睡觉吗？鸟在唱歌。"
    answer = said(f"用 3 个要点总结这段文字:{text}", "你是一个摘要专家。")
    assert answer == "- 天空是蓝色的。\n- 狗会叫！\n- 猫在睡觉吗？"


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("I love it, works perfectly.", "positive"),
        ("Terrible quality, it broke after a day.", "negative"),
        ("The parcel has four sides.", "neutral"),
        ("我很喜欢这个产品，质量很好", "positive"),
        ("包装破了，非常失望", "negative"),
    ],
)
def test_sentiment_follows_the_words(text: str, label: str) -> None:
    assert said(text, SENTIMENT) == label


def test_chinese_labels_come_out_of_the_reference_prompt() -> None:
    assert said("我喜欢这个产品!它运行得很好。", "将情感分类为积极、消极或中性。") == "积极"


def test_labels_beyond_sentiment_go_by_words_in_common() -> None:
    asked = "Classify the message into exactly one of these labels: billing, bug report, feature request.\n\n"
    assert said(f"{asked}I was billed twice this month.") == "billing"


@pytest.mark.parametrize(
    "instruction",
    [
        "Labels: red, green, blue",
        "Classify as one of red, green or blue.",
        'Answer with exactly one of: "red", "green", "blue".',
        "Answer with exactly one of these labels and nothing else: red, green, blue. Spell it so, please.",
        "标签：red、green、blue",
        'The labels are: ["red", "green", "blue"]',
        "labels: `red` | `green` | `blue`",
    ],
)
def test_labels_are_read_however_they_are_listed(instruction: str) -> None:
    assert labels_in(instruction) == ["red", "green", "blue"]


@given(
    st.text(max_size=200),
    st.lists(st.text("abcxyz", min_size=1, max_size=8), min_size=2, max_size=6, unique=True),
)
@settings(max_examples=100)
def test_a_classification_is_always_exactly_one_of_the_labels(text: str, names: list[str]) -> None:
    assert choose_label(names, text) in names


def test_the_deterministic_choice_reaches_every_label() -> None:
    chosen = {choose_label(["aa", "bb", "cc"], f"text {n}") for n in range(50)}
    assert chosen == {"aa", "bb", "cc"}


@pytest.mark.parametrize("system", ["你是一个 Python 专家。", "You are a Python expert.", None])
def test_a_python_stub_compiles_and_is_fenced(system: str | None) -> None:
    answer = said('Write a Python function that "adds"\n{two} numbers \\ and ``` more', system)
    assert answer.startswith("```python\n")
    assert answer.endswith("\n```")
    source = answer.removeprefix("```python\n").removesuffix("```")
    assert "```" not in source
    compile(source, "stub", "exec")


@pytest.mark.parametrize(
    ("language", "fence"),
    [("Go", "go"), ("C++", "cpp"), ("C", "c"), ("JavaScript", "javascript"), ("Java", "java")],
)
def test_code_comes_in_the_language_asked_for(language: str, fence: str) -> None:
    assert said("Reverse a list", f"You are a {language} expert. Write readable {language} code.").startswith(
        f"```{fence}\n"
    )
    assert said(f"Write a function in {language}").startswith(f"```{fence}\n")


def test_a_language_without_a_stub_of_its_own_is_named_all_the_same() -> None:
    assert said("Reverse it", "You are a Haskell expert. Write readable Haskell code.").startswith(
        "```haskell\n"
    )


def test_the_last_user_message_shows_in_a_later_turn() -> None:
    messages = [
        {"role": "user", "content": "What is 15 * 12?"},
        {"role": "assistant", "content": "180"},
        {"role": "user", "content": "Now divide it by six"},
    ]
    answer = respond({"messages": messages}).content
    assert answer == "Simulated answer (turn 2) to: Now divide it by six"


def test_images_are_counted_and_their_detail_is_named() -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}}
    answer = said([{"type": "text", "text": "What is this?"}, image, image])
    assert answer == "Simulated answer: I received 2 images (detail: low). You asked: What is this?"


NESTED = {
    "type": "object",
    "properties": {
        "topic": {"type": "string", "maxLength": 10},
        "urgent": {"type": "boolean"},
        "score": {"type": "number", "minimum": 0, "maximum": 1},
        "stars": {"type": "integer", "minimum": 3, "exclusiveMaximum": 5},
        "label": {"enum": ["positive", "negative"]},
        "kind": {"const": "review"},
        "tags": {"type": "array", "items": {"enum": ["a", "b", "c"]}, "minItems": 2},
        "note": {"type": ["string", "null"]},
        "maybe": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]},
        "tree": {"$ref": "#/$defs/node"},
        "both": {"oneOf": [{"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}]},
    },
    "required": ["topic", "urgent", "score", "stars", "tags", "tree", "both"],
    "additionalProperties": False,
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "name": {"type": "string", "minLength": 3},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
                "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
            },
            "required": ["name", "children", "next"],
            "additionalProperties": False,
        }
    },
}


@pytest.mark.parametrize("text", ["I love it. It works.", "", "坏了，退货", "a" * 500])
def test_a_structured_answer_is_valid_for_its_schema(text: str) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "review", "schema": NESTED}}
    answer = json.loads(said(text, response_format=form))
    Draft202012Validator(NESTED).validate(answer)


FLAT = st.one_of(
    st.builds(
        lambda low, size: {"type": "integer", "minimum": low, "maximum": low + size},
        st.integers(-50, 50),
        st.integers(0, 20),
    ),
    st.builds(
        lambda low, size: {"type": "number", "exclusiveMinimum": low, "maximum": low + size},
        st.integers(-50, 50),
        st.floats(0.1, 20),
    ),
    st.builds(
        lambda low, size: {"type": "string", "minLength": low, "maxLength": low + size},
        st.integers(0, 30),
        st.integers(0, 30),
    ),
    st.just({"type": "boolean"}),
    st.lists(st.integers(0, 9), min_size=1, unique=True).map(lambda values: {"enum": values}),
)
SCHEMAS = st.recursive(
    FLAT,
    lambda inner: st.one_of(
        st.builds(
            lambda items, least: {"type": "array", "items": items, "minItems": least},
            inner,
            st.integers(0, 4),
        ),
        st.dictionaries(st.text("abc", min_size=1, max_size=3), inner, max_size=4).map(
            lambda members: {"type": "object", "properties": members, "required": list(members)}
        ),
        st.lists(inner, min_size=1, max_size=3).map(lambda choices: {"anyOf": choices}),
    ),
    max_leaves=8,
)


@given(SCHEMAS, st.text(max_size=60))
@settings(max_examples=200)
def test_every_instance_is_valid_for_its_schema(schema: dict[str, Any], text: str) -> None:
    Draft202012Validator(schema).validate(instance(schema, text))


def test_a_json_object_is_asked_for_and_comes() -> None:
    assert json.loads(said("Say hello", response_format={"type": "json_object"})) == {
        "answer": "Simulated answer (turn 1) to: Say hello"
    }


WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"enum": ["C", "F"]}},
            "required": ["city", "unit"],
        },
    },
}
CLOCK: dict[str, Any] = {
    "type": "function",
    "function": {"name": "tell_time", "parameters": {"type": "object", "properties": {}}},
}


def called(choice: Any, user: str = "What's the weather like in Paris?") -> str | None:
    request = {
        "messages": [{"role": "user", "content": user}],
        "tools": [CLOCK, WEATHER],
        "tool_choice": choice,
    }
    answer = respond(request)
    if answer.tool is None:
        return None
    tool = next(t["function"] for t in (CLOCK, WEATHER) if t["function"]["name"] == answer.tool[0])
    Draft202012Validator(tool["parameters"]).validate(json.loads(answer.tool[1]))
    return answer.tool[0]


def test_a_tool_is_called_as_the_choice_says() -> None:
    assert called("auto") == "get_weather"
    assert called("required") == "get_weather"
    assert called({"type": "function", "function": {"name": "tell_time"}}) == "tell_time"
    assert called("none") is None


def test_a_tool_result_is_answered_in_words() -> None:
    messages = [
        {"role": "user", "content": "Weather in Paris?"},
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "tool", "tool_call_id": "call_1", "content": "21 degrees"},
    ]
    answer = respond({"messages": messages, "tools": [WEATHER]})
    assert answer.content == "Simulated answer (turn 1) to: Weather in Paris? The tool said: 21 degrees"


@pytest.mark.parametrize("filler", [" ", "\n", "a", "。", ": ", "- "])
def test_a_megabyte_of_anything_is_answered_at_once(filler: str) -> None:
    text = f"Summarize in 3 bullet points:\n\nx{filler * (1_000_000 // len(filler))}y"
    started = time.process_time()
    said(text)
    said(text, SENTIMENT)
    said(text, "labels:" + filler * 100_000 + "a, b")
    assert time.process_time() - started < 2


def test_an_instruction_is_taken_off() -> None:
    assert text_to_work_on("用 3 个要点总结这段文字:正文") == "正文"
    assert text_to_work_on("Summarize this text in 3 bullets.\n\nBody: here.") == "Body: here."
    assert text_to_work_on("Dear all: hello") == "Dear all: hello"


def completed(text: str, **parameters: Any) -> dict[str, Any]:
    request = {"model": "simulator", "messages": [{"role": "user", "content": text}], **parameters}
    check(request)
    return CompletionBuilder().build(request, json.dumps(request).encode(), 1, 0)


@pytest.mark.parametrize("text", [STORY, "天空是蓝色的，狗会叫。" * 5, "👩‍👩‍👧‍👦 family " * 9])
@pytest.mark.parametrize("most", [1, 2, 5, 9])
def test_max_tokens_cuts_on_a_whole_character(text: str, most: int) -> None:
    whole = completed(text)["choices"][0]["message"]["content"]
    body = completed(text, max_tokens=most)
    choice = body["choices"][0]
    assert choice["finish_reason"] == "length"
    assert whole.startswith(choice["message"]["content"])
    assert not choice["message"]["content"].endswith("\u200d")
    assert body["usage"]["completion_tokens"] <= most


def test_usage_adds_up_and_grows_with_the_text() -> None:
    usage = completed(STORY, n=2)["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == 0
    assert usage["completion_tokens_details"]["reasoning_tokens"] == 0
    assert completed(STORY * 2)["usage"]["prompt_tokens"] > usage["prompt_tokens"]
    assert usage["completion_tokens"] == 2 * completed(STORY)["usage"]["completion_tokens"]


def test_the_same_request_gets_the_same_completion() -> None:
    assert completed(STORY) == completed(STORY)
    assert completed(STORY)["id"] != completed(STORY + "!")["id"]


def test_the_charge_is_the_larger_of_max_tokens_and_a_quarter_of_the_characters() -> None:
    messages = [{"role": "user", "content": "x" * 41}]
    assert limited_tokens({"messages": messages}) == 11
    assert limited_tokens({"messages": messages, "max_tokens": 150}) == 150
    assert limited_tokens({"messages": messages, "max_completion_tokens": 5}) == 11


USER = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"messages": None}, "messages", "missing_required_parameter"),
        ({"messages": []}, "messages", "empty_array"),
        ({"messages": "hi"}, "messages", "invalid_type"),
        ({"messages": [{"role": "robot", "content": "hi"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"content": "hi"}]}, "messages[0].role", "missing_required_parameter"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content", "invalid_type"),
        (
            {"messages": [{"role": "tool", "content": "x"}]},
            "messages[0].tool_call_id",
            "missing_required_parameter",
        ),
        ({"max_tokens": -1}, "max_tokens", "integer_below_min_value"),
        ({"max_tokens": 1.5}, "max_tokens", "invalid_type"),
        ({"max_tokens": True}, "max_tokens", "invalid_type"),
        ({"temperature": 3}, "temperature", "decimal_above_max_value"),
        ({"temperature": "hot"}, "temperature", "invalid_type"),
        ({"tools": {}}, "tools", "invalid_type"),
        ({"tool_choice": "auto"}, "tool_choice", None),
        ({"stream": True}, "stream", "unsupported_value"),
        ({"model": None}, None, None),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]},
            "messages[0].content[0].image_url.url",
            "missing_required_parameter",
        ),
    ],
)
def test_a_bad_request_is_refused_by_parameter_and_code(
    change: dict[str, Any], param: str | None, code: str | None
) -> None:
    with pytest.raises(ApiError) as caught:
        check({"model": "simulator", "messages": USER, **change})
    assert (caught.value.status, caught.value.param, caught.value.code) == (400, param, code)


def test_unknown_parameters_pass() -> None:
    check({"model": "simulator", "messages": USER, "chat_template_kwargs": {"enable_thinking": False}})


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.sampled_from(["", "user", "a", "object", "#/x", "function"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "properties", "items", "enum", "anyOf", "allOf", "$ref", "function", "name"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


@given(
    st.dictionaries(
        st.sampled_from(
            ["tools", "tool_choice", "response_format", "max_tokens", "n", "temperature", "stop"]
        ),
        JSON,
        max_size=3,
    ),
    st.dictionaries(st.sampled_from(["role", "content", "tool_calls"]), JSON, max_size=3),
)
@settings(max_examples=300)
def test_whatever_is_sent_is_answered_or_refused(parameters: dict[str, Any], message: dict[str, Any]) -> None:
    for request in (
        {"messages": USER, **parameters},
        {"messages": [{"role": "user", "content": "x", **message}]},
    ):
        try:
            check({"model": "m", **request})
            completed("x", **request)
        except ApiError as error:
            assert error.status == 400


@given(JSON)
@settings(max_examples=300)
def test_any_schema_gets_an_instance_or_a_reason(schema: Any) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "any", "schema": schema}}
    try:
        completed("text", response_format=form)
    except ApiError as error:
        assert (error.status, error.code) == (400, "invalid_value")


def test_malformed_tools_are_refused() -> None:
    with pytest.raises(ApiError, match="Invalid request"):
        completed("text", tools=[{}])
