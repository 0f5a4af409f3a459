"""SQLite: the rows of a query, in its order, with their types; the database is only read."""

import hashlib
import json
import sqlite3
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.errors import InputError, UsageError
from batchllm.formats import Outcome, open_source, plan_columns, write_output
from batchllm.records import Answer
from tests.command import Command

SIMULATOR = ("--provider", "simulator")
VALUE = st.one_of(
    st.none(),
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(codec="utf-8"), max_size=8),
)


def database(path: Path, rows: Sequence[Sequence[Any]], columns: str = "id, text") -> Path:
    with closing(sqlite3.connect(path)) as made:
        made.execute(f"create table rows ({columns})")
        made.executemany(f"insert into rows values ({','.join('?' * len(rows[0]))})", rows)
        made.commit()
    return path


def values(path: Path, query: str = "select * from rows") -> list[list[Any]]:
    source = open_source(path, query=query)
    source.scan()
    return [list(row.values.values()) for row in source.rows()]


@settings(max_examples=25, deadline=None)
@given(rows=st.lists(st.lists(VALUE, min_size=3, max_size=3), min_size=1, max_size=6))
def test_every_value_is_read_and_written_as_it_is(rows: list[list[Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, out = database(Path(folder, "in.db"), rows, "a, b, c"), Path(folder, "out.jsonl")
        found = values(path)
        assert found == rows
        assert [list(map(type, row)) for row in found] == [list(map(type, row)) for row in rows]
        source = open_source(path, query="select * from rows")
        columns = plan_columns(source.scan().columns, ["llm"], columns=["llm"])
        answers = [Outcome(row.index, Answer(columns={"llm": "good"})) for row in source.rows()]
        write_output(source, answers, path=out, columns=columns, output_format="jsonl")
        lines = [json.loads(line) for line in out.read_text("utf-8").split("\n") if line]
        assert [list(line.values()) for line in lines] == [[*row, "good"] for row in rows]


def test_rows_come_in_the_order_of_the_query(tmp_path: Path) -> None:
    path = database(tmp_path / "in.db", [(n, f"text {n}") for n in range(5000)])
    assert [row[0] for row in values(path, "select id from rows order by id desc")] == [*range(4999, -1, -1)]
    assert values(path, "with few as (select 1 as id, 2 as id) select * from few") == [[1, 2]]
    source = open_source(path, query="select id, id, id + 1, text as 'my text' from rows limit 1")
    assert source.columns == ("id (column 1)", "id (column 2)", "id + 1", "my text")
    empty = open_source(path, query="select * from rows where 0")
    assert (empty.scan().rows, empty.scan().columns) == (0, ("id", "text"))


def test_tables_of_other_programs_are_read(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "pandas.db")) as made:
        pd.DataFrame({"text": ["é", None], "n": [1, 2], "x": [0.5, 1e300]}).to_sql("rows", made, index=False)
    assert values(tmp_path / "pandas.db") == [["é", 1, 0.5], [None, 2, 1e300]]
    with closing(sqlite3.connect(tmp_path / "wal.db")) as made:
        made.execute("pragma journal_mode = wal")
        made.execute("create virtual table docs using fts5(text)")
        made.execute("insert into docs values ('a word here'), ('nothing')")
        made.commit()
        query = "select text from docs where docs match 'word'"
        assert values(tmp_path / "wal.db", query) == [["a word here"]]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("delete from rows", "--query must only read"),
        ("insert into rows values (1, 2) returning id", "--query must only read"),
        ("drop table rows", "--query must only read"),
        ("attach database 'other.db' as other", "--query must only read"),
        ("pragma user_version = 3", "--query must only read"),
        ("vacuum", "--query must only read"),
        ("create table more (id)", "--query must only read"),
        ("create temp table more (id)", "--query must only read"),
        ("update sqlite_master set sql = ''", "sqlite_master may not be modified"),
        ("select * from row", "no such table: row; its tables are rows"),
        ("select other from rows", "no such column: other"),
        ("select 1; select 2", "one statement at a time"),
        ("-- nothing", "--query must return rows"),
        (None, "is a database; say which rows with --query 'select …'; its tables are rows"),
    ],
)
def test_a_query_that_does_not_read_rows_is_refused_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, query: str | None, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = database(tmp_path / "in.db", [(1, "x")])
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(UsageError, match=message):
        open_source(path, query=query)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before
    assert [each.name for each in tmp_path.iterdir()] == ["in.db"]


def test_what_no_json_has_is_refused_with_the_row(tmp_path: Path) -> None:
    path = database(tmp_path / "blob.db", [(1, "x"), (2, b"\xff\x00")])
    with pytest.raises(
        InputError, match=r"row 2: the column 'text' holds binary data \(a BLOB\); leave it out"
    ):
        open_source(path, query="select * from rows")
    assert values(path, "select hex(text) from rows") == [["78"], ["FF00"]]
    path = database(tmp_path / "inf.db", [(1, float("inf"))])
    with pytest.raises(InputError, match="row 1: the column 'text' is infinite"):
        open_source(path, query="select * from rows")
    with pytest.raises(InputError, match="Could not decode to UTF-8"):
        open_source(path, query="select cast(x'ff' as text) as text")


def test_what_is_no_database_is_recognized_by_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "in.db").write_text("id,text\n1,x\n")
    with pytest.raises(InputError, match="is text, such as CSV"):
        open_source(tmp_path / "in.db", query="select 1")
    (tmp_path / "broken.db").write_bytes(b"SQLite format 3\0" + bytes(2000))
    with pytest.raises(InputError, match="cannot be read as a database"):
        open_source(tmp_path / "broken.db", query="select 1")
    path = database(tmp_path / "made.db", [(1, "x")]).rename(tmp_path / "in.csv")
    with pytest.raises(InputError, match="is a SQLite database; name it .db, or add --input-format db"):
        open_source(path)
    with pytest.raises(UsageError, match="--query is for SQLite, and"):
        (tmp_path / "rows.csv").write_text("a\nb\n")
        open_source(tmp_path / "rows.csv", query="select 1")


def test_a_job_goes_on_with_the_same_command_and_notices_other_rows(
    batchllm: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "spool"))
    (tmp_path / "spool").mkdir()
    path = database(tmp_path / "in.db", [(n, f"It is good {n}") for n in range(6)])
    words = (
        "summarize",
        path,
        "--query",
        "select id, text from rows order by id",
        "--column",
        "text",
        *SIMULATOR,
    )
    out = tmp_path / "in.summarize.simulated.csv"
    assert batchllm(*words, "-n", "2").status == 0
    assert batchllm(*words).status == 0
    before = out.read_bytes()
    assert before.splitlines()[0].startswith(b"id,text,summary,")
    with closing(sqlite3.connect(path)) as made:  # another table is no other row
        made.execute("create table more (id)")
        made.commit()
    said = batchllm(*words)
    assert (said.status, out.read_bytes()) == (0, before)
    assert "6 answered already" in said.err
    assert batchllm("export", out, "-o", tmp_path / "x.jsonl").status == 0
    with closing(sqlite3.connect(path)) as made:
        made.execute("insert into rows values (6, 'It is new')")
        made.commit()
    assert "changed since the job's last run" in batchllm("export", out, "-o", tmp_path / "y.jsonl").err
    said = batchllm(*words)
    assert "Paid in this run: 1 request" in said.err
    assert out.read_text().count("\n") == 8
    assert not list((tmp_path / "spool").glob("batchllm-query-*"))
