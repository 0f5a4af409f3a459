"""A format is a source and a writer: every one is written from any other."""

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from batchllm.errors import UsageError
from batchllm.formats import Outcome, format_named, format_of, open_source, plan_columns, write_output
from batchllm.formats.columns import Columns
from batchllm.formats.format import Format, Source, Writer
from batchllm.formats.input_file import LocalFile
from batchllm.formats.output_file import OutputTarget
from batchllm.formats.registry import FORMATS
from batchllm.formats.scan import InputStatistics
from batchllm.records import Answer, Row
from batchllm.stores import ObjectPath

VALUES = {"s": "x,\ny", "n": None, "t": True, "i": 7, "f": 1.5, "o": {"k": [1, "é"]}}


class Memory(Source):
    """A format without text, lines or origin, as a binary one would be."""

    kind = "memory"

    def __init__(self, path: Path, rows: list[Mapping[str, Any]]) -> None:
        super().__init__(LocalFile(path, "memory"))
        self._rows = rows
        self.columns = tuple(rows[0])

    def scan(self) -> InputStatistics:
        return InputStatistics(len(self._rows), 0, "", self.columns, tuple(self.rows()))

    def rows(self, start: int = 0) -> Iterator[Row]:
        for index, values in enumerate(self._rows[start:], start):
            yield Row(index, index + 1, values)


def write(source: Source, path: Path, output_format: str) -> bytes:
    columns = plan_columns(source.scan().columns, ["label"], columns=["label"])
    outcomes = [Outcome(row.index, Answer(columns={"label": "good"})) for row in source.rows()]
    write_output(source, outcomes, path=path, columns=columns, output_format=output_format)
    return path.read_bytes()


def test_a_source_that_only_has_values_is_written_in_every_format(tmp_path: Path) -> None:
    source = Memory(tmp_path / "in.memory", [VALUES, {**VALUES, "s": "z"}])
    assert write(source, tmp_path / "out.csv", "csv") == (
        's,n,t,i,f,o,label\n"x,\ny",,true,7,1.5,"{""k"":[1,""é""]}",good\n'
        'z,,true,7,1.5,"{""k"":[1,""é""]}",good\n'.encode()
    )
    lines = write(source, tmp_path / "out.jsonl", "jsonl").splitlines()
    assert json.loads(lines[0]) == {**VALUES, "label": "good"}
    assert source.size_of(next(source.rows())) is None
    assert source.describe() == "memory"


def test_a_writer_gets_the_added_values_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[Row, dict[str, Any]]] = []

    class Kept(Writer):
        def __init__(self, target: OutputTarget, source: Source, columns: Columns, suffix: str) -> None:
            self.target = target
            assert suffix == ".kept"

        def add(self, row: Row, values: Mapping[str, Any]) -> None:
            given.append((row, dict(values)))

        def finish(self) -> None:
            self.target.write(b"end")

    form = Format(suffixes=(".kept",), source=open_source, writer=Kept)
    monkeypatch.setattr("batchllm.formats.output.format_named", lambda name: form)
    (tmp_path / "in.csv").write_text("id\n1\n")
    assert write(open_source(tmp_path / "in.csv"), tmp_path / "out.kept", "kept") == b"end"
    assert given == [(Row(0, 2, {"id": "1"}, "1\n"), {"label": "good"})]


def test_suffixes_and_names_are_those_of_one_format_each() -> None:
    suffixes = [suffix for form in FORMATS for suffix in form.suffixes]
    assert len(suffixes) == len(set(suffixes))
    for form in FORMATS:
        assert format_named(form.name) is form
        assert all(format_of(Path(f"rows{suffix.upper()}")) is form for suffix in form.suffixes)


def test_an_unknown_suffix_names_the_option() -> None:
    with pytest.raises(
        UsageError, match=r"^rows.dat: the suffix '.dat' names no format; add --input-format csv or"
    ):
        format_of(Path("rows.dat"))
    with pytest.raises(
        UsageError, match=r"^rows: there is no such file or folder, and the suffix '' names no"
    ):
        format_of(Path("rows"))
    with pytest.raises(UsageError, match=r"^s3://bucket/rows: the suffix '' names no format"):
        format_of(ObjectPath("s3://bucket/rows"))
    with pytest.raises(UsageError, match=r"^rows.dat.gz: the suffix '.dat' names no format"):
        format_of(Path("rows.dat.gz"))
    with pytest.raises(
        UsageError, match=r"^rows.json: with one object a line .* --input-format jsonl; of one"
    ):
        format_of(Path("rows.json"))


def test_every_format_is_read_from_a_file_whose_name_is_no_unicode(tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": ["ä"]})
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    frame.to_csv(f"{path}.csv", index=False)
    frame.to_csv(f"{path}.csv.gz", index=False)
    frame.to_json(f"{path}.jsonl", orient="records", lines=True)
    with open(f"{path}.parquet", "wb") as file:
        frame.to_parquet(file)
    frame.to_excel(f"{path}.xlsx", index=False)
    with closing(sqlite3.connect(tmp_path / "plain.db")) as made:
        frame.to_sql("rows", made, index=False)
    (tmp_path / "plain.db").rename(f"{path}.db")
    for suffix in (".csv", ".csv.gz", ".jsonl", ".parquet", ".xlsx", ".db"):
        source = open_source(Path(f"{path}{suffix}"), query="select * from rows" if suffix == ".db" else None)
        source.scan()
        assert [row.values for row in source.rows()] == [{"text": "ä"}], suffix
