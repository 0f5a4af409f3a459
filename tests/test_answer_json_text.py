"""A paid answer is read as leniently as it can be without inventing anything; a test for each leniency."""

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.answer import Reader
from batchllm.answer.json_text import NotJson, json_values
from batchllm.records import AnswerSpec

TRACKING = 9400111899223100001234


def one(text: str) -> Any:
    (found,) = json_values(text)
    return found.value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1}', {"a": 1}),
        ('```json\n{"a": 1}\n```', {"a": 1}),
        ('Here you are:\n```\n{"a": 1}\n```\nAnything else?', {"a": 1}),
        ('Sure! {"a": 1} Anything else?', {"a": 1}),
        ('\ufeff{"a": 1}', {"a": 1}),
        ("```\n12\n```", 12),
        ('{"a": "line 1\nline 2\twith a tab"}', {"a": "line 1\nline 2\twith a tab"}),
        (f'{{"a": {TRACKING}, "b": -{TRACKING}}}', {"a": TRACKING, "b": -TRACKING}),
        (f'{{"a": {TRACKING},}}', {"a": TRACKING}),
        ('{"a": [1, 2,], "b": {"c": 3,},}', {"a": [1, 2], "b": {"c": 3}}),
        ('{"a": 1, // the first\n "b": 2 /* the\n second */, # third\n "c": 3}', {"a": 1, "b": 2, "c": 3}),
        ('{"a": "http://x/y # no comment /* none */", // one\n}', {"a": "http://x/y # no comment /* none */"}),
        ("{'a': 'it\\'s \"so\"', 'b': [1]}", {"a": 'it\'s "so"', "b": [1]}),
        ("{'a': True, 'b': False, 'c': None}", {"a": True, "b": False, "c": None}),
        ("{a: 1, b_2: 'x'}", {"a": 1, "b_2": "x"}),
        ("{“a”: “x”}", {"a": "x"}),
        (r'{"a": "\d+ and c:\users"}', {"a": r"\d+ and c:\users"}),
        ('{"a": 1 "b": 2}', {"a": 1, "b": 2}),
        ('{"a": {"b": 1} "c": 2}', {"a": {"b": 1}, "c": 2}),
        ('{"a": "he said "hi" to me", "b": 2}', {"a": 'he said "hi" to me', "b": 2}),
        ('[{"a": 1}, {"a": 2}]', [{"a": 1}, {"a": 2}]),
        ('Use {{ text }} or [1]: {"a": {"b": 2}}', None),
    ],
)  # fmt: skip
def test_each_leniency_keeps_what_is_there(text: str, value: Any) -> None:
    if value is not None:
        assert one(text) == value
    else:
        assert json_values(text)[-1].value == {"a": {"b": 2}}


@pytest.mark.parametrize(
    "text",
    [
        "", "no JSON at all", "{", "[", '{"a": ', '{"a": 1', '{"a": "cut', '{"a": "x", "b": "cut}',
        '[{"a": 1}, {"a": 2}',
        '{"a": {"b": 1}, "c": "cut', '{"a": [1, 2}', '{"a": {"b": 1}', "{'a': 'cut", "{a: 1, b",
        '```json\n{"a": "cut\n```',
        '{"a": {"b": "x"}, "c": "he said "so', '{"a": 1} and then {"a": "cut', "[" * 100_000, '{"a":' * 50_000,
    ],
)  # fmt: skip
def test_what_is_cut_off_is_never_completed(text: str) -> None:
    with pytest.raises(NotJson):
        json_values(text)


@pytest.mark.parametrize(
    "text",
    ["NaN", '{"a": NaN}', '{"a": Infinity}', '{"a": -Infinity}', "{'a': nan,}", '{"a": 1e999}', '{"a": -1e999,}',
     "[inf]", '{"a": 50%}', '{"a": 12 apples}', '{"a": 1/3}', '{"a": ...}', '{"a": <the topic>}'],
)  # fmt: skip
def test_what_is_no_json_value_is_none(text: str) -> None:
    with pytest.raises(NotJson):
        json_values(text)


