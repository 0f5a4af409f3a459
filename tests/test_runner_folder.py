"""A folder of outputs: one for each input, each put in place alone, one journal for all."""

import csv
import io
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from batchllm.errors import CannotWrite, UsageError
from batchllm.formats import open_source, write_output
from batchllm.journal import JournalReader
from tests.command import Command
from tests.several_jobs import Records, SeveralJob, write_by
from tests.test_formats_several import split_tables


def written(path: Path) -> list[dict[str, Any]]:
    source = open_source(path)
    source.scan()
    return [dict(row.values) for row in source.rows()]


@pytest.fixture
def inputs(tmp_path: Path) -> list[Path]:
    """CSV of two rows, with semicolons, and JSONL of one row, in a folder ``in``."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.csv").write_text('id;text\n1;"a one"\n2;a two\n')
    (tmp_path / "in/b.jsonl").write_text('{"text": "b one", "n": 1.50}\n')
    return [tmp_path / "in/a.csv", tmp_path / "in/b.jsonl"]


def check_folder(folder: Path, files: list[tuple[str, Records]]) -> None:
    (folder / "in").mkdir()
    paths = [write_by(writer, folder / "in", f"{i}", records) for i, (writer, records) in enumerate(files)]
    SeveralJob(prefix="llm_").run(paths, f"{folder}/out/")
    for path, (_, records) in zip(paths, files, strict=True):
        rows = written(folder / "out" / path.name)
        assert [{name: row[name] for name in row if not name.startswith("llm_")} for row in rows] == records
        assert [row["llm_response"].strip() for row in rows] == [record["text"].strip() for record in records]
        if path.suffix != ".jsonl":
            own, ours = path.read_bytes().splitlines()[0], (folder / "out" / path.name).read_bytes()
            assert ours.startswith(own)


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(files=split_tables())
def test_each_output_has_the_cells_and_the_format_of_its_input(files: list[tuple[str, Records]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        check_folder(Path(folder), files)


@pytest.mark.proof
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(files=split_tables())
def test_each_of_many_random_outputs_has_the_cells_of_its_input(files: list[tuple[str, Records]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        check_folder(Path(folder), files)


def test_one_journal_and_no_lock_lie_in_the_folder(tmp_path: Path, inputs: list[Path]) -> None:
    SeveralJob(columns="error").run(inputs, f"{tmp_path}/out/")
    assert sorted(os.listdir(tmp_path / "out")) == [".batchllm.journal", "a.csv", "b.jsonl"]
    assert (tmp_path / "out/a.csv").read_text() == 'id;text;error\n1;"a one";\n2;a two;\n'
    assert (tmp_path / "out/b.jsonl").read_text() == '{"text": "b one", "n": 1.50,"error":null}\n'


def test_one_input_may_go_into_a_folder(tmp_path: Path, inputs: list[Path]) -> None:
    SeveralJob(columns="error").run(inputs[:1], f"{tmp_path}/out/")
    assert sorted(os.listdir(tmp_path / "out")) == [".batchllm.journal", "a.csv"]


def test_an_input_that_is_added_costs_its_rows_and_changes_no_other_output(
    tmp_path: Path, inputs: list[Path]
) -> None:
    job = SeveralJob()
    job.run(inputs[1:], f"{tmp_path}/out/")
    before, inode = (tmp_path / "out/b.jsonl").read_bytes(), (tmp_path / "out/b.jsonl").stat().st_ino
    (tmp_path / "out/.a.csv.0123456789abcdef.tmp").write_text("left by a run that died")
    job.run([tmp_path / "in"], f"{tmp_path}/out/")
    assert (tmp_path / "out/b.jsonl").read_bytes() == before
    assert (tmp_path / "out/b.jsonl").stat().st_ino == inode
    assert sorted(os.listdir(tmp_path / "out")) == [".batchllm.journal", "a.csv", "b.jsonl"]
    assert [row["response"] for row in written(tmp_path / "out/a.csv")] == ["a one", "a two"]
    assert set(job.ledger.paid.values()) == {1} and len(job.ledger.paid) == 3
    job.run(inputs[:1], f"{tmp_path}/out/")
    assert (tmp_path / "out/b.jsonl").read_bytes() == before
    assert len(job.ledger.paid) == 3


@pytest.mark.parametrize("after", [False, True])
def test_a_run_that_dies_goes_on_in_its_folder(tmp_path: Path, inputs: list[Path], after: bool) -> None:
    job = SeveralJob(concurrency=1)
    assert not job.run_killed(1, after=after, inputs=inputs, output=f"{tmp_path}/out/")
    assert job.run_killed(None, after=after, inputs=inputs[::-1], output=f"{tmp_path}/out/")
    assert [row["response"] for row in written(tmp_path / "out/a.csv")] == ["a one", "a two"]
    assert job.ledger.paid.total() <= 3 + after


def test_a_run_that_dies_between_two_files_knows_those_it_has_put_in_place(
    tmp_path: Path, inputs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    job, count = SeveralJob(), iter(range(9))

    def dying(*args: Any, **named: Any) -> Any:
        if next(count) == 1:
            raise RuntimeError("dead")
        return write_output(*args, **named)

    monkeypatch.setattr("batchllm.runner.output.write_output", dying)
    with pytest.raises(RuntimeError, match="dead"):
        job.run(inputs, f"{tmp_path}/out/")
    assert sorted(os.listdir(tmp_path / "out"))[1:] == ["a.csv"]
    job.run(inputs, f"{tmp_path}/out/")
    assert sorted(os.listdir(tmp_path / "out"))[1:] == ["a.csv", "b.jsonl"]
    assert set(job.ledger.paid.values()) == {1}


def test_outputs_that_are_up_to_date_are_left_alone(tmp_path: Path, inputs: list[Path]) -> None:
    job = SeveralJob()
    job.run(inputs, f"{tmp_path}/out/")
    before = [(tmp_path / "out" / path.name).stat().st_mtime_ns for path in inputs]
    job.run(inputs, f"{tmp_path}/out/")
    assert [(tmp_path / "out" / path.name).stat().st_mtime_ns for path in inputs] == before
    (tmp_path / "out/a.csv").unlink()
    job.run(inputs, f"{tmp_path}/out/")
    assert len(written(tmp_path / "out/a.csv")) == 2


def test_a_file_that_is_not_ours_is_overwritten_with_force_alone(tmp_path: Path, inputs: list[Path]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/b.jsonl").write_text("mine\n")
    job = SeveralJob()
    with pytest.raises(UsageError, match=r"out/b.jsonl exists and is not this job's"):
        job.run(inputs, tmp_path / "out")
    assert (os.listdir(tmp_path / "out"), job.ledger.paid.total()) == (["b.jsonl"], 0)
    job.run(inputs, tmp_path / "out", force=True)
    (tmp_path / "out/a.csv").write_text("edited\n")
    with pytest.raises(UsageError, match=r"out/a.csv was edited since"):
        job.run(inputs, tmp_path / "out")
    job.run(inputs, tmp_path / "out", restart=True, force=True)
    assert len(written(tmp_path / "out/a.csv")) == 2


def test_a_restart_knows_the_outputs_of_the_journal_that_it_puts_aside(
    tmp_path: Path, inputs: list[Path]
) -> None:
    job = SeveralJob()
    job.run(inputs, f"{tmp_path}/out/")
    job.run(inputs, f"{tmp_path}/out/", restart=True)
    assert set(job.ledger.paid.values()) == {2}
    job.run(inputs, f"{tmp_path}/out/")


def test_a_trial_goes_into_a_folder_of_its_own_once_the_job_is_finished(
    tmp_path: Path, inputs: list[Path]
) -> None:
    job = SeveralJob()
    job.run(inputs, f"{tmp_path}/out/", limit=1)
    assert len(written(tmp_path / "out/a.csv")) == 1 and not (tmp_path / "out/b.jsonl").exists()
    job.run(inputs, f"{tmp_path}/out/")
    result = job.run(inputs, f"{tmp_path}/out/", limit=1)
    assert (result.output, result.instead_of) == (tmp_path / "out.trial", tmp_path / "out")
    assert os.listdir(tmp_path / "out.trial") == ["a.csv"]
    assert len(written(tmp_path / "out/a.csv")) == 2
    job.run(inputs, f"{tmp_path}/out/", limit=2)
    assert len(written(tmp_path / "out.trial/a.csv")) == 2


def test_records_that_cannot_be_rows_lie_beside_their_output(tmp_path: Path, inputs: list[Path]) -> None:
    inputs[0].write_text("id;text\n1;a one\n2\n")
    assert SeveralJob(bad_rows="skip").run(inputs, f"{tmp_path}/out/").exit_status == 1
    assert (tmp_path / "out/a.skipped.csv").read_text() == "id;text\n2\n"


def test_columns_are_chosen_in_each_output(tmp_path: Path, inputs: list[Path]) -> None:
    SeveralJob(columns="error", add="source_file").run(inputs, f"{tmp_path}/out/", keep="text,n")
    assert (tmp_path / "out/a.csv").read_text().splitlines()[1] == f"a one;;{inputs[0]}"
    assert [list(row) for row in written(tmp_path / "out/b.jsonl")] == [["text", "n", "error", "source_file"]]


def test_sheets_that_are_not_written_become_sheets_that_are(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in [("text", "n"), ("a", 7)]:
        book.active.append(row)
    book.save(tmp_path / "a.xlsx")
    (tmp_path / "b.csv").write_text("text\nb\n")
    SeveralJob(columns="error").run([tmp_path / "a.xlsx", tmp_path / "b.csv"], f"{tmp_path}/out/")
    sheet = openpyxl.load_workbook(tmp_path / "out/a.xlsx").active
    assert list(sheet.iter_rows(values_only=True)) == [("text", "n", "error"), ("a", 7, None)]


def test_a_folder_that_cannot_be_is_refused_without_a_trace(tmp_path: Path, inputs: list[Path]) -> None:
    job = SeveralJob()
    (tmp_path / "in/more").mkdir()
    (tmp_path / "in/more/a.csv").write_text("text\nx\n")
    for folder, named, error, message in (
        ("in/", inputs, UsageError, "would overwrite the input"),
        ("none/out/", inputs, CannotWrite, "none is not a folder; create it"),
        ("in/a.csv/", inputs, UsageError, "its name ends like that of a file"),
        ("out", inputs, UsageError, "ends with /"),
    ):
        with pytest.raises(error, match=message):
            job.run(named, f"{tmp_path}/{folder}")
    assert sorted(os.listdir(tmp_path)) == ["in"] and job.ledger.paid.total() == 0


def test_every_command_takes_a_folder_of_outputs(tmp_path: Path, batchllm: Command) -> None:
    (tmp_path / "in").mkdir()
    for name in "ab":
        (tmp_path / f"in/{name}.csv").write_text("text,gold\ngood,positive\nbad,negative\n")
    out = tmp_path / "out"
    words = ("classify", tmp_path / "in", "--provider", "simulator", "-o", f"{out}/")
    assert batchllm(*words, "--dry-run").status == 0 and not out.exists()
    said = batchllm(*words)
    assert said.status == 0 and f"Written: {out}/" in said.err
    assert "4 of 4 rows answered" in batchllm("status", out).out
    assert f"row 4 of {out}\nfrom {tmp_path}/in/b.csv, line 3\n" in batchllm("show", out, 4).out
    figures = json.loads(batchllm("evaluate", out, "--gold", "gold", "--json").out)
    assert figures["rows"] == 4
    report = batchllm("report", out, "--gold", "gold")
    assert report.status == 0 and (tmp_path / "out.report.html").exists(), report.err
    page = (tmp_path / "out.report.html").read_text()
    assert "left out" not in page
    assert batchllm("export", out, "-o", tmp_path / "one.csv").status == 0
    assert len(list(csv.reader(io.StringIO((tmp_path / "one.csv").read_text())))) == 5
    assert batchllm("export", out, "-o", tmp_path / "parts").status == 0
    for name in "ab":
        assert (tmp_path / f"parts/{name}.csv").read_bytes() == (out / f"{name}.csv").read_bytes()
    assert json.loads(batchllm("evaluate", tmp_path / "parts", "--gold", "gold", "--json").out)["rows"] == 4
    both = batchllm("evaluate", out / "a.csv", out / "b.csv", "--gold", "gold", "--json")
    assert json.loads(both.out) | {"output": ""} == figures | {"output": ""}, both.err
    assert batchllm("export", out).status == 0
    assert str(out) in batchllm("jobs", out).out
    assert batchllm("clean", out).status == 0 and not (out / ".batchllm.journal").exists()


def test_the_frame_of_a_folder_has_all_rows(tmp_path: Path, inputs: list[Path]) -> None:
    result = SeveralJob().run(inputs[::-1], f"{tmp_path}/out/")
    assert list(result.frame()["text"]) == ["b one", "a one", "a two"]
    with JournalReader.open(tmp_path / "out/.batchllm.journal") as reader:
        assert reader.get("output")["files"] == ["b.jsonl", "a.csv"]


def test_outputs_that_a_pattern_matches_are_no_inputs_of_the_next_run(
    tmp_path: Path, inputs: list[Path]
) -> None:
    job = SeveralJob()
    for _ in range(2):
        job.run([tmp_path / "in/**/*.*"], f"{tmp_path}/in/out/")
        assert sorted(os.listdir(tmp_path / "in/out")) == [".batchllm.journal", "a.csv", "b.jsonl"]
    assert job.ledger.paid.total() == 3


def test_files_may_have_names_that_are_no_unicode(tmp_path: Path, batchllm: Command) -> None:
    name = os.fsdecode(b"\xff.csv")
    (tmp_path / "in").mkdir()
    for text, each in (("a", name), ("b", "b.csv")):
        (tmp_path / "in" / each).write_text(f"id,text,gold\n1,{text},{text}\nbad\n")
    job, out = SeveralJob(bad_rows="skip"), tmp_path / "out"
    for _ in range(2):
        assert job.run([tmp_path / "in"], f"{out}/", gold="gold").exit_status == 1
        assert len(written(out / name)) == len(written(out / "b.csv")) == 1
    assert job.ledger.paid.total() == 2
    for command in (
        ("status", out),
        ("export", out),
        ("evaluate", out / name, "--gold", "gold"),
        ("report", out),
    ):
        said = batchllm(*command)
        assert said.status == 0, (command, said.err)
    assert "left out" not in (tmp_path / "out.report.html").read_text()


def test_inputs_of_one_name_get_the_folders_that_tell_them_apart(tmp_path: Path) -> None:
    names = ("in/a/x/r.csv", "in/b/x/r.csv", "in/b/y/r.jsonl", "in/r.tsv", "in/c/s.csv")
    paths = [tmp_path / name for name in names]
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        row = f'{{"text": "{number}"}}' if path.suffix == ".jsonl" else f"id,text\n1,{number}"
        content = f"{row}\n1,2,3\n2,two\n" if number < 2 else f"{row}\n"
        path.write_text(content.replace(",", "\t") if path.suffix == ".tsv" else content)
    SeveralJob(prefix="llm_").run(paths, f"{tmp_path}/out/", bad_rows="skip")
    found = {path.name: path for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")}
    expected = ["a-x-r.csv", "b-x-r.csv", "r.jsonl", "r.tsv", "s.csv"]
    assert sorted(found) == sorted([*expected, "a-x-r.skipped.csv", "b-x-r.skipped.csv"])
    assert [written(found[name])[0]["text"] for name in expected] == ["0", "1", "2", "3", "4"]
