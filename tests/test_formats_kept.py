"""``--keep``, ``--drop`` and ``--rename``: which columns an output has, and that its cells stay what they were."""

import csv
import io
import json
import re
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm import run
from batchllm.errors import UsageError
from batchllm.formats import kept_columns, plan_columns
from batchllm.job import assemble
from batchllm.job.values import columns
from batchllm.runner import run_job
from tests.fakes import FakeClient, answered
from tests.test_formats_hard_cells import csv_bytes, read_csv, run_file, tables

HOST = {"base_url": "http://127.0.0.1:9/v1", "model": "m"}


@settings(max_examples=5, deadline=None)
@given(table=tables(), data=st.data(), delimiter=st.sampled_from([",", ";", "\t"]))
def test_the_cells_of_kept_columns_stay_equal(
    table: tuple[list[str], list[list[str]]], data: st.DataObject, delimiter: str
) -> None:
    names, rows = table
    chosen = data.draw(st.lists(st.sampled_from(names), unique=True, min_size=1))
    keeps = data.draw(st.booleans())
    expected = chosen if keeps else [name for name in names if name not in chosen]
    option: dict[str, Any] = {"keep" if keeps else "drop": chosen}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "in.csv")
        source.write_bytes(csv_bytes(names, rows, delimiter, "\n", "utf-8", b""))
        run_file(source, Path(folder, "out.csv"), delimiter=delimiter, **option)
        header, *written = read_csv(Path(folder, "out.csv").read_bytes(), delimiter, "utf-8")
        assert header[: len(expected)] == expected
        cells = [[row[names.index(name)] for name in expected] for row in rows]
        assert [row[: len(expected)] for row in written] == cells
        run_file(source, Path(folder, "out.jsonl"), delimiter=delimiter, **option)
        objects = [json.loads(line) for line in Path(folder, "out.jsonl").read_bytes().split(b"\n")[:-1]]
        assert [list(found)[: len(expected)] for found in objects] == [expected] * len(rows)
        assert [[found[name] for name in expected] for found in objects] == cells


def test_members_of_jsonl_stay_as_they_are_written(tmp_path: Path) -> None:
    lines = '{"text":"a","n":1.50,"o": {"k" : [1e5]}}\n{"text": "b"}\n{"n": 0, "text": "c"}\n'
    (tmp_path / "in.jsonl").write_text(lines)
    run_file(tmp_path / "in.jsonl", tmp_path / "out.jsonl", keep="o,n", columns="error")
    found = (tmp_path / "out.jsonl").read_text().splitlines()
    assert found == [
        '{"o": {"k" : [1e5]}, "n": 1.50,"llm_error":null}',
        '{"llm_error":null}',
        '{"n": 0,"llm_error":null}',
    ]


