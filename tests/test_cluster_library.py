"""The library on many machines: ``engine=`` gives what a plain call gives."""

import asyncio
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from batchllm import FinishedRow, Interrupted, UsageError, arun, run
from tests.cluster_engine import ThreadEngine
from tests.test_cluster_run import Asked, asked, table, url

__all__ = ["asked", "url"]

TEXTS = [f"text {number:02}" for number in range(60)]


@pytest.fixture(autouse=True)
def threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads in place of Ray."""
    module = SimpleNamespace(RayEngine=lambda job: ThreadEngine())
    monkeypatch.setitem(sys.modules, "batchllm.cluster.ray_engine", module)


def options(folder: Path, url: str, **more: Any) -> dict[str, Any]:
    return {"model": "m", "base_url": url, "engine": "ray", "work": folder / "work", **more}


def test_a_file_is_answered_and_its_rows_are_handed_out(tmp_path: Path, url: str, asked: Asked) -> None:
    path = table(tmp_path / "rows.csv", 60, TEXTS)
    rows: list[FinishedRow] = []
    shown: list[tuple[int, int]] = []
    result = run(
        path, "classify", **options(tmp_path, url), on_row=rows.append,
        progress=lambda done, total: shown.append((done, total)),
    )  # fmt: skip
    assert (result.exit_status, result.summary.answered, result.summary.attempts) == (0, 60, 60)
    assert [row.index for row in rows] == list(range(60)) and rows[7].values["text"] == TEXTS[7]
    assert list(result.frame()["text"]) == TEXTS and shown[-1] == (60, 60)
    assert run(path, "classify", **options(tmp_path, url)).summary.attempts == 0
    assert asked.texts.total() == 60


@pytest.mark.proof
def test_a_frame_is_written_to_the_work_folder(
    tmp_path: Path, url: str, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    frame = pd.DataFrame({"text": TEXTS, "other": 1}, index=range(100, 160))
    for _ in range(2):
        result = asyncio.run(arun(frame, "classify", **options(tmp_path, url)))
        assert list(result.frame().index) == list(frame.index) and asked.texts.total() == 60
        assert set(result.frame()["label"]) <= {"positive", "negative", "neutral"}
    assert [path.suffix for path in (tmp_path / "work").glob("rows-*")] == [".jsonl"]
    run(frame, "classify", **options(tmp_path, url), keep=False)
    with pytest.raises(UsageError, match="another input .*work="):
        run(frame[:30], "classify", **options(tmp_path, url))


@pytest.mark.proof
def test_an_exception_of_the_caller_stops_every_machine_and_the_same_call_goes_on(
    tmp_path: Path, url: str, asked: Asked
) -> None:
    path = table(tmp_path / "rows.csv", 60, TEXTS)

    def interrupt(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted) as stopped:
        run(path, "classify", **options(tmp_path, url, rpm=1200), progress=interrupt)
    assert isinstance(stopped.value, KeyboardInterrupt)
    assert 20 <= asked.texts.total() < 60
    assert run(path, "classify", **options(tmp_path, url)).exit_status == 0
    assert asked.texts.total() == 60


def test_errors_are_those_of_a_plain_call_in_words_of_python(tmp_path: Path, url: str) -> None:
    path = table(tmp_path / "rows.csv", 60, TEXTS)
    with pytest.raises(UsageError, match=r"^engine= needs work="):
        run(path, "classify", **options(tmp_path, url, work=None))
    with pytest.raises(UsageError, match=r"^engine= needs work="):
        run([{"text": "a"}], "classify", **options(tmp_path, url, work=None))
    with pytest.raises(UsageError, match="api_key= stays in this process"):
        run(path, "classify", **options(tmp_path, url, api_key="sk-1"))
    assert not (tmp_path / "work").exists() and os.environ["OPENAI_API_KEY"] == "k"
