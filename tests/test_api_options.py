"""Options as Python has them: typed keywords, models, mappings, functions; errors in Python's words."""

import copy
import json
import pickle
import re
import typing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field, field_validator

import batchllm
from batchllm import InputError, Interrupted, Job, JobError, NotNow, Options, Result, UsageError, run
from batchllm.api.messages import in_python
from batchllm.job import assemble, reference
from batchllm.job.options import OPTIONS
from batchllm.simulator import ScriptedResponse, Simulator, SimulatorSettings, start_in_thread
from tests.fakes import chat_body

ROWS = [{"text": "one"}, {"text": "two"}]
CALL: Any = run
"""A call that no type checker looks at."""


def answers(*texts: str) -> Any:
    """A server that gives these answers in turn."""
    left = list(texts)
    return start_in_thread(
        SimulatorSettings(keep_requests=9), script=lambda body: ScriptedResponse(body=chat_body(left.pop(0)))
    )


def asked(server: Simulator, rows: Any = ROWS, **options: Any) -> Result:
    return run(
        rows,
        **{"prompt": "{{ text }}", "base_url": server.base_url, "model": "m", "concurrency": 1, **options},
    )


def test_the_keywords_are_those_of_the_table() -> None:
    assert set(Options.__annotations__) == {*OPTIONS, "api_key"} - {"input", "task", "keep"}
    page = Path(reference.__file__).with_name("keywords.py").read_text("utf-8")
    assert page == reference.keywords_module(), (
        "python -m batchllm.job.reference keywords > batchllm/job/keywords.py"
    )
    assert typing.get_type_hints(Options)["labels"] is not str


class Topic(BaseModel):
    topic: str
    score: float = Field(ge=0)
    tags: list[str] = []
    note: str | None = None

    @field_validator("topic")
    @classmethod
    def no_secret(cls, value: str) -> str:
        if value == "secret":
            raise ValueError("not this one")
        return value


def test_a_pydantic_model_is_a_schema_and_gives_instances() -> None:
    said = (
        '{"topic": "a", "score": 1}',
        '{"topic": "secret", "score": 2.5, "tags": ["t"]}',
        "no JSON",
        '{"topic": "b", "score": 3, "note": "n"}',
    )
    rows = [{"text": str(number)} for number in range(4)]
    with answers(*said) as server:
        result = asked(server, rows, schema=Topic, reask=0)
        sent = json.loads(server.received[0].body)
    assert sent["response_format"]["json_schema"]["schema"]["properties"]["score"]["minimum"] == 0
    assert result.parsed == (
        Topic(topic="a", score=1), None, None, Topic(topic="b", score=3, note="n"),
    )  # fmt: skip
    table = result.frame()
    assert [row["score"] for row in table] == [1.0, 2.5, None, 3.0]
    assert table[1]["tags"] == ["t"]


def test_a_model_works_for_a_file_too(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a"}\n')
    with answers('{"topic": "a", "score": 1}') as server:
        assert asked(server, path, schema=Topic).parsed == (Topic(topic="a", score=1),)
    with pytest.raises(UsageError, match="no pydantic model"):
        _ = run(path, "classify", provider="simulator").parsed


def test_a_schema_may_be_a_dictionary() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    with answers('{"n": 1.0}', '{"n": 9400111899223100001234}') as server:
        table = asked(server, schema=schema).frame()
    assert [row["n"] for row in table] == [1, 9400111899223100001234]
    assert type(table[0]["n"]) is int
    with pytest.raises(UsageError, match="not the class int"):
        run(ROWS, prompt="{{ text }}", schema=int, provider="simulator")


def test_labels_may_be_a_list_or_have_descriptions() -> None:
    labels = {"bug": "something is broken", "wish": "something is missing"}
    with start_in_thread(SimulatorSettings(keep_requests=9)) as server:
        result = run(ROWS, "classify", labels=labels, base_url=server.base_url, model="m")
        system = json.loads(server.received[0].body)["messages"][0]["content"]
    assert "- bug: something is broken\n- wish: something is missing" in system
    assert {row["label"] for row in result.frame()} <= set(labels)
    assert run(ROWS, "classify", labels=list(labels), provider="simulator").summary.answered == 2


def test_tools_may_be_a_list_and_prices_a_mapping() -> None:
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
    prices = {"m": {"input_cost_per_token": 1e-3, "output_cost_per_token": Decimal("0.002")}}
    with answers("a", "b") as server:
        result = asked(server, tools=tools, prices=prices, add=["cost"])
        assert json.loads(server.received[0].body)["tools"] == tools
    assert result.summary.cost == 2 * (5 * Decimal("0.001") + 3 * Decimal("0.002"))
    assert result.frame()[0]["cost"] == pytest.approx(0.011)
    with pytest.raises(UsageError, match="prices="):
        run(ROWS, "classify", prices={"m": 3}, provider="simulator")  # type: ignore[dict-item]
    with pytest.raises(UsageError, match="tools=, tool 1"):
        run(ROWS, "classify", tools=[{"name": "look"}], provider="simulator")


@pytest.mark.parametrize("key", ["sk-secret", lambda: "sk-secret"])
def test_a_key_is_used_and_kept_nowhere(key: Any, clean_environment: Path) -> None:
    with start_in_thread(SimulatorSettings(api_key="sk-secret")) as server:
        result = run(ROWS, "classify", base_url=server.base_url, model="m", api_key=key)
    assert result.summary.answered == 2
    state = clean_environment / ".local/state/batchllm"
    assert all(b"sk-secret" not in path.read_bytes() for path in state.iterdir())
    assert "sk-secret" not in repr(result)


def test_a_key_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="the function given as api_key= must return a key, not int"):
        run(ROWS, "classify", base_url="http://localhost:1/v1", model="m", api_key=lambda: 3)  # type: ignore[arg-type,return-value]