def test_columns_without_a_name_of_their_own_are_kept_under_the_name_they_have(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("id,text,id,\n1,a,2,3\n")
    run_file(tmp_path / "in.csv", tmp_path / "out.csv", keep="column_4,id (column 3)", columns="error")
    assert (tmp_path / "out.csv").read_text() == ",id,llm_error\n3,2,\n"


def test_a_name_may_hold_a_comma() -> None:
    assert columns('"Name, first", id') == ("Name, first", "id")
    assert columns(["Name, first", "id"]) == ("Name, first", "id")
    for wrong in ('"a', "a,,b", "a\nb", ""):
        with pytest.raises(ValueError, match="must be names separated by commas"):
            columns(wrong)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"keep": "id,txet"},
            "--keep: the input has no column 'txet' (did you mean text?); its columns are: id, text",
        ),
        ({"drop": "ID"}, "--drop: the input has no column 'ID' (did you mean id?)"),
        ({"keep": "id", "drop": "text"}, "--keep and --drop exclude each other; give one"),
        ({"rename": {"labl": "x"}}, "--rename: there is no column 'labl' (did you mean label?)"),
        ({"rename": {"id": "x"}}, "--rename: 'id' is a column of the input, which --keep and --drop choose"),
        ({"rename": {"label": "id"}}, "--rename label=id: the input already has a column 'id'; name another"),
        ({"rename": {"label": "error"}}, "--rename: two columns of the output would be called 'error'"),
        ({"rename": {"label": " "}}, "--rename label= : the new name is missing"),
        ({"rename": {"error": "label"}}, "--rename: two columns of the output would be called 'label'"),
    ],
)
def test_names_that_do_not_fit_are_refused_before_anything_is_sent(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    (tmp_path / "in.csv").write_text("id,text\n1,a\n")
    client = FakeClient(lambda request, attempt: pytest.fail("a request was sent"))
    with pytest.raises(UsageError, match=re.escape(message)):
        run_job(
            assemble("classify", {"input": str(tmp_path / "in.csv"), **HOST, **options}, {}), client=client
        )


def test_an_answer_may_have_the_name_of_a_column_that_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("label,text\nold,a\n")
    flags = {"input": str(tmp_path / "in.csv"), "drop": "label", "columns": "label", **HOST}
    run_job(assemble("classify", flags, {}), client=FakeClient(lambda request, attempt: answered("neutral")))
    assert (tmp_path / "in.classify.csv").read_text() == "text,label\na,neutral\n"


def test_columns_belong_to_the_output_and_changing_them_sends_nothing(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("id,text\n1,a\n2,b\n")

    def output_with(**options: Any) -> list[list[str]]:
        flags = {"input": str(tmp_path / "in.csv"), "columns": "label,error", **HOST, **options}
        run_job(assemble("classify", flags, {}), client=client)
        return list(csv.reader(io.StringIO((tmp_path / "in.classify.csv").read_text())))

    client = FakeClient(lambda request, attempt: answered("neutral"))
    assert output_with()[0] == ["id", "text", "label", "error"]
    client = FakeClient(lambda request, attempt: pytest.fail("a request was sent"))
    assert output_with(keep="text,id")[1] == ["a", "1", "neutral", ""]
    assert output_with(drop="text", rename={"label": "tone"}, prefix="llm_")[0] == ["id", "tone", "llm_error"]
    assert output_with()[0] == ["id", "text", "label", "error"]


def test_the_fields_of_a_schema_and_standard_columns_get_other_names() -> None:
    plan = plan_columns(["id"], ["topic", "error"], prefix="x_", rename={"topic": "subject", "model": "by"})
    assert plan.answer == (("subject", "topic"), ("x_error", "error"))
    assert ("by", "model") in plan.fields and ("x_response_error", "error") in plan.fields


def test_a_dropped_order_is_that_of_the_input() -> None:
    assert kept_columns(["a", "b", "c"], None, ["b"]) == ("a", "c")
    assert kept_columns(["a", "b", "c"], ["c", "a"], None) == ("c", "a")
    assert kept_columns(["a", "b"], None, ["a", "b"]) == ()


def test_figures_find_answers_under_their_other_names(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("text,gold\ngood,positive\nbad,negative\n")
    options: Any = {
        "provider": "simulator",
        "rename": {"label": "tone", "error": "err", "finish_reason": "fr"},
    }
    result = run(tmp_path / "in.csv", "classify", **options, keep="gold", gold="gold")
    figures = result.evaluate("gold")
    assert result.evaluation is not None and figures.rows == result.evaluation.rows == 2
    assert list(figures.figures) == ["tone"]


@pytest.mark.parametrize("kind", ["pandas", "polars", "pyarrow", "list"])
def test_rows_in_memory_come_back_with_the_columns_that_are_kept(kind: str) -> None:
    rows = [{"id": 1, "text": "good", "n": 2}, {"id": 2, "text": "bad", "n": 3}]
    table: Any = rows
    if kind != "list":
        library: Any = pytest.importorskip(kind)
        table = library.Table.from_pylist(rows) if kind == "pyarrow" else library.DataFrame(rows)
    result = run(table, "classify", provider="simulator", keep=["n", "id"], columns="label")
    found: Any = result.frame()
    names = (
        list(found[0]) if kind == "list" else found.column_names if kind == "pyarrow" else list(found.columns)
    )
    assert names == ["n", "id", "label"]


def test_the_cells_of_a_sheet_keep_their_types(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    pytest.importorskip("xlsxwriter")
    book = openpyxl.Workbook()
    rows = [("id", "text", "when"), (7, "a", datetime(2026, 3, 4)), (8, "b", None)]
    for row in rows:
        book.active.append(row)
    book.save(tmp_path / "in.xlsx")
    run_file(tmp_path / "in.xlsx", tmp_path / "out.xlsx", keep="when,id", columns="error")
    sheet = openpyxl.load_workbook(tmp_path / "out.xlsx").active
    assert list(sheet.iter_rows(values_only=True)) == [
        ("when", "id", "llm_error"),
        (datetime(2026, 3, 4), 7, None),
        (None, 8, None),
    ]
