"""Excel: what other programs write is read, what is written others read, and every cell stays what it was."""

import errno
import json
import os
import re
import tempfile
import zipfile
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import openpyxl
import pytest
import xlsxwriter
from hypothesis import HealthCheck, given, settings

from batchllm.errors import CannotWrite, InputError, JobError, StorageFailure, UsageError
from batchllm.formats import Outcome, open_source, plan_columns, write_output
from batchllm.formats.excel_writer import check_rows
from batchllm.records import Answer
from tests.command import Command
from tests.excel_files import WRITERS, Table, answered, by_openpyxl, cells_of, same, tables

FEW = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def book(path: Path, *rows: list[Any], change: Callable[[Any], None] = lambda sheet: None) -> Path:
    """A workbook of one sheet."""
    made = openpyxl.Workbook()
    for row in rows:
        made.active.append(row)
    change(made.active)
    made.save(path)
    return path


def values(path: Path, **options: Any) -> list[list[Any]]:
    """What is read of a file."""
    return [list(row.values.values()) for row in open_source(path, **options).rows()]


@pytest.mark.parametrize("write", WRITERS)
@FEW
@given(table=tables())
def test_every_cell_of_a_workbook_is_in_the_workbook_that_is_written(
    write: Callable[[Table, Path], None], table: list[list[Any]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder, "in.xlsx"), Path(folder, "out.xlsx")
        write(table, path)
        answered(path, out)
        before, after = cells_of(path), cells_of(out)
        assert len(after) == len(before)
        for row, other in zip(before, after, strict=True):
            assert len(other) == len(table[0]) + 1
            row += [None] * (len(table[0]) - len(row))
            assert all(map(same, row, other[:-1])), (row, other)
        answered(path, Path(folder, "again.xlsx"))
        assert Path(folder, "again.xlsx").read_bytes() == out.read_bytes()


@FEW
@given(table=tables())
def test_a_workbook_goes_through_jsonl_and_back(table: list[list[Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, between, out = (Path(folder, name) for name in ("in.xlsx", "between.jsonl", "out.xlsx"))
        by_openpyxl(table, path)
        answered(path, between)
        lines = [json.loads(line) for line in between.read_text("utf-8").splitlines()]
        for row in lines:
            del row["llm"]
        assert [list(row.values()) for row in lines] == values(path)
        between.write_text("".join(json.dumps(row) + "\n" for row in lines), "utf-8")
        answered(between, out)
        assert values(out) == [[*row, "good"] for row in values(path)]


def test_dates_times_and_durations_go_through_parquet(tmp_path: Path) -> None:
    table: Table = [
        ["moment", "day", "time", "long", "whole", "part", "flag", "text"],
        [
            datetime(2024, 5, 6, 7, 8, 9, 5000),
            datetime(2024, 5, 6),
            time(7, 8),
            timedelta(hours=30),
            3,
            0.1,
            True,
            "=x",
        ],
        [None, None, None, timedelta(1), None, 2.5, False, "y"],
    ]
    by_openpyxl(table, tmp_path / "in.xlsx")
    answered(tmp_path / "in.xlsx", tmp_path / "between.parquet")
    between = open_source(tmp_path / "between.parquet")
    columns = plan_columns(between.scan().columns, [], columns=[])
    outcomes = [Outcome(row.index, Answer()) for row in between.rows()]
    out = tmp_path / "out.xlsx"
    write_output(between, outcomes, path=out, columns=columns, output_format="xlsx")
    assert [row[:-1] for row in cells_of(out)] == table


@pytest.mark.parametrize(
    ("moment", "read"),
    [
        (datetime(9999, 12, 31, 23, 59, 59, 999_999), datetime(9999, 12, 31, 23, 59, 59, 999_000)),
        (datetime(2024, 12, 31, 23, 59, 59, 999_999), datetime(2024, 12, 31, 23, 59, 59, 999_000)),
        (datetime(1900, 2, 28, 23, 59, 59, 999_700), datetime(1900, 2, 28, 23, 59, 59, 999_000)),
        (datetime(2024, 1, 1, 12, 0, 0, 700), datetime(2024, 1, 1, 12)),
        (time.max, time(23, 59, 59, 999_000)),
    ],
)
def test_the_last_moment_of_a_day_stays_on_that_day(tmp_path: Path, moment: Any, read: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"moment": [moment]}), tmp_path / "in.parquet")
    answered(tmp_path / "in.parquet", tmp_path / "out.xlsx")
    assert cells_of(tmp_path / "out.xlsx")[1] == [read, "good"]
    row = next(iter(open_source(tmp_path / "out.xlsx").rows()))
    assert row.values["moment"] == read.isoformat()


def test_error_values_that_the_reader_does_not_know_are_their_text(tmp_path: Path) -> None:
    table: Table = [["text", "a", "b"], ["#SPILL!", 1, 2], ["x", 3, "#CALC!"]]
    cell = re.compile(rb'<c r="(A1|B2)"[^>]*>.*?</c>')

    def with_errors(match: re.Match[bytes]) -> bytes:
        value = {b"A1": b"#ERROR!", b"B2": b"#SPILL!"}[match[1]]
        return b'<c r="%s" s="0" t="e"><f ca="1">F(1)</f><v>%s</v></c>' % (match[1], value)

    made = openpyxl.Workbook()
    for sheet in (made.active, made.create_sheet("second")):
        for cells in table:
            sheet.append(cells)
    made.save(tmp_path / "plain.xlsx")
    with (
        zipfile.ZipFile(tmp_path / "plain.xlsx") as plain,
        zipfile.ZipFile(tmp_path / "in.xlsx", "w") as changed,
    ):
        for name in plain.namelist():
            content = plain.read(name)
            changed.writestr(name, cell.sub(with_errors, content) if "sheet1" in name else content)
    source = open_source(tmp_path / "in.xlsx")
    assert source.header(source.columns) == ["#ERROR!", "a", "b"]
    assert [[*row.values.values()] for row in source.rows()] == [
        ["#SPILL!", "#SPILL!", 2],
        ["x", 3, "#CALC!"],
    ]
    assert "2 cells with an error value (A1: #ERROR!)" in source.describe()


def test_values_are_shown_as_their_type_says(tmp_path: Path) -> None:
    cells = [
        3,
        2.5,
        True,
        datetime(2024, 5, 6, 7, 8, 9),
        date(2024, 5, 6),
        time(7, 8),
        timedelta(hours=30.5),
        "",
    ]
    path = book(tmp_path / "in.xlsx", [f"c{number}" for number in range(8)], cells)
    [row] = values(path)
    assert row == [3, 2.5, True, "2024-05-06T07:08:09", "2024-05-06", "07:08:00", "30:30:00", None]
    assert type(row[0]) is int
    answered(path, tmp_path / "out.csv")
    line = (tmp_path / "out.csv").read_text().splitlines()[1]
    assert line == "3,2.5,true,2024-05-06T07:08:09,2024-05-06,07:08:00,30:30:00,,good"


def test_text_of_another_format_stays_text_and_numbers_that_no_cell_holds_become_text(tmp_path: Path) -> None:
    rows = tmp_path / "in.jsonl"
    rows.write_text(
        '{"a":"=1+1","b":12345678901234567890,"c":1e400,"d":0.1,"e":[1,"x"],"f":null,"g":"007","h":1e-400,'
        '"i":0.0}\n'
    )
    answered(rows, tmp_path / "out.xlsx")
    assert cells_of(tmp_path / "out.xlsx")[1] == [
        "=1+1", "12345678901234567890", "1e400", 0.1, '[1,"x"]', None, "007", "1e-400", 0, "good",
    ]  # fmt: skip
    sheet = openpyxl.load_workbook(tmp_path / "out.xlsx").active
    assert sheet["A2"].data_type == sheet["G2"].data_type == "s"


@pytest.mark.parametrize(
    "text",
    ["_x0041_", "_x005F_x0041_", "\x01\x0b", "a\rb", "a\r\nb", "<r>x</r>", "é" * 32_767, "😀" * 16_383],
)
def test_hard_text_comes_back(tmp_path: Path, text: str) -> None:
    rows = tmp_path / "in.jsonl"
    rows.write_text(json.dumps({"a": text}) + "\n")
    answered(rows, tmp_path / "out.xlsx")
    assert values(tmp_path / "out.xlsx") == [[text, "good"]]
    if (
        "_x005F" not in text and "x000D" not in text and "\x01" not in text
    ):  # openpyxl leaves out such escapes
        assert cells_of(tmp_path / "out.xlsx")[1] == [text, "good"]


def test_error_values_are_their_text_and_formulas_without_a_value_are_named(tmp_path: Path) -> None:
    path = tmp_path / "in.xlsx"
    with xlsxwriter.Workbook(str(path)) as made:
        sheet = made.add_worksheet()
        sheet.write_row(0, 0, ["a", "b"])
        sheet.write_formula(1, 0, "=1/0", None, "#DIV/0!")
        sheet.write_formula(1, 1, "=1+1", None, 2)
        sheet.write_formula(2, 0, '=""', None, "")
        sheet.write_string(2, 1, "x")
    source = open_source(path)
    assert [list(row.values.values()) for row in source.rows()] == [["#DIV/0!", 2], [None, "x"]]
    assert "1 cell with an error value (A2: #DIV/0!)" in ", ".join(source.notes)
    source = open_source(book(path, ["a", "b"], ["x", "=1+1"]))
    assert "1 formula without a value, read as empty (B2)" in ", ".join(source.notes)


def test_the_first_visible_sheet_with_rows_is_read_and_others_by_name_or_number(tmp_path: Path) -> None:
    made = openpyxl.Workbook()
    made.active.title = "Cover"
    made.active["A1"] = "Report of May"
    for name, state in (("Old", "hidden"), ("Rows", "visible"), ("2", "visible")):
        sheet = made.create_sheet(name)
        sheet.sheet_state = state
        sheet.append(["text"])
        sheet.append([name])
    made.create_chartsheet("Chart")
    path = tmp_path / "in.xlsx"
    made.save(path)
    assert open_source(path).notes == ("the sheet 'Rows' is read, and not 'Cover', 'Old', '2' (--sheet)",)
    assert values(path) == [["Rows"]]
    assert values(path, sheet="Old") == [["Old"]]
    assert values(path, sheet="2") == [["2"]]
    assert values(path, sheet="3") == [["Rows"]]
    with pytest.raises(UsageError, match="no sheet 'rows' .did you mean Rows.*1 'Cover', 2 'Old', 3 'Rows'"):
        open_source(path, sheet="rows")


def test_blank_rows_and_empty_columns_around_the_table_are_no_data(tmp_path: Path) -> None:
    def change(sheet: Any) -> None:
        for cell, value in {"C4": "id", "E4": "text", "C5": 1, "D5": "x", "E7": "y", "E9": "z"}.items():
            sheet[cell] = value

    path = book(tmp_path / "in.xlsx", change=change)
    source = open_source(path)
    assert source.columns == ("id", "column_2", "text")
    assert [(row.index, row.line, *row.values.values()) for row in source.rows(1)] == [
        (1, 7, None, None, "y"),
        (2, 9, None, None, "z"),
    ]


def test_a_title_above_the_header_is_refused_until_it_is_skipped(tmp_path: Path) -> None:
    path = book(tmp_path / "in.xlsx", ["Sales of May"], [], ["id", "text", "text"], [1, "x", "y"])
    with pytest.raises(InputError, match="names only the first column, like a title; say --skip-lines"):
        open_source(path)
    assert open_source(path, skip_lines=2).columns == ("id", "text (column 2)", "text (column 3)")
    with pytest.raises(InputError, match="line 2: is blank; the row below --skip-lines .* --skip-lines 2"):
        open_source(path, skip_lines=1)
    with pytest.raises(InputError, match="has no rows below --skip-lines"):
        open_source(path, skip_lines=9)


def test_merged_cells_are_named(tmp_path: Path) -> None:
    path = book(
        tmp_path / "in.xlsx", ["a", "b"], ["x", 1], [None, 2], change=lambda sheet: sheet.merge_cells("A2:A3")
    )
    source = open_source(path)
    assert [row.values["a"] for row in source.rows()] == ["x", None]
    assert source.notes == ("1 merged cell, with the value in the first row and column alone (A2)",)


def test_a_workbook_that_changes_between_two_passes_is_noticed(tmp_path: Path) -> None:
    path = book(tmp_path / "in.xlsx", ["a"], ["x"])
    source = open_source(path)
    before = source.scan().sha256
    list(source.rows())
    assert source.digest() == before
    book(path, ["a"], ["y"])
    assert [row.values["a"] for row in source.rows()] == ["y"]
    assert source.digest() != before
    book(path, ["b"], ["y"])
    with pytest.raises(InputError, match="its header changed"):
        list(source.rows())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            b"<html><head><title>Sign in</title></head></html>",
            "is an HTML page; if it shows a table, open it",
        ),
        (b"id,text\n1,hello\n", "is text, such as CSV; name it .csv, or add --input-format csv"),
        (b'{"id":1}\n{"id":2}\n', "is JSONL; name it .jsonl"),
        (b"", "is empty"),
        (b"PK\3\4" + bytes(100), "cannot be read as a workbook"),
        (b"%PDF-1.4 ...", "is a PDF document"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(2000), "cannot be read as a workbook"),
    ],
)
@pytest.mark.parametrize("suffix", [".xlsx", ".xls", ".ods"])
def test_what_is_no_workbook_is_recognized_by_its_bytes(
    tmp_path: Path, content: bytes, reason: str, suffix: str
) -> None:
    path = tmp_path / f"in{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError, match=reason):
        open_source(path)


