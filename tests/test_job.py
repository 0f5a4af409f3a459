import json
import os
import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from batchllm.errors import UsageError
from batchllm.job import Job, assemble
from batchllm.job.options import OPTIONS, Option
from batchllm.prepare.saved_job import restored, saved
from batchllm.records import Pace

KEY = {"OPENAI_API_KEY": "sk-one"}


def made(task: str = "summarize", environ: dict[str, str] | None = None, **flags: Any) -> Job:
    return assemble(task, {"input": "in/rows.csv", **flags}, {**KEY, **(environ or {})})


def test_the_simplest_job_has_the_defaults_of_the_design() -> None:
    job = made()
    assert (job.task, job.inputs, job.output) == (
        "summarize",
        (Path("in/rows.csv"),),
        Path("in/rows.summarize.csv"),
    )
    assert job.journal == Path("in/rows.summarize.csv.journal")
    assert job.pace == Pace()
    assert (job.grace_s, job.allow_failed, job.via, job.no_early_stop, job.reasks) == (
        30.0,
        0.0,
        "online",
        False,
        1,
    )
    assert job.template is not None
    assert job.template.parameters == {"temperature": 0.3, "max_tokens": "{{ (bullets | int) * 50 }}"}
    assert (job.variables, job.parameters) == ({}, {})


@pytest.mark.parametrize(
    ("task", "flags", "output", "kind"),
    [
        ("classify", {"input": "a/b.jsonl"}, "a/b.classify.jsonl", "jsonl"),
        ("classify", {"input": "b.NDJSON"}, "b.classify.NDJSON", "jsonl"),
        ("codegen", {"input": "b.tsv"}, "b.codegen.tsv", "csv"),
        ("summarize", {"input": "b.v2.csv", "provider": "simulator"}, "b.v2.summarize.simulated.csv", "csv"),
        ("run", {"input": "b.csv", "prompt": "Translate: {{ text }}"}, "b.run.csv", "csv"),
        ("run", {"input": "b.csv", "template": "classify"}, "b.classify.csv", "csv"),
        ("run", {"input": "b.jsonl"}, "b.run.jsonl", "jsonl"),
        ("summarize", {"input": "b.txt", "input_format": "csv"}, "b.summarize.csv", "csv"),
        ("summarize", {"input": "b.csv", "output": "c.jsonl"}, "c.jsonl", "jsonl"),
        ("summarize", {"input": "b.csv", "output": "-"}, None, "csv"),
        ("summarize", {"input": "-"}, None, None),
        ("summarize", {"input": "-", "input_format": "jsonl"}, None, "jsonl"),
        ("summarize", {"input": "-", "output": "c.tsv"}, "c.tsv", "csv"),
    ],
)
def test_the_output_is_named_after_input_and_task_and_its_suffix_decides_the_format(
    task: str, flags: dict[str, Any], output: str | None, kind: str | None
) -> None:
    job = made(task, **flags)
    assert (job.output and str(job.output), job.output_format) == (output, kind)
    assert job.journal == (Path(f"{output}.journal") if output else None)


