"""What a changed job says about itself."""

from typing import Any

import pytest

from batchllm.job.changes import change_text, changes_between
from tests.test_job import made

SCHEMA = {"schema": "topic [a|b], urgent bool"}


def said(before: dict[str, Any], now: dict[str, Any]) -> str:
    return "; ".join(map(change_text, changes_between(before, now)))


def fingerprint(task: str, **options: Any) -> dict[str, Any]:
    return made(task, input="rows.csv", **options).fingerprint()


def test_a_schema_is_written_in_its_short_form() -> None:
    plain, typed = fingerprint("run", prompt="{{ text }}"), fingerprint("run", prompt="{{ text }}", **SCHEMA)
    assert said(typed, plain) == "--schema changed from topic [a|b], urgent bool to not set"


def test_schemas_that_differ_beyond_the_short_form_are_shown_as_they_are() -> None:
    one: dict[str, Any] = {
        "schema": {"type": "object", "properties": {"a": {"type": "string", "pattern": "x"}}}
    }
    other: dict[str, Any] = {
        "schema": {"type": "object", "properties": {"a": {"type": "string", "pattern": "y"}}}
    }
    before, after = said(one, other).removeprefix("--schema changed from ").split(" to ")
    assert before != after


def test_a_difference_beyond_the_first_words_or_in_blanks_is_shown() -> None:
    long = "word " * 30
    one, other = ({"messages": [{"role": "user", "content": f"{long}{end}"}]} for end in ("this", "that"))
    assert said(one, other).endswith("word word this' to '…rd " + "word " * 7 + "that'")
    one, other = ({"messages": [{"role": "user", "content": f"Ask{end}now"}]} for end in (" ", "\n "))
    assert said(one, other) == "--prompt or --template changed from 'Ask now' to 'Ask\\n now'"


def test_a_step_that_is_new_or_gone_is_told_by_its_prompt() -> None:
    steps = [
        {"steps": {name: {"messages": [{"role": "user", "content": "Ask {{ text }}"}], "model": "m"}}}
        for name in ("old", "new")
    ]
    assert said(*steps) == (
        "step old: prompt changed from 'Ask {{ text }}' to not set; "
        "step new: prompt changed from not set to 'Ask {{ text }}'"
    )


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (2, 0, "from 2 examples to not set"),
        (0, 1, "from not set to 1 example"),
        (3, 3, "from 3 examples to 3, of which 3 differ"),
    ],
)
def test_examples_are_counted(old: int, new: int, words: str) -> None:
    pairs = [
        [{"text": f"{kind} {number}", "label": "a"} for number in range(count)]
        for kind, count in (("old", old), ("new", new))
    ]
    assert (
        said({"examples": pairs[0] or None}, {"examples": pairs[1] or None}) == f"--examples changed {words}"
    )


def test_an_option_that_is_off_on_both_sides_is_no_change_and_a_templates_expression_is_not_shown() -> None:
    words = said(fingerprint("classify"), fingerprint("run", prompt="{{ text }}"))
    assert "--multi-label" not in words
    assert "--max-tokens changed from the template's own to not set" in words
    assert "from 10 to the template's own" in said(
        fingerprint("classify", max_tokens=10), fingerprint("classify")
    )


@pytest.mark.parametrize(
    ("task", "base", "changed"),
    [
        ("summarize", {}, {"on_long": "split"}),
        ("summarize", {"on_long": "split"}, {"overlap": 3}),
        ("summarize", {"on_long": "split"}, {"on_long": "truncate"}),
        ("classify", {"on_long": "split"}, {"combine": "vote"}),
        ("summarize", {}, {"max_input_tokens": 50}),
        ("summarize", {}, {"bullets": 2}),
        ("summarize", {}, {"answer_language": "French"}),
        ("classify", {}, {"labels": "a,b"}),
        ("codegen", {}, {"language": "Go"}),
        ("summarize", {}, {"temperature": 0.9}),
        ("summarize", {}, {"max_tokens": 9}),
        ("summarize", {}, {"system": "Be brief."}),
        ("summarize", {}, {"instructions": "Be brief."}),
        ("summarize", {}, {"column": "id"}),
        ("summarize", {}, {"samples": 3}),
        ("summarize", {}, {"conversation": "id"}),
        ("summarize", {}, {"model": "other"}),
        ("summarize", {}, {"reasoning_effort": "low"}),
        ("summarize", {}, {"schema": "a str"}),
        ("summarize", {"image": "id"}, {"detail": "low"}),
    ],
)
def test_the_option_that_changed_is_named_and_no_other(
    task: str, base: dict[str, Any], changed: dict[str, Any]
) -> None:
    provider: dict[str, Any] = {"provider": "simulator"}
    changes = changes_between(
        fingerprint(task, **provider, **base), fingerprint(task, **provider, **base | changed)
    )
    assert [change.option for change in changes] == [*changed]