def test_a_damaged_workbook_is_refused_or_read_right(tmp_path: Path) -> None:
    rows = [[f"row number {index}", index] for index in range(200)]
    whole = book(tmp_path / "in.xlsx", ["text", "n"], *rows).read_bytes()
    path = tmp_path / "damaged.xlsx"
    for at in range(60, len(whole), 251):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        try:
            assert values(path) == rows
        except InputError:
            continue


def test_tabs_and_line_breaks_of_an_ods_are_characters(tmp_path: Path) -> None:
    cells = [
        "text",
        'a<text:tab/>b<text:line-break/>c <text:s text:c="2"/>d<text:tab text:tab-ref="1"></text:tab>e',
    ]
    rows = "".join(
        f'<table:table-row><table:table-cell office:value-type="string"><text:p>{cell}</text:p></table:table-cell>'
        "</table:table-row>"
        for cell in cells
    )
    spaces = "".join(
        f' xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"'
        for name in ("office", "table", "text")
    )
    kind = "application/vnd.oasis.opendocument.spreadsheet"
    with zipfile.ZipFile(tmp_path / "in.ods", "w") as archive:
        archive.writestr("mimetype", kind)
        archive.writestr(
            "content.xml",
            f"<office:document-content{spaces}><office:body><office:spreadsheet>"
            f'<table:table table:name="Sheet">{rows}</table:table>'
            "</office:spreadsheet></office:body></office:document-content>",
        )
        archive.writestr(
            "META-INF/manifest.xml",
            '<manifest:manifest xmlns:manifest="urn:oasis:names:tc:opendocument:xmlns:manifest:1.0">'
            f'<manifest:file-entry manifest:full-path="/" manifest:media-type="{kind}"/></manifest:manifest>',
        )
    assert values(tmp_path / "in.ods") == [["a\tb\nc   d\te"]]