def test_a_template_of_ones_own_names_the_output(tmp_path: Path) -> None:
    path = tmp_path / "tone of voice.toml"
    path.write_text('[[messages]]\ncontent = "{{ text }}"\n')
    assert made("run", template=str(path)).output == Path("in/rows.tone-of-voice.csv")
    path.write_text('name = "../../evil"\n[[messages]]\ncontent = "{{ text }}"\n')
    output = made("run", template=str(path)).output
    assert output is not None
    assert output.parent == Path("in")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"input": None}, "there is no INPUT"),
        ({"input": "rows.xlsb"}, r"rows\.xlsb: workbooks of this kind are not read; save it as \.xlsx"),
        ({"input": "rows.dat"}, r"rows\.dat: the suffix '.dat' names no format; add --input-format"),
        ({"input": "."}, "several inputs need -o: a file for all of them, such as all.csv"),
        ({"input": "rows"}, "names no format"),
        ({"output": "out.txt"}, r"use \.csv, \.tsv, \.jsonl, \.ndjson"),
        ({"output": "in/rows.csv"}, "is input and output at once"),
        ({"output": "in/../in/rows.csv"}, "is input and output at once"),
        ({"journal": "in/rows.csv"}, "is input and journal at once"),
        ({"output": "o.jsonl", "summary": "o.jsonl"}, "is output and summary at once"),
        ({"limit": 3, "sample": 3}, "--limit and --sample exclude each other"),
        ({"rpm": 0}, "--rpm must be a number above 0"),
        ({"temperature": 3}, "--temperature must be a number from 0 to 2"),
        ({"temprature": 0.3}, r"no option temprature \(did you mean temperature\?\)"),
        ({"labels": "a,b"}, "--labels: the template has no variable labels; it has bullets, answer_language"),
        ({"var": ["bulets=3"]}, r"--var bulets: the template reads no such variable; it has bullets"),
        ({"tool_choice": "auto"}, "--tool-choice needs --tools"),
        ({"tools": "none.json"}, r"--tools none\.json: No such file"),
        ({"schema": "none.json"}, r"--schema none\.json: No such file"),
        ({"schema": "topic strr"}, "--schema"),
        ({"schema": '{"type": 3}'}, "--schema"),
        ({"schema": "{"}, "this is not JSON"),
        ({"media_root": "none"}, "--media-root none is not a folder"),
        ({"prices": "none.json"}, r"--prices none\.json: No such file"),
        (
            {"model": "o3-mini", "reasoning_effort": "none"},
            "--reasoning-effort none: o3-mini takes low, medium",
        ),
        ({"param": ["top_q=0.9"]}, r"--param top_q: .*did you mean top_p\?"),
        ({"param": ["model=x"]}, "--param model: use --model"),
        ({"param": ["messages=[]"]}, "--param messages: the template makes them"),
        ({"param": ["n=2"]}, "--param n: one answer a row is read"),
        ({"param": ["stream=true"]}, "--param stream"),
        ({"param": ["temperature=9"]}, "--param temperature must be a number from 0 to 2"),
        ({"provider": "nowhere"}, "there is no such preset"),
        (
            {"via": "batch", "provider": "ollama"},
            "--via batch: ollama has no Batch API; there is one at openai",
        ),
    ],
)
def test_wrong_use_is_refused_in_one_sentence_that_names_the_flag(
    flags: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        made(**flags)
    assert "\n" not in str(caught.value)


def test_an_output_that_is_a_link_to_the_input_is_refused(tmp_path: Path) -> None:
    source, link = tmp_path / "rows.csv", tmp_path / "link.csv"
    source.write_text("text\n")
    os.link(source, link)
    with pytest.raises(UsageError, match="is input and output at once"):
        made(input=str(source), output=str(link))


def test_run_without_anything_to_ask_takes_rows_that_say_it_themselves() -> None:
    job = made("run", input="jobs.jsonl")
    assert (job.per_row, job.template) == (True, None)
    assert json.dumps(job.fingerprint())
    with pytest.raises(UsageError, match="run needs to know what to ask"):
        made("run", input="rows.csv")
    with pytest.raises(UsageError, match="only one can say what to ask: --prompt or --template"):
        made("run", prompt="{{ text }}", template="summarize")
    with pytest.raises(
        UsageError, match="there is no task 'translate'; there are classify, codegen, summarize and run"
    ):
        made("translate")


def test_options_of_a_task_become_variables_of_its_template() -> None:
    job = made("classify", labels="spam, ham")
    assert job.variables == {"labels": ["spam", "ham"]}
    assert job.template is not None
    assert job.template.answer.labels == ("spam", "ham")
    assert made("codegen", language="Rust").variables == {"language": "Rust"}
    assert made(bullets=5, answer_language="French").variables == {"bullets": 5, "answer_language": "French"}


def test_a_variable_of_the_environment_is_for_the_tasks_that_have_it() -> None:
    environ = {"BATCHLLM_LANGUAGE": "Rust", "BATCHLLM_LABELS": "a,b"}
    assert made("codegen", environ).variables == {"language": "Rust"}
    assert made("classify", environ).variables == {"labels": ["a", "b"]}


def test_flags_go_before_the_environment() -> None:
    job = made(environ={"BATCHLLM_RPM": "100", "BATCHLLM_TPM": "5000", "BATCHLLM_MAX_COST": ""}, rpm=200)
    assert (job.pace.requests_per_minute, job.pace.tokens_per_minute, job.max_cost) == (200, 5000, None)
    assert (job.sources["rpm"], job.sources["tpm"]) == ("--rpm", "BATCHLLM_TPM")
    with pytest.raises(UsageError, match="BATCHLLM_RPM must be a number above 0, not 'x'"):
        made(environ={"BATCHLLM_RPM": "x"})


def test_a_misspelled_variable_is_not_passed_over() -> None:
    with pytest.raises(
        UsageError, match=r"BATCHLLM_MAX_COSTS means nothing \(did you mean BATCHLLM_MAX_COST\?\)"
    ):
        made(environ={"BATCHLLM_MAX_COSTS": "5"})
    assert made(environ={"BATCHLLM_TEAM": "blue"}).task == "summarize"


def test_every_setting_reaches_the_job(tmp_path: Path) -> None:
    tools = tmp_path / "tools.json"
    tools.write_text('[{"type": "function", "function": {"name": "look"}}]')
    prices = tmp_path / "prices.json"
    prices.write_text('{"gpt-4o-mini": {"input_cost_per_token": 1, "output_cost_per_token": 1}}')
    job = made(
        column="review", system="Be brief.", delimiter=";", encoding="cp1252", conversation="thread",
        rpm=5, tpm=6, concurrency=7, max_attempts=8, timeout=9, max_wait="10s", max_outage="11s",
        temperature=0.5, max_tokens=12, param=["top_p=0.5"], image=["a", "b"], detail="low",
        media_root=str(tmp_path), tools=str(tools), tool_choice="look", reask=2, max_input_tokens=13,
        on_long="truncate", columns="summary,error", add="cost", prefix="x_", summary="runs.jsonl", force=True,
        sample=14, seed=15, dedupe=True, reuse=["old.csv"], max_cost="5", max_requests=16, max_total_tokens=17,
        prices=str(prices), no_early_stop=True, via="batch", retry_failed=True, accept_change=True, restart=True,
        allow_failed="2%", grace=18, max_time="20s", wait_lock=19, journal="j", model="gpt-4o",
    )  # fmt: skip
    assert (job.column, job.system, job.delimiter, job.encoding) == ("review", "Be brief.", ";", "cp1252")
    assert (job.conversation, job.max_input_tokens, job.on_long) == ("thread", 13, "truncate")
    assert job.pace == Pace(
        requests_per_minute=5, tokens_per_minute=6, concurrency=7, max_attempts=8, timeout_s=9, max_wait_s=10,
        max_outage_s=11,
    )  # fmt: skip
    assert job.parameters == {"temperature": 0.5, "max_tokens": 12, "top_p": 0.5}
    assert (job.images, job.detail, job.media_root) == (("a", "b"), "low", tmp_path)
    assert job.tools == [{"type": "function", "function": {"name": "look"}}]
    assert job.tool_choice == {"type": "function", "function": {"name": "look"}}
    assert (job.columns, job.add, job.prefix, job.reask) == (("summary", "error"), ("cost",), "x_", 2)
    assert (job.sample, job.seed, job.dedupe, job.reuse) == (14, 15, True, (Path("old.csv"),))
    assert (job.max_cost, job.max_requests, job.max_total_tokens) == (Decimal(5), 16, 17)
    assert (job.prices, job.no_early_stop, job.via) == (prices, True, "batch")
    assert job.force and job.retry_failed and job.accept_change and job.restart
    assert (job.allow_failed, job.grace_s, job.max_time_s, job.wait_lock_s) == (0.02, 18, 20, 19)
    assert (job.journal, job.summary, job.endpoint.model) == (Path("j"), Path("runs.jsonl"), "gpt-4o")


def test_a_schema_is_how_the_answers_are_read(tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    path.write_text('{"type": "object", "properties": {"topic": {"type": "string"}}}')
    for text in (str(path), path.read_text(), "topic"):
        job = made("run", prompt="{{ text }}", schema=text)
        assert job.schema is not None
        assert "topic" in job.schema["properties"]
        assert job.template is not None
        assert (job.template.answer.read, job.template.answer.schema) == ("json", job.schema)
    template = tmp_path / "mine.toml"
    template.write_text('[[messages]]\ncontent = "{{ text }}"\n[answer]\nschema = "topic, urgent bool"\n')
    job = made("run", template=str(template))
    assert job.schema is not None
    assert set(job.schema["properties"]) == {"topic", "urgent"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "expected a JSON list"),
        ("[]", "expected a JSON list"),
        ("[1]", "tool 1 is not of the form"),
        ('[{"type": "function", "function": {}}]', "tool 1 is not of the form"),
        ('[{"function": {"name": "a"}}]', "tool 1 is not of the form"),
        ('[{"type": "function", "function": {"name": "a"}}, {"type": "function", "function": {"name": "a"}}]',
         "two tools named 'a'"),
        ("nonsense", "not JSON"),
    ],
)  # fmt: skip
def test_a_tools_file_is_validated(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "tools.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        made(tools=str(path))
    path.write_text('[{"type": "function", "function": {"name": "a"}}]')
    with pytest.raises(UsageError, match="must be auto, none, required or one of a, not 'b'"):
        made(tools=str(path), tool_choice="b")


def test_the_default_model_of_a_preset_brings_its_parameters_below_all_others() -> None:
    environ = {"DEEPSEEK_API_KEY": "d"}
    off = {"thinking": {"type": "disabled"}}
    assert made(environ=environ, provider="deepseek").parameters == off
    assert made(environ=environ, provider="deepseek", model="deepseek-v4-pro").parameters == {}
    assert made(environ=environ, provider="deepseek", reasoning_effort="high").parameters == {}
    on = made(environ=environ, provider="deepseek", param=['thinking={"type": "enabled"}'])
    assert on.parameters == {"thinking": {"type": "enabled"}}


def test_the_fingerprint_holds_what_changes_requests_and_nothing_else() -> None:
    first = made().fingerprint()
    assert json.loads(json.dumps(first)) == first
    same: list[dict[str, Any]] = [
        {"bullets": 3}, {"temperature": 0.3}, {"output": "x.jsonl"}, {"rpm": 5}, {"add": "cost"}, {"limit": 3},
        {"journal": "j"}, {"via": "batch"}, {"base_url": "https://api.openai.com/v1/"}, {"max_cost": 3},
    ]  # fmt: skip
    assert [made(**flags).fingerprint() for flags in same] == [first] * len(same)
    other: list[dict[str, Any]] = [
        {"bullets": 4}, {"temperature": 0.4}, {"model": "gpt-4o"}, {"system": "x"}, {"param": ["seed=1"]},
        {"provider": "simulator"}, {"column": "a"}, {"image": ["p"]}, {"schema": "topic"}, {"conversation": "c"},
        {"max_input_tokens": 5}, {"answer_language": "French"},
    ]  # fmt: skip
    prints = [json.dumps(made(**flags).fingerprint(), sort_keys=True) for flags in other]
    assert len({json.dumps(first, sort_keys=True), *prints}) == len(other) + 1
    assert "sk-one" not in json.dumps(first)


def test_a_saved_job_comes_back_with_everything_but_the_key_and_what_belongs_to_one_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prices.json").write_text(
        '{"gpt-4o": {"input_cost_per_token": 1, "output_cost_per_token": 1}}'
    )
    (tmp_path / "tools.json").write_text('[{"type": "function", "function": {"name": "look"}}]')
    job = made(
        "classify", labels="a,b", column="review", add="cost", image=["p", "q"], tools="tools.json", tool_choice="look",
        schema="topic", reuse=["old.csv"], max_cost="5.00", prices="prices.json", model="gpt-4o", allow_failed="2%",
        retry_failed=True, rpm=5, header=["X-Secret=s"], media_root=".",
    )  # fmt: skip
    kept = saved(job)
    text = json.dumps(kept)
    assert "sk-one" not in text and "X-Secret" not in text
    found = restored(json.loads(text))
    assert found.fingerprint() == job.fingerprint()
    assert saved(found) == kept
    same = (
        "add",
        "images",
        "max_cost",
        "reuse",
        "tools",
        "tool_choice",
        "variables",
        "columns",
        "output_format",
    )
    assert [getattr(found, name) for name in same] == [getattr(job, name) for name in same]
    assert (found.inputs, found.prices) == ((tmp_path / "in/rows.csv",), tmp_path / "prices.json")
    assert (found.pace, found.retry_failed, found.allow_failed) == (Pace(), False, 0)
    assert found.endpoint.api_key is None


