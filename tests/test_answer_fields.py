"""The short form of a schema: what it reads, what it writes, and what it refuses before anything is paid."""

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from batchllm.answer import fields_text, schema_of
from batchllm.answer.schema import Schema
from batchllm.errors import UsageError


@pytest.mark.parametrize(
    ("kind", "schema"),
    [
        ("", {"type": "string"}),
        ("str", {"type": "string"}),
        ("bool", {"type": "boolean"}),
        ("[a|b|c]", {"type": "string", "enum": ["a", "b", "c"]}),
        ("[Home, Garden | Toys]", {"type": "string", "enum": ["Home, Garden", "Toys"]}),
        ("1..5", {"type": "integer", "minimum": 1, "maximum": 5}),
        ("-1 .. 1", {"type": "integer", "minimum": -1, "maximum": 1}),
        ("0.0..1.0", {"type": "number", "minimum": 0.0, "maximum": 1.0}),
        ("float 0..1", {"type": "number", "minimum": 0.0, "maximum": 1.0}),
        ("list", {"type": "array", "items": {"type": "string"}}),
        ("list int", {"type": "array", "items": {"type": "integer"}}),
        ("list [a|b]", {"type": "array", "items": {"type": "string", "enum": ["a", "b"]}}),
        ("list 1..5", {"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 5}}),
    ],
)
def test_a_type_becomes_what_json_schema_has_for_it(kind: str, schema: dict[str, Any]) -> None:
    assert schema_of(f"it {kind}")["properties"] == {"it": schema}
    assert schema_of(f"other, it {kind}: what it is, last")["properties"]["it"] == {
        **schema,
        "description": "what it is",
    }


def test_a_field_with_a_question_mark_may_be_missing_or_null() -> None:
    for text in ("label [a|b], note?", "label [a|b], note str?", "label [a|b], note? str"):
        schema = schema_of(text)
        assert schema["required"] == ["label"]
        found = Schema(schema)
        for value in ({"label": "a"}, {"label": "a", "note": None}, {"label": "a", "note": "x"}):
            assert found.fault(value) is None
        assert found.fault({"label": "c"}) is not None
    assert Schema("mood? [good|bad]").fault({"mood": None}) is None


MISREAD = [
    ("label: one of a, b, c", "'label [a|b|c]'"),
    ("label: one of a, b or c", "'label [a|b|c]'"),
    ("label: either yes or no, urgent bool", "'label [yes|no]'"),
    ("label: a, b, c", "'label [a|b|c]'"),
    ("label: a|b|c", "'label [a|b|c]'"),
    ("label: positive or negative", "'label [positive|negative]'"),
    ("topic\nlabel: one of a, b, c\nurgent bool", "'label [a|b|c]'"),
    ("label a|b|c", "'label [a|b|c]'"),
    ("label (a|b|c)", "'label [a|b|c]'"),
    ("label [a, b, c]", "'label [a|b|c]'"),
    ("label Literal['a','b']", "'label [a|b]'"),
    ("score: 1 to 5", "'score 1..5'"),
    ("score: between 0 and 10", "'score 0..10'"),
    ("score 1-5", "'score 1..5'"),
    ("score int 1-5", "'score 1..5'"),
    ("tags: list of strings", "'tags list'"),
    ("tags list[int]", "'tags list int'"),
    ("tags [str]", "'tags list'"),
    ("tags array", "'tags list'"),
    ("age: int, name: str", "'age int'"),
    ("note: optional remark", "'note?'"),
    ("note (optional)", "'note?'"),
]


@pytest.mark.parametrize(("text", "right"), MISREAD)
def test_what_reads_differently_from_what_is_meant_is_refused_with_the_right_spelling(
    text: str, right: str
) -> None:
    with pytest.raises(UsageError) as raised:
        schema_of(text)
    assert f"write {right}" in str(raised.value)
    assert schema_of(right.strip("'"))


@pytest.mark.parametrize(
    "text", ["label str: one of a, b", "score str: 1 to 5", "date str: optional", "a: the first of two, b"]
)
def test_a_field_with_a_type_is_taken_at_its_word(text: str) -> None:
    assert {field["type"] for field in schema_of(text)["properties"].values()} == {"string"}


@pytest.mark.parametrize("text", ["a [x|x]", "a 5..1", "[a|b]", "a list list", "?", "a [b", "a: b: c\nd e f"])
def test_what_has_no_meaning_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--schema"):
        schema_of(text)


NAMES = st.from_regex(r"[A-Za-zé中][A-Za-z0-9_]{0,6}", fullmatch=True)
WORDS = st.text("abc xyz,:.?-()é中", min_size=1, max_size=6).map(str.strip).filter(bool)
NUMBERS = st.integers(-(10**12), 10**12)
SINGLE = st.one_of(
    st.sampled_from(["str", "int", "float", "bool"]),
    st.lists(WORDS, min_size=2, max_size=4, unique=True).map(lambda words: f"[{'|'.join(words)}]"),
    st.tuples(NUMBERS, NUMBERS).map(lambda pair: f"{min(pair)}..{max(pair)}"),
    st.tuples(NUMBERS, NUMBERS).map(lambda pair: f"{min(pair) / 8}..{max(pair) / 8}"),
)
FIELDS = st.lists(
    st.tuples(NAMES, st.sampled_from(["", "?"]), st.one_of(SINGLE, SINGLE.map(lambda one: f"list {one}"))),
    min_size=1,
    max_size=5,
    unique_by=lambda field: field[0],
)


@given(FIELDS)
@settings(max_examples=60)
def test_the_short_form_reads_what_it_writes(fields: list[tuple[str, str, str]]) -> None:
    schema = schema_of(", ".join(f"{name}{optional} {kind}" for name, optional, kind in fields))
    assert list(schema["properties"]) == [name for name, _, _ in fields]
    assert schema["required"] == [name for name, optional, _ in fields if not optional]
    assert schema_of(fields_text(schema)) == schema
    Schema(schema)


@given(st.text() | st.text("abo1.?:,|[]()\n \"'-ftlis", max_size=40))
@example("label: '1'..²")
@settings(max_examples=150)
def test_any_text_is_a_schema_or_an_error_of_ours(text: str) -> None:
    try:
        schema = schema_of(text)
    except UsageError:
        return
    Schema(schema)
    assert fields_text(schema)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
        ["type", "enum", "anyOf", "$ref", "items", "properties", "required", "minimum", "maximum", "const", "x"]
    ), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(["properties", "required", "$defs"]), JSON, max_size=3))
@settings(max_examples=60)
def test_the_fields_of_any_document_can_be_shown(document: dict[str, Any]) -> None:
    assert isinstance(fields_text(document), str)


def test_the_fields_of_a_json_schema_are_shown_with_what_they_refer_to() -> None:
    schema = {
        "properties": {
            "colour": {"$ref": "#/$defs/Colour"},
            "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "parts": {"type": "array", "items": {"type": "object"}},
            "size": {"type": ["integer", "string"]},
        },
        "required": ["colour", "parts", "size"],
        "$defs": {"Colour": {"enum": ["red", "blue"]}},
    }
    assert fields_text(schema) == "colour [red|blue], note? str, parts list object, size int or str"
