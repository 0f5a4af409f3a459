"""The columns of the output are decided, and collisions refused, before the first request."""

import re
from typing import Any

import pytest

from batchllm.errors import UsageError
from batchllm.formats import STANDARD, plan_columns


def test_the_answer_comes_first_and_what_is_added_last() -> None:
    plan = plan_columns(["id", "text"], ["summary"], add=["cost", "response_id"])
    assert plan.input == ("id", "text")
    assert plan.order == ("summary", *STANDARD, "cost", "response_id")


def test_columns_choose_and_order_ours() -> None:
    plan = plan_columns(["id"], ["label"], columns=["error", "label", "cost"])
    assert plan.order == ("error", "label", "cost")
    assert plan_columns(["id"], ["label"], columns=[]).order == ()


def test_a_name_asked_for_twice_is_written_once() -> None:
    assert plan_columns([], ["label"], add=["cost", "cost", "model"]).order == ("label", *STANDARD, "cost")


def test_a_prefix_goes_before_each_of_ours() -> None:
    plan = plan_columns(["summary", "model"], ["summary"], prefix="llm_")
    assert plan.order == ("llm_summary", *(f"llm_{name}" for name in STANDARD))
    assert plan.answer == (("llm_summary", "summary"),)


@pytest.mark.parametrize(
    ("taken", "option"),
    [
        (["summary"], "--prefix llm_"),
        (["error", "model"], "--prefix llm_"),
        (["summary", "llm_model"], "--prefix llm2_"),
        (["summary", "llm_model", "llm2_error"], "--prefix llm3_"),
    ],
)
def test_a_name_the_input_has_is_refused_with_the_option_that_works(taken: list[str], option: str) -> None:
    with pytest.raises(UsageError, match=f"{re.escape(option)}$") as caught:
        plan_columns(["id", *taken], ["summary"])
    assert repr(taken[0]) in str(caught.value)
    prefix = str(caught.value).rsplit(maxsplit=1)[-1]
    assert plan_columns(["id", *taken], ["summary"], prefix=prefix)


def test_a_prefix_that_collides_itself_is_refused() -> None:
    with pytest.raises(UsageError, match=r"'x_summary'.*--prefix llm_$"):
        plan_columns(["x_summary"], ["summary"], prefix="x_")


def test_a_parameter_column_is_no_collision() -> None:
    plan = plan_columns(["model", "text"], ["response"], parameter_columns={"model", "temperature"})
    assert "model" not in plan.order
    assert ("response_model", "model") in plan.fields
    assert ("llm_model", "model") in plan_columns(["model"], ["response"], (), None, "llm_", {"model"}).fields


def test_a_field_of_the_answer_keeps_its_name() -> None:
    plan = plan_columns([], ["topic", "error"])
    assert plan.answer == (("topic", "topic"), ("error", "error"))
    assert ("response_error", "error") in plan.fields


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"add": ["costs"]}, "--add: there is no column 'costs' (did you mean cost?)"),
        ({"columns": ["sumary"]}, "--columns: there is no column 'sumary' (did you mean summary?)"),
        ({"columns": ["zzz"]}, "there are summary, finish_reason"),
        ({"columns": ["id"]}, "'id' is a column of the input, which --keep and --drop choose"),
    ],
)
def test_an_unknown_name_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        plan_columns(["id"], ["summary"], **options)
