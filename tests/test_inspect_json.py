"""What ``status --json`` and ``show --json`` print is what their page says, field by field."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.command import Command

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "json.md"


def documented() -> list[list[str]]:
    """The fields of each table of the page."""
    tables = re.findall(r"^\|---\|---\|\n((?:\|.*\n)+)", PAGE.read_text(), re.MULTILINE)
    return [re.findall(r"^\| `(\w+)`", table, re.MULTILINE) for table in tables]


@pytest.fixture
def output(batchllm: Command, samples: Path) -> Path:
    assert batchllm("classify", samples / "reviews.csv", "--provider", "simulator").status == 0
    return samples / "reviews.classify.simulated.csv"


def test_the_fields_of_status_are_those_of_the_page(batchllm: Command, output: Path) -> None:
    found: dict[str, Any] = json.loads(batchllm("status", output, "--json").out)
    assert list(dict.fromkeys(found)) == documented()[0]
    counts = re.search(r"^\| `counts` .*$", PAGE.read_text(), re.MULTILINE)
    assert counts is not None
    assert set(re.findall(r"`(\w+)`", counts[0])) - {"counts"} == found["counts"].keys()
    assert (found["rows"], found["answered"], found["skipped"], found["rows_left"]) == (12, 11, 1, 0)


def test_the_fields_of_show_are_those_of_the_page(batchllm: Command, output: Path) -> None:
    found = json.loads(batchllm("show", output, 2, "--json").out)
    _, row, request, attempt = documented()
    assert list(found) == row
    assert [list(each) for each in found["requests"]] == [request]
    assert [list(each) for each in found["requests"][0]["attempts"]] == [attempt]
    (sent,) = found["requests"][0]["attempts"]
    assert (found["row"], found["state"], sent["status"], sent["possibly_billed"]) == (
        2,
        "answered",
        200,
        False,
    )
    assert json.loads(sent["body"])["choices"]


def test_a_row_that_was_not_sent_has_no_requests(batchllm: Command, output: Path) -> None:
    found = json.loads(batchllm("show", output, 9, "--json").out)
    assert (found["state"], found["unsent_reason"], found["requests"]) == ("unsent", "skipped", [])
    assert batchllm("show", output, 9999, "--json").status == 65
