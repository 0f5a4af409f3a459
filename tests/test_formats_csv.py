"""CSV is read strictly: every cell as it stands, every error with its line."""

import hashlib
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.errors import InputError
from batchllm.formats import Source, open_source
from batchllm.formats.csv import CsvSource
from batchllm.formats.dialect import csv


def opened(folder: Path, content: str | bytes, **options: Any) -> CsvSource:
    path = folder / "in.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    source = open_source(path, **options)
    assert isinstance(source, CsvSource)
    return source


def values(source: Source) -> list[list[str]]:
    return [list(row.values.values()) for row in source.rows()]


def test_rows_know_their_position_and_their_line(tmp_path: Path) -> None:
    source = opened(tmp_path, 'id,text\n1,"two\nlines"\n\n2,b\n')
    assert [(row.index, row.line, dict(row.values)) for row in source.rows()] == [
        (0, 2, {"id": "1", "text": "two\nlines"}),
        (1, 5, {"id": "2", "text": "b"}),
    ]


def test_the_scan_counts_hashes_and_samples(tmp_path: Path) -> None:
    content = "id,text\n" + "".join(f'{index},"line\n{index}"\n' for index in range(1000))
    source = opened(tmp_path, content)
    statistics = source.scan()
    assert (statistics.rows, statistics.bytes, statistics.columns) == (1000, len(content), ("id", "text"))
    assert statistics.sha256 == hashlib.sha256(content.encode()).hexdigest()
    assert len(statistics.sample) == 100
    by_index = {row.index: row for row in source.rows()}
    assert all(row == by_index[row.index] for row in statistics.sample)
    assert [row.index for row in statistics.sample] == sorted(row.index for row in statistics.sample)
    assert statistics.sample[-1].index > 500
    assert source.digest() == statistics.sha256


PIECES = st.sampled_from([",", '"', "\n", "\r\n", "\r", "a", "é", "", " ", '""', '"a,b"', '"x\ny"', ";"])


@settings(max_examples=400, deadline=None)
@given(header=st.sampled_from(["a\n", "a,b\n", "a,b,c\r\n"]), body=st.lists(PIECES, max_size=25))
def test_the_scan_accepts_what_a_strict_reader_accepts(
    tmp_path_factory: pytest.TempPathFactory, header: str, body: list[str]
) -> None:
    content = header + "".join(body)
    source = opened(tmp_path_factory.mktemp("strict"), content, delimiter=",", quote='"', skip_lines=0)
    try:
        expected = list(csv.reader(io.StringIO(content, newline="\n"), strict=True))[1:]
    except csv.Error:
        with pytest.raises(InputError):
            source.scan()
        return
    width = len(source.columns)
    kept = [cells or [""] for cells in expected if cells or width == 1]
    if any(len(cells) < width or any(map(str.strip, cells[width:])) for cells in kept):
        with pytest.raises(InputError, match="this row has"):
            source.scan()
        return
    assert source.scan().rows == len(kept)
    assert values(source) == [cells[:width] for cells in kept]


def test_a_large_unbroken_cell_is_checked_in_linear_time(tmp_path: Path) -> None:
    cell = "x" * 9_000_000
    source = opened(tmp_path, f'id,text\n1,"{cell}"\n2,b\n')
    assert source.scan().rows == 2
    assert next(source.rows()).values["text"] == cell


def test_a_header_alone_is_a_file_of_no_rows(tmp_path: Path) -> None:
    for content in ("id,text", "id,text\n", "id,text\r\n"):
        source = opened(tmp_path, content)
        assert source.scan().rows == 0
        assert source.scan().columns == ("id", "text")
        assert values(source) == []


