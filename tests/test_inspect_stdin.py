"""A job whose rows came from standard input is looked at through its journal, and nobody waits for rows."""

import io
import sys
from pathlib import Path

import pytest

from tests.bench import Bench, read


class Untouchable(io.BytesIO):
    """Standard input of a terminal: whoever reads it waits for ever."""

    def read(self, size: int | None = -1) -> bytes:
        raise AssertionError("standard input was read")


class StandardInput:
    def __init__(self, buffer: io.BytesIO) -> None:
        self.buffer = buffer

    def isatty(self) -> bool:
        return False


@pytest.fixture
def job(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Path:
    bench.dictate("fine")
    output = bench.folder / "out.csv"
    rows = io.BytesIO(b"id,text\n1,hello\n2,\n3,bye\n")
    monkeypatch.setattr(sys, "stdin", StandardInput(rows))
    bench.run("run", "-p", "{{ text }}", "-", "-o", output)
    monkeypatch.setattr(sys, "stdin", StandardInput(Untouchable()))
    return output


def test_status_and_show_answer_from_the_journal(bench: Bench, job: Path) -> None:
    assert "finished" in bench.command("status", job).out
    said = bench.command("show", job, 1)
    assert said.status == 0
    assert "HTTP 200" in said.out and "fine" in said.out
    assert said.out.count("the rows came from standard input, which is not kept") == 1
    assert bench.command("show", job, 4).status == 65


@pytest.mark.parametrize("name", ["copy.csv", "copy.jsonl"])
def test_export_writes_the_answers_with_the_numbers_of_their_rows(bench: Bench, job: Path, name: str) -> None:
    before = job.read_bytes()
    said = bench.command("export", job, "-o", bench.folder / name)
    assert said.status == 0, said.err
    assert "the rows came from standard input, which is not kept" in said.err
    found = [(str(row["row"]), row["response"] or None) for row in read(bench.folder / name)]
    assert found == [("1", "fine"), ("2", None), ("3", "fine")]
    assert job.read_bytes() == before


def test_an_export_never_makes_the_output_poorer(bench: Bench, job: Path) -> None:
    before = job.read_bytes()
    said = bench.command("export", job)
    assert (said.status, "write it elsewhere with -o" in said.err) == (2, True)
    assert job.read_bytes() == before
    job.unlink()
    assert bench.command("export", job).status == 0