@pytest.mark.parametrize("option", OPTIONS.values(), ids=lambda option: option.name)
def test_an_option_is_found_in_the_job_and_its_kind_takes_its_example(option: Option) -> None:
    value: Any = made("classify")
    for name in option.attribute.split("."):
        value = getattr(value, name)
    if option.default is not None:
        assert value == option.default_value
    assert option.kind(tomllib.loads(f"x = {option.toml}")["x"]) is not None


def test_a_variable_for_a_switch_is_refused() -> None:
    with pytest.raises(UsageError, match=r"BATCHLLM_DRY_RUN means nothing; give --dry-run itself"):
        assemble("classify", {"input": "rows.csv", "provider": "simulator"}, {"BATCHLLM_DRY_RUN": "1"})


@pytest.mark.parametrize("name", ["temperature", "max_tokens"])
def test_a_parameter_that_is_given_in_two_ways_in_one_place_is_refused(tmp_path: Path, name: str) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("text\na\n")
    usual = {"input": str(rows), "prompt": "{{ text }}", "provider": "simulator"}
    for general in ([f"{name}=1"], {name: 1}):
        with pytest.raises(UsageError, match="give it once"):
            assemble("run", {**usual, name: 2, "param": general}, {})
    with pytest.raises(UsageError, match="give it once"):
        assemble("run", usual, {f"BATCHLLM_{name.upper()}": "2", "BATCHLLM_PARAM": f"{name}=1"})
    (tmp_path / "job.toml").write_text(
        f'[job]\nprompt = "{{{{ text }}}}"\n{name} = 2\n[parameters]\n{name} = 1\n'
    )
    with pytest.raises(UsageError, match="give it once"):
        assemble(
            "run", {"job_file": str(tmp_path / "job.toml"), "input": str(rows), "provider": "simulator"}, {}
        )
    assert assemble("run", {**usual, name: 2}, {"BATCHLLM_PARAM": f"{name}=1"}).parameters == {name: 2}
