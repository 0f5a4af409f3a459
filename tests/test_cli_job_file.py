"""Job files through the command: their paths, what goes before them, and what is said when they are wrong."""

import json
from pathlib import Path

import orjson
import pytest

from tests.bench import WEATHER, Bench, wire

JOB = """\
[job]
input = "data/rows.csv"
output = "out/answers.jsonl"
tools = "data/tools.json"
model = "from-the-file"
temperature = 0.9
max_tokens = 44
base_url = "{url}"

[[messages]]
role = "user"
content = "{{{{ tone }}}} answer to {{{{ text }}}}"

[variables]
tone = "Friendly"

[answer]
column = "reply"
"""


@pytest.fixture
def job(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A job file in a folder of its own, with the working directory elsewhere."""
    folder = bench.folder / "project"
    for path in (folder / "data", folder / "out", bench.folder / "elsewhere"):
        path.mkdir(parents=True)
    bench.file("project/data/rows.csv", "text\nHello\n")
    bench.file("project/data/tools.json", json.dumps([WEATHER]))
    monkeypatch.chdir(bench.folder / "elsewhere")
    return bench.file("project/job.toml", JOB.format(url=bench.server.base_url))


def test_a_job_file_runs_from_anywhere_with_its_own_paths(bench: Bench, job: Path) -> None:
    said = bench.command("run", job)
    assert said.status == 0, said.err
    messages = [{"role": "user", "content": "Friendly answer to Hello"}]
    body = {
        "model": "from-the-file",
        "messages": messages,
        "max_tokens": 44,
        "temperature": 0.9,
        "tools": [WEATHER],
    }
    assert bench.bodies == [wire(body)]
    (row,) = bench.out("project/out/answers.jsonl")
    assert row["reply"] == ""
    assert row["tool_calls"][0]["function"]["name"] == "get_weather"


def test_flags_rows_and_environment_go_before_the_job_file(
    bench: Bench, job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.file("elsewhere/mine.jsonl", [{"text": "Goodbye"}])
    monkeypatch.setenv("BATCHLLM_MAX_TOKENS", "33")
    monkeypatch.setenv("BATCHLLM_MODEL", "from-the-environment")
    words = ("--model", "from-the-flag", "--var", "tone=Cold", "-o", "mine.csv")
    said = bench.command("run", job, "mine.jsonl", *words)
    assert said.status == 0, said.err
    body = orjson.loads(bench.bodies[0])
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("from-the-flag", 33, 0.9)
    assert body["messages"][0]["content"] == "Cold answer to Goodbye"
    assert (bench.folder / "elsewhere" / "mine.csv").exists()


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("temperature", "temprature", "unknown key temprature (did you mean temperature?)"),
        ("temperature = 0.9", 'temperature = "hot"', "temperature in"),
        ("max_tokens = 44", "max_tokens = 0", "max_tokens in"),
        ("data/tools.json", "data/tolls.json", "tolls.json"),
        ("[job]", "[jobs]", "[job]"),
        ("{{{{ text }}}}", "{{{{ txet }}}}", "txet"),
        ("data/rows.csv", "data/none.csv", "none.csv"),
    ],
)
def test_what_is_wrong_in_a_job_file_is_said_with_its_place_before_anything_is_sent(
    bench: Bench, job: Path, old: str, new: str, says: str
) -> None:
    job.write_text(JOB.replace(old, new).format(url=bench.server.base_url))
    said = bench.command("run", job)
    assert said.status in (2, 65)
    assert says in said.err
    assert len(said.err.splitlines()) == 1
    assert bench.bodies == []
