"""Several files as one input: united columns, equal cells, order kept."""

import csv
import json
import os
import re
import tempfile
import weakref
from itertools import islice
from pathlib import Path
from typing import Any

import pandas
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchllm.errors import InputError, UsageError
from batchllm.formats import excel, open_source
from batchllm.formats.several import SeveralSource
from tests.several_jobs import WRITERS, Records, SeveralJob, write_by

CELL = st.one_of(
    st.sampled_from(
        ["007", "NA", "null", "1e5", "9007199254740993", "a\nb", 'say "hi"', ";", "x,y", "=1", " pad "]
    ),
    st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "Zs")), min_size=1, max_size=8),
).filter(lambda text: text.strip() != "" and text != '""')
NAMES = ("id", "lang", "Review Text", "编号", "a.b")


@st.composite
def split_tables(draw: st.DrawFn) -> list[tuple[str, Records]]:
    """Files with a writer each; each has ``text``, and other columns than the others may have."""
    files = []
    for _ in range(draw(st.integers(1, 4))):
        names = ["text", *draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=1, max_size=3))]
        names = draw(st.permutations(names))
        cells = draw(
            st.lists(st.lists(CELL, min_size=len(names), max_size=len(names)), min_size=1, max_size=4)
        )
        files.append((draw(st.sampled_from(WRITERS)), [dict(zip(names, row, strict=True)) for row in cells]))
    return files


def united(files: list[tuple[str, Records]]) -> list[str]:
    return list(dict.fromkeys(name for _, records in files for name in records[0]))


