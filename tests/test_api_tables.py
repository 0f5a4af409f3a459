"""Random tables go through: every own cell comes back equal, and every prompt holds the cell."""

import datetime as dt
import json
import math
import uuid
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import hypothesis.strategies as st
import numpy as np
import openpyxl
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from pandas.testing import assert_frame_equal

from batchllm import InputError, UsageError, run
from batchllm.simulator import ScriptedResponse, Simulator, SimulatorSettings, start_in_thread
from tests.fakes import chat_body

PROMPTS: list[str] = []


def _keep_prompt(body: dict[str, Any]) -> ScriptedResponse:
    PROMPTS.append(body["messages"][-1]["content"])
    return ScriptedResponse(body=chat_body("fine"))


@pytest.fixture(scope="module")
def server() -> Iterator[Simulator]:
    with start_in_thread(SimulatorSettings(), script=_keep_prompt) as simulator:
        yield simulator


def asked(server: Simulator, rows: Any, column: str = "x", **options: Any) -> tuple[Any, list[str]]:
    """The result's table and the prompts, each a cell between bars, in the order of the rows."""
    PROMPTS.clear()
    more = {"base_url": server.base_url, "model": "m", "concurrency": 1, "keep": False, **options}
    result = run(rows, prompt=f'{{{{ row["{column}"] }}}}|', **more)
    assert result.summary.failed == 0
    return result.frame(), [prompt.removesuffix("|") for prompt in PROMPTS]


def written(cell: Any) -> str | None:
    """What a prompt says for a cell; ``None`` for one that is empty, whose row is not sent."""
    if cell is None or cell is pd.NA or cell is pd.NaT or (isinstance(cell, float) and math.isnan(cell)):
        return None
    if isinstance(cell, bool | np.bool_):
        return "true" if cell else "false"
    if isinstance(cell, dt.datetime | dt.date | dt.time):
        return cell.isoformat()
    if isinstance(cell, list):
        return json.dumps(cell, separators=(",", ":"))
    return str(cell)


def same(prompts: list[str], cells: list[Any]) -> None:
    expected = [text for cell in cells if (text := written(cell)) is not None and text.strip()]
    assert prompts == expected


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=12)
FLOATS = st.floats(width=64)
MOMENTS = st.datetimes(dt.datetime(1700, 1, 1), dt.datetime(2200, 1, 1))
KINDS: dict[str, st.SearchStrategy[Any]] = {
    "text": TEXTS,
    "int": st.integers(-(2**63), 2**63 - 1),
    "float": FLOATS,
    "bool": st.booleans(),
    "datetime": MOMENTS,
    "date": st.dates(dt.date(1700, 1, 1), dt.date(2200, 1, 1)),
    "decimal": st.decimals(-(10**12), 10**12, places=6),
    "list": st.lists(st.integers(-999, 999), min_size=1, max_size=3),
}
ANYTHING = st.one_of(
    st.none(), st.binary(max_size=4), st.uuids(), st.lists(st.integers(), max_size=2), st.complex_numbers()
)
FEW = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def columns(rows: int) -> st.SearchStrategy[list[Any]]:
    """Values of one type with gaps."""
    return st.sampled_from(sorted(KINDS)).flatmap(
        lambda kind: st.lists(st.one_of(st.none(), KINDS[kind]), min_size=rows, max_size=rows)
    )


@st.composite
def pandas_frames(draw: st.DrawFn) -> pd.DataFrame:
    rows = draw(st.integers(0, 5))
    labels = [7, 1.5, None, pd.Timestamp("2026-01-01"), "", "é", ("a", 1), "text"]
    names = ["x", *draw(st.lists(st.sampled_from(labels), max_size=3))]
    data: list[Any] = [draw(columns(rows))]
    for _ in names[1:]:
        data.append(draw(st.one_of(columns(rows), st.lists(ANYTHING, min_size=rows, max_size=rows))))
    frame = pd.concat([pd.Series(values) for values in data], axis=1) if rows else pd.DataFrame([[]] * 0)
    if not rows:
        frame = pd.DataFrame({number: [] for number in range(len(names))})
    frame.columns = pd.Index(names, tupleize_cols=False)
    indexes: list[Any] = [
        pd.RangeIndex(rows),
        pd.Index(["same"] * rows, name="key"),
        pd.date_range("2026-01-01", periods=rows),
        pd.MultiIndex.from_tuples([(number, "a") for number in range(rows)], names=["n", None])
        if rows
        else pd.RangeIndex(0),
    ]
    frame.index = draw(st.sampled_from(indexes))
    return frame


@FEW
@given(frame=pandas_frames())
def test_a_pandas_frame_comes_back_as_it_was_and_its_cells_are_in_the_prompts(
    server: Simulator, frame: pd.DataFrame
) -> None:
    before = frame.copy(deep=True)
    answered, prompts = asked(server, frame)
    assert_frame_equal(answered.iloc[:, : frame.shape[1]], before)
    assert_frame_equal(frame, before)
    assert list(answered.columns[frame.shape[1] :])[:2] == ["response", "finish_reason"]
    same(prompts, [frame.iat[row, 0] for row in range(len(frame))])


