"""Files of hard cells through a whole run: every input cell comes back equal, in every direction."""

import asyncio
import csv
import io
import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchllm.job import assemble
from batchllm.records import ChatRequest, Response
from batchllm.runner import run_job
from tests.fakes import answered

HARD = (
    "007", "NA", "null", "None", "nan", "", " padded ", "a\nb", "a\r\nb", "a\rb",
    '"', 'say "hi"', ",", ";", "\t", "|",
    "1e5", "9007199254740993", "true", "=1+1", "😀", "中文", "\u200b", "{{ text }}", "{% raw %}",
    "\\", "'", "#", "\x0b",
)  # fmt: skip
CELL = st.one_of(
    st.sampled_from(HARD), st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
)
NAME = st.one_of(
    st.sampled_from(["id", "Review Text", "naïve", "编号", "a,b", 'q"t']),
    st.text("abcxyz _;", min_size=1, max_size=6),
)
NUMBER = st.sampled_from(
    ["1e5", "1.0", "-0", "9007199254740993", "123456789012345678901234567890", "0.1", "1E400", "-1.50"]
)
SLOW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Echo:
    """Answers with what it was sent, so that a hard answer travels too."""

    async def send(self, request: ChatRequest) -> Response:
        await asyncio.sleep(0)
        return answered(json.loads(request.body)["messages"][-1]["content"])


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[str], list[list[str]]]:
    names = [
        "text",
        *draw(st.lists(NAME.filter(lambda n: n != "text" and n == n.strip()), unique=True, max_size=3)),
    ]
    rows = draw(st.lists(st.lists(CELL, min_size=len(names), max_size=len(names)), max_size=6))
    return names, rows


def run_file(source: Path, output: Path, **options: str) -> None:
    flags = {
        "input": str(source), "output": str(output), "base_url": "http://127.0.0.1:9/v1", "model": "m",
        "prompt": "{{ text }}", "column": "text", "prefix": "llm_", "no_early_stop": True, **options,
    }  # fmt: skip
    run_job(assemble("run", flags, {}), client=Echo())


def csv_bytes(
    names: list[str], rows: list[list[str]], delimiter: str, newline: str, codec: str, bom: bytes
) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator=newline, quoting=csv.QUOTE_ALL)
    writer.writerows([names, *rows])
    return bom + text.getvalue().encode(codec)


def read_csv(raw: bytes, delimiter: str, codec: str) -> list[list[str]]:
    text = raw.decode(codec)
    return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))


@SLOW
@given(
    table=tables(),
    delimiter=st.sampled_from([",", ";", "\t", "|"]),
    newline=st.sampled_from(["\n", "\r\n"]),
    encoding=st.sampled_from(
        [("utf-8", b""), ("utf-8", b"\xef\xbb\xbf"), ("utf-16-le", b"\xff\xfe"), ("utf-16-be", b"\xfe\xff")]
    ),
)
def test_csv_to_csv(
    table: tuple[list[str], list[list[str]]], delimiter: str, newline: str, encoding: tuple[str, bytes]
) -> None:
    names, rows = table
    codec, bom = encoding
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder, "in.csv"), Path(folder, "out.csv")
        source.write_bytes(csv_bytes(names, rows, delimiter, newline, codec, bom))
        run_file(source, output, delimiter=delimiter)
        raw = output.read_bytes()
        assert raw.startswith(bom)
        header, *written = read_csv(raw[len(bom) :], delimiter, codec)
        assert header[: len(names)] == names
        assert [row[: len(names)] for row in written] == rows
        first_line = raw[len(bom) :].decode(codec).partition("\n")[0]
        assert first_line.endswith("\r") == (newline == "\r\n") or "\n" in "".join(names)
        answers = [row[len(names)] for row in written]
        sent = [row[0] for row in rows]
        assert [answer.strip() for answer, text in zip(answers, sent, strict=True) if text.strip()] == [
            text.strip() for text in sent if text.strip()
        ]


@SLOW
@given(table=tables())
def test_csv_to_jsonl(table: tuple[list[str], list[list[str]]]) -> None:
    names, rows = table
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder, "in.csv"), Path(folder, "out.jsonl")
        source.write_bytes(csv_bytes(names, rows, ",", "\n", "utf-8", b""))
        run_file(source, output, delimiter=",")
        written = [json.loads(line) for line in output.read_bytes().splitlines()]
        assert [[row[name] for name in names] for row in written] == rows


@st.composite
def json_lines(draw: st.DrawFn) -> list[tuple[str, dict[str, Any]]]:
    """Lines as they are written, with what they say; numbers are spelled in ways that parsing would lose."""
    lines = []
    for _ in range(draw(st.integers(1, 5))):
        text, number = draw(CELL), draw(NUMBER)
        nested = draw(st.sampled_from(['{"a": [1, 2.50]}', "[]", "null", "true", '"x"']))
        pad = draw(st.sampled_from(["", " ", "  "]))
        spelled = json.dumps(text, ensure_ascii=draw(st.booleans()))
        line = f'{pad}{{"text":{pad}{spelled}, "n": {number}, "more":{nested}}}{pad}'
        lines.append((line, {"text": text, "n": number, "more": nested}))
    return lines


@SLOW
@given(lines=json_lines())
def test_jsonl_to_jsonl_byte_for_byte(lines: list[tuple[str, dict[str, Any]]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder, "in.jsonl"), Path(folder, "out.jsonl")
        source.write_bytes("".join(line + "\n" for line, _ in lines).encode())
        run_file(source, output)
        written = output.read_bytes().decode().split("\n")[:-1]
        assert len(written) == len(lines)
        for after, (before, _) in zip(written, lines, strict=True):
            untouched = before.strip().removesuffix("}").rstrip()
            assert after.strip().startswith(untouched)


@SLOW
@given(lines=json_lines())
def test_jsonl_to_csv_keeps_texts_and_spellings(lines: list[tuple[str, dict[str, Any]]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder, "in.jsonl"), Path(folder, "out.csv")
        source.write_bytes("".join(line + "\n" for line, _ in lines).encode())
        run_file(source, output)
        if not lines:
            return
        header, *rows = read_csv(output.read_bytes(), ",", "utf-8")
        assert header[:3] == ["text", "n", "more"]
        for row, (_, said) in zip(rows, lines, strict=True):
            assert row[0] == said["text"]
            assert row[1] == said["n"]
            expected = {"null": "", '"x"': "x"}.get(said["more"], said["more"])
            assert row[2] == expected


def test_a_cell_of_a_megabyte(tmp_path: Path) -> None:
    big = 'word, "quoted"\n' * 70_000
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_bytes(csv_bytes(["text", "big"], [["x", big]], ",", "\n", "utf-8", b""))
    csv.field_size_limit(1 << 26)
    run_file(source, output)
    assert read_csv(output.read_bytes(), ",", "utf-8")[1][:2] == ["x", big]
