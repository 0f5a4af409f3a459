"""The output: rows in order, the format kept, nothing put in place that is not whole."""

import codecs
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batchllm.errors import CannotWrite, InputError
from batchllm.formats import (
    Columns,
    Outcome,
    OutputStatistics,
    Source,
    open_source,
    plan_columns,
    write_output,
)
from batchllm.records import Answer

COLUMNS = ["label", "attempts"]


def opened(folder: Path, content: bytes, name: str = "in.csv", **options: str) -> Source:
    path = folder / name
    path.write_bytes(content)
    return open_source(path, **options)


def outcomes(source: Source, label: str = "good") -> Iterator[Outcome]:
    for row in source.rows():
        yield Outcome(row.index, Answer(columns={"label": label}), attempts=1)


def plan(source: Source) -> Columns:
    return plan_columns(source.scan().columns, ["label"], columns=COLUMNS)


def sent(source: Source, out: Path | None, label: str = "good", **options: Any) -> OutputStatistics:
    kind = options.pop("output_format", "jsonl" if out and out.suffix == ".jsonl" else "csv")
    given = options.pop("outcomes", None) or list(outcomes(source, label))
    partial = options.pop("partial", False)
    columns = plan(source)
    return write_output(
        source, given, path=out, columns=columns, output_format=kind, partial=partial, **options
    )


