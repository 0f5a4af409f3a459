import hashlib
import itertools
import time
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.errors import UsageError
from batchllm.formats import WrittenNumber
from batchllm.job import Job
from batchllm.records import Answer, ChatRequest
from batchllm.request import RequestBuilder, Skipped, Unsendable, answer_spec, reask, request_key
from batchllm.template import load, parse
from tests.request_jobs import body_of, builder_of, built, make_job, make_row

TEXT = make_row(id="1", text="Hello")


REFERENCE = {"temperature": 0.7, "max_tokens": 150}


def test_a_prompt_of_one_line_sends_neither_temperature_nor_max_tokens() -> None:
    request = built(make_job(), TEXT)
    assert list(orjson.loads(request.body)) == ["model", "messages"]
    assert request.max_tokens is None


def test_the_body_is_the_reference_example_byte_for_byte() -> None:
    request = built(make_job(parameters=REFERENCE), make_row(text="What's the weather like?"))
    assert request.body == (
        b'{"model":"gpt-4","messages":[{"role":"system","content":"You are a helpful assistant."},'
        b'{"role":"user","content":"What\'s the weather like?"}],"max_tokens":150,"temperature":0.7}'
    )
    assert (request.model, request.max_tokens, request.prompt_tokens) == ("gpt-4", 150, 0)


def test_the_key_is_a_hash_of_preset_and_body_and_of_nothing_else() -> None:
    request = built(make_job(), TEXT)
    assert request.key == hashlib.sha256(b"openai\0" + request.body).digest()[:16]
    assert request.key == request_key("openai", request.body)
    assert built(make_job(), make_row(id="2", text="Hello")).key == request.key
    assert built(make_job(preset="groq"), TEXT).key != request.key
    assert built(make_job(parameters={"temperature": 0.5}), TEXT).key != request.key


def test_the_order_in_which_parameters_were_given_changes_nothing() -> None:
    one = built(make_job(parameters={"seed": 1, "top_p": 0.5, "stop": ["a"], **REFERENCE}), TEXT)
    other = built(make_job(parameters={"stop": ["a"], **REFERENCE, "top_p": 0.5, "seed": 1}), TEXT)
    assert one.body == other.body
    assert list(orjson.loads(one.body)) == [
        "model",
        "messages",
        "max_tokens",
        "seed",
        "stop",
        "temperature",
        "top_p",
    ]


def test_the_three_tasks_make_the_requests_of_the_reference_document() -> None:
    found = {}
    for name in ("summarize", "classify", "codegen"):
        body = body_of(make_job(template=load(name)), TEXT)
        assert [message["role"] for message in body["messages"]] == ["system", "user"]
        assert "Hello" in body["messages"][1]["content"]
        found[name] = (body["temperature"], body["max_tokens"])
    assert found == {"summarize": (0.3, 150), "classify": (0.0, 10), "codegen": (0.2, 500)}


def bodies_of_two_rows(job: Job) -> tuple[bytes, bytes]:
    one, other = make_row(id="1", text="#one row"), make_row(id="2", text="#another, longer row")
    builder = builder_of(job, one)
    first, second = builder.build(one), builder.build(other)
    assert isinstance(first, ChatRequest) and isinstance(second, ChatRequest)
    return first.body, second.body


@pytest.mark.parametrize("task", ["summarize", "classify", "codegen"])
@pytest.mark.parametrize(
    "settings_",
    [
        {},
        {"system": "Be brief."},
        {"schema": {"type": "object", "properties": {"a": {"type": "string"}}}, "preset": "deepseek"},
    ],
)
def test_what_is_equal_for_all_rows_comes_before_the_rows_text(task: str, settings_: dict[str, Any]) -> None:
    one, other = bodies_of_two_rows(make_job(template=load(task), **settings_))
    equal = sum(
        1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    )
    for body, text in ((one, b"#one row"), (other, b"#another, longer row")):
        assert body.index(text) == equal - len(b"#")
        assert body[equal - len(b"#") :].startswith(text + b'"}],"max_tokens"')


def test_what_a_row_adds_to_its_request_comes_last() -> None:
    request = built(make_job(parameters=REFERENCE), TEXT)
    again = reask(request, Answer(text="x", error="this is not JSON"))
    messages_end = request.body.index(b'],"max_tokens"')
    assert again.body.startswith(request.body[:messages_end] + b',{"role":"assistant"')


def test_variables_and_system_of_the_job_go_into_the_template() -> None:
    body = body_of(
        make_job(template=load("summarize"), variables={"bullets": 5, "answer_language": None}), TEXT
    )
    assert "5 bullet points" in body["messages"][1]["content"]
    body = body_of(make_job(system="Be {{ id }}."), TEXT)
    assert body["messages"][0] == {"role": "system", "content": "Be 1."}


