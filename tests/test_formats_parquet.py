"""Parquet comes back as it was, and answers stand beside it with types of their own."""

import io
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchllm.errors import InputError, JobError, UsageError
from batchllm.formats import (
    Columns,
    Outcome,
    OutputStatistics,
    Source,
    open_source,
    parquet,
    parquet_writer,
    plan_columns,
    with_fitting_kinds,
    write_output,
)
from batchllm.formats.merging import write_merged
from batchllm.formats.several import SeveralSource
from batchllm.records import Answer
from tests.arrow_tables import plain, shown, tables

KINDS: Mapping[str, Any] = {"label": str, "score": int, "share": float, "urgent": bool, "tags": list[str]}
ANSWER = Answer(columns={"label": "good", "score": 5, "share": 0.5, "urgent": True, "tags": ["a", "é"]})
NAMES = ("_label_", "_score_", "_share_", "_urgent_", "_tags_")


@pytest.fixture(autouse=True)
def few_rows_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_MOST_ROWS", 3)


def written(path: Path, out: Path, answers: Mapping[int, Answer] | None = None) -> OutputStatistics:
    """Writes every row with an answer; of ``answers`` only their rows."""
    source = open_source(path)
    statistics = source.scan()
    names = tuple(KINDS)
    planned = plan_columns(statistics.columns, names, columns=names, prefix="_")
    columns = Columns(
        planned.input,
        tuple((f"_{name}_", name) for name in names),
        (),
        NAMES,
        {f"_{name}_": kind for name, kind in KINDS.items()},
    )

    def outcomes() -> Iterator[Outcome]:
        given = dict.fromkeys(range(statistics.rows), ANSWER) if answers is None else answers
        yield from (Outcome(index, answer) for index, answer in given.items())

    return with_fitting_kinds(
        columns,
        lambda fitting: write_output(
            source,
            outcomes(),
            path=out,
            columns=fitting,
            output_format=out.suffix[1:],
            partial=answers is not None,
            expected_sha256=statistics.sha256,
        ),
    )


def assert_kept(before: pa.Table, after: pa.Table) -> None:
    width = before.num_columns
    kept = pa.schema([after.schema.field(position) for position in range(width)], after.schema.metadata)
    assert kept.equals(before.schema, check_metadata=True)
    for position in range(width):
        assert shown(after.column(position)) == shown(before.column(position))


def few(examples: int) -> settings:
    return settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))


@few(12)
@given(table=tables(), data=st.data())
def test_every_column_comes_back_with_name_type_values_and_metadata(
    tmp_path_factory: pytest.TempPathFactory, table: pa.Table, data: st.DataObject
) -> None:
    check_columns(tmp_path_factory.mktemp("parquet"), table, data)


@pytest.mark.proof
@few(400)
@given(table=tables(depth=3), data=st.data())
def test_every_column_comes_back_of_many_tables(
    tmp_path_factory: pytest.TempPathFactory, table: pa.Table, data: st.DataObject
) -> None:
    check_columns(tmp_path_factory.mktemp("parquet"), table, data)


def check_columns(folder: Path, table: pa.Table, data: st.DataObject) -> None:
    codec = data.draw(st.sampled_from(["none", "snappy", "gzip", "zstd", "brotli", "lz4"]))
    size = data.draw(st.integers(1, 8))
    pq.write_table(table, folder / "in.parquet", compression=codec, row_group_size=size)
    before = pq.read_table(folder / "in.parquet")
    written(folder / "in.parquet", folder / "out.parquet")
    after = pq.read_table(folder / "out.parquet")
    assert_kept(before, after)
    assert after.column(after.num_columns - 1).to_pylist() == [["a", "é"]] * table.num_rows
    chosen = data.draw(st.sets(st.integers(0, max(0, table.num_rows - 1)))) if table.num_rows else set()
    written(folder / "in.parquet", folder / "some.parquet", dict.fromkeys(sorted(chosen), ANSWER))
    assert_kept(before.take(pa.array(sorted(chosen), pa.int64())), pq.read_table(folder / "some.parquet"))


