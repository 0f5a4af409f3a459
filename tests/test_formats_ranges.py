"""The ranges of a plan: read alone, and one after the other, they are the rows of the whole input."""

import csv
import hashlib
import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.cluster.plan import ClusterPlan
from batchllm.cluster.planner import hashed
from batchllm.errors import InputError
from batchllm.formats import Source, input_file, open_source
from batchllm.formats.several import SeveralSource
from batchllm.records import Row
from batchllm.stores import located
from batchllm.stores import objects as stored
from tests.object_store import ObjectStore

CELLS = st.text(st.sampled_from("ab,;\"'\n 語é\U0001f600"), max_size=9)
ROWS = st.lists(st.tuples(st.integers(0, 99), CELLS), min_size=1, max_size=30)
Table = list[tuple[int, str]]


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_file, "CHUNK_BYTES", 40)


def of_csv_module(path: Path, rows: Table, end: str = "\r\n", encoding: str = "utf-8-sig") -> None:
    with path.open("w", newline="", encoding=encoding, errors="replace") as file:
        csv.writer(file, lineterminator=end).writerows([("id", "text"), *rows])


def of_pandas(path: Path, rows: Table) -> None:
    frame = pd.DataFrame(rows, columns=["id", "text"])
    kind = path.name.partition(".")[2]
    if kind.startswith("csv"):
        frame.to_csv(path, index=False)
    elif kind.startswith("jsonl"):
        frame.to_json(path, orient="records", lines=True, force_ascii=False)
    elif kind == "xlsx":
        frame.to_excel(path, index=False)
    else:
        frame.to_parquet(path, row_group_size=4)


def of_polars(path: Path, rows: Table) -> None:
    frame = pl.DataFrame(rows, schema=["id", "text"], orient="row")
    if path.suffix == ".csv":
        frame.write_csv(path, include_bom=True, line_terminator="\r\n", quote_style="always")
    elif path.suffix == ".jsonl":
        frame.write_ndjson(path)
    else:
        frame.write_parquet(path, row_group_size=5)


def of_duckdb(path: Path, rows: Table) -> None:
    with duckdb.connect() as connection:
        connection.execute("create table t (id integer, text varchar)")
        connection.executemany("insert into t values (?, ?)", rows)
        form = {".csv": "csv, header", ".jsonl": "json", ".parquet": "parquet"}[path.suffix]
        connection.execute(f"copy t to '{path}' (format {form})")


def of_pyarrow(path: Path, rows: Table) -> None:
    ids, texts = zip(*rows, strict=True)
    pq.write_table(pa.table({"id": ids, "text": texts}), path, row_group_size=3, data_page_size=16)


WRITERS: list[tuple[str, Callable[[Path, Table], None], str | None]] = [
    ("csv", of_csv_module, None),
    ("csv", lambda path, rows: of_csv_module(path, rows, "\n", "utf-16"), None),
    ("csv", lambda path, rows: of_csv_module(path, rows, "\r\n", "cp1252"), "cp1252"),
    ("csv", lambda path, rows: of_csv_module(path, rows, "\n", "gb18030"), "gb18030"),
    *((kind, of_pandas, None) for kind in ("csv", "csv.gz", "csv.zst", "jsonl", "jsonl.gz", "parquet", "xlsx")),
    *((kind, of_polars, None) for kind in ("csv", "jsonl", "parquet")),
    *((kind, of_duckdb, None) for kind in ("csv", "jsonl", "parquet")),
    ("parquet", of_pyarrow, None),
]  # fmt: skip


def plan_of(source: Source, cuts: list[int]) -> ClusterPlan:
    """The plan of an input, as a worker reads it."""
    whole = source.scan()
    bounds = sorted({0, whole.rows, *(cut % (whole.rows + 1) for cut in cuts)})
    shards = hashed(source, [range(*pair) for pair in pairwise(bounds)])
    plan = ClusterPlan("in", replace(whole, sample=()), (), str(Path.cwd()), None, {}, shards, {})
    return ClusterPlan.from_json(plan.to_json(), "plan.json")