def test_a_workbook_by_another_name_says_how_it_is_read(tmp_path: Path) -> None:
    path = book(tmp_path / "made.xlsx", ["a"], ["x"]).rename(tmp_path / "in.csv")
    with pytest.raises(InputError, match=r"is an Excel workbook; name it .xlsx, or add --input-format xlsx"):
        open_source(path)
    assert values(path, format="xlsx") == [["x"]]
    spooled = path.rename(tmp_path / "batchllm-stdin")
    assert values(spooled) == [["x"]]


def test_a_stray_cell_far_out_is_refused_before_it_takes_all_memory(tmp_path: Path) -> None:
    path = book(tmp_path / "in.xlsx", ["a"], ["x"], change=lambda sheet: sheet.cell(1_048_576, 16_384, "y"))
    with pytest.raises(InputError, match="its 3 cells reach to XFD1048576; delete the cells far outside"):
        open_source(path)


def test_of_several_sheets_one_with_a_stray_cell_far_out_is_not_loaded(tmp_path: Path) -> None:
    made = openpyxl.Workbook()
    made.active.append(["far"])
    made.active.cell(1_048_576, 16_384, "y")
    other = made.create_sheet("table")
    other.append(["text"])
    other.append(["x"])
    made.save(tmp_path / "in.xlsx")
    with pytest.raises(InputError, match="reach to XFD1048576"):
        open_source(tmp_path / "in.xlsx")
    assert values(tmp_path / "in.xlsx", sheet="table") == [["x"]]