@few(12)
@given(table=tables(exact=True))
def test_rows_have_the_values_of_their_json_text_and_other_formats_get_them(
    tmp_path_factory: pytest.TempPathFactory, table: pa.Table
) -> None:
    check_values(tmp_path_factory.mktemp("parquet"), table)


@pytest.mark.proof
@few(400)
@given(table=tables(exact=True, depth=3))
def test_rows_of_many_tables_have_the_values_of_their_json_text(
    tmp_path_factory: pytest.TempPathFactory, table: pa.Table
) -> None:
    check_values(tmp_path_factory.mktemp("parquet"), table)


def check_values(folder: Path, table: pa.Table) -> None:
    pq.write_table(table, folder / "in.parquet", row_group_size=2)
    source = open_source(folder / "in.parquet")
    rows = list(source.rows())
    expected = [
        {name: plain(value) for name, value in zip(source.columns, values, strict=True)}
        for values in zip(
            *(column.to_pylist() for column in pq.read_table(folder / "in.parquet")), strict=True
        )
    ]
    narrow = {name for name, kind in zip(source.columns, table.schema.types, strict=True) if has_narrow(kind)}
    for row, values in zip(rows, expected, strict=True):
        for name in set(values) - narrow:
            assert same(row.values[name], values[name])
    for start in range(len(rows) + 1):
        assert [dict(row.values) for row in source.rows(start)] == [dict(row.values) for row in rows[start:]]
    written(folder / "in.parquet", folder / "out.jsonl")
    lines = [
        json.loads(line, parse_float=Decimal) for line in (folder / "out.jsonl").read_bytes().splitlines()
    ]
    for line, values in zip(lines, expected, strict=True):
        assert all(same(line[name], values[name]) for name in set(values) - narrow)


def has_narrow(kind: pa.DataType) -> bool:
    """Whether there are floats of fewer bits in a type: the digits of these are not those of a double."""
    if pa.types.is_float32(kind) or pa.types.is_float16(kind):
        return True
    return any(has_narrow(kind.field(number).type) for number in range(kind.num_fields))


def same(found: Any, wanted: Any) -> bool:
    """Whether a value is what is wanted, numbers by what they mean."""
    if isinstance(wanted, float | Decimal) and isinstance(found, float | Decimal | int):
        written = Decimal(str(found)) if not isinstance(wanted, float) else float(found)
        return bool(written == wanted)
    if isinstance(wanted, dict) and isinstance(found, Mapping):
        return found.keys() == wanted.keys() and all(same(found[key], wanted[key]) for key in wanted)
    if wanted == [] and found == {}:  # an empty map, which Python shows as a list
        return True
    if isinstance(wanted, list) and isinstance(found, list):
        return len(found) == len(wanted) and all(map(same, found, wanted))
    return bool(type(found) is type(wanted) and found == wanted)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
).map(lambda value: json.loads(json.dumps(value).replace("\\ud", "\\u0d")))
COLUMNS = [
    JSON, st.integers(-5, 5), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans(),
    st.text(max_size=5), st.lists(st.integers(0, 9)), st.lists(st.text(max_size=2)),
]  # fmt: skip


@few(25)
@given(data=st.data(), kinds=st.lists(st.sampled_from(COLUMNS), min_size=1, max_size=4))
def test_jsonl_becomes_parquet_with_types_that_hold_every_value(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, kinds: list[Any]
) -> None:
    folder = tmp_path_factory.mktemp("jsonl")
    rows = data.draw(
        st.lists(
            st.fixed_dictionaries({f"c{n}": st.none() | kind for n, kind in enumerate(kinds)}), min_size=1
        )
    )
    (folder / "in.jsonl").write_bytes(b"".join(json.dumps(row).encode() + b"\n" for row in rows))
    written(folder / "in.jsonl", folder / "out.parquet")
    found = pq.read_table(folder / "out.parquet")
    source = open_source(folder / "in.jsonl")
    for name in rows[0]:
        for cell, row in zip(found.column(name).to_pylist(), source.rows(), strict=True):
            wanted = row.values[name]
            if isinstance(cell, str) and not isinstance(wanted, str):
                assert same(json.loads(cell), wanted)
            else:
                assert same(cell, wanted) or json.loads(cell) == wanted