def seen(source: Source, row: Row, index: int) -> tuple[Any, ...]:
    names = list(row.values)
    return index, row.line, dict(row.values), source.json_object(row, {}), source.cells(row, names)


def check(open_: Callable[[], Source], cuts: list[int]) -> None:
    """Compares the ranges of a plan with a pass over the whole input."""
    source = open_()
    plan = plan_of(source, cuts)
    whole = [seen(source, row, row.index) for row in source.rows()]
    found = []
    for shard in plan.shards:
        part = open_()
        statistics = plan.rows_of(shard, has_worked=False).restrict(part)
        rows = [seen(part, row, shard.first_row + row.index) for row in part.rows()]
        assert statistics.rows == len(rows) == shard.rows
        assert statistics.columns == plan.whole.columns == source.columns
        assert part.digest() == shard.sha256
        half = shard.rows // 2
        assert [seen(part, row, shard.first_row + row.index) for row in part.rows(half)] == rows[half:]
        found += rows
    assert found == whole


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, cuts=st.lists(st.integers(0, 30), max_size=5), writer=st.sampled_from(WRITERS))
def test_the_ranges_of_a_plan_are_the_rows_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory,
    rows: Table,
    cuts: list[int],
    writer: tuple[str, Callable[[Path, Table], None], str | None],
) -> None:
    suffix, write, encoding = writer
    path = tmp_path_factory.mktemp("ranges") / f"in.{suffix}"
    write(path, rows)
    check(lambda: open_source(path, encoding=encoding, delimiter="," if "csv" in suffix else None), cuts)


def several(folder: Path) -> SeveralSource:
    return SeveralSource("in", [open_source(path) for path in sorted(folder.iterdir())])


@settings(max_examples=15, deadline=None)
@given(tables=st.lists(ROWS, min_size=2, max_size=4), cuts=st.lists(st.integers(0, 99), max_size=6))
def test_the_ranges_of_several_files_are_the_rows_of_all(
    tmp_path_factory: pytest.TempPathFactory, tables: list[Table], cuts: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("several")
    for number, rows in enumerate(tables):
        kind, write = [("csv", of_pandas), ("jsonl", of_polars), ("parquet", of_duckdb)][number % 3]
        write(folder / f"{number}.{kind}", rows)
    (folder / "5.jsonl").write_text('{"other": 1}\n{"text": "last"}\n')
    check(lambda: several(folder), cuts)


def test_records_that_are_left_out_are_not_counted_by_ranges(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("id,text\n" + "".join(f"{n},{'a,b' if n % 3 else 'a'}\n" for n in range(60)))
    check(lambda: open_source(path, bad_rows="skip"), [3, 7, 19])


def test_a_file_is_not_read_where_other_files_have_the_rows(tmp_path: Path) -> None:
    for number in range(4):
        of_pandas(tmp_path / f"{number}.csv", [(number, f"text {each}") for each in range(20)])
    plan = plan_of(several(tmp_path), [40])
    part = several(tmp_path)
    for number in (0, 1):
        (tmp_path / f"{number}.csv").unlink()
    assert plan.rows_of(plan.shards[1], has_worked=False).restrict(part).rows == 40


def test_documents_are_called_as_on_the_machine_of_the_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "docs").mkdir()
    for name in "abcd":
        (tmp_path / "docs" / f"{name}.txt").write_text("text")
    monkeypatch.chdir(tmp_path)
    plan = plan_of(several(tmp_path / "docs"), [2])
    monkeypatch.chdir("/")
    part = several(tmp_path / "docs")
    assert plan.rows_of(plan.shards[1], has_worked=False).restrict(part).rows == 2
    rows = list(part.rows())
    assert [row.values["file"] for row in rows] == [*map(part.file_of, rows)] == ["docs/c.txt", "docs/d.txt"]


def test_a_file_more_is_another_input(tmp_path: Path) -> None:
    of_pandas(tmp_path / "0.csv", [(0, "a")])
    plan = plan_of(several(tmp_path), [])
    of_pandas(tmp_path / "1.csv", [(1, "b")])
    with pytest.raises(InputError, match=r"not the input of the plan .*2 files, and not 1"):
        plan.rows_of(plan.shards[0], has_worked=False).restrict(several(tmp_path))


@settings(max_examples=25, deadline=None)
@given(edited=st.integers(0, 59), cut=st.integers(1, 59), grows=st.booleans())
def test_a_range_is_refused_where_its_rows_are_not_those_of_the_plan(
    tmp_path_factory: pytest.TempPathFactory, edited: int, cut: int, grows: bool
) -> None:
    path = tmp_path_factory.mktemp("edited") / "in.csv"
    rows = [(number, f"text {number:02}") for number in range(60)]
    of_pandas(path, rows)
    plan = plan_of(open_source(path), [cut])
    rows[edited] = edited, "a longer one" if grows else "edit 00"
    of_pandas(path, rows)
    for shard in plan.shards:
        wanted = plan.rows_of(shard, has_worked=False)
        if edited in wanted.rows:
            with pytest.raises(InputError, match="not the input of the plan"):
                wanted.restrict(open_source(path))
        elif not grows or edited > wanted.rows[-1]:
            assert wanted.restrict(open_source(path)).sha256 == shard.sha256


def test_equal_values_of_another_type_are_other_rows(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"id": pa.array([1, 2], pa.int32())}), path)
    plan = plan_of(open_source(path), [])
    pq.write_table(pa.table({"id": pa.array([1, 2], pa.int64())}), path)
    with pytest.raises(InputError, match="not the input of the plan"):
        plan.rows_of(plan.shards[0], has_worked=False).restrict(open_source(path))


