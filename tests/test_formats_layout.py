"""How a file is written is found in its bytes, or said by the user, and never guessed."""

import os
from pathlib import Path

import pytest

from batchllm.errors import InputError, UsageError
from batchllm.formats import Source, open_source
from batchllm.formats.csv import CsvSource
from batchllm.formats.layout import TextLayout


def opened(folder: Path, content: bytes, file_name: str = "in.csv", **options: str) -> Source:
    path = folder / file_name
    path.write_bytes(content)
    return open_source(path, **options)


def opened_csv(folder: Path, content: bytes, **options: str) -> CsvSource:
    source = opened(folder, content, **options)
    assert isinstance(source, CsvSource)
    return source


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found_in_the_header(tmp_path: Path, delimiter: str) -> None:
    source = opened_csv(tmp_path, f'id{delimiter}"a,;|b"{delimiter}text\n'.encode())
    assert source.delimiter == delimiter
    assert source.columns == ("id", "a,;|b", "text")


def test_a_header_without_a_delimiter_is_one_column(tmp_path: Path) -> None:
    source = opened(tmp_path, b"text\na;b\n")
    assert source.columns == ("text",)
    assert [row.values for row in source.rows()] == [{"text": "a;b"}]


def test_the_delimiter_that_is_given_is_obeyed(tmp_path: Path) -> None:
    assert opened(tmp_path, b"a;b,c\n", delimiter=";").columns == ("a", "b,c")
    assert opened(tmp_path, b"a~b\n", delimiter="~").columns == ("a", "b")
    assert opened(tmp_path, b"a\tb\n", delimiter="tab").columns == ("a", "b")


def test_tsv_means_tab(tmp_path: Path) -> None:
    assert opened(tmp_path, b"a,b\tc\n", "in.tsv").columns == ("a,b", "c")
    assert opened(tmp_path, b"a,b\tc\n", format="tsv").columns == ("a,b", "c")
    assert opened(tmp_path, b"a,b\tc\n", "in.tsv", format="csv").columns == ("a,b", "c")


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_the_newline_style_and_the_last_newline_are_remembered(tmp_path: Path, newline: str) -> None:
    source = opened_csv(tmp_path, f'"a\n\rb",c{newline}1,2{newline}3,4'.encode())
    assert source.layout == TextLayout(newline=newline, final_newline=False)
    assert [list(row.values.values()) for row in source.rows()] == [["1", "2"], ["3", "4"]]
    assert opened_csv(tmp_path, f"a,b{newline}1,2{newline}".encode()).layout.final_newline


@pytest.mark.parametrize(
    ("bom", "encoding"),
    [
        (b"\xef\xbb\xbf", "utf-8"),
        (b"\xff\xfe", "utf-16-le"),
        (b"\xfe\xff", "utf-16-be"),
        (b"\xff\xfe\0\0", "utf-32-le"),
    ],
)
@pytest.mark.parametrize("given", [False, True])
def test_a_byte_order_mark_says_the_encoding(tmp_path: Path, bom: bytes, encoding: str, given: bool) -> None:
    options = {"encoding": encoding.removesuffix("-le").removesuffix("-be")} if given else {}
    source = opened_csv(tmp_path, bom + "é,b\n猫,😀\n".encode(encoding), **options)
    assert (source.layout.bom, source.layout.encoding) == (bom, encoding)
    assert [row.values for row in source.rows()] == [{"é": "猫", "b": "😀"}]
    assert source.layout.final_newline


def test_the_encoding_that_is_given_is_obeyed(tmp_path: Path) -> None:
    source = opened(tmp_path, "text\ncafé\n".encode("cp1252"), encoding="cp1252")
    assert [row.values for row in source.rows()] == [{"text": "café"}]
    assert opened(tmp_path, "é\n".encode("utf-16-le"), encoding="utf-16").columns == ("é",)


def test_a_spooled_file_shows_its_format_in_its_first_character(tmp_path: Path) -> None:
    assert opened(tmp_path, b' \n{"a": 1}\n', "spooled").kind == "jsonl"
    assert opened(tmp_path, b"a,b\n", "spooled").kind == "csv"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("in.foo", {}, "--input-format"),
        ("in.csv", {"format": "xml"}, "the formats are csv, tsv, jsonl, ndjson"),
        ("in.csv", {"encoding": "utf-99"}, "no encoding 'utf-99'"),
        ("in.csv", {"encoding": "rot13"}, "no encoding 'rot13'"),
        ("in.csv", {"delimiter": "--"}, "one character"),
        ("in.csv", {"delimiter": '"'}, "one character"),
        ("in.jsonl", {"delimiter": ";"}, "--delimiter is for CSV"),
    ],
)
def test_an_option_that_makes_no_sense_is_wrong_use(
    tmp_path: Path, name: str, options: dict[str, str], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        opened(tmp_path, b"{}\n" if name == "in.jsonl" else b"text\n", name, **options)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x1f\x8b\x08\0", "gzip"),
        (b"PK\x03\x04", "Excel"),
        (b"PAR1", "Parquet"),
        (b"", "is empty"),
        ("id,text\n1,hello\n".encode("utf-16-le"), "--encoding utf-16-le"),
        ("id,text\n1,hello\n".encode("utf-16-be"), "--encoding utf-16-be"),
    ],
)
def test_what_is_no_csv_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        opened(tmp_path, content)


def test_a_file_that_cannot_be_opened_or_read_twice_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        open_source(tmp_path / "none.csv")
    with pytest.raises(InputError, match="not a regular file"):
        open_source(tmp_path, format="csv")
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(InputError, match="not a regular file"):
        open_source(tmp_path / "pipe.csv")


def test_messages_use_the_name_that_is_given(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^stdin: is empty"):
        opened(tmp_path, b"", "spooled", name="stdin")
