"""Compressed files are read and written as what they hold; what is damaged is refused."""

import bz2
import gzip
import lzma
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.errors import InputError
from batchllm.formats import Outcome, input_file, open_source, plan_columns, write_output
from batchllm.formats.compression import COMPRESSIONS, CompressedFile
from batchllm.formats.input_file import LocalFile
from batchllm.formats.suffixes import format_suffix, labelled, stem_of, suffixes_of
from batchllm.records import Answer

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".zst": lambda data: zstd.compress(data, options={zstd.CompressionParameter.checksum_flag: 1}),
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}
UNPACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.decompress,
    ".zst": zstd.decompress,
    ".bz2": bz2.decompress,
    ".xz": lzma.decompress,
}
PROGRAMS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bzip2", ".xz": "xz"}
ROWS = 1000
TABLE = b"id,text\n" + b"".join(b"%d,hello %d\n" % (index, index * index) for index in range(ROWS))

every_compression = pytest.mark.parametrize("suffix", COMPRESSIONS)


def written(path: Path, out: Path, kind: str = "csv") -> bytes:
    source = open_source(path)
    columns = plan_columns(source.scan().columns, ("label",), columns=("label",))
    outcomes = (Outcome(row.index, Answer(columns={"label": "good"})) for row in source.rows())
    found = write_output(source, outcomes, path=out, columns=columns, output_format=kind)
    assert found.bytes == out.stat().st_size
    return out.read_bytes()


@every_compression
def test_rows_are_those_of_the_content_and_a_pass_may_begin_anywhere(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "in.csv").write_bytes(TABLE)
    (tmp_path / f"in.csv{suffix}").write_bytes(PACK[suffix](TABLE))
    plain, packed = open_source(tmp_path / "in.csv"), open_source(tmp_path / f"in.csv{suffix}")
    assert packed.scan() == plain.scan()
    rows = list(packed.rows())
    assert rows == list(plain.rows()) and packed.digest() == plain.digest()
    assert list(packed.rows(ROWS - 7)) == rows[-7:]


