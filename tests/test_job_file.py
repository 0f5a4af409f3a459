import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from batchllm.errors import UsageError
from batchllm.job import Job, assemble, jobfile
from batchllm.job.options import OPTIONS
from batchllm.job.reference import init_text

KEY = {"OPENAI_API_KEY": "sk-one"}
SIMPLE = '[job]\ninput = "a.csv"\ntask = "summarize"\n'
OWN = '[[messages]]\nrole = "user"\ncontent = "{{ tone }}: {{ text }}"\n[variables]\ntone = "kind"\n'


def run(path: Path, text: str, environ: dict[str, str] | None = None, **flags: Any) -> Job:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return assemble("run", {"job_file": str(path), **flags}, {**KEY, **(environ or {})})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs" / "tone.toml"


def test_a_job_file_is_a_template_with_a_job_table(path: Path) -> None:
    job = run(path, f'{OWN}[parameters]\ntemperature = 0.1\n[job]\ninput = "rows.csv"\nrpm = 50\n')
    assert job.template is not None
    assert (job.template.name, job.template.parameters) == ("tone", {"temperature": 0.1})
    assert (job.task, job.pace.requests_per_minute) == ("run", 50)
    assert job.output == path.parent / "rows.tone.csv"
    assert (job.sources["rpm"], job.sources["template"]) == (str(path), str(path))


def test_paths_are_relative_to_the_job_file_and_those_of_flags_to_the_working_folder(path: Path) -> None:
    path.parent.mkdir()
    (path.parent / "mine.toml").write_text(OWN)
    (path.parent / "schema.json").write_text('{"type": "object", "properties": {"a": {}}}')
    text = '[job]\ntemplate = "mine.toml"\ninput = "rows.csv"\nschema = "schema.json"\nreuse = ["old.csv"]\n'
    job = run(path, text)
    assert (job.inputs, job.reuse) == ((path.parent / "rows.csv",), (path.parent / "old.csv",))
    assert job.schema is not None
    assert set(job.schema["properties"]) == {"a"}
    job = run(path, text, input="other.csv", output="here.csv", schema="b, c")
    assert (job.inputs, job.output) == ((Path("other.csv"),), Path("here.csv"))
    (path.parent / "known.csv").write_text("id,label\n1,a\n")
    job = run(path, f'{text}gold = ["label", "known.csv"]\non = "id"\n')
    assert job.gold == ("label", str(path.parent / "known.csv"))
    job = run(path, '[job]\ntask = "summarize"\ninput = "-"\noutput = "-"\n')
    assert (job.inputs, job.output) == ((), None)


def test_flags_and_environment_go_before_the_job_file(path: Path) -> None:
    text = '[job]\ntask = "summarize"\ninput = "rows.csv"\nrpm = 1\ntpm = 2\nconcurrency = 3\ntemperature = 0.1\n'
    job = run(path, text, {"BATCHLLM_RPM": "20", "BATCHLLM_TPM": "30"}, rpm=100)
    pace = job.pace
    assert (pace.requests_per_minute, pace.tokens_per_minute, pace.concurrency) == (100, 30, 3)
    assert job.parameters == {"temperature": 0.1}
    assert run(path, text, param=["temperature=0.9"]).parameters == {"temperature": 0.9}
    assert run(path, text, {"BATCHLLM_TEMPERATURE": "0.5"}).parameters == {"temperature": 0.5}


def test_a_flag_that_says_what_to_ask_goes_before_the_files_own_template(path: Path) -> None:
    text = f'{OWN}[job]\ninput = "rows.csv"\n'
    job = run(path, text, prompt="Other: {{ text }}")
    assert job.template is not None
    assert job.template.messages[-1].content == "Other: {{ text }}"
    job = run(path, '[job]\ntask = "classify"\ninput = "rows.csv"\n')
    assert job.task == "classify"
    assert run(path, '[job]\ntask = "classify"\ninput = "rows.csv"\n', template="codegen").task == "codegen"


