"""Jobs over several inputs: what was answered stays answered, whatever files come, go or change their places."""

import csv
import json
import random
from pathlib import Path

import pytest

from batchllm import run
from batchllm.errors import UsageError
from tests.command import Command
from tests.several_jobs import WRITERS, Records, SeveralJob, write_by


def texts(output: Path) -> list[tuple[str, str]]:
    with output.open(newline="") as file:
        return [(row["text"], row["response"]) for row in csv.DictReader(file)]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Files ``a`` to ``d``, of two rows each; two files have a row in common."""
    found = {}
    for name in "abcd":
        rows = [{"text": f"{name} one"}, {"text": "the same" if name in "ac" else f"{name} two"}]
        found[name] = write_by("csv", tmp_path, name, rows)
    return found


@pytest.mark.parametrize(
    ("before", "after", "sent"),
    [
        ("ab", "abc", 2), ("ab", "cab", 2), ("ab", "acb", 2), ("ab", "ba", 0), ("abc", "ac", 0), ("abc", "bc", 0),
        ("abcd", "dcba", 0), ("abc", "db", 2),
    ],
)  # fmt: skip
def test_files_that_come_go_or_move_cost_only_their_own_new_rows(
    tmp_path: Path, files: dict[str, Path], before: str, after: str, sent: int
) -> None:
    job = SeveralJob()
    job.run([files[name] for name in before], tmp_path / "out.csv")
    paid = job.ledger.paid.total()
    job.run([files[name] for name in after], tmp_path / "out.csv")
    assert job.ledger.paid.total() - paid == sent
    expected = [text for name in after for text in files[name].read_text().splitlines()[1:]]
    assert texts(tmp_path / "out.csv") == [(text, text) for text in expected]


def test_a_file_that_is_added_to_a_folder_is_only_its_rows(tmp_path: Path, files: dict[str, Path]) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    files["b"].rename(folder / "b.csv")
    job = SeveralJob()
    job.run([folder], folder / "out.csv")
    files["a"].rename(folder / "a.csv")
    job.run([folder], folder / "out.csv")
    assert job.ledger.paid == {"a one": 1, "the same": 1, "b one": 1, "b two": 1}
    assert [text for text, _ in texts(folder / "out.csv")] == ["a one", "the same", "b one", "b two"]


def kill_and_add(folder: Path, seed: int, rounds: int) -> None:
    """Kills runs at random requests while files are added; nothing is paid twice but what was in flight at a death."""
    chance = random.Random(seed)
    job, output = SeveralJob(concurrency=4), folder / "out.csv"
    inputs: list[Path] = []
    records: dict[Path, Records] = {}
    deaths = 0
    for number in range(rounds):
        rows = [
            {"text": f"{chance.randrange(40)} {chance.choice('äß😀x')}", "n": str(number)} for _ in range(9)
        ]
        path = write_by(chance.choice(WRITERS), folder, f"f{number}", rows)
        records[path] = rows
        inputs.insert(chance.randint(0, len(inputs)), path)
        at = job.ledger.paid.total() + chance.randint(0, 12)
        finished = job.run_killed(at, after=chance.random() < 0.5, inputs=inputs, output=output)
        deaths += not finished
    assert job.run_killed(None, after=False, inputs=inputs, output=output)
    expected = [row["text"] for path in inputs for row in records[path]]
    with output.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    assert [row["text"] for row in rows] == [row["response"] for row in rows] == expected
    assert job.ledger.paid.total() <= len(expected) + 4 * deaths
    paid = job.ledger.paid.total()
    assert job.run_killed(None, after=False, inputs=inputs[::-1], output=output)
    assert job.ledger.paid.total() == paid


def test_runs_that_die_go_on_with_the_files_that_were_added(tmp_path: Path) -> None:
    kill_and_add(tmp_path, seed=1, rounds=3)


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(20))
def test_runs_that_die_at_random_go_on_with_the_files_that_were_added(tmp_path: Path, seed: int) -> None:
    kill_and_add(tmp_path, seed, rounds=6)


def test_every_command_takes_a_job_of_several_inputs(tmp_path: Path, batchllm: Command) -> None:
    for name in "ab":
        (tmp_path / f"{name}.csv").write_text("text,gold\ngood,positive\nbad,negative\n")
    pattern, output = tmp_path / "?.csv", tmp_path / "all.csv"
    words = ("classify", pattern, "--provider", "simulator", "-o", output, "--add", "source_file")
    assert "Input: 2 files" in batchllm(*words, "--dry-run").out
    assert batchllm(*words, "--gold", "gold").status == 0
    assert "4 of 4 rows answered" in batchllm("status", output).out
    assert "row 4" in batchllm("show", output, 4).out
    exported = batchllm("export", output, "-o", tmp_path / "again.jsonl")
    assert exported.status == 0, exported.err
    lines = [json.loads(line) for line in (tmp_path / "again.jsonl").read_text().splitlines()]
    assert [line["source_file"] for line in lines] == [str(tmp_path / f"{name}.csv") for name in "aabb"]
    for command in (
        ("evaluate", output, "--gold", "gold"),
        ("jobs", tmp_path),
        ("clean", output),
    ):
        said = batchllm(*command)
        assert said.status == 0, (command, said.err)
    scheduled = batchllm("schedule", *words)
    assert scheduled.status == 0 and "?.csv" in scheduled.out


@pytest.mark.parametrize(
    ("prompt", "unread"),
    [
        ("{{ text }}", "b.csv, c.jsonl have no text for the prompt, so their 3 rows are not sent"),
        ("{{ text }} {{ id }}", "b.csv, c.jsonl have no text for the prompt, so their 3 rows are not sent"),
        ("{{ review }}", "a.csv has no text for the prompt, so its 1 row is not sent"),
        ("{{ review }} {{ id }}", ""),
    ],
)
def test_files_that_have_no_text_for_the_prompt_are_named(
    tmp_path: Path, batchllm: Command, prompt: str, unread: str
) -> None:
    (tmp_path / "a.csv").write_text("id,text\n1,good\n")
    (tmp_path / "b.csv").write_text("id,review\n2,bad\n3,fine\n")
    (tmp_path / "c.jsonl").write_text('{"id": 4, "review": "poor"}\n')
    (tmp_path / "d.csv").write_text("id,note\n")
    output = tmp_path / "all.csv"
    names = [tmp_path / name for name in ("a.csv", "b.csv", "c.jsonl", "d.csv")]
    said = batchllm("run", "-p", prompt, *names, "--provider", "simulator", "-o", output)
    assert said.status == 0
    assert (unread in said.err.replace(f"{tmp_path}/", "")) and ("no text" in said.err) is bool(unread)


def test_a_job_file_may_have_a_list_of_inputs_relative_to_it(tmp_path: Path, batchllm: Command) -> None:
    (tmp_path / "in").mkdir()
    for name in "ab":
        (tmp_path / "in" / f"{name}.csv").write_text(f"text\n{name}\n")
    job = tmp_path / "job.toml"
    job.write_text(
        '[job]\ninput = ["in/a.csv", "in/[b-z].csv"]\noutput = "all.csv"\ntask = "classify"\nprovider = "simulator"\n'
    )
    checked = batchllm("check", job)
    assert checked.status == 0 and "2 files, csv" in checked.out, checked.out + checked.err
    assert batchllm("run", job).status == 0
    assert len((tmp_path / "all.csv").read_text().splitlines()) == 3
    job.write_text(job.read_text().replace('["in/a.csv", "in/[b-z].csv"]', '"in"'))
    assert batchllm("run", job).status == 0
    assert "2 of 2 rows answered" in batchllm("status", tmp_path / "all.csv").out
    job.write_text(job.read_text().replace('"all.csv"', '"out/"'))
    checked = batchllm("check", job)
    assert checked.status == 0 and not (tmp_path / "out").exists(), checked.out + checked.err
    assert batchllm("run", job).status == 0
    assert sorted(path.name for path in (tmp_path / "out").glob("[!.]*")) == ["a.csv", "b.csv"]


def test_a_list_of_paths_with_an_output_is_one_job(tmp_path: Path, files: dict[str, Path]) -> None:
    output = tmp_path / "out.csv"
    result = run(list(files.values()), "classify", provider="simulator", output=output, add="source_file")
    assert result.summary.rows == 8
    frame = result.frame()
    assert list(frame["source_file"]) == [str(path) for path in files.values() for _ in range(2)]
    assert not (tmp_path / "out.csv.rows.jsonl").exists()


def test_a_pattern_needs_an_output_in_python_too(tmp_path: Path, files: dict[str, Path]) -> None:
    for rows in (tmp_path, [tmp_path / "*.csv"], str(tmp_path / "*.csv")):
        with pytest.raises(UsageError, match="several inputs need output=: a file for all of them"):
            run(rows, "classify", provider="simulator")


def test_rows_in_memory_have_no_file() -> None:
    with pytest.raises(UsageError, match="rows in memory have no file"):
        run([{"text": "a"}], "classify", provider="simulator", add="source_file")


def test_rows_of_csv_cannot_bring_their_own_requests(tmp_path: Path, files: dict[str, Path]) -> None:
    lines = write_by("jsonl", tmp_path, "e", [{"text": "x"}])
    job = SeveralJob(prompt=None)
    with pytest.raises(UsageError, match="run needs to know what to ask"):
        job.run([lines, files["a"]], tmp_path / "out.jsonl")


def test_rows_that_bring_their_own_requests_may_bring_them_in_different_ways(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"messages": [{"role": "user", "content": "hi"}]}\n')
    (tmp_path / "b.jsonl").write_text('{"text": "yo"}\n')
    job = SeveralJob(prompt=None, column=None)
    job.run([tmp_path / "a.jsonl", tmp_path / "b.jsonl"], tmp_path / "out.jsonl", columns="response")
    assert (tmp_path / "out.jsonl").read_text().splitlines() == [
        '{"messages": [{"role": "user", "content": "hi"}],"response":"hi"}',
        '{"text": "yo","response":"yo"}',
    ]


def test_a_prompt_may_read_a_column_that_a_file_lacks(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,lang\na,de\n")
    (tmp_path / "b.csv").write_text("text\nb\n")
    (tmp_path / "c.jsonl").write_text('{"text": "c"}\n')
    job = SeveralJob(prompt="{{ lang }}: {{ text }}")
    job.run([tmp_path / "a.csv", tmp_path / "b.csv", tmp_path / "c.jsonl"], tmp_path / "out.csv")
    assert list(job.ledger.paid) == ["de: a", ": b", ": c"]