SPEC = AnswerSpec("r", "json", schema="topic, urgent bool")


def read(text: str, finish: str = "stop", spec: AnswerSpec = SPEC) -> tuple[Any, str | None]:
    choice = {"message": {"content": text}, "finish_reason": finish}
    answer = Reader(spec).read(200, json.dumps({"choices": [choice]}).encode())
    return dict(answer.columns), answer.reason


RIGHT = {"topic": "x", "urgent": True}


@pytest.mark.parametrize(
    "text",
    [
        'The format is {"topic": "string", "urgent": "bool"}. So: {"topic": "x", "urgent": true}',
        'Format: {"topic": <topic>, "urgent": <bool>}\nAnswer: {"topic": "x", "urgent": true}',
        '{"topic": "x", "urgent": true}\n\nNote: see {"more": 1} and [2].',
        'First {"topic": "y", "urgent": false}. No, rather {"topic": "x", "urgent": true}',
        '[{"topic": "x", "urgent": true}]',
        '{"answer": {"topic": "x", "urgent": true}}',
        json.dumps('{"topic": "x", "urgent": true}'),
        "```json\n{'topic': 'x', 'urgent': True,}\n```",
    ],
)
def test_the_right_one_of_several_values_is_the_one_that_fits_the_schema(text: str) -> None:
    assert read(text) == (RIGHT, None)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{'topic': 'x', 'urgent': 'yes',}", "schema"),
        ('{"topic": "x", "urgent": 1,}', "schema"),
        ('[{"topic": "x", "urgent": true}, {"topic": "y", "urgent": true}]', "schema"),
        ('{"topic": "x", "urgent": true', "not_json"),
    ],
)
def test_what_is_read_leniently_is_held_to_the_schema(text: str, reason: str) -> None:
    assert read(text) == ({}, reason)


def test_an_answer_that_ended_at_its_limit_counts_only_where_its_json_is_whole() -> None:
    assert read('{"topic": "x", "urgent": true}', "length") == (RIGHT, None)
    assert read('```json\n{"topic": "x", "urgent": true}\n```', "length") == (RIGHT, None)
    number = AnswerSpec("r", "json", schema={"type": "integer"})
    assert read("12", "stop", number) == ({"r": 12}, None)
    for text in ('{"topic": "x", "urg', 'Say {"topic": "y", "urgent": true}. No, rather'):
        assert read(text, "length") == ({}, "cut")
    assert read("12", "length", number) == ({}, "cut")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.text(max_size=5), VALUES, min_size=1, max_size=3), st.booleans())
def test_a_python_literal_is_the_value_that_it_writes(value: dict[str, Any], indent: bool) -> None:
    escaped = json.dumps(value, indent=1 if indent else None)
    assert one(escaped + "\n") == one("So: " + escaped) == json.loads(escaped)
    if repr(value).isascii() and "\\u" not in repr(value):
        assert one(repr(value)) == value


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.text(max_size=5), VALUES, min_size=1, max_size=3), st.data())
def test_no_beginning_of_a_value_is_taken_for_it(value: dict[str, Any], data: st.DataObject) -> None:
    whole = json.dumps(value)
    with pytest.raises(NotJson):
        json_values(whole[: data.draw(st.integers(1, len(whole) - 1))])


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("{}[]\"'“”:,\\/#*ab1.-+ \n\ud800"), max_size=60))
def test_whatever_the_text_it_is_a_value_or_no_json(text: str) -> None:
    try:
        found = json_values(text)
    except NotJson:
        return
    assert found
    json.dumps([one.value for one in found], allow_nan=False).encode()


@pytest.mark.parametrize(
    "text", ["[" * 20_000, "{'" * 20_000, '{"a" ' * 5_000, "[{" * 9_000 + "}]" * 9_000, '["' * 9_001,
             "{'" * 9000 + "}" * 9000]
)  # fmt: skip
def test_hostile_answers_take_no_long_time(text: str) -> None:
    started = time.process_time()
    try:
        json_values(text)
    except NotJson:
        pass
    assert time.process_time() - started < 2.0
