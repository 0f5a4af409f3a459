"""The dialect of a CSV file is found by header and rows together, and what is unclear is refused with an option."""

from pathlib import Path
from typing import Any

import pytest

from batchllm.errors import InputError
from batchllm.formats import Source, open_source

Table = list[list[str]]


def opened(folder: Path, content: str, suffix: str = ".csv", **options: Any) -> Source:
    path = folder / f"in{suffix}"
    path.write_bytes(content.encode())
    source = open_source(path, **options)
    source.scan()
    return source


def table(source: Source) -> Table:
    return [list(source.columns), *(list(row.values.values()) for row in source.rows())]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("id;text, original\n1;hello, world\n", [["id", "text, original"], ["1", "hello, world"]]),
        ('size (");text\n5;hello\n', [['size (")', "text"], ["5", "hello"]]),
        ("x;y\n1,5;2,5\n", [["x", "y"], ["1,5", "2,5"]]),
        ('id,"text; original"\n1,"a; b"\n', [["id", "text; original"], ["1", "a; b"]]),
        ("sep=;\nid;text\n1;a,b\n", [["id", "text"], ["1", "a,b"]]),
        ('"sep=|"\r\nid|text\r\n1|a\r\n', [["id", "text"], ["1", "a"]]),
        ("\n \nid,text\n1,a\n", [["id", "text"], ["1", "a"]]),
        ("id,text\r\r\n1,a\r\r\n", [["id", "text"], ["1", "a"]]),
        (",text\n0,hello\n", [["column_1", "text"], ["0", "hello"]]),
        ('"","text"\n"1","hello"\n', [["column_1", "text"], ["1", "hello"]]),
        ("id,text,\n1,hello,\n", [["id", "text"], ["1", "hello"]]),
        ("id,text\n1,hello,\n2,b\n", [["id", "text"], ["1", "hello"], ["2", "b"]]),
        ("id,text,\n1,hello,x\n", [["id", "text", "column_3"], ["1", "hello", "x"]]),
        ("id,a,id\n1,b,2\n", [["id (column 1)", "a", "id (column 3)"], ["1", "b", "2"]]),
        ("id^text\n1^hello, you\n2^b\n", [["id", "text"], ["1", "hello, you"], ["2", "b"]]),
        ("id,text\n1,'hello, dear'\n2,'a, b'\n", [["id", "text"], ["1", "hello, dear"], ["2", "a, b"]]),
        ('id, "text"\n1, "hello, dear"\n', [["id", "text"], ["1", "hello, dear"]]),
    ],
)
def test_header_and_rows_together_tell_the_dialect(tmp_path: Path, content: str, expected: Table) -> None:
    assert table(opened(tmp_path, content)) == expected


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".txt"])
def test_tab_means_tab(tmp_path: Path, suffix: str) -> None:
    form = None if suffix == ".tsv" else "tsv"
    source = opened(tmp_path, "id\ttext, in English\n1\thello, dear\n", suffix, format=form)
    assert table(source) == [["id", "text, in English"], ["1", "hello, dear"]]


@pytest.mark.parametrize(
    "lines",
    [
        ["text", "Hello, dear", "Bye, dear"],
        ["text", "Hello, dear", "Bye, you; and me", "So, it, is"],
        ["review", '"Great," she said, and left.', "OK"],
        ["Dear all, hello", "This is it", "ok, then, bye", "fine"],
    ],
)
def test_prose_is_one_column(tmp_path: Path, lines: list[str]) -> None:
    source = opened(tmp_path, "\n".join(lines) + "\n")
    assert table(source) == [[line] for line in lines]
    assert "one column" in source.notes


@pytest.mark.parametrize(
    ("content", "advice"),
    [
        ("a;b,c\n1;2,3\n", "--delimiter"),
        ("Report 2024\nid;text\n1;a\n2;b\n", "--skip-lines 1"),
        ("# made by x, y\nid\ttext\n1\ta\n2\tb\n", "--skip-lines 1"),
        ("Report\n\nid|text\n1|a\n2|b\n", "--skip-lines 2"),
        ("Report,,\nid,text,x\n1,a,b\n", "--skip-lines"),
        ("text\nHello,you\nbye,me\n", "--delimiter none"),
        ('id\ttext\n1\t"Hello" she said\n', "--quote none.*--escape"),
        ('id\ttext\n1\t"open\n2\tb"\n', "--quote none"),
        ('id,text\n1,"say \\"hi\\", you"\n', "--quote none.*--escape"),
        ("id,text\n1,a\n2\n", "--bad-rows pad"),
        ("id,text\n1,a, b\n", "--bad-rows skip"),
    ],
)
def test_what_is_unclear_is_refused_with_the_option_that_says_it(
    tmp_path: Path, content: str, advice: str
) -> None:
    with pytest.raises(InputError, match=advice):
        opened(tmp_path, content)


