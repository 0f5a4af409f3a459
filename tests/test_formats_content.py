"""What is not rows is named before anything is sent, whatever its suffix says."""

import bz2
import gzip
import io
import json
import lzma
import pickle
import sqlite3
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest

from batchllm.errors import InputError
from batchllm.formats import open_source
from tests.command import Command

TABLE = b"id,text\n" + b"1,hello\n" * 50
LFS = (
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
)
HTML = "<!DOCTYPE html>\n<html><head><title>Sign in &amp; continue</title></head><body>text, more</body></html>\n"


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, "x" * 100)
    return buffer.getvalue()


def tarred() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("a.csv")
        entry.size = len(TABLE)
        archive.addfile(entry, io.BytesIO(TABLE))
    return buffer.getvalue()


def database(folder: Path) -> bytes:
    connection = sqlite3.connect(folder / "db")
    connection.execute("CREATE TABLE a(b)")
    connection.close()
    return (folder / "db").read_bytes()


BINARY = {
    "gzip": gzip.compress(TABLE),
    "bzip2": bz2.compress(TABLE),
    "xz": lzma.compress(TABLE),
    "zstd": b"\x28\xb5\x2f\xfd\x04\x00" + TABLE,
    "zip": zipped("a.csv"),
    "Excel workbook": zipped("[Content_Types].xml", "xl/workbook.xml"),
    "Word document": zipped("[Content_Types].xml", "word/document.xml"),
    "old Excel": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500),
    "tar archive": tarred(),
    "Parquet": b"PAR1\x15\x04\x15" + bytes(range(200)) + b"PAR1",
    "Arrow": b"ARROW1\0\0" + bytes(300),
    "PDF": b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog >>\nendobj\n",
    "an image": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(100),
    "pickle": pickle.dumps({"a": [1, 2, 3]}),
    "NumPy": b"\x93NUMPY\x01\0v\0{'descr': '<f8'}",
    "audio": b"RIFF" + struct.pack("<I", 300) + b"WAVEfmt " + bytes(300),
    "binary data": bytes((number * 7919 + number // 3) % 256 for number in range(5000)),
}
TEXTS = {
    "HTML page .'Sign in & continue'.": HTML,
    "an HTML page": "\n  <html lang=en>\n<body>404, not found</body></html>",
    "Git LFS pointer": LFS,
    "is XML": '<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>\n',
    "is XML ": "<Error><Code>NoSuchKey, really</Code></Error>\n",
    "one JSON array": json.dumps([{"id": 1, "text": "a"}, {"id": 2, "text": "b"}]),
    "one JSON array;": json.dumps([{"id": 1, "text": "a"}, {"id": 2, "text": "b"}], indent=2),
    "JSON objects over several lines": json.dumps({"data": [{"id": 1, "text": "a"}]}, indent=2),
    "dump of SQL": "-- PostgreSQL database dump\n\nCREATE TABLE a (b text);\n",
    "DVC pointer": "outs:\n- md5: a304afb96060aad90176268345e10355\n  path: data.csv\n",
    "git-annex": "/annex/objects/SHA256E-s1048576--a0b1c2.csv\n",
    "Jupyter notebook": '{"cells": [{"cell_type": "code"}], "nbformat": 4}',
}


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
@pytest.mark.parametrize("called", [*BINARY, "SQLite"])
def test_a_binary_file_is_named(tmp_path: Path, called: str, suffix: str) -> None:
    path = tmp_path / f"in{suffix}"
    path.write_bytes(BINARY[called] if called in BINARY else database(tmp_path))
    with pytest.raises(InputError, match=called):
        open_source(path)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@pytest.mark.parametrize("called", TEXTS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_text_of_another_kind_is_named(tmp_path: Path, called: str, suffix: str, encoding: str) -> None:
    path = tmp_path / f"in{suffix}"
    path.write_bytes(TEXTS[called].encode(encoding))
    with pytest.raises(InputError, match=called.strip()):
        open_source(path)


def test_jsonl_named_csv_is_named_and_read_as_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text('{"text": "a, b"}\n{"text": "c"}\n')
    with pytest.raises(InputError, match="is JSONL; name it .jsonl, or add --input-format jsonl"):
        open_source(path)
    assert open_source(path, format="jsonl").scan().rows == 2


def test_a_document_longer_than_what_is_looked_at_is_named(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text(json.dumps([{"id": number, "text": "hello, dear"} for number in range(60_000)]))
    assert path.stat().st_size > 1 << 20
    with pytest.raises(InputError, match="one JSON array"):
        open_source(path)


@pytest.mark.parametrize(
    "content",
    [
        "<b>,text\n1,2\n",
        "[id],[text]\n1,a\n",
        '{name},text\nx,"{""a"": 1}"\n',
        "version,text\n1,https://git-lfs.github.com/spec/v1\n",
        "BM,MZ\n1,2\n",
        "PAR1,text\n1,a\n",
        "ID3,text\n1,a\n",
        "html,text\n<html>,<!DOCTYPE html>\n",
        "id\x01text\n1\x01a\n",
        "select,create\nCREATE TABLE,b\n",
        "text\n",
    ],
)
def test_a_table_that_only_looks_a_little_like_something_else_is_read(tmp_path: Path, content: str) -> None:
    path = tmp_path / "in.csv"
    path.write_text(content)
    assert open_source(path).columns


def test_a_row_of_one_line_is_jsonl(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"data": [{"text": "a"}]}\n')
    assert open_source(path).scan().rows == 1


def test_nothing_of_a_foreign_file_is_sent_and_the_status_is_65(tmp_path: Path, batchllm: Command) -> None:
    path = tmp_path / "in.csv"
    path.write_text(HTML)
    said = batchllm("classify", path, "--provider", "simulator")
    assert said.status == 65
    assert "HTML page" in said.err and "download the file again" in said.err
    assert not (tmp_path / "in.classify.simulated.csv").exists()
