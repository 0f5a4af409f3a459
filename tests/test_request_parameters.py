from typing import Any

import orjson
import pytest

from batchllm import tokens
from batchllm.job import Job
from batchllm.records import ChatRequest
from batchllm.request import RequestBuilder, Unsendable
from batchllm.template import parse
from tests.request_jobs import body_of, built, make_job, make_row

TEXT = make_row(text="Hello")


def job_with_both(**settings: Any) -> Job:
    """A job whose template sets temperature and limit."""
    source = '[[messages]]\ncontent = "{{ text }}"\n[parameters]\ntemperature = 0.7\nmax_tokens = 150\n'
    return make_job(template=parse(source, "mine"), **settings)


def test_a_reasoning_model_gets_room_for_reasoning_and_the_lowest_effort() -> None:
    body = body_of(job_with_both(model="gpt-5-mini", parameters={"max_tokens": 100}), TEXT)
    assert body["max_completion_tokens"] == 100 + 1024
    assert body["reasoning_effort"] == "minimal"
    assert not {"max_tokens", "temperature"} & body.keys()
    assert built(job_with_both(model="gpt-5-mini"), TEXT).max_tokens == 150 + 1024


def test_more_effort_gets_more_room() -> None:
    body = body_of(job_with_both(model="gpt-5-mini", reasoning_effort="high"), TEXT)
    assert (body["reasoning_effort"], body["max_completion_tokens"]) == ("high", 150 + 32768)


def test_effort_none_is_a_model_that_does_not_reason() -> None:
    body = body_of(job_with_both(model="gpt-5.1"), TEXT)
    assert (body["reasoning_effort"], body["temperature"], body["max_completion_tokens"]) == (
        "none",
        0.7,
        150,
    )


def test_a_bound_on_everything_is_left_as_it_was_given() -> None:
    body = body_of(job_with_both(model="o3", parameters={"max_completion_tokens": 77}), TEXT)
    assert body["max_completion_tokens"] == 77


def test_a_reasoning_model_without_efforts_keeps_its_own_parameter() -> None:
    body = body_of(job_with_both(model="deepseek-reasoner"), TEXT)
    assert body["max_tokens"] == 150 + 32768
    assert not {"temperature", "reasoning_effort", "max_completion_tokens"} & body.keys()


def test_reasoning_that_is_switched_off_needs_no_room() -> None:
    job = job_with_both(model="deepseek-v4-flash", parameters={"thinking": {"type": "disabled"}})
    assert body_of(job, TEXT)["max_tokens"] == 150


def test_another_model_keeps_its_parameters() -> None:
    assert body_of(job_with_both(model="gpt-4o", reasoning_effort="low"), TEXT)["reasoning_effort"] == "low"
    assert body_of(job_with_both(model="gpt-4o"), TEXT)["max_tokens"] == 150


def test_a_long_text_fails_its_row_or_is_cut_in_the_text_column_only() -> None:
    row = make_row(text="one two three four five six", other="seven eight nine ten")
    failed = built(make_job(max_input_tokens=3), row)
    assert isinstance(failed, Unsendable)
    assert failed.reason == "too_long"
    assert "6 tokens" in failed.error and "--on-long truncate" in failed.error
    job = make_job("{{ text }} | {{ other }}", max_input_tokens=3, on_long="truncate")
    assert body_of(job, row)["messages"][1]["content"] == "one two three | seven eight nine ten"


def test_a_cut_never_halves_a_character_and_is_counted() -> None:
    row = make_row(text="👩‍👩‍👧‍👦" * 50)
    job = make_job(max_input_tokens=20, on_long="truncate")
    builder = RequestBuilder(job, ("text",), (), None)
    request = builder.build(row)
    assert isinstance(request, ChatRequest)
    text = orjson.loads(request.body)["messages"][1]["content"]
    assert text and set(text.split("👩‍👩‍👧‍👦")) == {""}
    assert tokens.counter("gpt-4")(text) <= 20
    assert builder.truncated == 1


def test_a_text_within_the_limit_is_left_alone() -> None:
    row = make_row(text="word " * 10)
    assert body_of(make_job(max_input_tokens=11), row)["messages"][1]["content"] == "word " * 10


@pytest.mark.parametrize(("words", "sent"), [(3000, True), (9000, False)])
def test_what_does_not_fit_into_the_context_is_a_row_error(words: int, sent: bool) -> None:
    outcome: Any = built(make_job(), make_row(text="word " * words), context_window=lambda model: 8192)
    assert isinstance(outcome, ChatRequest) == sent
    if not sent:
        assert outcome.reason == "context_length"
        assert "gpt-4" in outcome.error and "8192" in outcome.error


def test_the_context_of_a_published_model_is_known() -> None:
    outcome = built(make_job(), make_row(text="word " * 9000))
    assert isinstance(outcome, Unsendable)
    assert outcome.reason == "context_length"


def test_an_estimate_refuses_only_what_is_certain() -> None:
    row = make_row(text="word " * 9000)
    inside = built(make_job(model="llama-x"), row, context_window=lambda model: 8192)
    assert isinstance(inside, ChatRequest)
    assert isinstance(built(make_job(model="llama-x"), row, context_window=lambda model: 4096), Unsendable)