@pytest.mark.parametrize(
    ("content", "options", "expected"),
    [
        ("a;b,c\n1;2,3\n", {"delimiter": "semicolon"}, [["a", "b,c"], ["1", "2,3"]]),
        ("id,text\n1,a\n", {"delimiter": "none"}, [["id,text"], ["1,a"]]),
        ("Report\nid;text\n1;a\n", {"skip_lines": 1}, [["id", "text"], ["1", "a"]]),
        ('id\ttext\n1\t"open\n2\tb"\n', {"quote": "none"}, [["id", "text"], ["1", '"open'], ["2", 'b"']]),
        ('id,text\n1,"say \\"hi\\", you"\n', {"escape": "\\"}, [["id", "text"], ["1", 'say "hi", you']]),
        ("id,text\n1,a\n2\n", {"bad_rows": "pad"}, [["id", "text"], ["1", "a"], ["2", ""]]),
        ("id,text\n1,a\n2\n3,b\n", {"bad_rows": "skip"}, [["id", "text"], ["1", "a"], ["3", "b"]]),
    ],
)
def test_the_user_may_say_it(tmp_path: Path, content: str, options: dict[str, Any], expected: Table) -> None:
    assert table(opened(tmp_path, content, **options)) == expected


def test_an_ordinary_comma_file_is_never_unclear(tmp_path: Path) -> None:
    rows = "".join(f'{n},"a; b | c\t{n}",x;y\n' for n in range(300))
    source = opened(tmp_path, f"id,text,tags\n{rows}")
    assert source.columns == ("id", "text", "tags")
    assert source.notes == ()


def test_records_that_cannot_be_rows_are_counted_and_kept_as_they_are(tmp_path: Path) -> None:
    source = opened(tmp_path, 'id,text\r\n1,a\r\n2\r\n3,"x" y\r\n4,b\r\n', bad_rows="skip")
    assert source.scan().bad_rows == 2
    assert [row.values["id"] for row in source.rows()] == ["1", "4"]
    assert b"".join(source.skipped_file()) == b'id,text\r\n2\r\n3,"x" y\r\n'


def test_lines_of_jsonl_that_are_no_objects_can_be_left_out(tmp_path: Path) -> None:
    source = opened(tmp_path, '{"a":1}\n{"a":\n[2]\n{"a":3}\n', ".jsonl", bad_rows="skip")
    assert source.scan().bad_rows == 2
    assert [row.values["a"] for row in source.rows()] == [1, 3]
    assert b"".join(source.skipped_file()) == b'{"a":\n[2]\n'


def test_a_comma_after_a_line_of_jsonl_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a comma follows the object"):
        opened(tmp_path, '{"a":1},\n{"a":2}\n', ".jsonl")


@pytest.mark.parametrize(
    "lines",
    [
        ["share%", "50%", "20%", "7%"],
        ["price $", "5 $", "12 $"],
        ["jane@example.org", "joe@example.org", "ann@example.org"],
        [
            "2024-01-01 00:00:01 INFO started",
            "2024-01-01 00:00:02 WARN slow",
            "2024-01-01 00:00:03 INFO done",
        ],
        ["Time: UTC", "12:30", "14:00"],
        ["12:30 lunch", "14:00 coffee", "18:15 train"],
        ["R&D", "Q&A", "B&B"],
        ["a=1", "b=2", "c=3"],
    ],
)
def test_signs_that_texts_use_split_no_column(tmp_path: Path, lines: list[str]) -> None:
    assert table(opened(tmp_path, "\n".join(lines))) == [[line] for line in lines]


@pytest.mark.parametrize(
    "content",
    [
        '"id","text"\n"1",1,"hello"\n"2",2,"bye"\n',
        '"id"\t"text"\n"1"\t1\t"hello"\n"2"\t2\t"bye"\n',
        '"text"\n"1","hello"\n"2","bye"\n',
    ],
)
def test_a_header_of_r_that_is_one_cell_short_gets_the_advice_of_r(tmp_path: Path, content: str) -> None:
    with pytest.raises(InputError, match="col.names = NA"):
        opened(tmp_path, content)


def test_nuls_behind_a_table_are_refused_where_they_stand(tmp_path: Path) -> None:
    for content in ("id,text\n1,a\n\0\0\0\0", "id;text\n\0\n1;a\n", "id^text\n1^a\n\0\n"):
        with pytest.raises(InputError, match="NUL"):
            opened(tmp_path, content)


@pytest.mark.parametrize(
    "content",
    [
        "+----+------+\n| id | text |\n+----+------+\n|  1 | a    |\n+----+------+\n",
        " id | text \n----+------\n  1 | a\n(1 row)\n",
        "| id | text |\n|----|:-----|\n| 1 | a |\n",
    ],
)
def test_a_table_drawn_with_lines_is_refused_and_named(tmp_path: Path, content: str) -> None:
    with pytest.raises(InputError, match="drawn with lines"):
        opened(tmp_path, content)
