"""What is asked of a task can be steered: instructions, labels, templates of one's own; and all of it is sent."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from batchllm.errors import UsageError
from batchllm.job import Job, assemble
from tests.command import Command
from tests.request_jobs import body_of, make_job, make_row

ROW = make_row(text="the box was broken")
RULES = 'Be strict: {{ not a placeholder }} and {% neither is this %}, "quoted" \\ back\nsecond line'


def job_of(task: str, **flags: Any) -> Job:
    return assemble(task, {"input": "rows.csv", "provider": "simulator", **flags}, {})


def system_of(job: Job, row: Any = ROW) -> str:
    first = body_of(job, row)["messages"][0]
    assert first["role"] == "system"
    content = first["content"]
    assert isinstance(content, str)
    return content


@pytest.mark.parametrize("task", ["summarize", "classify", "codegen", "run"])
def test_instructions_end_the_system_message_of_every_task_as_they_are_written(task: str) -> None:
    flags = {"prompt": "{{ text }}"} if task == "run" else {}
    plain, steered = system_of(job_of(task, **flags)), system_of(job_of(task, instructions=RULES, **flags))
    assert steered == f"{plain.rstrip()}\n\n{RULES}"


def test_instructions_may_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "rules.md").write_text("\ufeffBe brief.\n", "utf-8")
    assert system_of(job_of("summarize", instructions=str(tmp_path / "rules.md"))).endswith("\n\nBe brief.")
    with pytest.raises(UsageError, match=r"--instructions none\.md: there is no such file"):
        job_of("summarize", instructions="none.md")
    (tmp_path / "empty.md").write_text("\n")
    with pytest.raises(UsageError, match="is empty"):
        job_of("summarize", instructions=str(tmp_path / "empty.md"))


def test_rows_with_messages_of_their_own_get_the_instructions_too() -> None:
    job = make_job(None, instructions="Be brief.")
    user = {"role": "user", "content": "hi"}
    for messages, system in (
        ([user], "Be brief."),
        ([{"role": "system", "content": "You rhyme."}, user], "You rhyme.\n\nBe brief."),
    ):
        sent = body_of(job, make_row(messages=messages))["messages"]
        assert sent == [{"role": "system", "content": system}, user]


@pytest.mark.parametrize("steering", [{}, {"system": "You are strict."}, {"instructions": "Be strict."}])
@pytest.mark.parametrize("multi_label", [None, True])
def test_the_labels_are_always_sent(steering: dict[str, str], multi_label: bool | None) -> None:
    said = system_of(
        job_of("classify", labels={"a": "first one", "b": ""}, multi_label=multi_label, **steering)
    )
    assert "these labels" in said and ": a, b. Spell" in said and "- a: first one" in said
    assert all(text in said for text in steering.values())


def test_rows_that_classify_get_their_labels_beside_a_system_message_of_the_job() -> None:
    said = system_of(
        make_job(None, system="You are strict."), make_row(task="classify", labels="a,b", text="x")
    )
    assert said.startswith("You are strict.\n\n") and ": a, b." in said


def test_any_number_of_labels_has_a_word_for_none_unless_that_is_a_label() -> None:
    assert "If no label applies, answer none." in system_of(job_of("classify", multi_label=True))
    assert "If no label" not in system_of(job_of("classify", multi_label=True, labels="None,some"))
    assert (
        body_of(job_of("classify", multi_label=True, labels="aaaaaaaaaa,bbbbbbbbbb"), ROW)["max_tokens"] == 24
    )


OWN = '[[messages]]\nrole = "system"\ncontent = "You sort tickets."\n[[messages]]\ncontent = "Ticket: {{ text }}"\n'


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(OWN)
    return path


def test_a_template_of_ones_own_is_read_as_the_task_reads(own: Path) -> None:
    for task, column, read in (
        ("classify", "label", "label"),
        ("summarize", "summary", "text"),
        ("codegen", "code", "code"),
    ):
        job = job_of(task, template=str(own))
        assert job.template is not None and job.task == task
        assert (job.template.answer.column, job.template.answer.read) == (column, read)
        body = body_of(job, ROW)
        assert body["messages"][-1]["content"] == "Ticket: the box was broken"
        assert (body["temperature"], body["max_tokens"]) == (
            job_of(task).all_parameters["temperature"],
            body_of(job_of(task), ROW)["max_tokens"],
        )


def test_a_template_that_does_not_read_the_labels_gets_them_added(own: Path) -> None:
    assert ": a, b. Spell" in system_of(job_of("classify", template=str(own), labels="a,b"))
    own.write_text(OWN.replace("You sort tickets.", "One of {{ labels | join('/') }}, please."))
    assert system_of(job_of("classify", template=str(own), labels="a,b")) == "One of a/b, please."
    own.write_text(OWN + '[parameters]\nmax_tokens = 7\n[answer]\nread = "label"\nlabels = ["x", "y"]\n')
    job = job_of("classify", template=str(own))
    assert job.template is not None and job.template.answer.labels == ("x", "y")
    assert ": x, y. Spell" in system_of(job) and body_of(job, ROW)["max_tokens"] == 7


def test_a_template_that_reads_otherwise_and_an_option_that_it_ignores_are_refused(own: Path) -> None:
    with pytest.raises(UsageError, match="--language: the template has no variable language"):
        job_of("codegen", template=str(own), language="Rust")
    own.write_text(OWN + '[answer]\nread = "json"\n')
    with pytest.raises(
        UsageError, match="reads its answers as json, and classify as label; use batchllm run -t"
    ):
        job_of("classify", template=str(own))


def test_a_template_of_run_is_left_as_it_is(own: Path) -> None:
    own.write_text(OWN + '[answer]\nread = "label"\nlabels = ["x", "y"]\n')
    assert system_of(job_of("run", template=str(own))) == "You sort tickets."


@pytest.mark.parametrize(
    "change",
    [{"instructions": "x"}, {"multi_label": True}, {"labels": {"positive": "good", "negative": ""}}],
)
def test_steering_is_part_of_what_is_asked(change: dict[str, Any]) -> None:
    assert job_of("classify").fingerprint() != job_of("classify", **change).fingerprint()


def test_labels_are_counted_in_the_summary_and_its_file(
    batchllm: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.csv").write_text("text\nI love it\nI hate it\nit is terrible\n")
    words = ("classify", "rows.csv", "--provider", "simulator", "--summary", "s.json", "-o", "out.csv")
    said = batchllm(*words)
    assert "Labels: negative 2, positive 1" in said.err
    assert json.loads(Path("s.json").read_text())["labels"] == {"negative": 2, "positive": 1}
    assert "Labels: negative 2, positive 1" in batchllm(*words).err
    with Path("out.csv").open() as file:
        assert [row["label"] for row in csv.DictReader(file)] == ["positive", "negative", "negative"]


def test_changed_instructions_are_not_paid_for_without_a_word(
    batchllm: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.csv").write_text("text\nI love it\n")
    words = ("classify", "rows.csv", "--provider", "simulator", "-o", "out.csv", "--instructions")
    assert batchllm(*words, "Be strict.").status == 0
    refused = batchllm(*words, "Be lenient.")
    assert refused.status == 2 and "--accept-change" in refused.err and "--instructions" in refused.err
    assert batchllm(*words, "Be lenient.", "--accept-change").status == 0