def check_united(folder: Path, files: list[tuple[str, Records]]) -> None:
    paths = [write_by(writer, folder, f"{number}", records) for number, (writer, records) in enumerate(files)]
    if len(paths) == 1:
        return
    names, expected = united(files), [record for _, records in files for record in records]
    job = SeveralJob(prefix="llm_")
    job.run(paths, folder / "out.csv", add="source_file")
    job.run(paths, folder / "out.jsonl", add="source_file")
    delimiters = {_delimiter(path) for path in paths}
    delimiter = delimiters.pop() if len(delimiters) == 1 else ","
    with (folder / "out.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file, delimiter=delimiter, strict=True))
    assert list(rows[0])[: len(names)] == names
    assert [{name: row[name] for name in names} for row in rows] == [
        {name: record.get(name, "") for name in names} for record in expected
    ]
    owners = [str(path) for path, (_, records) in zip(paths, files, strict=True) for _ in records]
    assert [row["llm_source_file"] for row in rows] == owners
    objects = [json.loads(line) for line in (folder / "out.jsonl").read_bytes().split(b"\n")[:-1]]
    assert [{name: it[name] for name in it if not name.startswith("llm_")} for it in objects] == expected
    assert [it["llm_response"] for it in objects] == [row["llm_response"] for row in rows]


def _delimiter(path: Path) -> str:
    """The delimiter of a ``.csv`` that is written from a file alone."""
    source: Any = open_source(path)
    return str(source.delimiter) if path.suffix == ".csv" else ","


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(files=split_tables())
def test_each_cell_of_files_of_any_writer_is_in_the_output(files: list[tuple[str, Records]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        check_united(Path(folder), files)


@pytest.mark.proof
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(files=split_tables())
def test_each_cell_of_many_random_files_is_in_the_output(files: list[tuple[str, Records]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        check_united(Path(folder), files)


def several(*paths: Path) -> SeveralSource:
    return SeveralSource("all", [open_source(path) for path in paths])


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    """Files of CSV, CSV with semicolons, and JSONL, of 3, 2 and 2 rows; the second of them has no text."""
    files = {
        "a.csv": "id,text\n1,a\n2,b\n3,c\n",
        "b.csv": "lang;id\nde;4\nfr;5\n",
        "c.jsonl": '{"n":1.50}\n{"text":"z"}\n',
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    return [tmp_path / name for name in files]


def test_columns_are_united_in_order_of_first_appearance(three: list[Path]) -> None:
    source = several(*three)
    statistics = source.scan()
    assert source.columns == statistics.columns == ("id", "text", "lang", "n")
    assert (statistics.rows, len(statistics.sample)) == (7, 7)
    assert [row.index for row in source.rows()] == [row.index for row in statistics.sample] == list(range(7))
    assert [row.line for row in source.rows()] == [2, 3, 4, 2, 3, 1, 2]
    assert source.digest() == statistics.sha256


def test_a_column_that_a_file_lacks_is_empty_in_its_rows(three: list[Path]) -> None:
    source = several(*three)
    source.scan()
    rows = list(source.rows())
    assert dict(rows[3].values) == {"lang": "de", "id": "4", "text": "", "n": ""}
    assert source.cells(rows[3], source.columns) == ["4", "", "de", ""]
    assert source.cells(rows[5], source.columns) == ["", "", "", "1.50"]
    assert source.json_object(rows[5], {"x": 1}) == b'{"n":1.50,"x":1}'
    assert source.json_object(rows[3], {}, ["text", "id"]) == b'{"id":"4"}'


def test_what_is_missing_where_is_said(three: list[Path]) -> None:
    source = several(*three)
    source.scan()
    a, b, c = three
    assert source.notes == (
        f"{b}: the delimiter is semicolon", f"id is missing in {c}", f"text is missing in {b}",
        f"lang is missing in {a}, {c}", f"n is missing in {a}, {b}",
    )  # fmt: skip


@pytest.mark.parametrize("start", range(9))
def test_a_pass_may_begin_anywhere(three: list[Path], start: int) -> None:
    source = several(*three)
    source.scan()
    assert list(source.rows(start)) == list(source.rows())[start:]


@pytest.mark.parametrize("content", ["id,text\n1,a\n", "id,text\n1,a\n2,b\n3,c\n4,d\n"], ids=["less", "more"])
def test_a_file_that_changes_while_the_job_runs_is_named(three: list[Path], content: str) -> None:
    source = several(*three)
    source.scan()
    three[0].write_text(content)
    with pytest.raises(InputError, match=re.escape(f"{three[0]}: changed while the job ran")):
        list(source.rows())


def test_a_wrong_record_is_named_with_its_own_file_and_line(three: list[Path]) -> None:
    three[1].write_text("lang;id\nde;4\nfr;5;6\n")
    with pytest.raises(
        InputError, match=re.escape(f"{three[1]}, line 3: the header has 2 cells and this row has 3")
    ):
        several(*three).scan()


def test_the_sample_is_even_over_files_of_any_size(tmp_path: Path) -> None:
    sizes = (1, 900, 0, 99, 2000)
    for number, size in enumerate(sizes):
        (tmp_path / f"{number}.csv").write_text("text\n" + f"{number}\n" * size)
    statistics = several(*sorted(tmp_path.iterdir())).scan()
    assert len(statistics.sample) == len({row.index for row in statistics.sample}) == 100
    shares = [sum(row.values["text"] == str(number) for row in statistics.sample) for number in range(5)]
    assert 15 < shares[1] < 45 and 50 < shares[4] < 85 and shares[2] == 0


def test_files_that_are_written_alike_have_an_output_like_them(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.csv").write_bytes("\ufefftext;id\r\nä;1\r\n".encode())
    SeveralJob(columns="error").run([tmp_path / "a.csv", tmp_path / "b.csv"], tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_bytes() == "\ufefftext;id;error\r\nä;1;\r\nä;1;\r\n".encode()


def test_an_option_is_for_the_files_that_have_it(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text|id\na|1\n")
    (tmp_path / "b.jsonl").write_text('{"text":"b"}\n')
    inputs = [tmp_path / "a.csv", tmp_path / "b.jsonl"]
    SeveralJob(columns="error").run(inputs, tmp_path / "out.csv", delimiter="bar")
    assert (tmp_path / "out.csv").read_text() == "text,id,error\na,1,\nb,,\n"
    with pytest.raises(UsageError, match="--delimiter is for CSV"):
        SeveralJob().run(
            [inputs[1], write_by("jsonl", tmp_path, "c", [{"text": "c"}])],
            tmp_path / "x.csv",
            delimiter="bar",
        )


def test_records_that_cannot_be_rows_go_into_a_file_for_each_input(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,id\na\nb,2\n")
    (tmp_path / "b.jsonl").write_text('{"text":"c"}\nnothing\n')
    inputs, output = [tmp_path / "a.csv", tmp_path / "b.jsonl"], tmp_path / "out.csv"
    job = SeveralJob(bad_rows="skip")
    assert job.run(inputs, output).exit_status == 1
    assert (tmp_path / "out.skipped.a.csv").read_text() == "text,id\na\n"
    assert (tmp_path / "out.skipped.b.jsonl").read_text() == "nothing\n"
    (tmp_path / "a.csv").write_text("text,id\nb,2\n")
    job.run(inputs, output)
    assert not (tmp_path / "out.skipped.a.csv").exists() and (tmp_path / "out.skipped.b.jsonl").exists()
    assert set(job.ledger.paid.values()) == {1}


def test_sheets_and_text_unite(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in [("text", "n"), ("a", 7), ("b", 2.5)]:
        book.active.append(row)
    book.save(tmp_path / "a.xlsx")
    (tmp_path / "b.csv").write_text("text,lang\nc,de\n")
    inputs = [tmp_path / "a.xlsx", tmp_path / "b.csv"]
    SeveralJob(columns="error").run(inputs, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == "text,n,lang,error\na,7,,\nb,2.5,,\nc,,de,\n"
    SeveralJob(columns="error").run(inputs, tmp_path / "out.xlsx")
    sheet = openpyxl.load_workbook(tmp_path / "out.xlsx").active
    assert list(sheet.iter_rows(values_only=True))[1:] == [
        ("a", 7, None, None),
        ("b", 2.5, None, None),
        ("c", None, "de", None),
    ]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files as Linux lists them")
def test_one_file_is_open_at_a_time(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / f"{number:02}.csv").write_text(f"text\n{number}\nmore\n")
    before = len(os.listdir("/proc/self/fd"))
    source = several(*sorted(tmp_path.iterdir()))
    source.scan()
    most = max(len(os.listdir("/proc/self/fd")) for _ in source.rows())
    assert most <= before + 1


def test_of_several_workbooks_one_is_held_at_a_time_and_rows_that_are_not_wanted_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / f"{number}.xlsx" for number in range(4)]
    for number, path in enumerate(paths):
        pandas.DataFrame({"text": [f"{number}.{row}" for row in range(3)]}).to_excel(path, index=False)
    sheets: weakref.WeakSet[excel._Table] = weakref.WeakSet()
    loaded: list[int] = []

    class Table(excel._Table):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            sheets.add(self)
            loaded.append(len(sheets))

    monkeypatch.setattr(excel, "_Table", Table)
    source = SeveralSource("all", map(open_source, paths))
    assert source.scan().rows == 12
    loaded.clear()
    assert [row.values["text"] for row in islice(source.rows(), 2)] == ["0.0", "0.1"]
    assert loaded == [1]
    rows = [row.values["text"] for row in source.rows()]
    assert rows == [f"{number}.{row}" for number in range(4) for row in range(3)]
    assert source.digest() == source.scan().sha256
    assert max(loaded) == 1
