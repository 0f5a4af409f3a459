"""Shards: the same rows whoever computes them, none cut, none twice, and a job of its own with its own journal."""

import csv
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchllm.errors import InputError, UsageError
from batchllm.job import assemble
from batchllm.job.compound import shard as shard_option
from batchllm.prepare.shards import boundaries, conversation_spans
from batchllm.runner import Result, run_job
from tests.command import Command

names = st.lists(st.sampled_from([None, "a", "b", "c", "d", "e"]), max_size=60)


@given(st.integers(0, 200), st.integers(1, 40))
def test_shards_have_each_row_once_and_are_as_equal_as_can_be(rows: int, shards: int) -> None:
    bounds = boundaries(rows, shards)
    assert (bounds[0], bounds[-1], len(bounds)) == (0, rows, shards + 1)
    sizes = [end - start for start, end in pairwise(bounds)]
    assert max(sizes) - min(sizes) <= 1


@given(names, st.integers(1, 12))
def test_no_conversation_is_cut(conversations: list[str | None], shards: int) -> None:
    bounds = boundaries(len(conversations), shards, conversation_spans(conversations))
    assert bounds == sorted(bounds)
    assert (bounds[0], bounds[-1]) == (0, len(conversations))
    parts = [set(conversations[start:end]) - {None} for start, end in pairwise(bounds)]
    assert sum(map(len, parts)) == len(set(conversations) - {None})


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "a/b", "1/", "/2", "-1/2", "1/99999999", "1.5/2", ""])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        shard_option(text)


def source_of(folder: Path, rows: int, per_thread: int = 0) -> Path:
    path = folder / "in.csv"
    lines = [f"{n},row {n},{f't{n // per_thread}' if per_thread else ''}\n" for n in range(rows)]
    path.write_text("id,text,thread\n" + "".join(lines))
    return path


def run(source: Path, shard: str | None, **more: Any) -> Result:
    flags = {
        "input": str(source),
        "prompt": "Say {{ text }}",
        "provider": "simulator",
        "shard": shard,
        **more,
    }
    return run_job(assemble("run", flags, {}))


def test_the_shards_of_an_input_have_its_rows_in_order(tmp_path: Path) -> None:
    source = source_of(tmp_path, 50)
    ids: list[str] = []
    for number in range(1, 5):
        result = run(source, f"{number}/4")
        assert result.output == tmp_path / f"in.run.simulated.shard-{number}-of-4.csv"
        assert result.summary.rows in (12, 13)
        with result.output.open(newline="") as file:
            ids += [row["id"] for row in csv.DictReader(file)]
    assert ids == [str(n) for n in range(50)]


def test_a_shard_whose_input_changes_while_it_runs_is_not_written(tmp_path: Path) -> None:
    source = source_of(tmp_path, 40)
    flags = {"input": str(source), "prompt": "Say {{ text }}", "provider": "simulator", "shard": "2/4"}

    def edit(forecast: object) -> None:
        source.write_text(source.read_text().replace("row 15", "row 99"))

    with pytest.raises(InputError, match="changed while the job ran"):
        run_job(assemble("run", flags, {}), confirm=edit)
    assert not (tmp_path / "in.run.simulated.shard-2-of-4.csv").exists()


def test_a_shard_resumes_and_is_estimated_and_tried_by_its_own_rows(
    tmp_path: Path, batchllm: Command
) -> None:
    source = source_of(tmp_path, 40)
    words = ["run", "-p", "Say {{ text }}", source, "--provider", "simulator", "--shard", "2/4"]
    assert json.loads(batchllm(*words, "--dry-run", "--json").out)["rows"] == 10
    tried = batchllm(*words, "-n", 2)
    assert "2 of 2 rows answered" in tried.err
    assert "row 10" in tried.err, "the first rows of the shard are tried"
    with pytest.raises(Exception, match="--max-requests"):
        run(source, "2/4", max_requests=3)
    again = batchllm(*words)
    assert again.status == 0
    assert "10 of 10 rows answered, 3 of them found in the journal" in again.err, again.err
    output = tmp_path / "in.run.simulated.shard-2-of-4.csv"
    assert "10 of 10 rows answered" in batchllm("status", output).out
    assert "0 requests" in batchllm(*words, "--dry-run").out


def test_conversations_stay_whole_with_their_history(tmp_path: Path) -> None:
    source = source_of(tmp_path, 24, per_thread=6)
    whole: list[str] = []
    for number in (1, 2, 3):
        result = run(source, f"{number}/3", conversation="thread")
        assert result.output is not None
        with result.output.open(newline="") as file:
            whole += [row["thread"] for row in csv.DictReader(file)]
        assert result.summary.rows in (6, 12)
    assert whole == [f"t{n // 6}" for n in range(24)]


def test_more_shards_than_rows_leave_some_empty(tmp_path: Path) -> None:
    source = source_of(tmp_path, 2)
    sizes = [run(source, f"{number}/5").summary.rows for number in range(1, 6)]
    assert sorted(sizes) == [0, 0, 0, 1, 1]


def test_an_output_is_that_of_one_shard(tmp_path: Path) -> None:
    source = source_of(tmp_path, 20)
    run(source, "1/2", output=str(tmp_path / "out.csv"))
    before = (tmp_path / "out.csv").read_bytes()
    for other in ("2/2", "1/3", None):
        with pytest.raises(UsageError, match="is that of shard 1 of 2"):
            run(source, other, output=str(tmp_path / "out.csv"))
    run(source, None, output=str(tmp_path / "whole.csv"))
    with pytest.raises(UsageError, match="is that of the whole input"):
        run(source, "1/2", output=str(tmp_path / "whole.csv"))
    assert (tmp_path / "out.csv").read_bytes() == before


def test_an_output_that_a_job_file_names_gets_the_number_of_the_shard(tmp_path: Path) -> None:
    source_of(tmp_path, 10)
    (tmp_path / "job.toml").write_text(
        '[job]\nprompt = "{{ text }}"\ninput = "in.csv"\noutput = "answers.csv"\nprovider = "simulator"\n'
    )
    job = assemble("run", {"job_file": str(tmp_path / "job.toml"), "shard": "2/3"}, {})
    assert job.output == tmp_path / "answers.shard-2-of-3.csv"
    assert job.journal == tmp_path / "answers.shard-2-of-3.csv.journal"