@pytest.mark.parametrize("edit", ["row", "end"])
def test_a_pass_that_reads_other_rows_than_the_first_one_fails(tmp_path: Path, edit: str) -> None:
    path = tmp_path / "in.jsonl"
    of_polars(path, [(number, "text") for number in range(60)])
    source = open_source(path)
    source.restrict(range(20, 60), source.scan())
    content = path.read_bytes()
    if edit == "end":
        path.write_bytes(content[: content.rindex(b'{"id"')])
    else:
        path.write_bytes(content.replace(b'{"id":40,', b'{"id":41,'))
    with pytest.raises(InputError, match="changed while the job ran"):
        list(source.rows())


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many bytes each request asked a store for."""
    found: list[int] = []
    read = stored.read

    def counted(url: Any, start: int, stop: int, **more: Any) -> bytes:
        found.append(stop - start)
        return read(url, start, stop, **more)

    monkeypatch.setattr(stored, "read", counted)
    monkeypatch.setattr("batchllm.stores.read", counted)
    yield found


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_range_of_an_object_is_read_by_its_bytes_alone(
    object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch, asked: list[int], kind: str
) -> None:
    monkeypatch.setattr(stored, "PIECE_BYTES", 1 << 13)
    monkeypatch.setattr(input_file, "HEAD_BYTES", 1 << 13)
    monkeypatch.setattr("batchllm.formats.objects.HEAD_BYTES", 1 << 13)
    monkeypatch.setattr("batchllm.formats.objects._BLOCK_BYTES", 1 << 12)
    monkeypatch.setattr("batchllm.formats.parquet._BUFFER_BYTES", 1 << 12)
    monkeypatch.setattr("batchllm.formats.parquet._MOST_ROWS", 250)
    texts = [hashlib.sha256(b"%d" % number).hexdigest() for number in range(4_000)]
    frame, content = pl.DataFrame({"text": texts}), io.BytesIO()
    if kind == "parquet":
        frame.write_parquet(content, row_group_size=250, compression="uncompressed")
    elif kind == "csv":
        frame.write_csv(content)
    else:
        frame.write_ndjson(content)
    bucket = object_store.new_bucket()
    object_store.put(bucket, f"in.{kind}", content.getvalue())
    path = located(f"s3://{bucket}/in.{kind}")
    plan = plan_of(open_source(path), [2_500, 2_750])
    asked.clear()
    source = open_source(path)
    rows = plan.rows_of(plan.shards[1], has_worked=False)
    assert rows.restrict(source).rows == 250
    assert [row.values["text"] for row in source.rows()] == texts[2_500:2_750]
    assert sum(asked) < len(content.getvalue()), "two passes over it"
