"""Records: the input's part equal, our part beside it, whatever the values are."""

import csv
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from batchllm.formats import Columns, Outcome, open_source, plan_columns, write_output
from batchllm.formats.csv_text import csv_header, csv_record
from batchllm.formats.json_text import cell_text, json_bytes, members_as_written
from batchllm.records import Answer, Usage

ALL = (
    "label",
    "finish_reason",
    "total_tokens",
    "attempts",
    "error",
    "latency_s",
    "cost",
    "tool_calls",
    "created",
)
ANSWER = Answer(
    columns={"label": "positive"},
    finish_reason="stop",
    usage=Usage(total_tokens=12),
    tool_calls=[{"id": "c", "name": "f"}],
)
OUTCOME = Outcome(0, ANSWER, attempts=2, latency_s=0.12345, cost=Decimal("1E-7"))


def written(
    folder: Path, content: str, columns: Columns, output_format: str, outcome: Outcome = OUTCOME
) -> str:
    """The last line of the output for an input of one row."""
    path = folder / ("in.jsonl" if "{" in content else "in.csv")
    path.write_text(content + "\n", "utf-8")
    output = folder / "out"
    write_output(open_source(path), [outcome], path=output, columns=columns, output_format=output_format)
    return output.read_text("utf-8").removesuffix("\n").split("\n")[-1]


def test_our_values_are_cells_of_csv(tmp_path: Path) -> None:
    columns = plan_columns(["id"], ["label"], columns=ALL)
    line = written(tmp_path, "id\n7", columns, "csv")
    expected = ["7", "positive", "stop", "12", "2", "", "0.123", "0.0000001", '[{"id":"c","name":"f"}]', ""]
    assert next(csv.reader([line], strict=True)) == expected


def test_our_values_are_values_of_json(tmp_path: Path) -> None:
    columns = plan_columns(["id"], ["label"], columns=ALL)
    line = written(tmp_path, "id\n7", columns, "jsonl")
    assert json.loads(line) == {
        "id": "7",
        "label": "positive",
        "finish_reason": "stop",
        "total_tokens": 12,
        "attempts": 2,
        "error": None,
        "latency_s": 0.123,
        "cost": 1e-7,
        "tool_calls": [{"id": "c", "name": "f"}],
        "created": None,
    }


def test_a_skipped_row_has_empty_columns_of_ours(tmp_path: Path) -> None:
    columns = plan_columns(["id"], ["label"], columns=["label", "attempts", "error"])
    line = written(tmp_path, "id\n7", columns, "csv", Outcome(0, None))
    assert line == "7,,0,"


def test_extra_values_stand_in_for_those_of_the_answer(tmp_path: Path) -> None:
    columns = plan_columns([], ["label", "score"], columns=["label", "score"])
    outcome = Outcome(0, ANSWER, extra={"score": 0.5})
    assert written(tmp_path, "{}", columns, "jsonl", outcome) == '{"label":"positive","score":0.5}'


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"a": 1e5}', '{"a": 1e5,"label":"positive"}'),
        ("{}", '{"label":"positive"}'),
        (" { } ", ' { "label":"positive"} '),
        ('{"a":{"b":"}"} }\t', '{"a":{"b":"}"} ,"label":"positive"}\t'),
    ],
)
def test_our_keys_go_in_before_the_closing_brace(tmp_path: Path, line: str, expected: str) -> None:
    assert written(tmp_path, line, plan_columns([], ["label"], columns=["label"]), "jsonl") == expected


def test_without_columns_of_ours_a_line_stays_as_it_is(tmp_path: Path) -> None:
    assert written(tmp_path, '{"a" :1}', plan_columns([], ["label"], columns=[]), "jsonl") == '{"a" :1}'


@pytest.mark.parametrize(
    "cell", ["a\rb", "a\nb", 'a"b', "a,b", '"', "\r", ",", " padded ", "", "\ufeff", "a\0b"]
)
@pytest.mark.parametrize("others", [[], ["x"]])
def test_a_record_reads_back_strictly(cell: str, others: list[str]) -> None:
    line = csv_record([cell, *others], ",")
    assert list(csv.reader([line + "\n"], strict=True)) == [[cell, *others]]


def test_a_single_empty_cell_is_quoted() -> None:
    assert csv_record([""], ",") == '""'
    assert csv_record(["", ""], ",") == ","


def test_a_header_shows_no_delimiter_but_the_real_one() -> None:
    columns = plan_columns(["\ufeffa", "b;c|d"], [], columns=[])
    assert csv_header((*columns.input, *columns.order), ",") == '"\ufeffa","b;c|d"'


def test_members_are_cut_out_as_they_were_written() -> None:
    raw = ' { "a\\u0041" : [1.50, {"x": 1e5}] ,"b":"]}","c" : {  },"n":-0, "a":1,"a": [2] } '
    expected = {"aA": '[1.50, {"x": 1e5}]', "b": '"]}"', "c": "{  }", "n": "-0", "a": "[2]"}
    assert members_as_written(raw.encode()) == expected
    assert members_as_written(b"{}") == {}
    assert members_as_written(b'{"n":%s}' % (b"7" * 5000))["n"] == "7" * 5000


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, ""), (0, "0"), (1.5, "1.5"), (True, "true"), (2**70, str(2**70)), (["é", None], '["é",null]')],
)
def test_values_of_ours_as_text(value: Any, expected: str) -> None:
    assert cell_text(value) == expected


def test_no_value_is_too_odd_to_be_written() -> None:
    assert json.loads(json_bytes({"a": "x\ud83d"})) == {"a": "x\\ud83d"}
    assert json.loads(json_bytes([2**70, Decimal("0.5"), {1: ("x",)}])) == [2**70, 0.5, {"1": ["x"]}]