def test_a_job_is_pickled_and_compared_without_its_key(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a"}\n')
    flags = {"input": str(path), "base_url": "http://127.0.0.1:1/v1", "model": "m"}
    job = assemble("classify", flags, {}, api_key="sk-one")
    assert job == assemble("classify", flags, {}, api_key="sk-two")
    assert "sk-one" not in repr(job)
    data = pickle.dumps(job)
    assert b"sk-one" not in data
    again = pickle.loads(data)
    assert again == job
    assert again.endpoint.api_key is None
    assert copy.deepcopy(job).endpoint.api_key == "sk-one"
    with pytest.raises(UsageError, match=r"run\(job, api_key=…\)"):
        run(again)
    with start_in_thread(SimulatorSettings(api_key="sk-one")) as server:
        from dataclasses import replace

        there = replace(again, endpoint=replace(again.endpoint, base_url=server.base_url))
        assert run(there, api_key="sk-one").summary.answered == 1


def test_a_job_is_made_from_a_job_file(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n')
    path = tmp_path / "job.toml"
    path.write_text('[job]\ninput = "rows.jsonl"\ntask = "classify"\nprovider = "simulator"\n')
    job = Job.from_file(path, max_requests=5)
    assert job.max_requests == 5
    assert run(job).summary.answered == 1
    assert run(path).summary.answered == 1


def test_another_question_is_another_job_and_the_first_costs_nothing_again() -> None:
    first = run(ROWS, prompt="One: {{ text }}", provider="simulator")
    second = run(ROWS, prompt="Two: {{ text }}", provider="simulator")
    third = run(ROWS, prompt="Two: {{ text }}", provider="simulator", temperature=0.9)
    again = run(ROWS, prompt="One: {{ text }}", provider="simulator")
    assert [result.summary.attempts for result in (first, second, third, again)] == [2, 2, 2, 0]


def test_a_named_output_is_one_job_whose_change_needs_consent(tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    run(ROWS, prompt="One: {{ text }}", provider="simulator", output=output)
    with pytest.raises(
        UsageError, match="agree with accept_change=True, or write to another output with output="
    ):
        run(ROWS, prompt="Two: {{ text }}", provider="simulator", output=output)
    run(ROWS, prompt="Two: {{ text }}", provider="simulator", output=output, accept_change=True)
    grown = run([{"text": "zero"}, *ROWS], prompt="Two: {{ text }}", provider="simulator", output=output)
    assert grown.summary.attempts == 1


def test_nothing_is_left_if_it_is_not_to_be_kept(clean_environment: Path, tmp_path: Path) -> None:
    run(ROWS, "classify", provider="simulator", keep=False)
    state = clean_environment / ".local/state/batchllm"
    assert list(state.iterdir()) == []
    result = run(ROWS, "classify", provider="simulator", keep=False, output=tmp_path / "out.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]
    assert result.output == tmp_path / "out.csv"


def test_a_job_with_failed_rows_is_kept(clean_environment: Path) -> None:
    with answers("a", "no label") as server:
        run(ROWS, "classify", labels="a,b", base_url=server.base_url, model="m", keep=False, concurrency=1)
    assert any((clean_environment / ".local/state/batchllm").iterdir())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: CALL(ROWS, "classify", labells="a"), r"no option labells \(did you mean labels\?\)"),
        (lambda: run(ROWS, "classify", prompt="x"), "prompt= is not an option of classify, but of run"),
        (lambda: CALL(ROWS, "summarise"), "summarise"),
        (lambda: run(ROWS, "classify", rpm=-1, provider="simulator"), "^rpm= must be"),
        (lambda: run(ROWS, "classify", limit=1, sample=1, provider="simulator"), "^limit= and sample= exclude"),
        (lambda: CALL(ROWS, "classify", provider="simulator", dry_run=True), "dry_run is an option"),
        (lambda: run(ROWS, "classify", delimiter=";", provider="simulator"), "delimiter= is for files"),
        (lambda: run(ROWS, "classify"), "provider= or base_url=.*provider=\"simulator\""),
        (lambda: run([{"label": "a", "text": "b"}], "classify", provider="simulator"), 'add prefix="llm_"'),
        (lambda: run(ROWS, "classify", provider="simulator", work="w"), "^work= is for a job on many machines"),
        (lambda: run(ROWS, "classify", provider="simulator", workers=2), "add engine="),
        (lambda: run("gone.csv", "classify", provider="simulator"), "gone.csv"),
    ],
)  # fmt: skip
def test_an_error_says_it_in_pythons_words(call: Any, message: str) -> None:
    with pytest.raises(JobError, match=message) as caught:
        call()
    assert not re.search(r"(?<!\w)--[a-z]", str(caught.value))


@pytest.mark.parametrize(
    ("message", "ours"),
    [
        ("agree with --accept-change, or use -o", "agree with accept_change=True, or use output="),
        ("add --prefix llm_", 'add prefix="llm_"'),
        ("give --api-key-file FILE; or", "give api_key_file=; or"),
        ("raise --max-tokens, or lower --reasoning-effort", "raise max_tokens=, or lower reasoning_effort="),
        ("-p 'a prompt with {{ text }}', -t TEMPLATE", "prompt='a prompt with {{ text }}', template="),
        ("the same command goes on", "the same call goes on"),
        ("a file-name -- and a-b stay", "a file-name -- and a-b stay"),
    ],
)
def test_flags_become_keywords(message: str, ours: str) -> None:
    assert in_python(message) == ours


def test_the_public_names_are_listed_documented_and_loaded_when_used() -> None:
    assert {*batchllm.__all__} <= set(dir(batchllm))
    page = (Path(__file__).parent.parent / "docs" / "python.md").read_text("utf-8")
    for name in batchllm.__all__:
        assert getattr(batchllm, name).__doc__, name
        assert f"`{name}`" in page or f"`{name}(" in page, f"docs/python.md does not name {name}"
    kinds: list[type[BaseException]] = [
        JobError,
        *JobError.__subclasses__(),
        *NotNow.__subclasses__(),
        Interrupted,
    ]
    assert {kind.__name__ for kind in kinds} <= set(batchllm.__all__)
    assert not issubclass(Interrupted, Exception)
    assert issubclass(InputError, JobError)


def test_a_result_prints_as_three_lines_and_as_a_table() -> None:
    result = run(ROWS, "classify", provider="simulator")
    assert len(repr(result).splitlines()) == 3
    assert repr(result).startswith("rows: 2 of 2 answered, 0 failed, 0 empty")
    assert result._repr_html_().count("<tr>") == 3


def test_the_error_of_a_row_names_keywords() -> None:
    with answers("", "fine") as server:
        result = asked(server, schema="topic", reask=0)
    assert "--" not in "".join(row["error"] for row in result.frame())


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("clasify", "there is no task 'clasify' (did you mean classify?)"),
        ("Translate: {{ text }}", "a prompt of your own goes into prompt="),
        (None, "there is no task None"),
    ],
)
def test_a_task_that_does_not_exist_is_named_before_its_options(task: Any, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        CALL(ROWS, task, provider="simulator")


def test_a_table_without_a_question_is_refused_unless_its_rows_ask(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    with pytest.raises(UsageError, match="run needs to know what to ask: prompt='a prompt"):
        CALL(pandas.DataFrame({"text": ["one", "two"], "n": [1, 2]}), provider="simulator")
    (tmp_path / "a.csv").write_text("text\none\n")
    with pytest.raises(UsageError, match="run needs to know what to ask"):
        CALL([tmp_path / "a.csv"], provider="simulator")
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n')
    assert run([tmp_path / "a.jsonl"], provider="simulator").summary.answered == 1
    asking = pandas.DataFrame({"messages": [[{"role": "user", "content": "one"}]]})
    assert run(asking, provider="simulator").summary.answered == 1


def test_a_result_counts_one_answer_in_the_singular(clean_environment: Path) -> None:
    lines = repr(run(ROWS[:1], prompt="{{ text }}", provider="simulator"))
    assert "paid: 1 answer, " in lines and ", $0, in " in lines


@pytest.mark.parametrize("text", ["Good", "The app crashes. I want 1.5 of them", "x" * 5000])
def test_a_list_of_texts_is_refused_with_the_form_that_texts_have(text: str) -> None:
    with pytest.raises(InputError, match=re.escape("give texts as [{'text': …}]")):
        run([text, text], "classify", provider="simulator")