def test_columns_of_jsonl_are_typed_where_all_values_agree(tmp_path: Path) -> None:
    lines = [
        '{"i": 1, "f": 1.10, "mixed": 1, "list": ["a"], "object": {"a": 1}, "big": 1, "long": 0.10000000000000000001}',
        '{"i": null, "f": 2, "mixed": "1", "list": [], "object": {}, "big": 36893488147419103232, "long": 1}',
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    written(tmp_path / "in.jsonl", tmp_path / "out.parquet")
    found = pq.read_table(tmp_path / "out.parquet").slice(0).to_pydict()
    assert found["i"] == [1, None] and found["f"] == [1.1, 2.0] and found["list"] == [["a"], []]
    assert found["mixed"] == ["1", '"1"'] and found["object"] == ['{"a":1}', "{}"]
    assert found["big"] == ["1", "36893488147419103232"] and found["long"] == [
        "0.10000000000000000001",
        "1",
    ]


def test_cells_of_csv_stay_text(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text('id,text\n007,"a\nb"\n1.0,\n')
    written(tmp_path / "in.csv", tmp_path / "out.parquet")
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.column("id").to_pylist() == ["007", "1.0"] and found.column("text").to_pylist() == [
        "a\nb",
        "",
    ]


def test_answer_columns_have_their_types(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a", "b"]}), tmp_path / "in.parquet")
    written(tmp_path / "in.parquet", tmp_path / "out.parquet", {0: ANSWER, 1: Answer(error="no answer")})
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.schema.types[1:] == [
        pa.string(),
        pa.int64(),
        pa.float64(),
        pa.bool_(),
        pa.list_(pa.string()),
    ]
    assert found.column("_score_").to_pylist() == [5, None] and found.column("_tags_").to_pylist()[1] is None


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("score", 1 << 70, str(1 << 70)),
        ("score", "five", "five"),
        ("tags", ["a", 5], '["a",5]'),
        ("tags", {"a": 1}, '{"a":1}'),
        ("urgent", "yes", "yes"),
        ("label", "half \ud83d pair", "half \\ud83d pair"),
        ("share", "x", "x"),
    ],
)
def test_a_value_that_no_type_holds_makes_its_column_text(
    tmp_path: Path, name: str, value: Any, kept: str
) -> None:
    pq.write_table(pa.table({"text": ["a", "b", "c", "d", "e"]}), tmp_path / "in.parquet")
    odd = ANSWER._replace(columns={**ANSWER.columns, name: value})
    written(tmp_path / "in.parquet", tmp_path / "out.parquet", {0: ANSWER, 4: odd})
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.column(f"_{name}_").to_pylist()[1] == kept
    assert found.column(f"_{name}_").type == pa.string()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.parquet", "out.parquet"]


def test_columns_of_one_name_and_without_one_come_back_as_they_are(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array(["x"]), pa.array([2.5])], names=["a", "a", ""])
    pq.write_table(table, tmp_path / "in.parquet")
    source = open_source(tmp_path / "in.parquet")
    assert dict(next(source.rows()).values) == {"a (column 1)": 1, "a (column 2)": "x", "column_3": 2.5}
    written(tmp_path / "in.parquet", tmp_path / "out.parquet")
    assert pq.ParquetFile(tmp_path / "out.parquet").schema_arrow.names == ["a", "a", "", *NAMES]


@pytest.mark.parametrize("rows", [0, 1])
def test_a_file_without_rows_is_a_table(tmp_path: Path, rows: int) -> None:
    table = pa.table({"a": pa.array([1][:rows], pa.int32())})
    pq.write_table(table, tmp_path / "in.parquet")
    assert open_source(tmp_path / "in.parquet").scan().rows == rows
    written(tmp_path / "in.parquet", tmp_path / "out.parquet")
    assert_kept(pq.read_table(tmp_path / "in.parquet"), pq.read_table(tmp_path / "out.parquet"))


