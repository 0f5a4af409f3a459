"""Rows whose texts are in files: read once, kept, and failing alone."""

import asyncio
import json
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from batchllm import splitting
from batchllm.errors import Interrupted
from batchllm.extras import install_command
from batchllm.formats.document_text import document_text
from batchllm.job import assemble
from batchllm.records import ChatRequest
from batchllm.runner import run_job
from batchllm.stopping import StopSwitch
from tests.command import Command
from tests.document_files import pdf, word
from tests.fakes import FakeClient, Outcome, answered, status
from tests.tables import read_csv as rows_of

SIMULATOR = ("--provider", "simulator")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table of files, and the files."""
    monkeypatch.chdir(tmp_path)
    media = tmp_path / "media"
    media.mkdir()
    (media / "a.pdf").write_bytes(pdf(["It is a good report."]))
    (media / "b.docx").write_bytes(word("It is a good letter."))
    (media / "c.html").write_text("<p>It is a good page.")
    (media / "scan.pdf").write_bytes(pdf([]))
    (media / "empty.txt").touch()
    (tmp_path / "secret.txt").write_text("secret")
    (media / "link.txt").symlink_to(tmp_path / "secret.txt")
    names = ["a.pdf", "b.docx", "", "c.html", "scan.pdf", "empty.txt", "../secret.txt", "link.txt", "none.md"]
    lines = [f"{number},{name}" for number, name in enumerate(names)]
    (tmp_path / "rows.csv").write_text("\n".join(["id,path", *lines]) + "\n")
    return tmp_path


WORDS = ("summarize", "rows.csv", "--text-from", "path", "--media-root", "media", *SIMULATOR)
OUT = "rows.summarize.simulated.csv"


def test_each_row_has_the_text_of_its_file_or_fails_unsent(batchllm: Command, folder: Path) -> None:
    said = batchllm(*WORDS)
    assert said.status == 1, said.err
    rows = rows_of(folder / OUT)
    assert list(rows[0])[:3] == ["id", "path", "summary"]
    assert [row["summary"] for row in rows[:4]] == [
        "- It is a good report.", "- It is a good letter.", "", "- It is a good page.",
    ]  # fmt: skip
    errors = [row["error"] for row in rows]
    assert errors[:4] == [""] * 4
    assert "'scan.pdf' has no text: its pages are pictures" in errors[4]
    assert "'empty.txt' is empty" in errors[5]
    assert "'../secret.txt' lies outside of --media-root" in errors[6]
    assert "'link.txt' lies outside of --media-root" in errors[7]
    assert "'none.md' cannot be read: No such file" in errors[8]
    assert [row["attempts"] for row in rows[4:]] == ["0"] * 5
    assert "secret" not in str([row["summary"] for row in rows])
    assert "4 answered" not in said.err
    (folder / "media" / "none.md").write_text("It is a good note.")
    batchllm(*WORDS, "--retry-failed")
    assert rows_of(folder / OUT)[8]["summary"] == "- It is a good note."


def test_a_text_that_was_taken_is_the_rows_whatever_becomes_of_the_file(
    batchllm: Command, folder: Path
) -> None:
    batchllm(*WORDS)
    before = (folder / OUT).read_bytes()
    (folder / "media" / "a.pdf").write_bytes(pdf(["Something else."]))
    (folder / "media" / "c.html").unlink()
    (folder / OUT).unlink()
    said = batchllm(*WORDS)
    assert (folder / OUT).read_bytes() == before
    assert "Paid in this run" not in said.err
    with (folder / "rows.csv").open("a") as rows:
        rows.write("9,a.pdf\n")
    said = batchllm(*WORDS)
    assert rows_of(folder / OUT)[9]["summary"] == "- It is a good report."
    assert "It is a good report." in batchllm("show", OUT, "1").out


def test_the_estimate_counts_the_text_of_the_files(batchllm: Command, folder: Path) -> None:
    (folder / "media" / "a.pdf").write_bytes(pdf(*[["many words " * 8] * 40] * 3))
    (folder / "rows.csv").write_text("id,path\n1,a.pdf\n")
    found = json.loads(batchllm(*WORDS, "--dry-run", "--json").out)
    assert found["prompt_tokens"] > 1500
    assert not (folder / f"{OUT}.journal").exists()
    line = batchllm(*WORDS).err.splitlines()[0]
    assert float(line.split("about ")[1].split("k ")[0]) > 1.5


def test_a_document_is_a_row_and_its_output_has_its_name(batchllm: Command, folder: Path) -> None:
    assert batchllm("summarize", "media/a.pdf", *SIMULATOR).status == 0
    [row] = rows_of(folder / "media" / "a.summarize.simulated.csv")
    assert (row["file"], row["summary"]) == ("media/a.pdf", "- It is a good report.")
    assert "text" not in row
    (folder / "n.txt").write_bytes(b"It is a good caf\xe9.")
    assert batchllm("run", "-p", "{{ text }}", "n.txt", *SIMULATOR).status == 1
    assert batchllm("summarize", "n.txt", "-o", "n.jsonl", "--encoding", "cp1252", *SIMULATOR).status == 0
    assert json.loads((folder / "n.jsonl").read_text())["summary"] == "- It is a good café."
    assert batchllm("export", "n.jsonl", "-o", "n.csv").status == 0


def test_steps_read_the_text_of_the_file(batchllm: Command, folder: Path) -> None:
    (folder / "job.toml").write_text(
        '[job]\ninput = "media/b.docx"\nprovider = "simulator"\n'
        '[[steps]]\nname = "first"\nprompt = "Shorten: {{ text }}"\n'
        '[[steps]]\nname = "second"\nprompt = "{{ first }} and {{ text }}"\n'
    )
    said = batchllm("run", "job.toml", "-o", "out.csv")
    assert said.status == 0, said.err
    assert rows_of(folder / "out.csv")[0]["second"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("rows.csv", "--text-from", "path"), "--media-root DIR says where they may be; add it"),
        (
            ("rows.csv", "--text-from", "paht", "--media-root", "media"),
            "no column 'paht' (did you mean path?)",
        ),
        (("rows.csv", "--text-from", "path", "--media-root", "media", "--column", "id"), "leave one out"),
        (("media/a.pdf", "--text-from", "file"), "media/a.pdf is a document, so its text is the row's"),
        (("media/a.pdf", "--conversation", "file"), "--conversation does not go together with a document"),
        (
            ("texts.csv", "--text-from", "path", "--media-root", "media"),
            "has a column 'text'; rename that one",
        ),
        (("-", "--input-format", "pdf"), "a document is a file, and standard input is none"),
    ],
)
def test_what_does_not_go_together_is_refused(
    batchllm: Command, folder: Path, words: tuple[str, ...], message: str
) -> None:
    (folder / "texts.csv").write_text("text,path\nx,a.pdf\n")
    said = batchllm("summarize", *words, *SIMULATOR)
    assert said.status == 2
    assert message in said.err


def test_a_missing_library_is_named_before_anything_is_read(
    batchllm: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchllm.formats.format.find_spec", lambda name: None)
    said = batchllm("summarize", "media/a.pdf", *SIMULATOR)
    assert said.status == 2
    assert f"PDF needs pypdf; install with: {install_command('documents')}" in said.err


def test_each_document_of_a_pattern_or_a_folder_is_a_row(batchllm: Command, folder: Path) -> None:
    names = [
        "media/a.pdf",
        "media/b.docx",
        "media/c.html",
        "media/empty.txt",
        "media/link.txt",
        "media/scan.pdf",
    ]
    for inputs in (["media"], ["media/*"], names):
        out = folder / f"out{len(inputs)}{len(inputs[0])}.csv"
        assert batchllm("summarize", *inputs, "-o", out, *SIMULATOR).status == 1
        rows = rows_of(out)
        assert [row["file"] for row in rows] == names
        assert rows[0]["summary"] == "- It is a good report."
        assert "is empty" in rows[3]["error"]
    assert batchllm("summarize", "media", "-o", "media/all.csv", *SIMULATOR).status == 1
    before = (folder / "media" / "all.csv").read_bytes()
    assert batchllm("summarize", "media", "-o", "media/all.csv", *SIMULATOR).status == 1
    assert (folder / "media" / "all.csv").read_bytes() == before
    assert batchllm("export", "media/all.csv", "-o", "x.csv").status == 0
    assert (folder / "x.csv").read_bytes() == before


def test_of_a_folder_with_tables_the_documents_are_left_out(batchllm: Command, folder: Path) -> None:
    (folder / "README.md").write_text("# Reviews")
    said = batchllm("summarize", ".", "-o", "out.csv", "--column", "path", *SIMULATOR)
    assert said.status == 0, said.err
    assert "2 documents" in said.err.splitlines()[0]
    said = batchllm("summarize", "README.md", "rows.csv", "-o", "o.csv", *SIMULATOR)
    assert (said.status, "documents and tables cannot be one input" in said.err) == (2, True)


def test_a_trial_shows_the_text_of_a_document_that_is_asked_about_in_parts(
    batchllm: Command, folder: Path
) -> None:
    (folder / "long.md").write_text("\n\n".join(f"Sentence {n} of a long text." for n in range(100)))
    said = batchllm(
        "summarize",
        "long.md",
        "media/c.html",
        "-o",
        "o.csv",
        *SIMULATOR,
        "-n",
        "1",
        "--on-long",
        "split",
        "--max-input-tokens",
        "300",
    )
    assert said.status == 0, said.err
    assert "Sentence 0 of a long text." in (said.out + said.err).split("asked: ")[1].split("\n")[0]


def test_a_run_that_is_stopped_does_not_wait_for_the_document_that_it_reads(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{number}.txt" for number in range(60)]
    for name in names:
        (folder / "media" / name).write_text("A note.")
    (folder / "rows.csv").write_text("\n".join(["path", *names]) + "\n")
    switch, never = StopSwitch(), threading.Event()

    def hangs(*arguments: Any) -> str:
        if threading.current_thread() is not threading.main_thread():
            switch.stop(Interrupted(15))
            never.wait(20)
        return document_text(*arguments)

    monkeypatch.setattr("batchllm.request.documents.document_text", hangs)
    job = assemble(
        "summarize",
        {"input": "rows.csv", "text_from": "path", "media_root": "media", "provider": "simulator"},
    )
    began = time.monotonic()
    with pytest.raises(Interrupted):
        run_job(job, client=FakeClient(latency_s=0), stops=switch)
    assert time.monotonic() - began < 15
    never.set()


@pytest.mark.proof
def test_the_cuts_of_a_document_are_computed_beside_the_requests(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{number}.txt" for number in range(30)]
    for name in names:
        (folder / "media" / name).write_text(f"Note {name} is good. " * 2600)
    (folder / "rows.csv").write_text("\n".join(["path", *names]) + "\n")
    on_the_loop: list[int] = []

    def noting(text: str, limit: int, *more: Any) -> list[splitting.Span]:
        with suppress(RuntimeError):
            asyncio.get_running_loop()
            on_the_loop.append(len(text))
        return [splitting.Span(0, len(text) // 2), splitting.Span(len(text) // 2, len(text))]

    def script(request: ChatRequest, attempt: int) -> Outcome:
        too_long = len(request.body) > 40_000
        return status(400, "too long", "context_length_exceeded") if too_long else answered("Good.")

    monkeypatch.setattr(splitting, "split", noting)
    options = {"input": "rows.csv", "text_from": "path", "media_root": "media", "provider": "simulator"}
    job = assemble("summarize", {**options, "on_long": "split", "max_input_tokens": 9000})
    run_job(job, client=FakeClient(script, latency_s=0), confirm=lambda forecast: on_the_loop.clear())
    assert on_the_loop == []
