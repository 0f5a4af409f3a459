"""Which files the inputs of a job are: files, patterns, folders."""

import re
from pathlib import Path

import pytest

from batchllm.errors import InputError, JobError, UsageError
from batchllm.job import assemble
from batchllm.prepare.inputs import InputFiles, input_files
from batchllm.prepare.job_paths import job_paths


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with files of all kinds; the working folder is the one it lies in."""
    monkeypatch.chdir(tmp_path)
    folder = Path("data")
    (folder / "more").mkdir(parents=True)
    names = (
        "b.csv", "a.csv", "c.jsonl", ".hidden.csv", "notes.odd", "a.classify.csv", "a.classify.csv.journal",
        "a.classify.trial.csv", "a.classify.skipped.csv", "a.classify.csv.lock", "more/d.csv",
    )  # fmt: skip
    for name in names:
        (folder / name).write_text("text\nx\n")
    return folder


def found(*inputs: str, output: str = "out.csv", **flags: str) -> InputFiles:
    given = {"input": inputs, "output": output, "base_url": "http://127.0.0.1:9/v1", "model": "m", **flags}
    job = assemble("classify", given, {})
    return input_files(job, job_paths(job))


def names(*inputs: str, **flags: str) -> list[str]:
    return [str(path) for path in found(*inputs, **flags).paths]


def test_a_folder_is_its_files_of_known_formats_by_name(data: Path) -> None:
    files = found("data")
    assert [path.name for path in files.paths] == ["a.csv", "b.csv", "c.jsonl"]
    assert files.notes == (
        "3 files",
        "left out: 1 file of another kind, 1 folder, 1 hidden file, 3 outputs",
    )


def test_a_pattern_is_what_it_matches_by_name(data: Path) -> None:
    assert names("data/*.csv", output="out.csv")[-1] == "data/b.csv"
    assert names("data/[ab].csv") == ["data/a.csv", "data/b.csv"]
    assert names("data/**/?.csv") == ["data/a.csv", "data/b.csv", "data/more/d.csv"]
    assert names("data/c.*", "data/[ab].csv") == ["data/c.jsonl", "data/a.csv", "data/b.csv"]


def test_the_jobs_own_output_is_never_its_input(data: Path) -> None:
    for name in ("all.csv", "all.csv.journal", "all.trial.csv"):
        (data / name).write_text("text\n")
    own = names("data/a*.csv", output="data/all.csv")
    assert own == [
        "data/a.classify.csv",
        "data/a.classify.skipped.csv",
        "data/a.classify.trial.csv",
        "data/a.csv",
    ]


def test_an_input_that_the_output_would_overwrite_is_refused_in_a_pattern_too(data: Path) -> None:
    for inputs in (["data/?.csv"], ["data"]):
        with pytest.raises(UsageError, match=r"data/b\.csv is input and output at once"):
            found(*inputs, output="data/b.csv")


def test_a_folder_of_folders_is_refused_with_the_pattern_that_goes_into_them(data: Path) -> None:
    (data / "of" / "part=1").mkdir(parents=True)
    (data / "of" / "part=1" / "x.parquet").write_text("")
    with pytest.raises(InputError, match=r"has no file of rows.*'data/of/\*\*/\*' goes into them"):
        found("data/of")
    assert names("data/of/**/*") == ["data/of/part=1/x.parquet"]


def test_a_folder_of_outputs_says_that_they_are_left_out(data: Path) -> None:
    (data / "done").mkdir()
    (data / "done" / "x.classify.csv").write_text("text\nx\n")
    (data / "done" / "x.classify.csv.journal").write_text("")
    with pytest.raises(InputError, match="the outputs of batchllm in it are left out, so name those"):
        found("data/done")


def test_files_of_any_suffix_are_taken_in_a_format_that_is_named(data: Path) -> None:
    assert names("data/*.odd", input_format="csv") == ["data/notes.odd"]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(data: Path) -> None:
    (data / "x[1].csv").write_text("text\n")
    assert assemble("classify", {"input": "data/x[1].csv", "provider": "simulator"}, {}).output == Path(
        "data/x[1].classify.simulated.csv"
    )


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (["data/*.tsv"], "data/*.tsv: matches no file of rows"),
        (["data/*.odd"], "data/*.odd: matches no file of rows; the suffixes of such files are .csv"),
        (["data/empty"], "data/empty: has no file of rows"),
        (["data/a.csv", "data/a.csv"], "data/a.csv is named twice; name it once"),
        (
            ["data/a.csv", "./data/../data/a.csv"],
            "data/a.csv and data/../data/a.csv are the same file; name it once",
        ),
        (["data", "data/a.csv"], "data/a.csv and data/link.csv are the same file"),
        (["data/[b-l]*.csv", "data/b.csv"], "data/b.csv is named twice"),
        (["data/[ab].csv", "data/link.csv"], "data/a.csv and data/link.csv are the same file"),
        (["data/a.csv", "hard.csv"], "data/a.csv and hard.csv are the same file"),
        (["data/a.csv", "out.csv"], "out.csv is input and output at once"),
        (["data/a.csv", "data/notes.odd"], "data/notes.odd: the suffix '.odd' names no format"),
        (["data/a.csv", "-"], "INPUT must be files, or '-' alone, which is standard input"),
    ],
)
def test_inputs_that_cannot_be_are_refused(data: Path, inputs: list[str], message: str) -> None:
    (data / "empty").mkdir()
    (data / "link.csv").symlink_to("a.csv")
    Path("hard.csv").hardlink_to(data / "a.csv")
    Path("out.csv").write_text("text\n")
    with pytest.raises(JobError, match=re.escape(message)):
        found(*inputs)


@pytest.mark.parametrize("inputs", [["data"], ["data/*.csv"], ["data/a.csv", "data/b.csv"]])
def test_several_inputs_need_an_output(data: Path, inputs: list[str]) -> None:
    with pytest.raises(JobError, match="several inputs need -o: a file"):
        assemble("classify", {"input": inputs, "provider": "simulator"}, {})