def good() -> bytes:
    sink = io.BytesIO()
    texts = [f"a text with number {number * 7919 % 1000}" for number in range(1000)]
    pq.write_table(
        pa.table({"id": range(1000), "text": texts}), sink, row_group_size=300, use_dictionary=False
    )
    return sink.getvalue()


def encrypted(*, plain_footer: bool) -> bytes:
    import pyarrow.parquet.encryption as pe

    class Kms(pe.KmsClient):  # type: ignore[misc]
        def wrap_key(self, key: bytes, name: str) -> bytes:
            return b"w" + key

        def unwrap_key(self, key: bytes, name: str) -> bytes:
            return bytes(key[1:])

    factory = pe.CryptoFactory(lambda config: Kms())
    config = pe.EncryptionConfiguration(
        footer_key="f", column_keys={"k": ["text"]}, plaintext_footer=plain_footer
    )
    table = pa.table({"text": ["a", "b"]})
    sink = io.BytesIO()
    properties = factory.file_encryption_properties(pe.KmsConnectionConfig(), config)
    with pq.ParquetWriter(sink, table.schema, encryption_properties=properties) as writer:
        writer.write_table(table)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (good()[:-1], "is cut off"),
        (good()[:-200], "is cut off"),
        (good()[:500], "is cut off"),
        (good()[:4000] + bytes(3000) + good()[7000:], "cannot be read as Parquet"),
        (encrypted(plain_footer=False), "is an encrypted Parquet file"),
        (encrypted(plain_footer=True), "is an encrypted Parquet file"),
        (b"id,text\n1,a\n", "is text, such as CSV"),
        (b"<!DOCTYPE html><html><body>sign in</body></html>", "is an HTML page"),
        (b"", "is empty"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_sentence(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "in.parquet"
    path.write_bytes(content)
    with pytest.raises(InputError, match=reason) as refused:
        open_source(path).scan()
    assert "\n" not in str(refused.value) and str(refused.value).startswith(str(path))


@few(40)
@given(data=st.data())
def test_damage_anywhere_is_an_input_error_or_nothing(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(good())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(4, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "in.parquet"
    path.write_bytes(content)
    try:
        source = open_source(path)
        source.scan()
        for row in source.rows():
            dict(row.values)
    except InputError as error:
        assert "\n" not in str(error)


def test_a_file_without_columns_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}).select([]), tmp_path / "in.parquet")
    with pytest.raises(InputError, match="without columns"):
        open_source(tmp_path / "in.parquet")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".tsv"])
def test_parquet_with_another_suffix_is_named_and_the_option_reads_it(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"in{suffix}"
    path.write_bytes(good())
    with pytest.raises(
        InputError, match=r"is a Parquet file; name it \.parquet, or add --input-format parquet"
    ):
        open_source(path)
    assert open_source(path, format="parquet").scan().rows == 1000
    (tmp_path / "stdin").write_bytes(good())
    assert open_source(tmp_path / "stdin", name="standard input").scan().rows == 1000


def test_a_compressed_parquet_file_is_read(tmp_path: Path) -> None:
    import gzip

    (tmp_path / "in.parquet.gz").write_bytes(gzip.compress(good()))
    source = open_source(tmp_path / "in.parquet.gz")
    spooled = source.file.local_path()
    assert source.scan().rows == 1000 and len(list(source.rows())) == 1000 and spooled.exists()
    del source
    assert not spooled.exists()


def test_an_input_that_changes_while_the_job_runs_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"text": ["a", "b"]}), path)
    source = open_source(path)
    statistics = source.scan()
    for table in (pa.table({"text": ["a", "c"]}), pa.table({"text": [1, 2]}), pa.table({"text": ["a"]})):
        pq.write_table(table, path)
        with pytest.raises(InputError, match="changed"):
            write_output(
                source,
                (Outcome(index, ANSWER) for index in range(table.num_rows)),
                path=tmp_path / "out.parquet",
                columns=plan_columns(("text",), ("label",)),
                output_format="parquet",
                expected_sha256=statistics.sha256,
            )
        assert not (tmp_path / "out.parquet").exists()