@every_compression
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_any_members_are_one_content(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(TABLE)), max_size=4)))
    parts = [TABLE[start:end] for start, end in zip([0, *cuts], [*cuts, len(TABLE)], strict=True)]
    content = b"".join(map(PACK[suffix], parts)) + bytes(data.draw(st.integers(0, 3)) * 4)
    path = tmp_path_factory.mktemp("members") / f"in.csv{suffix}"
    path.write_bytes(content)
    size = data.draw(st.sampled_from([7, 1000, 1 << 18]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(input_file, "CHUNK_BYTES", size)
        found = open_source(path)
        assert b"".join(found.file.chunks()) == TABLE
        start = data.draw(st.integers(0, len(TABLE)))
        assert b"".join(found.file.chunks(start)) == TABLE[start:]


@every_compression
@settings(max_examples=8, deadline=None)
@given(cut=st.floats(0, 1, exclude_max=True))
def test_what_is_cut_off_anywhere_is_refused(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, cut: float
) -> None:
    packed = PACK[suffix](TABLE)
    path = tmp_path_factory.mktemp("cut") / f"in.csv{suffix}"
    path.write_bytes(packed[: max(12, int(len(packed) * cut))])
    with pytest.raises(InputError, match="content is cut off"):
        open_source(path).scan()


@every_compression
@pytest.mark.parametrize("bad_rows", [None, "skip"])
def test_what_is_damaged_anywhere_is_refused_as_damaged(
    tmp_path: Path, suffix: str, bad_rows: str | None
) -> None:
    packed = PACK[suffix](TABLE)
    for at in range(20, len(packed) - 24, len(packed) // 7):
        path = tmp_path / f"in.csv{suffix}"
        path.write_bytes(packed[:at] + bytes(255 - byte for byte in packed[at : at + 20]) + packed[at + 20 :])
        with pytest.raises(
            InputError, match=rf"{PROGRAMS[suffix].rstrip('2')}\w* content is (damaged|cut off)"
        ):
            open_source(path, bad_rows=bad_rows).scan()


@every_compression
@pytest.mark.parametrize("tail", [b"garbage", TABLE, b"\0\0something else"])
def test_what_follows_the_content_is_not_left_out_in_silence(
    tmp_path: Path, suffix: str, tail: bytes
) -> None:
    path = tmp_path / f"in.csv{suffix}"
    path.write_bytes(PACK[suffix](TABLE) + tail)
    with pytest.raises(InputError, match="followed by something else"):
        open_source(path).scan()


@every_compression
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_an_output_is_packed_as_its_suffix_says_and_equal_every_time(
    tmp_path: Path, suffix: str, kind: str
) -> None:
    (tmp_path / "in.csv").write_bytes(TABLE)
    plain = written(tmp_path / "in.csv", tmp_path / f"out.{kind}", kind)
    packed = written(tmp_path / "in.csv", tmp_path / f"out.{kind}{suffix}", kind)
    assert UNPACK[suffix](packed) == plain
    assert written(tmp_path / "in.csv", tmp_path / f"other.{kind}{suffix}", kind) == packed
    assert open_source(tmp_path / f"out.{kind}{suffix}").scan().rows == ROWS


@every_compression
def test_other_programs_read_what_is_written_and_their_files_are_read(tmp_path: Path, suffix: str) -> None:
    program = shutil.which(PROGRAMS[suffix])
    if program is None:
        pytest.skip(f"no {PROGRAMS[suffix]}")
    (tmp_path / "in.csv").write_bytes(TABLE)
    out = tmp_path / f"out.csv{suffix}"
    written(tmp_path / "in.csv", out)
    subprocess.run([program, "-t", out], check=True, capture_output=True)
    content = subprocess.run([program, "-dc", out], check=True, capture_output=True).stdout
    assert content.startswith(b"id,text,label\n0,hello 0,good\n")
    subprocess.run([program, "-q", tmp_path / "in.csv"], check=True)
    with (tmp_path / f"in.csv{suffix}").open("ab") as file:  # and a second member
        file.write(subprocess.run([program, "-c"], input=b"x,y\n", check=True, capture_output=True).stdout)
    assert open_source(tmp_path / f"in.csv{suffix}").scan().rows == ROWS + 1


@every_compression
def test_files_of_pandas_are_read_and_pandas_reads_ours(tmp_path: Path, suffix: str) -> None:
    if suffix == ".zst" and sys.version_info < (3, 14):
        pytest.importorskip("zstandard")
    frame = pd.DataFrame({"id": ["1", "2"], "text": ["a, b", "c\n\u00e9"]})
    frame.to_csv(tmp_path / f"in.csv{suffix}", index=False)
    written(tmp_path / f"in.csv{suffix}", tmp_path / f"out.csv{suffix}")
    again = pd.read_csv(tmp_path / f"out.csv{suffix}", dtype=str)
    assert again[["id", "text"]].equals(frame.astype(again.dtypes["id"]))


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_polars_reads_what_is_written(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "in.csv").write_bytes(TABLE)
    written(tmp_path / "in.csv", tmp_path / f"out.csv{suffix}")
    assert pl.read_csv(tmp_path / f"out.csv{suffix}")["label"].to_list() == ["good"] * ROWS


@every_compression
def test_a_suffix_that_is_wrong_is_named_and_the_option_settles_it(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "in.csv").write_bytes(PACK[suffix](TABLE))
    with pytest.raises(InputError, match=rf"is compressed with \w+; name it in.csv{suffix}, or"):
        open_source(tmp_path / "in.csv")
    assert open_source(tmp_path / "in.csv", format="csv").scan().rows == ROWS
    other = tmp_path / f"other.csv{suffix}"
    other.write_bytes(TABLE)
    with pytest.raises(InputError, match=r"is not compressed with \w+; name it other.csv, or"):
        open_source(other)
    assert open_source(other, format="csv").scan().rows == ROWS
    spooled = tmp_path / "stdin"
    spooled.write_bytes(PACK[suffix](TABLE))
    assert open_source(spooled, name="standard input").scan().rows == ROWS


@every_compression
def test_what_is_packed_twice_or_holds_no_table_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"in.csv{suffix}"
    path.write_bytes(PACK[suffix](PACK[suffix](TABLE)))
    with pytest.raises(InputError, match="is compressed with"):
        open_source(path)
    path.write_bytes(PACK[suffix](b"<!DOCTYPE html>\n<html><body>a, b</body></html>"))
    with pytest.raises(InputError, match="HTML"):
        open_source(path)


@every_compression
def test_a_wrong_byte_is_shown_where_it_is_in_the_content(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"in.csv{suffix}"
    path.write_bytes(PACK[suffix](TABLE + "1,caf\u00e9\n".encode("cp1252")))
    with pytest.raises(InputError, match=rf"line {ROWS + 2}: byte .* 'cp1252'|“1,café”"):
        open_source(path).scan()


def test_a_little_that_unpacks_to_much_is_unpacked_piece_by_piece(tmp_path: Path) -> None:
    for suffix, pack in PACK.items():
        path = tmp_path / f"in.csv{suffix}"
        path.write_bytes(pack(bytes(8 << 20)))
        file = CompressedFile(LocalFile(path, "in"), COMPRESSIONS[suffix])
        sizes = [len(chunk) for chunk in file.chunks()]
        assert sum(sizes) == 8 << 20 and max(sizes) <= input_file.CHUNK_BYTES


def test_suffixes_of_format_and_compression() -> None:
    path = Path("a/reviews.v2.CSV.GZ")
    assert (format_suffix(path), stem_of(path), suffixes_of(path)) == (".csv", "reviews.v2", ".CSV.GZ")
    assert labelled(path, "summarize") == Path("a/reviews.v2.summarize.CSV.GZ")
    assert labelled(Path("a/reviews.csv"), "trial") == Path("a/reviews.trial.csv")
    assert (format_suffix(Path("notes.gz")), suffixes_of(Path("notes"))) == ("", "")


def test_frames_to_skip_are_no_content(tmp_path: Path) -> None:
    path, frame = tmp_path / "in.csv.zst", b"\x50\x2a\x4d\x18" + (300).to_bytes(4, "little") + bytes(300)
    path.write_bytes(frame + zstd.compress(TABLE[:8]) + frame + zstd.compress(TABLE[8:]) + frame)
    assert open_source(path).scan().rows == ROWS


def test_a_window_that_is_too_large_is_named(tmp_path: Path) -> None:
    packer = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 29})
    (tmp_path / "in.csv.zst").write_bytes(packer.compress(TABLE) + packer.flush())
    with pytest.raises(InputError, match="pack it again without --long"):
        open_source(tmp_path / "in.csv.zst")


def test_a_file_that_needs_a_dictionary_is_named(tmp_path: Path) -> None:
    words = [b"%d,a text of row %d\n" % (number, number) for number in range(2_000)]
    dictionary = zstd.train_dict(words, 1_000)
    (tmp_path / "in.csv.zst").write_bytes(zstd.compress(TABLE, zstd_dict=dictionary))
    with pytest.raises(InputError, match="compressed with a dictionary; unpack it first"):
        open_source(tmp_path / "in.csv.zst")
