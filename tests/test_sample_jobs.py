"""Every sample runs with the command that its README names."""

import csv
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batchllm.formats import open_source
from batchllm.job import Job, assemble
from tests.command import Command

SAMPLES = Path(__file__).parent.parent / "sample_jobs"
README = (SAMPLES / "README.md").read_text("utf-8")
COMMANDS = [
    line
    for block in re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]


FIGURES = [
    line
    for block in re.findall(r"^```bash\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]


def words_of(command: str) -> list[str]:
    program, *words = shlex.split(command)
    assert program == "batchllm"
    return words


def job_of(words: list[str]) -> Job:
    """The job of a command, to know its input and its output."""
    flags: dict[str, Any] = {}
    task, *rest = words
    remaining = iter(rest)
    for word in remaining:
        name = {"-p": "prompt", "-t": "template", "-o": "output"}.get(
            word, word.removeprefix("--").replace("-", "_")
        )
        if not word.startswith("-"):
            flags["job_file" if word.endswith(".toml") else "input"] = word
        else:
            flags[name] = next(remaining)
    if "image" in flags:
        flags["image"] = [flags["image"]]
    if "var" in flags:
        flags["var"] = [flags["var"]]
    return assemble(task, flags, {})


def written(path: Path, delimiter: str) -> list[dict[str, Any]]:
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file, delimiter=delimiter))


@pytest.fixture
def elsewhere(samples: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder above a copy of the samples, as the working directory."""
    monkeypatch.chdir(samples.parent)
    yield samples.parent


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_of_a_sample_answers_every_row(command: str, elsewhere: Path, batchllm: Command) -> None:
    words = words_of(command)
    said = batchllm(*words)
    assert said.status == 0, said.err
    job = job_of(words)
    assert job.output is not None
    source = open_source(*job.inputs)
    rows = written(job.output, getattr(source, "delimiter", ","))
    assert len(rows) == source.scan().rows
    ours = [name for name in rows[0] if name not in source.columns]
    answer = ours[0]
    for row in rows:
        assert not row["error"]
        answered = row[answer] not in ("", None) or row.get("tool_calls")
        assert answered or "empty" in said.err, row


def test_every_sample_has_its_command() -> None:
    named = " ".join(COMMANDS)
    for path in SAMPLES.iterdir():
        if path.suffix in (".csv", ".jsonl", ".json", ".toml") and "." not in path.stem.replace(
            ".schema", ""
        ):
            assert f"sample_jobs/{path.name}" in named, f"{path.name} has no command in sample_jobs/README.md"


def test_turns_of_the_sample_conversation_have_those_before_them(elsewhere: Path, batchllm: Command) -> None:
    command = next(command for command in COMMANDS if "--conversation" in command)
    assert batchllm(*words_of(command)).status == 0
    rows = written(elsewhere / "sample_jobs/conversation.run.simulated.jsonl", ",")
    turns: dict[str, int] = {}
    for row in rows:
        turns[row["thread"]] = turns.get(row["thread"], 0) + 1
        number = turns[row["thread"]]
        assert f"turn {number}" in row["response"] or f"第 {number} 轮" in row["response"]


def test_the_fields_of_the_sample_schema_are_columns(elsewhere: Path, batchllm: Command) -> None:
    command = next(command for command in COMMANDS if "ticket.schema.json" in command)
    assert batchllm(*words_of(command)).status == 0
    for row in written(elsewhere / "sample_jobs/tickets.fields.csv", ","):
        assert row["kind"] in ("complaint", "question", "praise")
        assert row["urgent"] in ("true", "false")
        assert isinstance(json.loads(row["orders"]), list)


def test_the_figures_of_the_labelled_sample(elsewhere: Path, batchllm: Command) -> None:
    said = {}
    for command in FIGURES:
        words = words_of(command)
        said[words[0], "--json" in words] = batchllm(*words)
    assert [each.status for each in said.values()] == [0] * len(said), [each.err for each in said.values()]
    figures = json.loads(said["evaluate", True].out)
    assert figures["rows"] >= 200
    assert set(figures["labels"]) == {"positive", "negative", "neutral"}
    assert 0.5 < figures["accuracy"] < 1
    wrong = written(elsewhere / "sample_jobs/wrong.csv", ",")
    assert len(wrong) == figures["rows"] - figures["correct"]
    assert {"text", "gold", "answer"} <= wrong[0].keys()
    assert "one.csv is better on these rows" in said["compare", False].out
    assert len(written(elsewhere / "sample_jobs/vote.csv", ",")) == figures["rows"]
