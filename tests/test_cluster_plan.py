"""The plan: contiguous ranges of rows, frozen, that cut no conversation."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.cluster.plan import FIRST_ROWS, ClusterPlan
from batchllm.cluster.planner import MOST_ROWS, SHARDS_PER_WORKER, cut, hashed, new_plan
from batchllm.errors import InputError
from batchllm.formats import open_source
from batchllm.job import assemble
from batchllm.prepare.job_paths import job_paths
from batchllm.prepare.prepared_job import prepare_job
from batchllm.prepare.shards import conversation_spans


@settings(max_examples=60)
@given(st.integers(0, 50_000), st.integers(1, 40))
def test_ranges_have_every_row_once_in_order(rows: int, workers: int) -> None:
    ranges = cut(rows, workers)
    assert [row for each in ranges for row in each] == list(range(rows))
    sizes = [len(each) for each in ranges[1:]]
    assert sizes == sorted(sizes, reverse=True), "smaller ones last"
    assert max(sizes, default=0) <= MOST_ROWS
    assert not ranges or len(ranges[0]) == min(rows, FIRST_ROWS)


@settings(max_examples=60)
@given(st.integers(500, 50_000), st.integers(1, 20))
def test_there_are_several_ranges_for_each_worker(rows: int, workers: int) -> None:
    assert len(cut(rows, workers)) >= min(SHARDS_PER_WORKER * workers, rows // 40)


@settings(max_examples=60)
@given(st.lists(st.none() | st.sampled_from("abcdefgh"), max_size=200), st.integers(1, 4))
def test_no_conversation_is_cut(names: list[str | None], workers: int) -> None:
    ranges = cut(len(names), workers, conversation_spans(names))
    assert [row for each in ranges for row in each] == list(range(len(names)))
    where = {row: number for number, each in enumerate(ranges) for row in each}
    for name in set(names) - {None}:
        assert len({where[row] for row, other in enumerate(names) if other == name}) == 1


def plan_for(path: Path) -> ClusterPlan:
    source = open_source(path)
    statistics = source.scan()
    shards = hashed(source, cut(statistics.rows, 2))
    whole = replace(statistics, sample=())
    return ClusterPlan(path.name, whole, ({"text": "ä"},), "/", None, {"job": 1}, shards, {})


def test_a_plan_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text\n" + "".join(f"Größe {number}\n" for number in range(100)))
    plan = plan_for(path)
    assert ClusterPlan.from_json(plan.to_json(), "plan") == plan
    assert sum(shard.rows for shard in plan.shards) == plan.rows == 100


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"shards": [{}]}', '{"shards": 3}'])
def test_what_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="no plan of this version"):
        ClusterPlan.from_json(text.encode(), "plan.json")


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_shard_has_its_rows_and_no_others(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows.{suffix}"
    lines = [f'{{"text": "{number}"}}' if suffix == "jsonl" else str(number) for number in range(100)]
    path.write_text("\n".join([*(["text"] if suffix == "csv" else []), *lines]) + "\n")
    plan = plan_for(path)
    for shard in plan.shards:
        source = open_source(path)
        statistics = plan.rows_of(shard, has_worked=False).restrict(source)
        found = list(source.rows())
        assert [int(row.values["text"]) for row in found] == list(
            range(shard.first_row, shard.first_row + shard.rows)
        )
        assert [row.index for row in found] == list(range(shard.rows))
        assert statistics.rows == shard.rows and statistics.columns == ("text",)
        assert source.digest() == statistics.sha256 == shard.sha256
        assert [row.index for row in source.rows(3)] == list(range(3, shard.rows))


def test_other_rows_than_the_plans_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text\n" + "".join(f"{number}\n" for number in range(100)))
    plan = plan_for(path)
    path.write_text(path.read_text().replace("99", "98"))
    first, last = (plan.rows_of(shard, has_worked=False) for shard in (plan.shards[0], plan.shards[-1]))
    with pytest.raises(InputError, match="not the input of the plan"):
        last.restrict(open_source(path))
    assert first.restrict(open_source(path)).rows == FIRST_ROWS, "its rows are those of the plan"


def test_documents_of_other_shards_are_not_opened(tmp_path: Path) -> None:
    documents = [tmp_path / "in" / f"{number:02}.txt" for number in range(50)]
    documents[0].parent.mkdir()
    for path in documents:
        path.write_text("text")
    flags = {"input": str(tmp_path / "in"), "output": str(tmp_path / "out.csv"), "provider": "simulator"}
    job = assemble("summarize", flags, {})
    paths = job_paths(job)
    with prepare_job(job, paths) as prepared:
        plan = new_plan(job, prepared, 1)
    for path in documents[:FIRST_ROWS]:
        path.unlink()
        os.mkfifo(path)  # to open it is an error
    first, second = (plan.rows_of(shard, has_worked=False) for shard in plan.shards[:2])
    with prepare_job(job, paths, second) as prepared:
        names = [row.values["file"] for row in prepared.source.rows()]
    assert names == [str(path) for path in documents[FIRST_ROWS : FIRST_ROWS + len(names)]]
    with pytest.raises(InputError, match="not a regular file"), prepare_job(job, paths, first):
        pass
