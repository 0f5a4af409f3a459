"""Groups of answers always fit and come to an end; votes, joins and what is left to ask about."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm import tokens
from batchllm.flows.merging import Item, candidates, groups_of, settled, voted, written
from batchllm.job import assemble
from batchllm.records import Answer, AnswerSpec, Row
from batchllm.request import RequestBuilder
from batchllm.request.combination import Combination

COUNT = tokens.counter("gpt-4o")
ROW = Row(0, 1, {"text": "a text"})


def combination(**flags: object) -> Combination:
    job = assemble("run", {"input": "in.csv", "provider": "simulator", "prompt": "{{ text }}", "on_long": "split",
                           **flags}, {})  # fmt: skip
    return Combination(job, RequestBuilder(job, ("text",), [ROW], None))


def items_of(*values: dict[str, object]) -> list[Item]:
    return [Item(number, number, each, "") for number, each in enumerate(values)]


TEXTS = st.lists(
    st.one_of(st.text(max_size=60), st.integers(0, 400).map(lambda n: "word " * n), st.just("字句。" * 40)),
    min_size=2,
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(TEXTS, st.integers(16, 300))
def test_levels_of_groups_fit_and_come_to_an_end(texts: list[str], room: int) -> None:
    total = len(texts)
    items = [Item(number, number, {}, text) for number, text in enumerate(texts)]
    levels = 0
    while len(items) > 1:
        levels += 1
        groups = groups_of(items, total, room, COUNT)
        assert [number for group in groups for number, _ in group] == list(range(len(items)))
        assert len(groups) <= (len(items) + 1) // 2
        for group in groups:
            if len(group) > 1:
                assert COUNT(written(group, items, total, room)) <= room
        chance = random.Random(levels)
        items = [
            Item(items[group[0][0]].first, items[group[-1][0]].last, {}, "word " * chance.randrange(500))
            for group in groups
        ]
    assert levels <= max(1, (total - 1).bit_length())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=60), min_size=2, max_size=20))
def test_answers_that_fit_together_are_shown_whole_and_named(texts: list[str]) -> None:
    items = [Item(number, number, {}, text) for number, text in enumerate(texts)]
    (group,) = groups_of(items, len(items), 10_000, COUNT)
    said = written(group, items, len(items), 10_000)
    for number, text in enumerate(texts):
        assert f"Part {number + 1} of {len(items)}:\n{text}" in said


def test_lists_are_joined_and_values_agree_or_are_asked_about() -> None:
    schema = combination(schema="tags list, score int, urgent bool, note?")
    items = items_of(
        {"tags": ["a", "b"], "score": 3, "urgent": True, "note": None},
        {"tags": ["b", "c"], "score": 3, "urgent": False, "note": "late"},
        {"tags": [], "score": 3, "urgent": True, "note": None},
    )
    found, unclear = settled(items, schema.columns, schema)
    assert found == {"tags": ["a", "b", "c"], "score": 3, "note": "late"}
    assert unclear == ("urgent",)
    shown = candidates(items, unclear, schema.spec)
    assert [(item.first, item.last, item.text) for item in shown] == [
        (0, 0, '{"urgent":true}'),
        (1, 1, '{"urgent":false}'),
        (2, 2, '{"urgent":true}'),
    ]


def test_equal_neighbours_are_one_candidate_and_what_says_nothing_is_none() -> None:
    schema = combination(schema="score int?")
    items = items_of({"score": 1}, {"score": None}, {"score": 1}, {"score": 2})
    shown = candidates(items, ("score",), schema.spec)
    assert [(item.first, item.last, item.text) for item in shown] == [
        (0, 2, '{"score":1}'),
        (3, 3, '{"score":2}'),
    ]


def test_a_list_that_breaks_the_schema_is_asked_about() -> None:
    document = {"type": "object", "required": ["tags"], "properties": {
        "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 2}}}  # fmt: skip
    schema = combination(schema=document)
    assert settled(items_of({"tags": ["a"]}, {"tags": ["b"]}), ("tags",), schema) == (
        {"tags": ["a", "b"]},
        (),
    )
    assert settled(items_of({"tags": ["a", "b"]}, {"tags": ["c"]}), ("tags",), schema) == ({}, ("tags",))


def test_one_and_true_differ_and_the_order_of_names_does_not() -> None:
    schema = combination(schema={"type": "object", "properties": {"found": {}}})
    items = items_of({"found": [1, {"a": 1, "b": 2}]}, {"found": [True, {"b": 2, "a": 1}]})
    found, _ = settled(items, ("found",), schema)
    assert found == {"found": [1, {"a": 1, "b": 2}, True]}
    assert [type(each) for each in found["found"]] == [int, dict, bool]


LABELS = AnswerSpec("label", "label", ("a", "b", "c"))


@pytest.mark.parametrize(("given", "label"), [("aab", "a"), ("baab", "b"), ("abcc", "c"), ("ba", "b")])
def test_the_most_frequent_label_wins_and_then_the_first(given: str, label: str) -> None:
    answers = [Answer({"label": each}, labels=(each,)) for each in given]
    assert voted(answers, LABELS) == (label, (label,))


@pytest.mark.parametrize(
    ("given", "labels"),
    [(["a b", "b"], "a; b"), (["a", "b", "c"], "none"), (["c a", "a c", ""], "a; c"), (["", ""], "none")],
)
def test_several_labels_need_half_of_the_parts(given: list[str], labels: str) -> None:
    spec = AnswerSpec("label", "label", ("a", "b", "c"), multi_label=True)
    answers = [Answer(labels=tuple(each.split()) or ("none",)) for each in given]
    assert voted(answers, spec)[0] == labels


def test_a_request_asks_for_what_is_unclear_alone_with_the_definitions_of_the_schema() -> None:
    document = {
        "type": "object", "properties": {"one": {"$ref": "#/$defs/kind"}, "two": {"type": "integer"}},
        "$defs": {"kind": {"enum": ["x", "y"]}},
    }  # fmt: skip
    builder, reader = combination(schema=document).of(("one",))
    assert builder.answer_columns == ("one",)
    assert reader.spec.schema == {
        "type": "object", "properties": {"one": {"$ref": "#/$defs/kind"}}, "required": ["one"],
        "additionalProperties": False, "$defs": {"kind": {"enum": ["x", "y"]}},
    }  # fmt: skip
