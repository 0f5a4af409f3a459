"""Every input cell comes out equal: CSV to CSV, JSONL to JSONL, and across, through real files."""

import codecs
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchllm.records import Answer
from batchllm.sink import Outcome, plan_columns, write_output
from batchllm.source import Source, open_source
from batchllm.source.jsonl import parse_object

HARD = [
    "007",
    "NA",
    "null",
    "None",
    "",
    " padded ",
    "line one\nline two",
    'he said "hi"',
    '"',
    '""',
    "a\rb",
    "\r",
    "\r\n",
    "\n",
    "x" * 1_000_000,
    "😀👩‍👩‍👧",
    "猫、犬",
    "e\u0301",
    "1e5",
    "9007199254740993",
    "=1+1",
    "\x1b[31m",
    "\x0b\x0c\x1c\x85\u2028",
    "\ufeff",
    "a,b;c\td|e",
    "\\",
    "{{ text }}",
]
CELL = st.one_of(
    st.sampled_from([cell for cell in HARD if len(cell) < 100]),
    st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=12),
    st.text(st.sampled_from('",;\t|\r\n aé猫😀'), max_size=8),
)
NAME = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1, max_size=6).filter(
    lambda name: bool(name.strip()) and not name.startswith("\ufeff")
)
NUMBER = st.sampled_from(["0", "-0", "1e5", "1.50", "9007199254740993", "1e400", "-1E-3", "0.1", "7" * 5000])
BOMS = {"utf-8": codecs.BOM_UTF8, "utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE}
ENCODINGS = [("utf-8", False), ("utf-8", True), ("utf-16-le", True), ("utf-16-be", True), ("gb18030", False)]
fast = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def through(source: Source, out: Path, **options: str) -> Source:
    """Write an output as a run does, and open it as a user would."""
    census = source.check()
    columns = plan_columns(census.columns, ["llm: answer"], prefix="llm: ")
    answer = Answer(columns={"llm: answer": 'model, "text"\r'}, finish_reason="stop")
    write_output(
        source,
        (Outcome(index, answer, attempts=1) for index in range(census.rows)),
        path=out,
        columns=columns,
        output_format="jsonl" if out.suffix == ".jsonl" else "csv",
        expected_sha256=census.sha256,
    )
    result = open_source(out, **options)
    assert result.check().rows == census.rows
    return result


def csv_bytes(table: list[list[str]], delimiter: str, newline: str, encoding: str, bom: bool) -> bytes:
    lines = [delimiter.join('"' + cell.replace('"', '""') + '"' for cell in cells) for cells in table]
    return (BOMS[encoding] if bom else b"") + "".join(line + newline for line in lines).encode(encoding)


@st.composite
def tables(draw: st.DrawFn) -> list[list[str]]:
    names = draw(st.lists(NAME, min_size=1, max_size=4, unique=True))
    rows = draw(st.lists(st.lists(CELL, min_size=len(names), max_size=len(names)), max_size=5))
    return [names, *rows]


@fast
@given(
    table=tables(),
    delimiter=st.sampled_from(",;\t|"),
    newline=st.sampled_from(["\n", "\r\n", "\r"]),
    encoding=st.sampled_from(ENCODINGS),
)
def test_csv_to_csv_keeps_every_cell(
    tmp_path: Path, table: list[list[str]], delimiter: str, newline: str, encoding: tuple[str, bool]
) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes(csv_bytes(table, delimiter, newline, *encoding))
    options = {} if encoding[0] != "gb18030" else {"encoding": "gb18030"}
    source = open_source(path, delimiter=delimiter, **options)
    assert [list(row.raw) for row in source.rows()] == table[1:]
    result = through(source, tmp_path / "out.csv", delimiter=delimiter, **options)
    assert result.format == source.format
    assert list(result.columns[: len(table[0])]) == table[0]
    assert [list(row.raw)[: len(table[0])] for row in result.rows()] == table[1:]
    assert {row.values["llm: llm: answer"] for row in result.rows()} <= {'model, "text"\r'}


@fast
@given(table=tables())
def test_csv_to_jsonl_and_back_keeps_every_cell(tmp_path: Path, table: list[list[str]]) -> None:
    (tmp_path / "in.csv").write_bytes(csv_bytes(table, ",", "\n", "utf-8", False))
    result = through(open_source(tmp_path / "in.csv", delimiter=","), tmp_path / "out.jsonl")
    found = [[row.values[name] for name in table[0]] for row in result.rows()]
    assert found == table[1:]
    (tmp_path / "back.jsonl").write_text(
        "".join(json.dumps(dict(zip(table[0], cells, strict=True))) + "\n" for cells in table[1:])
    )
    if len(table) > 1:
        back = through(open_source(tmp_path / "back.jsonl"), tmp_path / "back.csv")
        assert [[row.values[name] for name in table[0]] for row in back.rows()] == table[1:]


@st.composite
def json_lines(draw: st.DrawFn) -> str:
    """A line as strange as JSON allows: blanks anywhere, numbers as texts, repeated keys, escapes."""

    def blank() -> str:
        return draw(st.sampled_from(["", "", " ", "\t", "  "]))

    def value(depth: int) -> str:
        kind = draw(st.integers(0, 5 if depth else 3))
        if kind == 0:
            return draw(NUMBER)
        if kind == 1:
            return draw(st.sampled_from(["true", "false", "null", '"\\ud83d"', '"\\u00e9\\n"']))
        if kind in (2, 3):
            return json.dumps(draw(CELL), ensure_ascii=draw(st.booleans()))
        if kind == 4:
            return "[" + ",".join(value(depth - 1) for _ in range(draw(st.integers(0, 2)))) + blank() + "]"
        return members(depth - 1)

    def members(depth: int) -> str:
        pairs = [
            f"{blank()}{json.dumps(draw(NAME))}{blank()}:{blank()}{value(depth)}{blank()}"
            for _ in range(draw(st.integers(0, 3)))
        ]
        return "{" + (",".join(pairs) or blank()) + "}"

    return blank() + members(2) + blank()


@fast
@given(
    lines=st.lists(json_lines(), max_size=4),
    newline=st.sampled_from(["\n", "\r\n"]),
    encoding=st.sampled_from(ENCODINGS[:4]),
)
def test_jsonl_to_jsonl_keeps_every_byte(
    tmp_path: Path, lines: list[str], newline: str, encoding: tuple[str, bool]
) -> None:
    mark = BOMS[encoding[0]] if encoding[1] else b""
    (tmp_path / "in.jsonl").write_bytes(mark + "".join(line + newline for line in lines).encode(encoding[0]))
    source = open_source(tmp_path / "in.jsonl")
    result = through(source, tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_bytes().startswith(mark)
    for line, row in zip(lines, result.rows(), strict=True):
        assert isinstance(row.raw, bytes)
        end = line.rindex("}")
        assert row.raw.startswith(line[:end].encode())
        assert row.raw.endswith(line[end:].encode())
        before = parse_object(line.encode())
        assert {name: repr(row.values[name]) for name in before} == {
            name: repr(value) for name, value in before.items()
        }


@fast
@given(lines=st.lists(json_lines(), min_size=1, max_size=4))
def test_jsonl_to_csv_keeps_every_value(tmp_path: Path, lines: list[str]) -> None:
    (tmp_path / "in.jsonl").write_text("".join(line + "\n" for line in lines), newline="")
    result = through(open_source(tmp_path / "in.jsonl"), tmp_path / "out.csv")
    for line, row in zip(lines, result.rows(), strict=True):
        for name, value in parse_object(line.encode()).items():
            assert_same(row.values[name], value)


def assert_same(cell: str, value: Any) -> None:
    if isinstance(value, str):
        assert cell == value
    elif value is None:
        assert cell == ""
    else:
        again = parse_object(b'{"v":%s}' % cell.encode())["v"]
        assert repr(again) == repr(value)


@pytest.mark.parametrize("cell", HARD, ids=lambda cell: ascii(cell[:20]))
@pytest.mark.parametrize("suffixes", [".csv .csv", ".csv .jsonl", ".jsonl .jsonl", ".jsonl .csv"])
def test_a_hard_cell_comes_back(tmp_path: Path, cell: str, suffixes: str) -> None:
    before, after = suffixes.split()
    path = tmp_path / f"in{before}"
    if before == ".csv":
        path.write_bytes(csv_bytes([["id", "text"], ["1", cell], ["2", "b"]], ",", "\n", "utf-8", False))
    else:
        lines = [json.dumps({"id": "1", "text": cell}), json.dumps({"id": "2", "text": "b"})]
        path.write_text("\n".join(lines), "utf-8")
    result = through(open_source(path), tmp_path / f"out{after}")
    assert [row.values["text"] for row in result.rows()] == [cell, "b"]


def test_a_single_column_of_empty_cells_comes_back(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_bytes(b'text\n""\n\nx\n')
    source = open_source(tmp_path / "in.csv")
    result = through(source, tmp_path / "out.csv")
    assert [row.values["text"] for row in result.rows()] == ["", "", "x"]
    write_output(
        source,
        [Outcome(index, None) for index in range(3)],
        path=tmp_path / "bare.csv",
        columns=plan_columns(["text"], [], columns=[]),
        output_format="csv",
    )
    assert (tmp_path / "bare.csv").read_bytes() == b'text\n""\n""\nx\n'
