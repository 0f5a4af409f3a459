import socket
from typing import Any

import pytest

from batchllm.answer import schema_of
from batchllm.answer.schema import Schema
from batchllm.errors import UsageError


def test_the_short_form_makes_a_schema_that_strict_mode_takes() -> None:
    assert schema_of("topic, urgent bool, score float: from 0 to 1") == {
        "type": "object",
        "properties": {
            "topic": {"type": "string"},
            "urgent": {"type": "boolean"},
            "score": {"type": "number", "description": "from 0 to 1"},
        },
        "required": ["topic", "urgent", "score"],
        "additionalProperties": False,
    }


def test_the_short_form_may_have_a_line_for_each_field() -> None:
    schema = schema_of("name: first, then last\nage int\n\n")
    assert schema["properties"] == {
        "name": {"type": "string", "description": "first, then last"},
        "age": {"type": "integer"},
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a flot", "did you mean float?"),
        ("a b c", "not a name and a type"),
        ("a, a int", "twice"),
        (" , ", "no fields"),
    ],
)
def test_a_wrong_short_form_says_what_is_wrong(text: str, said: str) -> None:
    with pytest.raises(UsageError) as raised:
        schema_of(text)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"topic": 1, "urgent": True, "score": 0.5}, "$.topic: 1 is not of type 'string'"),
        ({"urgent": True, "score": 0.5}, "'topic' is a required property"),
        ({"topic": "x" * 9000, "urgent": "x" * 9000, "score": 0.5}, "is not of type 'boolean'"),
        ([], "is not of type 'object'"),
    ],
)
def test_a_value_that_does_not_fit_gets_the_validators_words(value: Any, said: str) -> None:
    fault = Schema("topic, urgent bool, score float").fault(value)
    assert fault is not None and said in fault
    assert len(fault) < 300


def test_a_value_that_fits_has_no_fault() -> None:
    schema = Schema("topic, urgent bool")
    assert schema.fault({"topic": "x", "urgent": False}) is None
    assert schema.fields == ("topic", "urgent")


def test_a_schema_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="not a JSON Schema"):
        Schema({"type": "objekt"})


def test_nothing_is_fetched_for_a_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a schema opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    fault = Schema({"$ref": "http://127.0.0.1:9/schema.json"}).fault({})
    assert fault is not None and "cannot be applied" in fault


def test_an_endless_schema_is_a_fault_not_a_crash() -> None:
    fault = Schema({"$ref": "#"}).fault({})
    assert fault is not None
