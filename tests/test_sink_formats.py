"""Records: the input's part equal, our part beside it, whatever the values are."""

import csv
import json
from decimal import Decimal
from typing import Any

import pytest

from batchllm.records import Answer, Row, Usage
from batchllm.sink import Outcome, plan_columns
from batchllm.sink.formats import (
    csv_header,
    csv_record,
    csv_text,
    csv_writer,
    json_bytes,
    jsonl_writer,
    members_as_written,
)

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


def json_row(line: str) -> Row:
    return Row(0, 1, json.loads(line), line.encode())


def test_our_values_are_cells_of_csv() -> None:
    columns = plan_columns(["id"], ["label"], columns=ALL)
    line = csv_writer(columns, ",", from_csv=True)(Row(0, 2, {"id": "7"}, ["7"]), OUTCOME)
    expected = ["7", "positive", "stop", "12", "2", "", "0.123", "0.0000001", '[{"id":"c","name":"f"}]', ""]
    assert next(csv.reader([str(line)], strict=True)) == expected


def test_our_values_are_values_of_json() -> None:
    columns = plan_columns(["id"], ["label"], columns=ALL)
    line = jsonl_writer(columns, from_csv=True)(Row(0, 2, {"id": "7"}, ["7"]), OUTCOME)
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


def test_a_skipped_row_has_empty_columns_of_ours() -> None:
    columns = plan_columns(["id"], ["label"], columns=["label", "attempts", "error"])
    line = csv_writer(columns, ",", from_csv=True)(Row(0, 2, {"id": "7"}, ["7"]), Outcome(0, None))
    assert line == "7,,0,"


def test_extra_values_stand_in_for_those_of_the_answer() -> None:
    columns = plan_columns([], ["label", "score"], columns=["label", "score"])
    outcome = Outcome(0, ANSWER, extra={"score": 0.5})
    assert (
        jsonl_writer(columns, from_csv=False)(json_row("{}"), outcome) == b'{"label":"positive","score":0.5}'
    )


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"a": 1e5}', '{"a": 1e5,"label":"positive"}'),
        ("{}", '{"label":"positive"}'),
        (" { } ", ' { "label":"positive"} '),
        ('{"a":{"b":"}"} }\t', '{"a":{"b":"}"} ,"label":"positive"}\t'),
    ],
)
def test_our_keys_go_in_before_the_closing_brace(line: str, expected: str) -> None:
    write = jsonl_writer(plan_columns([], ["label"], columns=["label"]), from_csv=False)
    assert write(json_row(line), OUTCOME) == expected.encode()


def test_without_columns_of_ours_a_line_stays_as_it_is() -> None:
    write = jsonl_writer(plan_columns([], ["label"], columns=[]), from_csv=False)
    assert write(json_row('{"a" :1}'), OUTCOME) == b'{"a" :1}'


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
    assert csv_header(columns, ",") == '"\ufeffa","b;c|d"'


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
    assert csv_text(value) == expected


def test_no_value_is_too_odd_to_be_written() -> None:
    assert json.loads(json_bytes({"a": "x\ud83d"})) == {"a": "x\\ud83d"}
    assert json.loads(json_bytes([2**70, Decimal("0.5"), {1: ("x",)}])) == [2**70, 0.5, {"1": ["x"]}]
