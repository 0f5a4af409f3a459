"""Tables that five other writers write, in many dialects, are read cell for cell, and so is our own output."""

import csv
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from batchllm.errors import InputError
from batchllm.formats import Outcome, open_source, plan_columns, write_output
from batchllm.records import Answer

CELL = st.one_of(
    st.sampled_from(
        ["007", "hello, dear", "a;b", 'say "hi"', "two\nlines", "1.5", "tab\there", "a|b", "é😀", "x"]
    ),
    st.text("ab ,;|\t\"'\n\\#é", min_size=1, max_size=8),
)
NAMES = ["id", "text", "note, more", "c;d", "title"]
FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def tables(draw: st.DrawFn) -> list[list[str]]:
    width = draw(st.integers(2, 5))
    rows = draw(st.lists(st.lists(CELL, min_size=width, max_size=width), min_size=1, max_size=6))
    return [NAMES[:width], *rows]


def by_csv(table: list[list[str]], path: Path, delimiter: str) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(table)


def by_pandas(table: list[list[str]], path: Path, delimiter: str) -> None:
    import pandas as pd

    pd.DataFrame(table[1:], columns=table[0]).to_csv(path, sep=delimiter, index=False, lineterminator="\n")


def by_polars(table: list[list[str]], path: Path, delimiter: str) -> None:
    import polars as pl

    pl.DataFrame(table[1:], schema=table[0], orient="row").write_csv(path, separator=delimiter)


def by_pyarrow(table: list[list[str]], path: Path, delimiter: str) -> None:
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    columns = {name: [row[at] for row in table[1:]] for at, name in enumerate(table[0])}
    arrow_csv.write_csv(pa.table(columns), path, arrow_csv.WriteOptions(delimiter=delimiter))


def by_duckdb(table: list[list[str]], path: Path, delimiter: str) -> None:
    import duckdb

    with duckdb.connect() as base:
        names = ", ".join('"' + name + '" varchar' for name in table[0])
        base.execute(f"create table t ({names})")
        base.executemany(f"insert into t values ({', '.join('?' * len(table[0]))})", table[1:])
        base.execute(f"copy t to '{path}' (header, delimiter '{delimiter}')")


WRITERS = [by_csv, by_pandas, by_polars, by_pyarrow, by_duckdb]


@pytest.mark.parametrize("write", WRITERS)
@FEW
@given(table=tables(), delimiter=st.sampled_from(",;\t|"))
def test_a_table_of_another_writer_is_read_cell_for_cell_or_refused_with_an_option(
    write: Callable[[list[list[str]], Path, str], None], table: list[list[str]], delimiter: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "in.csv")
        write(table, path, delimiter)
        try:
            source = open_source(path)
            source.scan()
        except InputError as error:
            assert "--" in str(error)
            source = open_source(path, delimiter=delimiter, quote='"', skip_lines=0)
            source.scan()
        read = [list(source.columns), *(list(row.values.values()) for row in source.rows())]
        assert read == table


@FEW
@given(table=tables(), delimiter=st.sampled_from(",;\t|"), answer=CELL)
def test_the_output_is_read_as_it_was_written(table: list[list[str]], delimiter: str, answer: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, output = Path(folder, "in.csv"), Path(folder, "out.csv")
        by_csv(table, path, delimiter)
        source = open_source(path, delimiter=delimiter, quote='"', skip_lines=0)
        columns = plan_columns(source.columns, ["summary"])
        outcomes = [
            Outcome(index, Answer(columns={"summary": answer})) for index in range(source.scan().rows)
        ]
        write_output(source, outcomes, path=output, columns=columns, output_format="csv")
        try:
            again = open_source(output)
            again.scan()
        except InputError:
            assume(delimiter == "\t")  # lines of a cell that read like rows of their own
            return
        assert [list(row.values.values())[: len(table[0]) + 1] for row in again.rows()] == [
            [*row, answer] for row in table[1:]
        ]


def test_needless_quotes_and_empty_names_come_back_byte_for_byte(tmp_path: Path) -> None:
    path, output = tmp_path / "in.csv", tmp_path / "out.csv"
    path.write_bytes(b'"",id,"text",id\r\n"0",1,"a",x\r\n1,"2",b,"y ""z"""\r\n')
    source = open_source(path)
    columns = plan_columns(source.columns, ["summary"], columns=["summary"])
    outcomes = [Outcome(index, Answer(columns={"summary": "s"})) for index in range(source.scan().rows)]
    write_output(source, outcomes, path=output, columns=columns, output_format="csv")
    assert output.read_bytes() == b'"",id,"text",id,summary\r\n"0",1,"a",x,s\r\n1,"2",b,"y ""z""",s\r\n'
