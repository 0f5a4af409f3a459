"""LibreOffice reads what is written, and what it writes is read."""

import csv
import shutil
import subprocess
from datetime import datetime, time, timedelta
from pathlib import Path
from typing import Any

import pytest

from batchllm.formats import open_source
from batchllm.formats.document_text import document_text
from tests.excel_files import answered, by_openpyxl, by_xlsxwriter

OFFICE = shutil.which("soffice")
pytestmark = [pytest.mark.proof, pytest.mark.skipif(OFFICE is None, reason="needs LibreOffice")]

TABLE: list[list[Any]] = [
    ["id", "text", "when", "day", "time", "long", "flag", "number"],
    [1, "=1+1", datetime(2024, 5, 6, 7, 8, 9), datetime(2024, 5, 6), time(7, 8, 9), timedelta(hours=30.5), True, 0.1],
    [2, "two\nlines", datetime(1904, 1, 2, 0, 0, 1), datetime(1900, 3, 1), time(0, 0, 1), timedelta(9), False, -1e-5],
    [3, "😀é <b>&  x", datetime(9999, 1, 1, 1, 1), None, time(23, 59), timedelta(100, 1), None, 123456789012345],
    [4, "007", None, None, None, timedelta(1, 1), True, 1e300],
]  # fmt: skip


UTF_8 = "csv:Text - txt - csv (StarCalc):44,34,76"


def converted(path: Path, kind: str) -> Path:
    folder = path.parent / kind.partition(":")[0]
    profile = f"-env:UserInstallation=file://{path.parent}/profile"
    words = [str(OFFICE), profile, "--headless", "--convert-to", kind, "--outdir", str(folder), str(path)]
    subprocess.run(words, check=True, capture_output=True, timeout=120)
    return folder / f"{path.stem}.{kind.partition(':')[0]}"


def values(path: Path) -> list[list[Any]]:
    return [list(row.values.values()) for row in open_source(path).rows()]


def test_libreoffice_reads_what_is_written(tmp_path: Path) -> None:
    by_openpyxl(TABLE, tmp_path / "in.xlsx")
    answered(tmp_path / "in.xlsx", tmp_path / "out.xlsx")
    with converted(tmp_path / "out.xlsx", UTF_8).open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0] == [*TABLE[0], "llm"]
    assert [row[1] for row in rows[1:]] == [row[1] for row in TABLE[1:]]
    assert rows[1][2:8] == ["2024-05-06 07:08:09", "2024-05-06", "07:08:09", "30:30:00", "TRUE", "0.1"]
    assert [row[-1] for row in rows[1:]] == ["good"] * 4
    back = converted(tmp_path / "out.xlsx", "xlsx")
    assert values(back) == values(tmp_path / "out.xlsx")


@pytest.mark.parametrize("kind", ["xlsx", "ods", "xls"])
def test_what_libreoffice_writes_is_read(tmp_path: Path, kind: str) -> None:
    by_xlsxwriter(TABLE, tmp_path / "in.xlsx")
    expected, found = values(tmp_path / "in.xlsx"), values(converted(tmp_path / "in.xlsx", kind))
    if kind == "ods":  # LibreOffice has no booleans of its own: they are numbers
        for row in expected:
            row[6] = row[6] and int(row[6])
    assert found == expected


def test_error_values_of_libreoffice_are_read(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("a,b,c\n=1/0,=NA(),=1+1\n")
    for kind in ("xlsx", "ods", "xls"):
        assert values(converted(tmp_path / "in.csv", kind)) == [["#DIV/0!", "#N/A", 2]], kind


def test_documents_of_libreoffice_are_read(tmp_path: Path) -> None:
    by_openpyxl([["name", "note"], ["Anna", "It is good"], ["Börn", "So it is"]], tmp_path / "in.xlsx")
    for kind, suffix in (("pdf", ".pdf"), ("html", ".html")):
        made = converted(tmp_path / "in.xlsx", kind)
        text = document_text(made.read_bytes(), suffix)
        assert all(word in text for word in ("Anna", "It is good", "Börn", "So it is"))
