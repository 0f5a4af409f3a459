"""Whole jobs on files of every kind: a trial, the run, the same command again, and what looks at them afterwards."""

import gzip
import io
import json
import sys
from pathlib import Path

import pytest

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
    assert batchllm("report", output).status == 0
    assert (tmp_path / "reviews.classify.simulated.report.html").exists()
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