def test_variables_and_parameters_of_the_file_are_for_the_template_it_names(path: Path) -> None:
    job = run(
        path,
        '[variables]\nbullets = 5\n[parameters]\nmax_tokens = 99\n[job]\ntask = "summarize"\ninput = "rows.csv"\n'
        "[job.param]\ntop_p = 0.5\n",
    )
    assert (job.variables, job.parameters) == ({"bullets": 5}, {"max_tokens": 99, "top_p": 0.5})
    job = run(path, f'{OWN}[job]\ninput = "rows.csv"\nvar = {{ tone = "cold" }}\n')
    assert job.variables == {"tone": "cold"}
    assert run(path, f'{OWN}[job]\ninput = "rows.csv"\n', var=["tone=warm"]).variables == {"tone": "warm"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[job]\ntemprature = 0.3\n', r"tone\.toml: \[job\] has the unknown key temprature \(did you mean temperature"),
        ("[job]\nmax-tokens = 5\n", r"unknown key max-tokens \(did you mean max_tokens\?\)"),
        ('[job]\ninput = "a.csv"\ntask = "summarize"\nrpm = "fast"\n', r"rpm in .*tone\.toml must be a number above 0"),
        ('[job]\ninput = "a.csv"\ntask = "translate"\n', r"task in .* must be one of summarize"),
        ('[job]\ninput = "a.csv"\nlabels = "a,b"\ntask = "summarize"\n', "labels in .*: the template has no variable"),
        ("[job\n", "this is not TOML"),
        ('description = "x"\n[[messages]]\ncontent = "x"\n', r"a job file has a \[job\] table; .* -t "),
        ('[job]\ninput = "a.csv"\n[answer]\ncolumn = "x"\n', r"answer needs \[\[messages\]\]"),
        ('[job]\ninput = "a.csv"\n[[message]]\n', r"message needs \[\[messages\]\]"),
        ('variables = 3\n[job]\n', "variables must be a table"),
        ('[job]\ninput = "a.csv"\n', "run needs to know what to ask"),
        ('[job]\ntask = "summarize"\n', "there is no INPUT"),
        (f'{OWN}[job]\ninput = "a.csv"\nprompt = "x"\n', r"only one can say .*: prompt in .* or \[\[messages"),
        ('[job]\ninput = "a.csv"\nprompt = "x"\ntask = "summarize"\n', "only one can say what to ask"),
        (f"{SIMPLE}[parameters]\ntemperature = 5\n", r"\[parameters\] of .* temperature must be"),
        (f"{SIMPLE}[parameters]\ntemprature = 1\n", r"temprature: .*did you mean temperature\?"),
        (f"[variables]\nbulets = 3\n{SIMPLE}", r"\[variables\] of .*toml bulets: the template reads no such variable"),
    ],
)  # fmt: skip
def test_a_wrong_job_file_is_refused_with_file_and_key(path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        run(path, text)
    assert "\n" not in str(caught.value)


def test_a_job_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.toml: the job file cannot be read: No such file"):
        assemble("run", {"job_file": str(tmp_path / "none.toml")}, KEY)
    path = tmp_path / "latin.toml"
    path.write_bytes("[job]\nsystem = 'é'\n".encode("latin-1"))
    with pytest.raises(UsageError, match="is not UTF-8"):
        assemble("run", {"job_file": str(path)}, KEY)


def test_a_job_file_with_byte_order_mark_and_windows_newlines_is_read(tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    path.write_bytes('\ufeff[job]\r\ntask = "summarize"\r\ninput = "rows.csv"\r\n'.encode())
    assert assemble("run", {"job_file": str(path)}, KEY).task == "summarize"


def test_the_file_of_init_is_a_job_as_it_is(path: Path) -> None:
    job = run(path, init_text())
    assert (job.task, job.inputs) == ("summarize", (path.parent / "reviews.csv",))


def test_every_line_of_the_file_of_init_is_true_when_it_is_taken(path: Path) -> None:
    bare = [re.sub(r"^# (?=[a-z_]+ = |\[)", "", line) for line in init_text().splitlines()]
    text = "\n".join(bare)
    table = tomllib.loads(text)
    assert set(table["job"]) == set(OPTIONS)
    path.parent.mkdir()
    path.write_text(text)
    found = jobfile.read(path)
    assert found.template is not None
    assert found.template.answer.column == "reply"
    for name, value in found.layers[0].values.items():
        assert OPTIONS[name].kind(value) is not None


def test_each_setting_of_the_file_of_init_can_be_taken_alone(path: Path) -> None:
    beyond = {"input", "task", "template", "prompt", "var"}  # other ways to say what to ask
    beyond |= {
        "tools",
        "tool_choice",
        "media_root",
        "text_from",
        "prices",
        "api_key_file",
        "examples",
        "shots",
        "on",
    }  # other files
    beyond |= {"work", "workers", "ray_address"}  # of a job on many machines only
    tasks = {"labels": "classify", "multi_label": "classify", "language": "codegen"}
    for name, setting in OPTIONS.items():
        if name in beyond:
            continue
        task = tasks.get(name, "summarize")
        job = run(path, f'[job]\ninput = "rows.csv"\ntask = "{task}"\n{name} = {setting.toml}\n')
        assert any(source == str(path) for key, source in job.sources.items() if key.split(".")[0] == name)
