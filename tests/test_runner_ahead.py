"""Making the output while the last answers are awaited: the same bytes, sooner, and nothing of it before the end."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batchllm.errors import InputError, Unavailable
from batchllm.job import Job, assemble
from batchllm.records import ChatRequest
from batchllm.runner import ahead, run_job
from batchllm.runner.export import Export
from batchllm.runner.result import Result
from tests.bill_jobs import write_prices
from tests.fakes import FakeClient, Outcome, Script, answered, status

ROWS = 300


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[Export]:
    """The export, once for each step that was made ahead."""
    made: list[Export] = []
    prepare = Export.prepare

    def counted(export: Export) -> Iterator[None]:
        for step in prepare(export):
            made.append(export)
            yield step

    monkeypatch.setattr(Export, "prepare", counted)
    return made


def job_of(folder: Path, **settings: Any) -> Job:
    folder.mkdir(exist_ok=True)
    path = folder / "rows.csv"
    if not path.exists():
        lines = [f"{i},{'' if i % 50 == 7 else f'text {i // 3}'},{i // 10}" for i in range(ROWS)]
        path.write_text("\n".join(["id,text,thread", *lines, ""]))
    flags = {"input": str(path), "output": str(folder / "out.csv"), "prompt": "{{ text }}", "column": "text"}
    flags |= {"provider": "simulator", "model": "simulator", "concurrency": 8, "no_brake": True, **settings}
    return assemble("run", flags, {})


def run(job: Job, script: Script) -> Result:
    return run_job(job, client=FakeClient(script, latency_s=0.02))


def mixed(request: ChatRequest, attempt: int) -> Outcome:
    """Answers, refusals, failures and answers that have to be asked for again, by the row."""
    if request.row_index % 40 == 3:
        return status(400, "no such thing")
    if request.row_index % 9 == 4 and attempt == 1:
        return answered('{"n": "many"}', prompt=7)
    return answered(json.dumps({"n": request.row_index // 3}))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"output": "out.jsonl"},
        {"schema": "n int", "add": "cost"},
        {"dedupe": True, "add": "cost"},
        {"conversation": "thread"},
        {"limit": 200},
        {"sample": 100},
    ],
    ids=str,
)
def test_an_output_made_ahead_is_the_one_made_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: list[Export], settings: dict[str, Any]
) -> None:
    written = []
    for name, most_rows in (("ahead", ahead.MOST_ROWS), ("after", 0)):
        monkeypatch.setattr(ahead, "MOST_ROWS", most_rows)
        folder = tmp_path / name
        own = {**settings, "output": str(folder / settings.get("output", "out.csv"))}
        steps.clear()
        result = run(job_of(folder, prices=str(write_prices(tmp_path)), **own), mixed)
        assert bool(steps) == (name == "ahead" and "sample" not in settings)
        assert result.output is not None
        figures = replace(result.summary, seconds=0)
        written.append((result.output.read_bytes(), figures))
    assert written[0] == written[1]


def test_a_run_that_goes_on_makes_nothing_ahead(tmp_path: Path, steps: list[Export]) -> None:
    def dies(request: ChatRequest, attempt: int) -> Outcome:
        return status(402) if request.row_index == ROWS // 2 else answered("first")

    with pytest.raises(Unavailable):
        run(job_of(tmp_path), dies)
    assert not (tmp_path / "out.csv").exists()
    run(job_of(tmp_path), lambda request, attempt: answered("second"))
    assert steps == []
    assert {"first", "second"} <= set((tmp_path / "out.csv").read_text().replace("\n", ",").split(","))


def test_an_input_that_changes_meanwhile_is_told_as_ever(tmp_path: Path, steps: list[Export]) -> None:
    job = job_of(tmp_path)

    def changes(request: ChatRequest, attempt: int) -> Outcome:
        if request.row_index == ROWS - 20:
            lines = (tmp_path / "rows.csv").read_text().splitlines(keepends=True)
            (tmp_path / "rows.csv").write_text("".join([*lines[:100], "one cell\n", *lines[100:]]))
        return answered()

    with pytest.raises(InputError, match="changed while the job ran"):
        run(job, changes)
    assert steps, "the change was met ahead"
    assert {path.name for path in tmp_path.iterdir()} == {"rows.csv", "out.csv.journal", "out.csv.lock"}


def test_nothing_is_written_while_answers_are_awaited(tmp_path: Path, steps: list[Export]) -> None:
    def dies(request: ChatRequest, attempt: int) -> Outcome:
        return status(402) if request.row_index == ROWS - 1 else answered()

    with pytest.raises(Unavailable):
        run(job_of(tmp_path), dies)
    assert steps
    assert {path.name for path in tmp_path.iterdir()} == {"rows.csv", "out.csv.journal", "out.csv.lock"}
