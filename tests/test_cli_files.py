"""Whole jobs on files of every kind: a trial, the run, the same command again, and what looks at them afterwards."""

import datetime as dt
import gzip
import io
import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchllm.extras import install_command
from batchllm.formats import open_source
from tests.command import Command

SIMULATOR = ("--provider", "simulator")
TABLE = b"id,text\n" + b"".join(b'%d,"good, %d"\n' % (index, index) for index in range(12))


def test_a_compressed_file_becomes_a_compressed_output(batchllm: Command, tmp_path: Path) -> None:
    path = tmp_path / "reviews.csv.gz"
    path.write_bytes(gzip.compress(TABLE))
    assert batchllm("classify", path, *SIMULATOR, "-n", 3).status == 0
    trial = tmp_path / "reviews.classify.simulated.trial.csv.gz"
    assert gzip.decompress(trial.read_bytes()).count(b"\n") == 4
    output = tmp_path / "reviews.classify.simulated.csv.gz"
    assert batchllm("classify", path, *SIMULATOR).status == 0
    lines = gzip.decompress(output.read_bytes()).splitlines()
    assert [line.startswith(given) for line, given in zip(lines, TABLE.splitlines(), strict=True)] == [
        True
    ] * 13
    before = output.read_bytes()
    path.write_bytes(gzip.compress(TABLE[:50]) + gzip.compress(TABLE[50:]))  # packed again, the same rows
    assert batchllm("classify", path, *SIMULATOR).status == 0
    assert output.read_bytes() == before
    assert batchllm("status", output).status == 0
    assert batchllm("evaluate", output, "--gold", "id").status == 0
    copy = tmp_path / "copy.jsonl.zst"
    assert batchllm("export", output, "-o", copy).status == 0
    assert batchllm("classify", copy, *SIMULATOR, "--prefix", "again_", "-n", 1).status == 0


def test_a_damaged_file_is_refused_before_anything_is_sent(batchllm: Command, tmp_path: Path) -> None:
    path = tmp_path / "reviews.csv.gz"
    path.write_bytes(gzip.compress(TABLE)[:-3])
    refused = batchllm("classify", path, *SIMULATOR)
    assert refused.status == 65 and "its gzip content is cut off" in refused.err
    assert [entry.name for entry in tmp_path.iterdir()] == ["reviews.csv.gz"]


def test_standard_input_may_be_compressed(
    batchllm: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(gzip.compress(TABLE))))
    output = tmp_path / "out.jsonl"
    assert batchllm("classify", "-", *SIMULATOR, "-o", output).status == 0
    assert [json.loads(line)["text"] for line in output.read_text().splitlines()][3] == "good, 3"


def test_records_that_are_left_out_are_compressed_like_the_input(batchllm: Command, tmp_path: Path) -> None:
    path = tmp_path / "reviews.csv.gz"
    path.write_bytes(gzip.compress(TABLE + b"1,2,3\n"))
    assert batchllm("classify", path, *SIMULATOR, "--bad-rows", "skip").status == 1
    skipped = tmp_path / "reviews.classify.simulated.skipped.csv.gz"
    assert gzip.decompress(skipped.read_bytes()) == b"id,text\n1,2,3\n"


def parquet_file(path: Path) -> pa.Table:
    """Twelve rows, each with a text, some types, and messages of its own in a further column."""
    table = pa.table(
        {
            "id": pa.array(range(12), pa.int16()),
            "text": [f"good, {number}" for number in range(12)],
            "when": [dt.datetime(2024, 5, 6, 7, 8, 9)] * 12,
            "turns": [[{"role": "user", "content": f"turn {number}"}] for number in range(12)],
        }
    ).replace_schema_metadata({"made": "by hand"})
    pq.write_table(table, path, row_group_size=5)
    return pq.read_table(path)