def test_a_missing_library_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchllm.formats.format.find_spec", lambda name: None)
    expected = r"XLSX needs python_calamine and xlsxwriter; install with: \S+ -m pip install "
    with pytest.raises(UsageError, match=expected):
        open_source(book(tmp_path / "in.xlsx", ["a"], ["x"]))


def test_a_text_that_no_cell_holds_is_refused_before_anything_is_sent(
    batchllm: Command, tmp_path: Path
) -> None:
    rows = tmp_path / "in.csv"
    rows.write_text(f"id,text\n1,short\n2,{'long ' * 7000}\n")
    said = batchllm("summarize", rows, "-o", tmp_path / "out.xlsx", "--provider", "simulator")
    assert said.status == 2
    assert (
        "row 2, column 'text': a cell of Excel holds 32,767 characters, and this text has 35,000" in said.err
    )
    assert not (tmp_path / "out.xlsx.journal").exists()
    rows.write_text(f"{','.join(f'c{number}' for number in range(16_380))}\n{',' * 16_379}\n")
    said = batchllm("run", "-p", "{{ c1 }}", rows, "-o", tmp_path / "out.xlsx", "--provider", "simulator")
    assert said.status == 2
    assert "a sheet of Excel has 16,384 columns, and the output has 16,388" in said.err