@FEW
@given(data=st.data())
def test_a_polars_frame_comes_back_as_it_was_and_its_cells_are_in_the_prompts(
    server: Simulator, data: st.DataObject
) -> None:
    rows = data.draw(st.integers(0, 5))
    frame = pl.DataFrame(
        {
            "x": data.draw(columns(rows)),
            "other": data.draw(columns(rows)),
            "nested": [[1, None]] * rows,
            "bytes": pl.Series([b"\xff"] * rows, dtype=pl.Binary),
        }
    )
    answered, prompts = asked(server, frame)
    assert answered.select(frame.columns).equals(frame)
    assert answered.select(frame.columns).schema == frame.schema
    assert answered.schema["response"] == pl.String
    assert answered.schema["prompt_tokens"] == pl.Int64
    same(prompts, frame["x"].to_list())


@FEW
@given(data=st.data())
def test_an_arrow_table_comes_back_as_it_was_and_its_cells_are_in_the_prompts(
    server: Simulator, data: st.DataObject
) -> None:
    rows = data.draw(st.integers(0, 5))
    table = pa.table(
        {
            "x": data.draw(columns(rows)),
            "other": data.draw(columns(rows)),
            "struct": pa.array([{"a": [1]}] * rows, pa.struct({"a": pa.list_(pa.int8())})),
        }
    )
    answered, prompts = asked(server, table)
    own = answered.select(table.column_names)
    assert own.schema.equals(table.schema)
    assert repr(own.to_pylist()) == repr(table.to_pylist())  # NaN is NaN
    assert answered.schema.field("attempts").type == pa.int64()
    same(prompts, table.column("x").to_pylist())


@FEW
@given(
    rows=st.lists(
        st.dictionaries(st.sampled_from(["x", "y", 3]), st.one_of(*KINDS.values(), ANYTHING)), max_size=4
    )
)
def test_dictionaries_come_back_as_they_were(server: Simulator, rows: list[dict[Any, Any]]) -> None:
    rows = [{"x": "text", **row} for row in rows]
    before = [dict(row) for row in rows]
    answered, _ = asked(server, iter(rows))
    assert len(answered) == len(rows)
    for found, row, was in zip(answered, rows, before, strict=True):
        assert row is not found
        assert row == was or repr(row) == repr(was)
        assert all(found[name] is value for name, value in row.items())
        assert "response" in found


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3e-12, "3e-12"), (1 / 3, "0.3333333333333333"), (12345678.123456789, "12345678.12345679"), (1e16, "1e+16"),
        (Decimal("1.50"), "1.50"), (Decimal("1E+3"), "1E+3"), (2**70, str(2**70)), (float("inf"), "inf"),
        (np.float32(0.1), "0.1"), (np.int8(-3), "-3"), (np.bool_(False), "false"), (True, "true"),
        (np.datetime64("2026-01-02"), "2026-01-02"),
        (pd.Timestamp("2026-01-02 03:04:05.000000001"), "2026-01-02T03:04:05.000000001"),
        (dt.time(1, 2), "01:02:00"), (uuid.UUID(int=1), str(uuid.UUID(int=1))), (b"a\xff", "Yf8="),
        ("é".encode(), "é"), (bytearray(b"a"), "a"), ([b"a", {"b": b"\xff"}], '["a",{"b":"/w=="}]'),
        (pd.Period("2026-01"), "2026-01"), ("half \ud83d pair", "half � pair"), ((1, "b"), '[1,"b"]'),
        (np.array([1, 2]), "[1,2]"), ({"a": Decimal("1.0"), "n": float("nan")}, '{"a":1.0,"n":null}'),
    ],
)  # fmt: skip
def test_a_prompt_holds_the_value_exactly(server: Simulator, value: Any, text: str) -> None:
    assert asked(server, [{"x": value}])[1] == [text]


def test_columns_of_several_levels_keep_them(server: Simulator) -> None:
    frame = pd.DataFrame(
        [["one", 1]], columns=pd.MultiIndex.from_tuples([("a", "x"), ("b", "y")], names=["p", "q"])
    )
    answered, prompts = asked(server, frame, "a_x")
    assert prompts == ["one"]
    assert answered.columns.names == ["p", "q"]
    assert answered["response", ""].tolist() == ["fine"]
    assert_frame_equal(answered[["a", "b"]], frame)


def test_two_columns_of_one_name_are_refused_only_if_the_prompt_reads_them(server: Simulator) -> None:
    frame = pd.DataFrame([["one", 1, 2]], columns=["x", "y", "y"])
    answered, _ = asked(server, frame)
    assert list(answered.columns[:3]) == ["x", "y", "y"]
    with pytest.raises(UsageError, match="2 columns are called 'y'"):
        asked(server, frame, "y")