def test_the_answer_stands_beside_its_row(tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    result = sent(opened(tmp_path, b"id,text\n1,a\n2,b\n"), out)
    assert out.read_bytes() == b"id,text,label,attempts\n1,a,good,1\n2,b,good,1\n"
    assert result == OutputStatistics(hashlib.sha256(out.read_bytes()).hexdigest(), out.stat().st_size, 2)


@pytest.mark.parametrize("bom", ["", "utf-8", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("final", [True, False])
def test_csv_keeps_how_it_is_written(tmp_path: Path, bom: str, newline: str, final: bool) -> None:
    mark = {
        "": b"",
        "utf-8": codecs.BOM_UTF8,
        "utf-16-le": codecs.BOM_UTF16_LE,
        "utf-16-be": codecs.BOM_UTF16_BE,
    }
    lines = ["é;text", '1;"a,""b"""', "2;😀"]
    more = ["é;text;label;attempts", '1;"a,""b""";good;1', "2;😀;good;1"]
    end = newline if final else ""
    encoding = bom or "utf-8"
    out = tmp_path / "out.csv"
    sent(opened(tmp_path, mark[bom] + (newline.join(lines) + end).encode(encoding)), out)
    assert out.read_bytes() == mark[bom] + (newline.join(more) + end).encode(encoding)


@pytest.mark.parametrize("content", [b"id,text", b"id,text\n", b"\xef\xbb\xbfid,text\r\n"])
def test_a_header_alone_gives_a_header(tmp_path: Path, content: bytes) -> None:
    out = tmp_path / "out.csv"
    assert sent(opened(tmp_path, content), out).rows == 0
    assert out.read_bytes() == content.replace(b"text", b"text,label,attempts")


def test_no_lines_give_no_lines(tmp_path: Path) -> None:
    for content in (b"", b"\n", codecs.BOM_UTF8):
        out = tmp_path / "out.jsonl"
        assert sent(opened(tmp_path, content, "in.jsonl"), out).rows == 0
        assert out.read_bytes() == content.strip()


def test_jsonl_keeps_the_bytes_of_its_lines(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    sent(opened(tmp_path, b'{"n": 1e5}\r\n\r\n{ "n":-0 } ', "in.jsonl"), out)
    assert out.read_bytes() == (
        b'{"n": 1e5,"label":"good","attempts":1}\r\n{ "n":-0 ,"label":"good","attempts":1} '
    )


@pytest.mark.parametrize(
    ("name", "out_name", "delimiter"),
    [
        ("in.csv", "o.tsv", "\t"),
        ("in.tsv", "o.csv", ","),
        ("in.tsv", "o.tsv", "\t"),
        ("in.csv", "o.csv", "|"),
    ],
)
def test_the_suffix_of_the_output_has_a_say_in_the_delimiter(
    tmp_path: Path, name: str, out_name: str, delimiter: str
) -> None:
    content = b"id\ttext\n1\ta\n" if name == "in.tsv" else b"id|text\n1|a\n"
    sent(opened(tmp_path, content, name), tmp_path / out_name)
    assert (tmp_path / out_name).read_text() == "id,text,label,attempts\n1,a,good,1\n".replace(",", delimiter)


def test_across_formats_the_output_is_plain_utf8(tmp_path: Path) -> None:
    source = opened(tmp_path, codecs.BOM_UTF16_LE + "id;text\r\n1;é".encode("utf-16-le"))
    sent(source, tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_bytes() == (
        '{"id":"1","text":"é","label":"good","attempts":1}\n'.encode()
    )
    lines = b'{"b":1e5,"s":"x,\\ny"}\r\n{"o":{"k": [1.50]},"t":true,"b":null}'
    sent(opened(tmp_path, lines, "in.jsonl"), tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_bytes() == (
        b'b,s,o,t,label,attempts\n1e5,"x,\ny",,,good,1\n,,"{""k"": [1.50]}",true,good,1\n'
    )


@pytest.mark.parametrize("label", ["😀猫", "half \ud83d"])
def test_what_the_encoding_cannot_hold_is_escaped_not_an_error(tmp_path: Path, label: str) -> None:
    for encoding in ("cp1252", "gb18030", "utf-8"):
        out = tmp_path / "out.csv"
        sent(opened(tmp_path, b"id\n1\n", encoding=encoding), out, label, encoding=encoding)
        cell = out.read_text(encoding).splitlines()[1].split(",")[1]
        assert cell == label.encode(encoding, "backslashreplace").decode(encoding)
    out = tmp_path / "out.jsonl"
    sent(opened(tmp_path, b'{"id": 1}\n', "in.jsonl", encoding="cp1252"), out, label, encoding="cp1252")
    assert json.loads(out.read_text("cp1252"))["label"] == label.replace("\ud83d", "\\ud83d")


def test_some_rows_are_written_where_that_is_wanted(tmp_path: Path) -> None:
    source = opened(tmp_path, b"id\n0\n1\n2\n3\n")
    chosen = [outcome for outcome in outcomes(source) if outcome.row_index in (1, 3)]
    result = sent(source, tmp_path / "out.csv", outcomes=chosen, partial=True)
    assert result.rows == 2
    assert (tmp_path / "out.csv").read_bytes() == b"id,label,attempts\n1,good,1\n3,good,1\n"
    with pytest.raises(AssertionError, match="row 0 has no outcome"):
        sent(source, tmp_path / "out.csv", outcomes=chosen)
    with pytest.raises(AssertionError, match="there is no row 9"):
        sent(source, tmp_path / "out.csv", outcomes=[*outcomes(source), Outcome(9, None)])


@pytest.mark.parametrize(
    "content",
    [b"id\n0\n2\n", b"id\n0\n", b"id\n0\n1\n2\n", b"id\n0\n1,1\n", b"name\n0\n1\n", b"id\n0\n\xff\n"],
)
def test_an_input_that_changed_is_refused_before_the_output_is_replaced(
    tmp_path: Path, content: bytes
) -> None:
    source = opened(tmp_path, b"id\n0\n1\n")
    before = source.scan().sha256
    given = list(outcomes(source))
    columns = plan(source)
    (tmp_path / "out.csv").write_bytes(b"old")
    source.file.path.write_bytes(content)
    with pytest.raises(InputError, match="changed while the job ran; run the same command again"):
        write_output(
            source,
            given,
            path=tmp_path / "out.csv",
            columns=columns,
            output_format="csv",
            expected_sha256=before,
        )
    assert (tmp_path / "out.csv").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl"])
def test_more_than_is_encoded_at_once_is_written_whole(tmp_path: Path, name: str) -> None:
    rows = [f"{i},{i:>3000}" for i in range(300)]
    out = tmp_path / name
    assert sent(opened(tmp_path, "\n".join(["id,text", *rows, ""]).encode()), out).rows == 300
    assert len(out.read_text().splitlines()) == 300 + (name == "out.csv")
    assert out.stat().st_size > 3000 * 300


def test_an_input_that_did_not_change_passes(tmp_path: Path) -> None:
    source = opened(tmp_path, b"id\n0\n1\n")
    assert sent(source, tmp_path / "out.csv", expected_sha256=source.scan().sha256).rows == 2


def test_the_same_outcomes_give_the_same_bytes(tmp_path: Path) -> None:
    source = opened(tmp_path, b"id\n" + b"0\n" * 1000)
    first = sent(source, tmp_path / "a.csv")
    assert first == sent(source, tmp_path / "b.csv")


def test_many_batches_are_joined_without_a_seam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchllm.formats.text._BATCH_CHARACTERS", 10)
    source = opened(tmp_path, b"id\r\n" + b"0\r\n" * 100)
    sent(source, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_bytes() == b"id,label,attempts\r\n" + b"0,good,1\r\n" * 100


def test_standard_output_gets_the_rows(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    result = sent(opened(tmp_path, b"id\n1\n"), None)
    shown = capfdbinary.readouterr().out
    assert shown == b"id,label,attempts\n1,good,1\n"
    assert result.sha256 == hashlib.sha256(shown).hexdigest()
    assert not result.is_cut


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as broken:

        class Out:
            buffer = broken
            flush = broken.flush

        monkeypatch.setattr("batchllm.formats.output_file.sys.stdout", Out())
        result = sent(opened(tmp_path, b"id\n" + b"1\n" * 20_000), None)
    assert result.is_cut
    assert result.rows == 20_000


def test_what_is_no_regular_file_is_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    (tmp_path / "out.csv").symlink_to(pipe)
    for path in (pipe, tmp_path / "out.csv"):
        with pytest.raises(CannotWrite, match="not a regular file"):
            sent(opened(tmp_path, b"id\n1\n"), path)
    assert pipe.is_fifo()


def test_a_folder_in_the_place_of_the_output_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "out.csv").mkdir()
    with pytest.raises(CannotWrite):
        sent(opened(tmp_path, b"id\n1\n"), tmp_path / "out.csv")