def test_a_missing_library_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in.parquet").write_bytes(good())
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        UsageError, match=r"install with: \S+ -m pip install .*(pyarrow|batchllm-cli\[parquet\])"
    ):
        open_source(tmp_path / "in.parquet")


FRAME = {"id": [1, 2, 3], "text": ["a", "b, c", None], "share": [0.5, None, 1e16]}


@pytest.mark.parametrize("library", ["pandas", "polars", "duckdb"])
def test_files_of_other_libraries_are_read_and_they_read_what_is_written(
    tmp_path: Path, library: str
) -> None:
    path, out = tmp_path / "in.parquet", tmp_path / "out.parquet"
    if library == "pandas":
        frame = pd.DataFrame(FRAME, index=pd.Index(["x", "y", "z"], name="key"))
        frame["when"] = pd.to_datetime(["2024-01-01 00:00:00", "", "2024-05-06 07:08:09"])
        frame["kind"] = pd.Categorical(["k", "l", "k"])
        frame.to_parquet(path)
    elif library == "polars":
        lists = pl.Series([[1], None, []], dtype=pl.List(pl.Int64))
        pl.DataFrame({**FRAME, "lists": lists}).write_parquet(path)
    else:
        query = (
            "SELECT *, TIMESTAMPTZ '2024-01-01 00:00:00+00' AS ts, 170141183460469231731::HUGEINT AS h FROM f"
        )
        with duckdb.connect() as database:
            database.register("f", pa.table(FRAME))
            database.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet)")
    values = [row.values for row in open_source(path).rows()]
    assert [(row["id"], row["text"], row["share"]) for row in values] == list(
        zip(*FRAME.values(), strict=True)
    )
    written(path, out)
    assert_kept(pq.read_table(path), pq.read_table(out))
    assert pl.read_parquet(out)["_tags_"].to_list() == [["a", "é"]] * 3
    with duckdb.connect() as database:
        found = database.execute(f"SELECT sum(_score_), count(text) FROM '{out}'").fetchall()
    assert found == [(15, 2)]
    again = pd.read_parquet(out)
    if library == "pandas":
        pd.testing.assert_frame_equal(again[frame.columns], frame)


def test_bytes_that_are_no_utf8_in_a_column_of_text_are_refused(tmp_path: Path) -> None:
    column = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff\xfe"], pa.binary()).buffers())
    pq.write_table(pa.table({"text": column}), tmp_path / "in.parquet")
    with pytest.raises(InputError, match=r"column 'text', rows 1 to 1: .*UTF8"):
        open_source(tmp_path / "in.parquet").scan()


def test_a_row_of_the_sample_keeps_no_batch_alive(tmp_path: Path) -> None:
    (tmp_path / "in.parquet").write_bytes(good())
    for row in open_source(tmp_path / "in.parquet").scan().sample:
        assert type(row.values) is dict and row.origin is None


def test_digits_of_narrow_floats_and_decimals_are_those_that_were_written(tmp_path: Path) -> None:
    table = pa.table(
        {
            "f": pa.array([0.1, 1e-7], pa.float32()),
            "h": pa.array([0.1, 2.0], pa.float16()),
            "d": pa.array([Decimal("1.10"), Decimal("-3")], pa.decimal128(9, 3)),
            "l": pa.array([[0.1], [None]], pa.list_(pa.float32())),
        }
    )
    pq.write_table(table, tmp_path / "in.parquet")
    written(tmp_path / "in.parquet", tmp_path / "out.jsonl")
    first, second = (tmp_path / "out.jsonl").read_text().splitlines()
    assert first.startswith('{"f":0.1,"h":0.1,"d":1.100,"l":[0.1],')
    assert second.startswith('{"f":1e-07,"h":2.0,"d":-3.000,"l":[null],')


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "in.parquet").write_bytes(good())
    assert written(tmp_path / "in.parquet", tmp_path / "a.parquet") == written(
        tmp_path / "in.parquet", tmp_path / "b.parquet"
    )


