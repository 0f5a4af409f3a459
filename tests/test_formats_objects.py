"""Objects as input files and output targets: pieces, jumps, copies on disk, and what a change or a fault does."""

import io
import os
import random
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchllm import stores
from batchllm.errors import CannotWrite, InputError
from batchllm.formats import objects, open_source
from batchllm.formats.files import input_file, output_target
from batchllm.stores import located
from batchllm.stores import objects as objects_module
from tests.object_store import ObjectStore
from tests.test_stores_web import serving


def test_a_reader_that_jumps_reads_what_is_there(object_store: ObjectStore) -> None:
    content = os.urandom(3_000_000)
    path = located(f"s3://{object_store.new_bucket()}/a.bin")
    stores.put(path.url, content)  # type: ignore[attr-defined]
    opened = input_file(path, str(path)).at_random()
    rng, twin = random.Random(3), io.BytesIO(content)
    for _ in range(20):
        offset, size = rng.randrange(-10, 3_000_100), rng.choice((0, 1, 100, 70_000, 2_000_000))
        place = (
            (max(0, offset), io.SEEK_SET) if offset % 2 else (-min(max(offset, 0), 3_000_000), io.SEEK_END)
        )
        assert opened.seek(*place) == twin.seek(*place)
        assert opened.read(size) == twin.read(size)
        assert opened.tell() == twin.tell()


def test_parquet_is_read_where_it_is_and_a_change_is_noticed(
    object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "_BLOCK_BYTES", 4096)
    table = pa.table({"id": range(50_000), "text": pa.array(range(50_000)).cast(pa.string())})
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=10_000)
    bucket = object_store.new_bucket()
    object_store.put(bucket, "a.parquet", sink.getvalue())
    file = input_file(located(f"s3://{bucket}/a.parquet"), "a.parquet")
    with pq.ParquetFile(file.at_random()) as opened:
        assert opened.read() == table
    with pq.ParquetFile(file.at_random()) as opened:
        object_store.put(bucket, "a.parquet", sink.getvalue() + b"other")
        with pytest.raises(InputError, match="it changed while it was read"):
            opened.read_row_group(0)


def test_rows_of_parquet_are_those_of_the_version_that_was_scanned(object_store: ObjectStore) -> None:
    table = pa.table({"id": range(500), "text": [f"row {number}" for number in range(500)]})
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=100)
    bucket = object_store.new_bucket()
    object_store.put(bucket, "a.parquet", sink.getvalue())
    source = open_source(located(f"s3://{bucket}/a.parquet"))
    statistics = source.scan()
    assert [row.values["text"] for row in source.rows()] == table.column("text").to_pylist()
    assert (statistics.rows, statistics.bytes) == (500, len(sink.getvalue()))
    assert source.digest() == statistics.sha256
    object_store.put(bucket, "a.parquet", sink.getvalue() + b"other")
    with pytest.raises(InputError, match="changed"):
        list(source.rows())


def test_what_cannot_be_read_in_parts_is_copied_once_and_the_copy_goes_with_its_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    content = b"text\n" + b"row\n" * 1000
    with serving(lambda request: request.send(200, content)) as (server, url):
        file = input_file(stores.ObjectPath(url), "a.csv")
        assert b"".join(file.chunks()) == b"".join(file.chunks()) == content
        assert b"".join(file.chunks(10)) == content[10:]
        with file.at_random() as opened:
            assert opened.read() == content
        assert len(server.requests) == 2  # one that asks for parts, and the copy
        (copy,) = tmp_path.iterdir()
        assert copy.stat().st_mode & 0o777 == 0o600
        del file
    assert list(tmp_path.iterdir()) == []


def test_a_copy_that_is_cut_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    content, cuts = b"text\n" + b"row\n" * 1000, iter(range(2))

    def answer(request: object) -> None:
        whole = next(cuts, None) is None or request.headers.get("Range")  # type: ignore[attr-defined]
        request.send(200, content if whole else content[:900], Content_Length=str(len(content)))  # type: ignore[attr-defined]
        request.close_connection = not whole  # type: ignore[attr-defined]

    with serving(answer) as (_, url):
        file = input_file(stores.ObjectPath(url), "a.csv")
        assert b"".join(file.chunks()) == content
        assert len(list(tmp_path.iterdir())) == 1


def test_a_target_that_is_left_without_commit_puts_nothing(
    object_store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(objects_module, "SINGLE_PUT_BYTES", 100)
    bucket = object_store.new_bucket()
    target = output_target(located(f"s3://{bucket}/out.csv"))
    target.check()
    with pytest.raises(ZeroDivisionError), target:
        target.write(b"x" * 1000)
        raise ZeroDivisionError
    assert (object_store.keys(bucket), object_store.uploads(bucket)) == ([], [])
    with output_target(located(f"s3://{bucket}/out.csv")) as target:
        target.write(b"x" * 1000)
        target.finish()
        target.commit()
    assert object_store.get(bucket, "out.csv") == b"x" * 1000
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_neither_read_nor_written(object_store: ObjectStore) -> None:
    folder = located(f"s3://{object_store.new_bucket()}/folder/")
    with pytest.raises(InputError, match="is a folder"):
        list(input_file(folder, str(folder)).chunks())
    with pytest.raises(CannotWrite, match="is a folder"):
        output_target(folder).check()


def test_both_ends_are_what_they_are_on_disk(object_store: ObjectStore, tmp_path: Path) -> None:
    bucket = object_store.new_bucket()
    for size in (0, 3, 4, 1 << 20, (1 << 20) + 1, 3_000_000):
        content = os.urandom(size)
        (tmp_path / "a.bin").write_bytes(content)
        object_store.put(bucket, f"{size}.bin", content)
        here, there = (
            input_file(tmp_path / "a.bin", "a"),
            input_file(located(f"s3://{bucket}/{size}.bin"), "b"),
        )
        assert here.ends() == there.ends()
        for start, length in ((0, 10), (size // 2, 1 << 20), (size, 5), (size + 5, 5)):
            assert here.part(start, length) == there.part(start, length)
