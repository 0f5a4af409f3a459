"""Figures in the library: of files, tables and results."""

import copy
import pickle
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest

import batchllm as library
from batchllm import UsageError, run

SAMPLE = Path(__file__).parent.parent / "sample_jobs" / "labelled_reviews.csv"


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def frame() -> pd.DataFrame:
    return pd.read_csv(SAMPLE).head(60)


def tables(frame: pd.DataFrame) -> list[Any]:
    return [frame, frame.set_index("id"), pl.from_pandas(frame), frame.to_dict("records")]


def test_every_kind_of_table_and_of_gold_gives_the_same_figures(frame: pd.DataFrame) -> None:
    found = []
    for table in tables(frame):
        result = run(table, "classify", provider="simulator", column="text")
        found += [result.evaluate("gold"), result.evaluate({"label": "gold"}), result.evaluate(frame.gold)]
    assert len({evaluation.accuracy for evaluation in found}) == 1
    assert 0 < found[0].accuracy < 1
    assert found[0].macro_f1 == found[0].to_json()["macro_f1"]


def test_gold_of_a_run_over_a_table_is_evaluated_and_asks_nothing_else(frame: pd.DataFrame) -> None:
    plain = run(frame, "classify", provider="simulator")
    result = run(frame, "classify", provider="simulator", gold="gold")
    assert result.summary.requests == 0
    assert result.evaluation is not None
    assert result.evaluation.accuracy == plain.evaluate("gold").accuracy


def test_results_of_files_know_how_they_are_read(frame: pd.DataFrame, tmp_path: Path) -> None:
    rows = tmp_path / "r.csv"
    frame.to_csv(rows, index=False, sep=";", encoding="cp1252")
    result = run(rows, "classify", provider="simulator", delimiter=";", encoding="cp1252", gold="gold")
    assert result.evaluation is not None
    assert result.evaluate("gold").accuracy == result.evaluation.accuracy


def test_results_and_tables_are_compared(frame: pd.DataFrame) -> None:
    one = run(frame, "classify", provider="simulator")
    other = run(pl.from_pandas(frame), "classify", provider="simulator", labels=["positive", "negative"])
    found = library.compare(one, other, gold="gold")
    assert found.agreement is not None
    assert 0 < found.agreement < 1
    assert library.compare(one.frame(), other.frame()).agreement == found.agreement


def test_figures_are_shown_in_notebooks_and_can_be_copied(frame: pd.DataFrame) -> None:
    found = run(frame, "classify", provider="simulator").evaluate("gold")
    assert "Accuracy" in found._repr_html_()
    assert pickle.loads(pickle.dumps(found)) == copy.deepcopy(found) == found
    with pytest.raises(AttributeError):
        _ = found.nothing


def test_gold_of_another_length_is_refused(frame: pd.DataFrame) -> None:
    result = run(frame, "classify", provider="simulator")
    with pytest.raises(UsageError, match="3 values"):
        result.evaluate(["a", "b", "c"])
    with pytest.raises(UsageError, match="gold="):
        result.evaluate("glod")