def test_a_disk_that_is_full_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in.parquet").write_bytes(good())

    def refuse(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("batchllm.formats.output_file.os.write", refuse)
    with pytest.raises(JobError, match="No space left"):
        written(tmp_path / "in.parquet", tmp_path / "out.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["in.parquet"]


def test_columns_that_are_chosen_keep_their_types(tmp_path: Path) -> None:
    table = pa.table({"a": pa.array([1], pa.int8()), "b": ["x"], "c": pa.array([[1]], pa.list_(pa.int16()))})
    pq.write_table(table, tmp_path / "in.parquet")
    source = open_source(tmp_path / "in.parquet")
    columns = replace(plan_columns(source.columns, ("label",), columns=("label",)), input=("c", "a"))
    write_output(
        source, [Outcome(0, ANSWER)], path=tmp_path / "out.parquet", columns=columns, output_format="parquet"
    )
    assert pq.read_table(tmp_path / "out.parquet").schema.types == [
        pa.list_(pa.int16()),
        pa.int8(),
        pa.string(),
    ]


def several(tmp_path: Path, *parts: pa.Table) -> Source:
    for number, table in enumerate(parts):
        pq.write_table(table, tmp_path / f"part-{number}.parquet", row_group_size=2)
    paths = [tmp_path / f"part-{number}.parquet" for number in range(len(parts))]
    return SeveralSource("parts", [open_source(path) for path in paths])


def united(source: Source, out: Path) -> pa.Table:
    statistics = source.scan()
    columns = plan_columns(statistics.columns, ("_label",), columns=("_label",))
    outcomes = (Outcome(index, ANSWER) for index in range(statistics.rows))
    write_output(source, outcomes, path=out, columns=columns, output_format="parquet")
    return pq.read_table(out)


@few(8)
@given(table=tables(), data=st.data())
def test_files_of_one_table_come_back_as_one_table(
    tmp_path_factory: pytest.TempPathFactory, table: pa.Table, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("parts")
    cut = data.draw(st.integers(0, table.num_rows))
    pq.write_table(table, folder / "whole.parquet")
    source = several(folder, table.slice(0, cut), table.slice(cut))
    assert_kept(pq.read_table(folder / "whole.parquet"), united(source, folder / "out.parquet"))


def test_columns_of_files_are_united_if_a_type_holds_all_values(tmp_path: Path) -> None:
    one = pa.table({"id": pa.array([1, 2, 3], pa.int8()), "kind": pa.array(["a"] * 3).dictionary_encode()})
    other = pa.table({"id": pa.array([1 << 40], pa.int64()), "kind": ["b"], "more": pa.array([[1]])})
    found = united(several(tmp_path, one, other), tmp_path / "out.parquet")
    assert found.column("id").to_pylist() == [1, 2, 3, 1 << 40]
    assert found.column("kind").to_pylist() == ["a", "a", "a", "b"]
    assert found.column("more").to_pylist() == [None, None, None, [1]]


def test_columns_of_files_that_no_type_holds_have_json_text(tmp_path: Path) -> None:
    source = several(tmp_path, pa.table({"a": [1, 1 << 60]}), pa.table({"a": ["1", None]}))
    assert united(source, tmp_path / "out.parquet").column("a").to_pylist() == [
        "1",
        str(1 << 60),
        '"1"',
        None,
    ]


def test_parquet_outputs_of_shards_are_merged_with_their_types(tmp_path: Path) -> None:
    table = pa.table(
        {"id": pa.array([1, 2, 3], pa.int8()), "when": pa.array([1, 2, None], pa.timestamp("ns"))}
    )
    paths = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    for path, part in zip(paths, (table.slice(0, 2), table.slice(2)), strict=True):
        pq.write_table(part, path)
    sources = [open_source(path) for path in paths]
    write_merged(sources, [source.scan() for source in sources], tmp_path / "out.parquet")
    assert pq.read_table(tmp_path / "out.parquet").equals(table, check_metadata=True)


def measured(path: Path, rows: int) -> dict[str, float]:
    """What a job needs for a file of so many rows, in processes of its own: see ``parquet_scale``."""
    program = [sys.executable, "-m", "tests.parquet_scale"]
    subprocess.run([*program, "make", path, str(rows)], check=True)
    output = path.with_name(f"out-{path.name}")
    done = subprocess.run([*program, "run", path, output], check=True, capture_output=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


@pytest.mark.proof
def test_a_million_rows_take_no_more_memory_than_a_tenth_and_about_the_time_of_csv(tmp_path: Path) -> None:
    few_rows = measured(tmp_path / "few.parquet", 100_000)
    many_rows = measured(tmp_path / "many.parquet", 1_000_000)
    in_csv = measured(tmp_path / "many.csv", 1_000_000)
    assert many_rows["peak_bytes"] <= 1.2 * few_rows["peak_bytes"]
    assert in_csv["cpu_s"] / many_rows["cpu_s"] >= 0.6


def test_a_codec_that_nobody_reads_is_named(tmp_path: Path) -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"text": ["a"] * 5}), sink, compression="snappy")
    content = sink.getvalue()
    at = content.rindex(b"text\x15\x02")  # the codec in the metadata of the column
    (tmp_path / "in.parquet").write_bytes(content[:at] + b"text\x15\x06" + content[at + 6 :])
    with pytest.raises(InputError, match=r"something that pyarrow does not read \(.*LZO"):
        open_source(tmp_path / "in.parquet").scan()


def test_members_of_messages_that_are_null_are_left_out_and_those_of_other_structs_are_not(
    tmp_path: Path,
) -> None:
    table = pa.table(
        {
            "messages": [
                [
                    {"role": "user", "content": None, "name": None},
                    {"role": "user", "content": "a", "name": "b"},
                ]
            ],
            "other": [{"a": 1, "b": None}],
        }
    )
    pq.write_table(table, tmp_path / "in.parquet")
    (row,) = open_source(tmp_path / "in.parquet").rows()
    assert row.values["messages"] == [
        {"role": "user", "content": None},
        {"role": "user", "content": "a", "name": "b"},
    ]
    assert row.values["other"] == {"a": 1, "b": None}
    written(tmp_path / "in.parquet", tmp_path / "out.parquet")
    assert_kept(pq.read_table(tmp_path / "in.parquet"), pq.read_table(tmp_path / "out.parquet"))


def test_the_schema_of_spark_gets_the_columns_that_are_added(tmp_path: Path) -> None:
    field = {"name": "text", "type": "string", "nullable": True, "metadata": {"comment": "a"}}
    key = "org.apache.spark.sql.parquet.row.metadata"
    table = pa.table({"text": ["a"]}).replace_schema_metadata(
        {key: json.dumps({"type": "struct", "fields": [field]}), "org.apache.spark.version": "3.5.0"}
    )
    pq.write_table(table, tmp_path / "in.parquet")
    written(tmp_path / "in.parquet", tmp_path / "out.parquet")
    metadata = pq.read_schema(tmp_path / "out.parquet").metadata
    schema = json.loads(metadata[key.encode()])
    assert metadata[b"org.apache.spark.version"] == b"3.5.0" and schema["type"] == "struct"
    lists = {"type": "array", "elementType": "string", "containsNull": True}
    assert [each["type"] for each in schema["fields"]] == [
        "string",
        "string",
        "long",
        "double",
        "boolean",
        lists,
    ]
    assert schema["fields"][0] == field


def test_long_cells_are_written_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_writer, "_BATCH_CHARACTERS", 1000)
    monkeypatch.setattr(parquet_writer, "_GROUP_BYTES", 1000)
    (tmp_path / "in.csv").write_text("text\n" + f"{'x' * 600}\n" * 10)
    written(tmp_path / "in.csv", tmp_path / "out.parquet")
    assert pq.ParquetFile(tmp_path / "out.parquet").metadata.num_row_groups == 5
    assert pq.read_table(tmp_path / "out.parquet").column("text").to_pylist() == ["x" * 600] * 10


def test_a_damaged_page_that_has_a_checksum_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    table = pa.table({"text": [f"row number {index}" for index in range(9)]})
    pq.write_table(table, path, compression="none", use_dictionary=False, write_page_checksum=True)
    content = path.read_bytes()
    assert open_source(path).scan().rows == 9
    path.write_bytes(content.replace(b"row number 5", b"row number 6", 1))
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        open_source(path).scan()