def test_parquet_goes_through_a_whole_job_with_its_types(batchllm: Command, tmp_path: Path) -> None:
    path, output = tmp_path / "in.parquet", tmp_path / "in.classify.simulated.parquet"
    table = parquet_file(path)
    job = ("classify", path, *SIMULATOR, "--column", "text", "--add", "cost,confidence")
    assert batchllm(*job, "--sample", 3).status == 0
    trial = pq.read_table(tmp_path / "in.classify.simulated.trial.parquet")
    assert trial.num_rows == 3 and trial.schema.metadata == {b"made": b"by hand"}
    assert batchllm(*job).status == 0
    found = pq.read_table(output)
    assert found.select(table.column_names).equals(table, check_metadata=True)
    kinds = {field.name: str(field.type) for field in found.schema}
    assert (kinds["label"], kinds["total_tokens"], kinds["cost"], kinds["error"]) == (
        "string",
        "int64",
        "double",
        "string",
    )
    before = output.read_bytes()
    assert batchllm(*job).status == 0 and output.read_bytes() == before
    assert "finished" in batchllm("status", output).out
    assert batchllm("evaluate", output, "--gold", "id").status == 0
    for copy in ("copy.csv", "copy.jsonl", "copy.parquet"):
        assert batchllm("export", output, "-o", tmp_path / copy).status == 0
        assert batchllm("compare", output, tmp_path / copy).status == 0
    assert pq.read_table(tmp_path / "copy.parquet").equals(found, check_metadata=True)
    first = json.loads((tmp_path / "copy.jsonl").read_text().splitlines()[0])
    assert (first["when"], first["turns"]) == ("2024-05-06T07:08:09", [{"role": "user", "content": "turn 0"}])


def test_rows_of_parquet_bring_their_own_messages(batchllm: Command, tmp_path: Path) -> None:
    table = parquet_file(tmp_path / "in.parquet")
    pq.write_table(table.select(["turns"]).rename_columns(["messages"]), tmp_path / "own.parquet")
    assert batchllm("run", tmp_path / "own.parquet", *SIMULATOR, "-o", tmp_path / "out.parquet").status == 0
    shown = batchllm("show", tmp_path / "out.parquet", 4).out
    assert '"messages":[{"role":"user","content":"turn 3"}]' in shown


def test_a_prompt_reads_the_same_out_of_parquet_as_out_of_its_json(batchllm: Command, tmp_path: Path) -> None:
    parquet_file(tmp_path / "in.parquet")
    source = open_source(tmp_path / "in.parquet")
    (tmp_path / "in.jsonl").write_bytes(
        b"".join(source.json_object(row, {}) + b"\n" for row in source.rows())
    )
    prompt = "{{ row }} {{ when }} {{ turns[0].content }} {{ row.items() | list | length }} {{ id + 1 }}"
    paths = (tmp_path / "in.parquet", tmp_path / "in.jsonl")
    bodies = [batchllm("run", "-p", prompt, path, *SIMULATOR, "--dry-run", "--curl").out for path in paths]
    assert bodies[0] == bodies[1] and "2024-05-06T07:08:09 turn 0 4 1" in bodies[0]


def test_a_job_of_csv_is_exported_to_parquet_and_a_schema_gives_its_types(
    batchllm: Command, tmp_path: Path
) -> None:
    (tmp_path / "in.csv").write_bytes(TABLE)
    schema = "score int, share float, tags list, urgent bool, note?"
    job = ("run", "-p", "{{ text }}", "--schema", schema, tmp_path / "in.csv", *SIMULATOR)
    assert batchllm(*job, "-o", tmp_path / "out.csv").status == 0
    assert batchllm("export", tmp_path / "out.csv", "-o", tmp_path / "out.parquet").status == 0
    found = pq.read_table(tmp_path / "out.parquet").schema
    names = ("id", "score", "share", "urgent", "note", "attempts")
    assert [str(found.field(name).type) for name in names] == [
        "string",
        "int64",
        "double",
        "bool",
        "string",
        "int64",
    ]
    assert str(found.field("tags").type).startswith("list<")


