"""Whatever an answer or a JSONL row holds, the output is readable, and nothing is replaced in silence."""

import csv
import json
from pathlib import Path

import pytest

from batchllm.formats import open_source
from batchllm.formats.output import without_formula
from tests.bench import Bench

ANSWER = "it’s “good” 😀"


def written(path: Path, encoding: str) -> list[dict[str, str]]:
    with path.open(newline="", encoding=encoding) as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "koi8-r", "shift_jis", "ascii", "big5"])
def test_an_output_beside_a_narrow_input_is_utf8_and_that_is_said(bench: Bench, encoding: str) -> None:
    bench.file("in.csv", "id,text\n1,hello\n".encode(encoding))
    bench.dictate(ANSWER)
    out = bench.folder / "out.csv"
    said = bench.run("run", "-p", "{{ text }}", bench.folder / "in.csv", "--encoding", encoding, "-o", out)
    assert written(out, "utf-8")[0]["response"] == ANSWER
    assert "The output will be in UTF-8" in said.err and "--output-encoding" in said.err


def test_an_output_encoding_that_is_named_is_used_and_its_escapes_are_announced(bench: Bench) -> None:
    bench.file("in.csv", "id,text\n1,café\n".encode("cp1252"))
    bench.dictate(ANSWER)
    out = bench.folder / "out.csv"
    words = ("run", "-p", "{{ text }}", bench.folder / "in.csv", "--encoding", "cp1252", "-o", out)
    said = bench.run(*words, "--output-encoding", "cp1252")
    assert (
        written(out, "cp1252")[0] | {"text": "café", "response": "it’s “good” \\U0001f600"}
        == written(out, "cp1252")[0]
    )
    assert "Characters that cp1252 lacks will be written as escapes" in said.err
    for encoding in ("utf-8-sig", "utf-16", "gb18030"):
        bench.run(*words, "--output-encoding", encoding)
        assert written(out, encoding)[0]["response"] == ANSWER
        assert open_source(out, encoding=None if encoding != "gb18030" else encoding).scan().rows == 1
    assert len(bench.bodies) == 1


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "gb18030"])
def test_an_encoding_with_every_character_is_kept(bench: Bench, encoding: str) -> None:
    bench.file("in.csv", "id,text\n1,hello\n".encode(encoding))
    bench.dictate(ANSWER)
    out = bench.folder / "out.csv"
    said = bench.run("run", "-p", "{{ text }}", bench.folder / "in.csv", "--encoding", encoding, "-o", out)
    assert written(out, encoding)[0]["response"] == ANSWER
    assert "The output will be" not in said.err


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_an_answer_with_nul_is_written_so_that_it_can_be_read(bench: Bench, suffix: str) -> None:
    bench.file("in.jsonl", '{"text": "a\\u0000b"}\n')
    bench.dictate("yes\0no")
    out = bench.folder / f"out{suffix}"
    bench.run("run", "-p", "{{ text }}", bench.folder / "in.jsonl", "-o", out)
    (row,) = open_source(out).rows()
    assert row.values["response"] == ("yes\0no" if suffix == ".jsonl" else "yes\\u0000no")
    assert row.values["text"] == ("a\0b" if suffix == ".jsonl" else "a\\u0000b")


@pytest.mark.parametrize(
    "line",
    [
        r'{"text":"a","\ud83dtags":["x"]}',
        r'{"text":"a \udc00","\ud83d":{"\udfff":1},"\ud83e":2.50}',
        r'{"text":"\ud83d\ude00 \ude00","a":"\ud83d"}',
    ],
)
def test_half_a_surrogate_pair_goes_to_csv_and_back_as_a_visible_escape(bench: Bench, line: str) -> None:
    bench.file("in.jsonl", line + "\n")
    bench.dictate("fine")
    table, again = bench.folder / "out.csv", bench.folder / "again.jsonl"
    bench.run("run", "-p", "{{ text }}", bench.folder / "in.jsonl", "-o", table)
    source = open_source(table)
    (row,) = source.rows()
    original = {
        key.encode("utf-8", "backslashreplace").decode(): value for key, value in json.loads(line).items()
    }
    assert set(original) <= set(row.values)
    assert row.values["text"] == original["text"].encode("utf-8", "backslashreplace").decode()
    bench.run("run", "-p", "{{ text }}", table, "-o", again, "--prefix", "second_")
    assert set(original) <= set(json.loads(again.read_text("utf-8")))


@pytest.mark.parametrize("text", ["=1+1", "+cmd", "-2+3", "@SUM(A1)", "\uff1d1", "- a point\n- another"])
def test_a_formula_gets_an_apostrophe_where_that_is_wanted(bench: Bench, text: str) -> None:
    bench.file("in.csv", "id,text\n=1,hello\n")
    bench.dictate(text)
    words = ("run", "-p", "{{ text }}", bench.folder / "in.csv", "-o", bench.folder / "out.csv")
    bench.run(*words)
    assert bench.out("out.csv")[0]["response"] == text
    bench.run(*words, "--escape-formulas")
    (row,) = bench.out("out.csv")
    assert row["response"] == f"'{text}"
    assert row["id"] == "=1"  # cells of the input come back as they were
    assert len(bench.bodies) == 1


@pytest.mark.parametrize("value", ["\t=1", "\r1", " =1", "\n@a", "-5 apples"])
def test_a_formula_behind_blanks_is_one_too(value: str) -> None:
    assert without_formula(value) == f"'{value}"


@pytest.mark.parametrize("value", ["-5", "+3.5", "-0,5", "a=b", "", "x - y", 5, -5, None])
def test_plain_numbers_and_other_text_are_no_formulas(value: object) -> None:
    assert without_formula(value) == value