def test_parameters_of_the_job_go_over_those_of_the_template() -> None:
    body = body_of(
        make_job(
            template=load("codegen"),
            parameters={"temperature": 0, "extra_body": {"top_k": 5, "x": {"y": None}}},
        ),
        TEXT,
    )
    assert (body["temperature"], body["max_tokens"], body["top_k"], body["x"]) == (0, 500, 5, {"y": None})


def test_one_way_to_bound_the_answer_replaces_the_other() -> None:
    body = body_of(make_job(parameters={"max_completion_tokens": 9}), TEXT)
    assert "max_tokens" not in body
    assert built(make_job(parameters={"max_completion_tokens": 9}), TEXT).max_tokens == 9


def test_a_template_may_take_model_and_parameters_from_columns() -> None:
    source = (
        '[[messages]]\ncontent = "{{ text }}"\n[parameters]\nmodel = "{{ m }}"\ntemperature = "{{ t }}"\n'
        'max_tokens = "{{ n }}"\n'
    )
    job = make_job(template=parse(source, "mine"))
    request = built(job, make_row(text="x", m="gpt-4o", t="0.50", n="7"))
    assert (request.model, request.max_tokens) == ("gpt-4o", 7)
    assert orjson.loads(request.body)["temperature"] == 0.5
    wrong = built(job, make_row(text="x", m="gpt-4o", t="warm", n="7"))
    assert isinstance(wrong, Unsendable)
    assert wrong.error == "the parameter temperature is 'warm', which is not a number"


@pytest.mark.parametrize("text", ["", "   ", "\n", None])
def test_an_empty_text_cell_is_skipped(text: Any) -> None:
    assert built(make_job(), make_row(text=text, id="1")) == Skipped(0)


def test_without_a_text_column_a_row_is_skipped_when_all_it_reads_is_empty() -> None:
    job = make_job("{{ a }} {{ b }}")
    assert isinstance(built(job, make_row(a="", b="x")), ChatRequest)
    assert built(job, make_row(a="", b=None)) == Skipped(0)


def test_a_row_without_the_column_is_a_row_error() -> None:
    builder = RequestBuilder(make_job(), ("text", "id"), (), None)
    unsendable = builder.build(make_row(id="1"))
    assert isinstance(unsendable, Unsendable)
    assert "'text'" in unsendable.error


def test_the_text_column_is_known_to_who_asks() -> None:
    row = make_row(id="1", review="a text", title="t")
    builder = builder_of(make_job("{{ text }} by {{ id }}"), row)
    assert (builder.column, builder.used_columns) == ("review", frozenset({"review", "id"}))
    assert builder_of(make_job(column="title"), row).column == "title"
    assert builder_of(make_job("{{ id }}"), row).column is None


