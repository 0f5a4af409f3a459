"""A pass may begin in the middle: at any row, it gives what a pass from the beginning gives from there on."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.formats import Source, input_file, open_source
from batchllm.formats.text import TextSource

CELLS = st.text(st.sampled_from('ab,"\n é😀\r'), max_size=12)
CHUNK_BYTES = 24


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(input_file, "CHUNK_BYTES", CHUNK_BYTES)
    yield


def quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"'


def csv_file(rows: list[tuple[str, str]], end: str, bom: bytes, *, final: bool) -> bytes:
    lines = ["id,text", *(f"{quoted(one)},{quoted(other)}" for one, other in rows)]
    return bom + (end.join(lines) + (end if final else "")).encode()


def jsonl_file(rows: list[tuple[str, str]], end: str, bom: bytes, *, final: bool) -> bytes:
    lines = [json.dumps({"id": one, "text": other}, ensure_ascii=False) for one, other in rows]
    blank = ["" if number % 3 else line for number, line in enumerate(lines)]  # some lines are blank
    return bom + (end.join([*lines, *blank, *lines]) + (end if final else "")).encode()


def checked(path: Path, content: bytes, encoding: str | None = None) -> Source:
    path.write_bytes(content)
    source = open_source(path, encoding=encoding)
    source.scan()
    return source


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=12),
    end=st.sampled_from(["\n", "\r\n"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32-be", "iso8859-15", "gb18030"]),
    final=st.booleans(),
    kind=st.sampled_from(["csv", "jsonl"]),
)
def test_a_pass_from_a_row_is_the_rest_of_a_whole_one(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, str]],
    end: str,
    encoding: str,
    final: bool,
    kind: str,
) -> None:
    make = csv_file if kind == "csv" else jsonl_file
    path = tmp_path_factory.mktemp("marks") / f"in.{kind}"
    content = make(rows, end, b"", final=final).decode().encode(encoding, "replace")
    source = checked(path, content, encoding)
    assert isinstance(source, TextSource)
    whole = list(source.rows())
    assert encoding == "gb18030" or len(whole) < 8 or source._starts, "a pass begins in the middle"
    for start in range(len(whole) + 2):
        assert list(source.rows(start)) == whole[start:]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_pass_from_a_late_row_does_not_read_what_is_before_its_mark(tmp_path: Path, kind: str) -> None:
    make = csv_file if kind == "csv" else jsonl_file
    content = make([(str(number), "x" * 20) for number in range(100)], "\n", b"", final=True)
    source = checked(tmp_path / f"in.{kind}", content)
    rows = list(source.rows())
    late = len(rows) - 5
    before = len(content) // 2
    with source.file.path.open("r+b") as file:
        file.write(b"\0" * before)  # would be an error for who reads it
    assert list(source.rows(late)) == rows[late:]


def test_an_error_behind_a_mark_names_its_line(tmp_path: Path) -> None:
    content = csv_file([(str(number), "x" * 20) for number in range(100)], "\n", b"", final=True)
    source = checked(tmp_path / "in.csv", content)
    with source.file.path.open("ab") as file:
        file.write(b"one cell\n")
    with pytest.raises(Exception, match="line 102"):
        list(source.rows(95))


def test_a_file_in_an_encoding_without_marks_is_read_from_its_start(tmp_path: Path) -> None:
    text = csv_file([(str(number), "語" * 20) for number in range(50)], "\n", b"", final=True).decode()
    source = checked(tmp_path / "in.csv", text.encode("iso2022_jp"), "iso2022_jp")
    assert isinstance(source, TextSource)
    assert not source._starts
    assert list(source.rows(40)) == list(source.rows())[40:]