def test_a_blank_line_is_skipped_but_is_an_empty_cell_of_a_single_column(tmp_path: Path) -> None:
    assert values(opened(tmp_path, "a,b\n\n1,2\n\n\n")) == [["1", "2"]]
    assert opened(tmp_path, "a,b\n\n1,2\n\n\n").scan().rows == 1
    single = opened(tmp_path, 'a\n\n""\nx\n')
    assert values(single) == [[""], [""], ["x"]]
    assert single.scan().rows == 3


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        ('id,text\n1,a\n2,"open\n3,b\n', 3, "never closed"),
        ('id,text\n1,"open\n2,"b"\n', 2, "text follows a closing quote on line 3"),
        ('id,text\n1,"a" b\n', 2, "text follows a closing quote"),
        ("id,text\n1,a\n2\n", 3, "has 2 cells and this row has 1"),
        ("id,text\n1,a,b\n", 2, "has 2 cells and this row has 3; quote cells"),
        ('id\n"a","b"\n', 2, "closing quote"),
        ('"id"\n"a","b"\n', 2, "name the delimiter"),
        (",,\n1,a,2\n", 1, "is blank"),
        ('id,"text\n1,a\n', 1, "never closed"),
        ("id,text\n1,a\0b\n", 2, "NUL"),
        ("id,text\n1,a\n2,a\rb\n", 3, "newline of another style"),
        ("id,text\r1,a\r2,a\nb\r", 3, "newline of another style"),
        (
            "id,text\n1,a\n2,caf\udce9\n",
            3,
            "byte 17 .0xe9. is not UTF-8; .* add --encoding",
        ),
    ],
)
def test_every_error_has_its_line_and_says_what_to_do(
    tmp_path: Path, content: str, line: int, message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        opened(tmp_path, content.encode("utf-8", "surrogateescape")).scan()
    assert caught.value.line == line
    assert str(caught.value).startswith(f"{tmp_path / 'in.csv'}, line {line}: ")


def test_a_line_feed_within_quotes_stays_one_where_carriage_returns_end_the_lines(tmp_path: Path) -> None:
    source = opened(tmp_path, b'id,text\r1,"a\nb"\r2,c\r')
    source.scan()
    assert values(source) == [["1", "a\nb"], ["2", "c"]]
    assert [row.line for row in source.rows()] == [2, 3]


def test_a_cell_beyond_the_limit_is_an_error_that_suspects_the_quote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = csv.field_size_limit(1000)
    try:
        with pytest.raises(InputError, match="is a quote not closed"):
            list(opened(tmp_path, 'id,text\n1,"' + "x\n" * 900).rows())
    finally:
        csv.field_size_limit(limit)
    assert limit == 64 << 20


def test_a_lone_cr_stays_in_its_cell(tmp_path: Path) -> None:
    for newline in ("\n", "\r\n"):
        source = opened(tmp_path, f'id,text{newline}1,"a\rb\r"{newline}')
        assert source.scan().rows == 1
        assert values(source) == [["1", "a\rb\r"]]


def test_the_digest_is_that_of_a_complete_pass_only(tmp_path: Path) -> None:
    source = opened(tmp_path, "a,b\n1,2\n3,4\n")
    rows = source.rows()
    next(rows)
    with pytest.raises(ValueError, match="no pass"):
        source.digest()
    list(rows)
    assert source.digest() == source.scan().sha256


def test_a_header_that_changed_between_two_passes_is_found(tmp_path: Path) -> None:
    source = opened(tmp_path, "a,b\n1,2\n")
    source.file.path.write_text("a,c\n1,2\n")
    with pytest.raises(InputError, match="changed"):
        list(source.rows())


def test_a_character_cut_by_the_end_of_the_file_is_found(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="byte 4 ") as caught:
        opened(tmp_path, b"a\nb\n\xe7\x8c").scan()
    assert caught.value.line == 3


def test_characters_may_lie_across_the_pieces_that_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchllm.formats.input_file.CHUNK_BYTES", 3)
    source = opened(tmp_path, '猫,b\r\n"😀\r\n""",é\r\n1,2')
    assert values(source) == [['😀\r\n"', "é"], ["1", "2"]]
    assert source.scan().rows == 2