@pytest.mark.parametrize(
    ("settings_", "said"),
    [
        ({"prompt": "Translate."}, "reads no column"),
        ({"prompt": "{{ nope }}"}, "the columns are: id, text"),
        ({"column": "nope"}, "has no column 'nope'"),
        ({"images": ("photo",)}, "has no column 'photo'"),
        ({"parameters": {"stream": True}}, "stream"),
        ({"parameters": {"n": 3}}, "one answer only"),
        ({"schema": {"type": "objekt"}}, "not a JSON Schema"),
    ],
)
def test_what_no_row_could_be_sent_with_is_refused_at_once(settings_: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as raised:
        builder_of(make_job(**settings_), TEXT)
    assert said in str(raised.value)


def test_numbers_keep_their_spelling() -> None:
    row = make_row(text="x", n=WrittenNumber("1e5"), tags=[WrittenNumber("1.50"), 2**70])
    body = body_of(make_job("{{ text }} {{ n }} {{ tags }}"), row)
    assert body["messages"][1]["content"] == f"x 1e5 [1.50,{2**70}]"


def test_half_of_a_pair_is_a_row_error() -> None:
    unsendable = built(make_job(), make_row(text="x\ud800"))
    assert isinstance(unsendable, Unsendable)
    assert unsendable.reason == "bad_text"


def test_earlier_turns_stand_between_the_scene_and_the_row() -> None:
    source = (
        '[[messages]]\nrole = "system"\ncontent = "S"\n[[messages]]\ncontent = "example"\n'
        '[[messages]]\nrole = "assistant"\ncontent = "done"\n[[messages]]\ncontent = "{{ text }}"\n'
    )
    job = make_job(template=parse(source, "mine"), conversation="id")
    builder = builder_of(job, TEXT)
    assert builder.turn(TEXT) == [{"role": "user", "content": "Hello"}]
    earlier = [{"role": "user", "content": "Before"}, {"role": "assistant", "content": "Yes"}]
    contents = [message["content"] for message in body_of(job, TEXT, earlier)["messages"]]
    assert contents == ["S", "example", "done", "Before", "Yes", "Hello"]


def test_prompt_tokens_are_counted_where_somebody_counts() -> None:
    counted: list[str] = []

    def count(text: str) -> int:
        counted.append(text)
        return len(text.split())

    builder = builder_of(make_job(), TEXT, count=count)
    for _ in range(3):
        request = builder.build(TEXT)
        assert isinstance(request, ChatRequest)
        assert request.prompt_tokens == 3 + 4 + 5 + 4 + 1
    assert counted.count("You are a helpful assistant.") == 1


def test_tools_go_out_as_they_are() -> None:
    tools = [
        {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    ]
    body = body_of(make_job(tools=tools, tool_choice="required"), TEXT)
    assert (body["tools"], body["tool_choice"]) == (tools, "required")


CLOSED = {
    "type": "object",
    "properties": {"topic": {"type": "string"}},
    "required": ["topic"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("schema", "strict"),
    [
        (CLOSED, True),
        ({"type": "object", "properties": {"a": {"type": "string"}}}, False),
        ({**CLOSED, "required": []}, False),
        ({**CLOSED, "properties": {"topic": {"type": "array", "items": {"type": "object"}}}}, False),
        ({**CLOSED, "properties": {"topic": {"anyOf": [CLOSED, {"type": "null"}]}}}, True),
        ({**CLOSED, "oneOf": []}, False),
    ],
)
def test_a_schema_asks_for_json_schema_strictly_where_it_can(schema: dict[str, Any], strict: bool) -> None:
    job = make_job(schema={**schema, "title": "My topic!"})
    wanted = {"name": "My_topic_", "schema": {**schema, "title": "My topic!"}, "strict": strict}
    if schema.get("oneOf") is None:
        assert body_of(job, TEXT)["response_format"] == {"type": "json_schema", "json_schema": wanted}
        assert builder_of(job, TEXT).answer_columns == tuple(schema["properties"])


def test_an_endpoint_without_json_schema_gets_it_in_words() -> None:
    body = body_of(make_job(schema=CLOSED, preset="deepseek", model="deepseek-chat"), TEXT)
    assert body["response_format"] == {"type": "json_object"}
    assert [message["role"] for message in body["messages"]] == ["system", "system", "user"]
    assert '"additionalProperties":false' in body["messages"][0]["content"]


def test_answer_spec_has_the_labels_and_the_schema_of_the_job() -> None:
    job = make_job(template=load("classify"), variables={"labels": ["bug", "idea"]})
    assert answer_spec(job).labels == ("bug", "idea")
    spec = answer_spec(make_job(schema=CLOSED))
    assert (spec.read, spec.schema) == ("json", CLOSED)
    assert answer_spec(make_job(None)).column == "response"


def test_asking_again_goes_on_from_the_answer_and_keeps_the_key() -> None:
    request = built(make_job(), TEXT)
    again = reask(request, Answer(text='{"a": 1}', error="the answer does not fit the schema: $.a"), len)
    messages = orjson.loads(again.body)["messages"]
    assert messages[:2] == orjson.loads(request.body)["messages"]
    assert messages[2] == {"role": "assistant", "content": '{"a": 1}'}
    assert messages[3]["role"] == "user" and "$.a" in messages[3]["content"]
    assert (again.key, again.max_tokens) == (request.key, request.max_tokens)
    assert again.prompt_tokens > request.prompt_tokens


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(text=VALUES, other=VALUES)
def test_whatever_the_cells_hold_a_row_is_sent_skipped_or_refused(text: Any, other: Any) -> None:
    builder = RequestBuilder(make_job('{{ text }} {{ row["other"] }}'), ("text", "other"), (), None)
    outcome = builder.build(make_row(text=text, other=other))
    if isinstance(outcome, ChatRequest):
        messages = orjson.loads(outcome.body)["messages"]
        if isinstance(text, str) and isinstance(other, str):
            assert messages[1]["content"] == f"{text} {other}"
    else:
        assert isinstance(outcome, Skipped | Unsendable)


def test_a_request_costs_microseconds() -> None:
    row = make_row(id="1", text="word " * 120)
    builder = builder_of(make_job(template=load("summarize")), row)
    best = 1.0
    for _ in range(5):
        started = time.perf_counter()
        for _ in range(500):
            builder.build(row)
        best = min(best, (time.perf_counter() - started) / 500)
    assert best < 50e-6  # 6 microseconds on the machine it was written on