def test_a_value_that_cannot_be_written_is_named(server: Simulator) -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError("no text")

    asked(server, [{"x": "fine", "y": Broken()}])
    with pytest.raises(InputError, match="row 1: the Broken in column 'y' cannot be written as text"):
        asked(server, [{"x": "fine", "y": Broken()}], "y")


@pytest.mark.parametrize("trial", [{"limit": 2}, {"sample": 2}])
def test_a_trial_gives_the_rows_that_were_tried(server: Simulator, trial: dict[str, Any]) -> None:
    frame = pd.DataFrame({"x": ["a", "b", "c", "d"]}, index=[9, 8, 7, 6])
    answered, prompts = asked(server, frame, **trial)
    assert answered["x"].tolist() == prompts
    assert [frame["x"][key] for key in answered.index] == prompts


def test_duckdb_gives_and_gets_a_relation(server: Simulator) -> None:
    answered, prompts = asked(server, duckdb.sql("SELECT 'one' AS x, 2 AS y"))
    assert prompts == ["one"]
    assert answered.fetchall()[0][:3] == ("one", 2, "fine")


def test_an_output_that_is_named_has_every_column(server: Simulator, tmp_path: Path) -> None:
    asked(server, pd.DataFrame({"x": ["a"], "other": [1.5]}), output=str(tmp_path / "out.jsonl"))
    assert json.loads((tmp_path / "out.jsonl").read_text())["other"] == 1.5
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (3, "rows must be a path"), (None, "rows must be a path"), (str, "the class str"),
        ({"x": "a"}, "put it into a list"),
        (["a", 3], "row 1 is str"), (pd.Series(["a"]), r"\.to_frame\(\)"), (pl.Series(["a"]), r"\.to_frame\(\)"),
        (pl.LazyFrame({"x": ["a"]}), r"\.collect\(\)"),
    ],
)  # fmt: skip
def test_what_is_no_table_is_a_sentence(rows: Any, message: str) -> None:
    with pytest.raises((UsageError, InputError), match=message):
        run(rows, prompt="{{ x }}", provider="simulator")


def test_an_empty_table_has_the_answer_columns_with_their_types() -> None:
    frame = pd.DataFrame({"x": pd.Series([], dtype="float64"), "y": pd.Series([], dtype="str")})
    answered = run(frame, prompt="{{ x }}", schema="topic, urgent bool, n int", provider="simulator").frame()
    types = {name: str(answered[name].dtype) for name in ("x", "topic", "urgent", "n")}
    assert types == {"x": "float64", "topic": "string", "urgent": "boolean", "n": "Int64"}
    assert run(pd.DataFrame({"text": []}), "classify", provider="simulator").frame()["label"].tolist() == []


def test_several_files_are_one_table(server: Simulator, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,n\none,1\n")
    (tmp_path / "b.jsonl").write_text('{"x": "two", "n": 1.50}\n')
    answered, prompts = asked(server, [tmp_path / "a.csv", str(tmp_path / "b.jsonl")])
    assert prompts == ["one", "two"]
    assert list(answered.columns[:3]) == ["x", "n", "response"]
    assert asked(server, [tmp_path / "a.csv", tmp_path / "b.jsonl"], "n")[1] == ["1", "1.50"]
    (tmp_path / "c.csv").write_text("x#y\nthree#3\n")
    assert asked(server, [tmp_path / "c.csv"], delimiter="#")[1] == ["three"]


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_the_types_of_a_table_are_those_of_its_parquet_output(library: str, tmp_path: Path) -> None:
    made = pa.table(
        {
            "text": ["good", "bad"],
            "when": pa.array(
                [dt.datetime(2024, 1, 2, 3, 4, 5, 678), None], pa.timestamp("us", "Europe/Berlin")
            ),
            "price": pa.array([Decimal("1.10"), None], pa.decimal128(9, 2)),
            "day": [dt.date(2024, 1, 2), None],
            "parts": [[1, 2], None],
        }
    )
    table = {"pandas": made.to_pandas, "polars": lambda: pl.from_arrow(made), "pyarrow": lambda: made}[
        library
    ]()
    output = tmp_path / "out.parquet"
    for _ in range(2):
        result = run(table, "classify", provider="simulator", output=output)
    assert result.summary.answered_before == 2
    found = pq.read_table(output)
    assert found.column_names[:6] == [*made.column_names, "label"]
    assert found.select(made.column_names).to_pylist() == made.to_pylist()
    assert [found.schema.field(name).type for name in ("when", "day")] == [
        made.schema.field(name).type for name in ("when", "day")
    ]
    workbook = tmp_path / "out.xlsx"
    run(table, "classify", provider="simulator", output=workbook)
    assert openpyxl.load_workbook(workbook).active["D2"].value == dt.datetime(2024, 1, 2)