def test_a_missing_library_is_named_before_anything_is_read(
    batchllm: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in.csv").write_bytes(TABLE)
    parquet_file(tmp_path / "in.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for words in (
        ("classify", tmp_path / "in.parquet", *SIMULATOR),
        ("classify", tmp_path / "in.csv", *SIMULATOR, "-o", tmp_path / "out.parquet"),
    ):
        refused = batchllm(*words)
        assert (
            refused.status == 2
            and f"needs pyarrow; install with: {install_command('parquet')}" in refused.err
        )
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["in.csv", "in.parquet"]


def test_an_encoding_of_an_output_that_is_no_text_is_refused(batchllm: Command, tmp_path: Path) -> None:
    parquet_file(tmp_path / "in.parquet")
    refused = batchllm(
        "classify", tmp_path / "in.parquet", *SIMULATOR, "--column", "text", "--output-encoding", "cp1252"
    )
    assert refused.status == 2 and "--output-encoding is for CSV and JSONL" in refused.err


def test_labels_examples_and_known_answers_are_tables_of_every_kind(
    batchllm: Command, tmp_path: Path
) -> None:
    parquet_file(tmp_path / "in.parquet")
    pq.write_table(pa.table({"text": ["a", "b"], "label": ["x", "y"]}), tmp_path / "examples.parquet")
    pq.write_table(pa.table({"id": range(12), "known": ["x"] * 12}), tmp_path / "gold.parquet")
    pq.write_table(pa.table({"label": ["x", "y"], "examples": [["of x"], []]}), tmp_path / "labels.parquet")
    (tmp_path / "labels.csv.gz").write_bytes(gzip.compress(b"label,description\nx,about x\ny,\n"))
    job = ("classify", tmp_path / "in.parquet", *SIMULATOR, "--column", "text")
    for name, said in (("labels.parquet", "of x"), ("labels.csv.gz", "about x")):
        asked = batchllm(
            *job,
            "--labels",
            tmp_path / name,
            "--examples",
            tmp_path / "examples.parquet",
            "--dry-run",
            "--curl",
        )
        assert asked.status == 0 and said in asked.out
    gold = ("--gold", tmp_path / "gold.parquet", "--on", "id")
    assert "12 rows with a known answer" in batchllm(*job, "--labels", "x,y", *gold).err


def test_a_suffix_that_says_another_compression_than_the_bytes_is_named(
    batchllm: Command, tmp_path: Path
) -> None:
    packed, plain = tmp_path / "packed.csv", tmp_path / "plain.csv.gz"
    packed.write_bytes(gzip.compress(TABLE))
    plain.write_bytes(TABLE)
    refused = batchllm("classify", packed, *SIMULATOR)
    assert refused.status == 65 and "is compressed with gzip; name it packed.csv.gz, or" in refused.err
    refused = batchllm("classify", plain, *SIMULATOR)
    assert refused.status == 65 and "is not compressed with gzip; name it plain.csv, or" in refused.err
    plain.write_bytes(gzip.compress(TABLE)[:1])
    assert batchllm("classify", plain, *SIMULATOR).status == 65
    assert {entry.name for entry in tmp_path.iterdir()} == {"packed.csv", "plain.csv.gz"}
    assert batchllm("classify", packed, *SIMULATOR, "--input-format", "csv").status == 0


@pytest.mark.parametrize("name", ["two\nlines.csv", "red\x1b.csv"])
def test_no_message_shows_the_signs_of_a_name_that_command_a_terminal(
    name: str, batchllm: Command, tmp_path: Path
) -> None:
    path = tmp_path / name
    missing = batchllm("classify", path, *SIMULATOR)
    path.write_bytes(TABLE)
    output = tmp_path / name.replace(".csv", ".classify.simulated.csv")
    said = [
        missing,
        batchllm("classify", path, *SIMULATOR),
        batchllm("classify", path, *SIMULATOR, "--column", "none"),
        batchllm("jobs", tmp_path),
        batchllm("status", output),
        batchllm("export", output, "-o", f"{output}l.jsonl"),
    ]
    assert [each.status for each in said] == [65, 0, 2, 0, 0, 0], [each.err for each in said]
    shown = repr(name)[1:-5]
    for each in said:
        assert name[:-4] not in each.err + each.out
    assert all(shown in each.err + each.out for each in said if each is not said[2])