def test_more_rows_than_a_sheet_has_are_refused(tmp_path: Path) -> None:
    source = open_source(book(tmp_path / "in.xlsx", ["a"], ["x"]))
    columns = plan_columns(source.columns, ["llm"])
    check_rows(source, 1_048_575, columns)
    with pytest.raises(UsageError, match="has 1,048,576 rows, and the output has more"):
        check_rows(source, 1_048_576, columns)


def test_an_answer_that_no_cell_holds_is_cut_and_says_so(tmp_path: Path) -> None:
    source = open_source(book(tmp_path / "in.xlsx", ["a"], ["x"]))
    answer = Answer(columns={"llm": "😀" * 20_000})
    columns = plan_columns(source.scan().columns, ["llm"], columns=["llm"])
    out = tmp_path / "out.xlsx"
    write_output(source, [Outcome(0, answer)], path=out, columns=columns, output_format="xlsx")
    cell = cells_of(out)[1][1]
    assert cell.endswith(
        "[cut: an Excel cell holds 32,767 characters; batchllm export OUTPUT -o FILE.csv has all]"
    )
    assert 32_700 < len(cell.encode("utf-16-le")) / 2 <= 32_767


def test_every_command_takes_workbooks(batchllm: Command, tmp_path: Path) -> None:
    rows = book(
        tmp_path / "in.xlsx",
        ["id", "review", "gold"],
        *([n, f"It is good, number {n}", "positive"] for n in range(9)),
    )
    words = ("classify", rows, "--provider", "simulator", "--column", "review", "--gold", "gold")
    out = tmp_path / "in.classify.simulated.xlsx"
    assert batchllm(*words, "-n", "3").status == 0
    assert len(cells_of(tmp_path / "in.classify.simulated.trial.xlsx")) == 4
    assert batchllm(*words).status == 0
    before = out.read_bytes()
    said = batchllm(*words)
    assert (said.status, out.read_bytes()) == (0, before)
    assert "9 answered already" in said.err
    assert batchllm("evaluate", out, "--gold", "gold").status == 0
    assert batchllm("report", out).status == 0
    assert batchllm("compare", out, out, "--gold", "gold").status in (0, 2)
    assert batchllm("export", out, "-o", tmp_path / "out.csv").status == 0
    assert (tmp_path / "out.csv").read_text().count("positive") >= 9
    out.unlink()
    assert batchllm(*words).status == 0
    assert out.read_bytes() == before
    assert batchllm(*words, "-o", tmp_path / "out.ods").status == 2


@pytest.mark.parametrize("where", ["xlsxwriter.workbook.ZipFile", "tempfile.mkdtemp"])
@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, CannotWrite), (errno.EIO, StorageFailure)])
def test_a_full_folder_of_temporary_files_is_told_from_a_broken_one(
    where: str, number: int, kind: type[JobError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: Any, **more: Any) -> Any:
        raise OSError(number, os.strerror(number))

    path = book(tmp_path / "in.xlsx", ["text"], ["good"])
    monkeypatch.setattr(where, fails)
    with pytest.raises(kind, match=os.strerror(number)):
        answered(path, tmp_path / "out.xlsx")
    assert not (tmp_path / "out.xlsx").exists()
