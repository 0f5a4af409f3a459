"""A folder of parts as the output of a job on many machines."""

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pandas
import polars
import pyarrow.dataset
import pyarrow.parquet
import pytest

from batchllm.cluster.driver import run_cluster
from batchllm.cluster.engine import ShardEnd, ShardTask
from batchllm.cluster.planner import plan_of_work
from batchllm.cluster.work import open_work
from batchllm.errors import UsageError
from batchllm.job import Job, assemble
from batchllm.runner import Result, run_job
from batchllm.simulator import ScriptedResponse, SimulatorSettings, start_in_thread
from tests.cluster_engine import ThreadEngine
from tests.command import Command
from tests.fakes import chat_body
from tests.test_cluster_run import Asked, job_of, no_cluster, table

if TYPE_CHECKING:
    from tests.object_store import ObjectStore

ROWS = 120


@pytest.fixture
def asked() -> Asked:
    return Asked()


@pytest.fixture
def url(asked: Asked, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with start_in_thread(SimulatorSettings(latency_s=0.005), script=asked) as simulator:
        yield simulator.base_url


def parts_job(folder: Path, url: str, **flags: Any) -> Job:
    return job_of(folder, url, **{"output": f"{folder / 'out'}/", **flags})


def run(job: Job) -> Result:
    return run_cluster(job, engine_of=lambda job: ThreadEngine())


def parts_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def test_the_parts_in_order_are_the_output_and_a_second_run_leaves_them_alone(
    tmp_path: Path, url: str, asked: Asked
) -> None:
    table(tmp_path / "rows.csv")
    job = parts_job(tmp_path, url)
    result = run(job)
    shards = plan_of_work(open_work(str(tmp_path / "work"))).shards
    parts = parts_in(tmp_path / "out")
    assert [path.name for path in parts] == [f"part-{shard.number + 1:06}.csv" for shard in shards]
    assert set((tmp_path / "out").iterdir()) == set(parts), "no marker, lock or journal is left"
    assert set(tmp_path.iterdir()) == {tmp_path / name for name in ("rows.csv", "out", "work", "state")}

    alone = run_job(job_of(tmp_path, url, output=str(tmp_path / "alone.csv")))
    assert alone.output is not None
    header, *rows = alone.output.read_text().splitlines()
    found = [path.read_text().splitlines() for path in parts]
    assert all(lines[0] == header for lines in found)
    assert [line for lines in found for line in lines[1:]] == rows
    for name in ("rows", "answered", "skipped", "failed", "requests", "attempts", "answers", "labels", "total_tokens",
                 "answered_before", "finish_reasons", "cost"):  # fmt: skip
        assert getattr(result.summary, name) == getattr(alone.summary, name), name
    assert result.exit_status == 0 and result.output == tmp_path / "out"

    paid, times = asked.texts.total(), [path.stat().st_mtime_ns for path in parts]
    again = run_cluster(job, engine_of=no_cluster)
    assert asked.texts.total() == paid and [path.stat().st_mtime_ns for path in parts] == times
    assert again.summary.attempts == 0 and again.summary.answered == again.summary.answered_before == 100


@pytest.mark.proof
def test_another_choice_of_columns_writes_the_parts_anew_and_sends_nothing(
    tmp_path: Path, url: str, asked: Asked
) -> None:
    table(tmp_path / "rows.csv")
    run(parts_job(tmp_path, url))
    paid = asked.texts.total()
    result = run(parts_job(tmp_path, url, columns=["label", "attempts"], keep=["id"]))
    assert asked.texts.total() == paid and result.summary.attempts == 0
    found = pandas.concat([pandas.read_csv(path, sep=";") for path in parts_in(tmp_path / "out")])
    assert list(found.columns) == ["id", "label", "attempts"] and list(found.id) == list(range(ROWS))
    run(parts_job(tmp_path, url))
    assert all("finish_reason" in path.read_text() for path in parts_in(tmp_path / "out")), (
        "the first choice again"
    )
    assert asked.texts.total() == paid


@pytest.mark.proof
def test_one_output_and_parts_of_another_format_come_from_the_same_work_folder(
    tmp_path: Path, url: str, asked: Asked
) -> None:
    table(tmp_path / "rows.csv")
    run(parts_job(tmp_path, url))
    paid = asked.texts.total()
    run(parts_job(tmp_path, url, output=f"{tmp_path / 'answers.parquet'}/"))
    result = run_cluster(job_of(tmp_path, url), engine_of=no_cluster)
    assert asked.texts.total() == paid == result.summary.answered
    one = pandas.read_csv(tmp_path / "out.csv", sep=";", dtype=str)
    assert list(pandas.read_parquet(tmp_path / "answers.parquet").label.fillna("")) == list(
        one.label.fillna("")
    )


@pytest.mark.proof
def test_a_part_that_is_gone_is_written_again_and_one_that_was_edited_stays(
    tmp_path: Path, url: str, asked: Asked
) -> None:
    table(tmp_path / "rows.csv")
    run(parts_job(tmp_path, url))
    paid, parts = asked.texts.total(), parts_in(tmp_path / "out")
    content = parts[2].read_bytes()
    parts[2].unlink()
    engine = ThreadEngine()
    run_cluster(parts_job(tmp_path, url), engine_of=lambda job: engine)
    assert engine.submitted == [2] and parts[2].read_bytes() == content and asked.texts.total() == paid
    parts[2].write_text("corrected by hand")
    with pytest.raises(UsageError, match=r"edited since \(part-000003.csv\)"):
        run(parts_job(tmp_path, url))
    assert parts[2].read_text() == "corrected by hand"
    run(parts_job(tmp_path, url, force=True))
    assert parts[2].read_bytes() == content and asked.texts.total() == paid


@pytest.mark.parametrize("name", ["part-000001.csv", "part-009999.csv", "notes.txt"])
def test_a_folder_with_files_of_others_is_refused_before_anything_is_paid(
    tmp_path: Path, url: str, asked: Asked, name: str
) -> None:
    table(tmp_path / "rows.csv", 30)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("mine")
    with pytest.raises(UsageError, match=f"did not write.*{name}"):
        run(parts_job(tmp_path, url))
    assert asked.texts.total() == 0 and (tmp_path / "out" / name).read_text() == "mine"
    with pytest.raises(UsageError, match="--restart begins the job anew; name another folder"):
        run(parts_job(tmp_path, url, restart=True))
    assert asked.texts.total() == 0


@pytest.mark.proof
def test_failed_rows_are_asked_again_where_their_parts_are(tmp_path: Path, url: str, asked: Asked) -> None:
    table(tmp_path / "rows.csv", texts=[f"text {row:03}" for row in range(ROWS)])
    refused = ScriptedResponse(status=400, body={"error": {"message": "too rude", "code": "rude"}})
    asked.answer = lambda text: refused if text.endswith(("50", "51", "99")) else None
    result = run(parts_job(tmp_path, url, max_attempts=1))
    assert result.exit_status == 1 and result.summary.failed == 3 and result.summary.answered == ROWS - 3
    assert next(iter(result.failures.values()))[0] == 50
    paid = asked.texts.total()
    assert run_cluster(parts_job(tmp_path, url), engine_of=no_cluster).exit_status == 1
    assert asked.texts.total() == paid
    asked.answer = lambda text: None
    engine = ThreadEngine()
    again = run_cluster(parts_job(tmp_path, url, retry_failed=True), engine_of=lambda job: engine)
    assert again.exit_status == 0 and again.summary.attempts == 3 == asked.texts.total() - paid
    assert 1 <= len(engine.submitted) <= 3, "other parts stay as they are"
    found = pandas.concat([pandas.read_csv(path, sep=";") for path in parts_in(tmp_path / "out")])
    assert len(found) == ROWS and found.error.isna().all() and found.label.notna().all()


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl"])
def test_an_empty_input_has_one_part_without_rows(tmp_path: Path, url: str, asked: Asked, name: str) -> None:
    (tmp_path / name).write_text("id,text\n" if name == "rows.csv" else "")
    job = parts_job(tmp_path, url, input=str(tmp_path / name), output=f"{tmp_path / 'out.parquet'}/")
    result = run(job)
    assert result.exit_status == 0 and result.summary.rows == 0
    assert len(pandas.read_parquet(tmp_path / "out.parquet")) == 0
    run_cluster(
        parts_job(tmp_path, url, input=str(tmp_path / name), output=f"{tmp_path / 'out.parquet'}/"),
        engine_of=no_cluster,
    )


def mixed_rows(path: Path, rows: int = 200, *, mixed: bool = True) -> Path:
    """Rows whose column ``score`` is empty in the first shards, whole in some and broken in others."""
    scores = [None if row < 60 else row if row < 120 else row + 0.5 for row in range(rows)]
    records = [
        {"id": row, "text": f"text {row}", "score": score if mixed else row + 0.5}
        for row, score in enumerate(scores)
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.mark.proof
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ".csv"])
def test_readers_take_the_folder_as_one_table(tmp_path: Path, url: str, suffix: str) -> None:
    mixed_rows(tmp_path / "rows.jsonl", mixed=suffix == ".parquet")  # text has no types: readers guess
    folder = tmp_path / f"out{suffix}"
    run(parts_job(tmp_path, url, input=str(tmp_path / "rows.jsonl"), output=f"{folder}/"))
    kind = {".jsonl": "json"}.get(suffix, suffix[1:])
    scans: dict[str, Any] = {
        "json": polars.scan_ndjson,
        "csv": polars.scan_csv,
        "parquet": polars.scan_parquet,
    }
    every = folder / f"*{suffix}"
    tables = [
        pyarrow.dataset.dataset(folder, format=kind).to_table().to_pandas(),
        scans[kind](every).collect().to_pandas(),
        duckdb.connect().execute(f"select * from read_{kind}(?) order by id", [str(every)]).df(),
    ]
    for found in tables:
        assert list(found.id) == list(range(200)) and found.label.notna().all()
        assert list(found.score)[120:] == [row + 0.5 for row in range(120, 200)]
    if suffix == ".parquet":
        pandas.testing.assert_frame_equal(pandas.read_parquet(folder), tables[0])
        schemas = {pyarrow.parquet.read_schema(path).to_string() for path in parts_in(folder)}
        assert len(schemas) == 1 and "score: double" in schemas.pop()
        assert list(tables[0].score.dropna())[:60] == list(range(60, 120))


@pytest.mark.proof
def test_a_column_that_is_text_in_one_part_is_text_in_all(tmp_path: Path, url: str, asked: Asked) -> None:
    table(tmp_path / "rows.csv", texts=[f"text {row:03}" for row in range(ROWS)])
    asked.answer = lambda text: ScriptedResponse(
        body=chat_body(json.dumps({"n": 10**30 if text.endswith("077") else 1}))
    )
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    folder = tmp_path / "out.parquet"
    flags = {"prompt": "{{ text }}", "schema": schema, "output": f"{folder}/", "base_url": url, "model": "m"}
    more = {"input": str(tmp_path / "rows.csv"), "engine": "ray", "work": str(tmp_path / "work")}
    job = assemble("run", {**flags, **more}, {"OPENAI_API_KEY": "k"})
    result = run(job)
    assert result.exit_status == 0 and result.summary.attempts == ROWS == asked.texts.total()
    schemas = {pyarrow.parquet.read_schema(path).to_string() for path in parts_in(folder)}
    assert len(schemas) == 1 and "n: string" in schemas.pop()
    assert list(pandas.read_parquet(folder).n)[76:79] == ["1", str(10**30), "1"]
    run_cluster(job, engine_of=no_cluster)


@pytest.mark.proof
def test_several_inputs_of_several_formats_are_one_folder(tmp_path: Path, url: str) -> None:
    table(tmp_path / "a.csv", 60)
    mixed_rows(tmp_path / "b.jsonl", 60)
    inputs = [str(tmp_path / "a.csv"), str(tmp_path / "b.jsonl")]
    run(parts_job(tmp_path, url, input=inputs, add=["source_file"]))
    parts = parts_in(tmp_path / "out")
    found = [json.loads(line) for path in parts for line in path.read_text().splitlines()]
    assert [Path(row["source_file"]).name for row in found] == ["a.csv"] * 60 + ["b.jsonl"] * 60


@pytest.mark.proof
def test_records_that_are_left_out_go_beside_the_folder(tmp_path: Path, url: str) -> None:
    mixed_rows(tmp_path / "rows.jsonl", 60)
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write("no json\n")
    job = parts_job(tmp_path, url, input=str(tmp_path / "rows.jsonl"), bad_rows="skip")
    result = run(job)
    assert result.exit_status == 1 and result.summary.bad_rows == 1
    assert (tmp_path / "out.skipped.jsonl").read_text() == "no json\n"
    assert run_cluster(job, engine_of=no_cluster).exit_status == 1
    (tmp_path / "out.skipped.jsonl").write_text("mine")
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(UsageError, match="skipped"):
        run(job)


def test_a_node_that_does_not_see_the_folder_stops_the_job(tmp_path: Path, url: str, asked: Asked) -> None:
    table(tmp_path / "rows.csv")

    class Elsewhere(ThreadEngine):
        def check(self, task: ShardTask) -> Sequence[ShardEnd]:
            assert task.parts is not None
            (tmp_path / "unmounted").mkdir(exist_ok=True)
            return super().check(replace(task, parts=replace(task.parts, folder=tmp_path / "unmounted")))

    with pytest.raises(UsageError, match="unmounted is not the folder that the other machines see"):
        run_cluster(parts_job(tmp_path, url), engine_of=lambda job: Elsewhere())
    assert asked.texts.total() == 0 and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "flags", [{"journal": "j.journal"}, {"gold": "label"}, {"retry_cut_off": True, "max_tokens": 9}]
)
def test_what_does_not_go_with_parts_is_refused(tmp_path: Path, url: str, flags: dict[str, Any]) -> None:
    table(tmp_path / "rows.csv")
    with pytest.raises(UsageError, match="does not go with a folder of parts"):
        run_cluster(parts_job(tmp_path, url, **flags), engine_of=no_cluster)


@pytest.mark.proof
def test_status_report_export_and_evaluate_take_the_job(tmp_path: Path, url: str, batchllm: Command) -> None:
    table(tmp_path / "rows.csv")
    run(parts_job(tmp_path, url))
    work, out = tmp_path / "work", tmp_path / "out"
    assert json.loads(batchllm("status", work, "--json").out)["done"] == ROWS
    assert batchllm("export", work, "-o", tmp_path / "all.csv").status == 0
    _header, *rows = (tmp_path / "all.csv").read_text().splitlines()
    assert [line for path in parts_in(out) for line in path.read_text().splitlines()[1:]] == rows
    assert json.loads(batchllm("report", work, "--json").out)
    evaluated = batchllm("evaluate", out, "--gold", "text", "--json")
    assert evaluated.status == 0 and json.loads(evaluated.out), evaluated.err
    for command in ("export", "status", "show"):
        refused = batchllm(command, out, *(["1"] if command == "show" else []))
        assert refused.status == 2 and "parts" in refused.err and "work folder" in refused.err, refused.err
    refused = batchllm("export", work)
    assert refused.status == 2 and "parts" in refused.err and "-o" in refused.err


@pytest.mark.proof
def test_work_folder_and_parts_can_be_in_an_object_store(
    tmp_path: Path, url: str, asked: Asked, object_store: "ObjectStore"
) -> None:
    table(tmp_path / "rows.csv", 60)
    bucket = object_store.new_bucket()
    job = parts_job(tmp_path, url, work=f"s3://{bucket}/work", output=f"s3://{bucket}/jobs/out/")
    result = run(job)
    assert (
        result.summary.answered == 50 == asked.texts.total()
        and str(result.output) == f"s3://{bucket}/jobs/out/"
    )
    keys = [key for key in object_store.keys(bucket) if key.startswith("jobs/")]
    shards = plan_of_work(open_work(f"s3://{bucket}/work")).shards
    assert keys == [f"jobs/out/part-{shard.number + 1:06}.csv" for shard in shards]
    alone = run_job(job_of(tmp_path, url, output=str(tmp_path / "alone.csv")))
    assert alone.output is not None
    found = [line for key in keys for line in object_store.get(bucket, key).decode().splitlines()[1:]]
    assert found == alone.output.read_text().splitlines()[1:]
    paid = asked.texts.total()
    assert run_cluster(job, engine_of=no_cluster).exit_status == 0
    run(parts_job(tmp_path, url, work=f"s3://{bucket}/work", output=f"s3://{bucket}/jobs/out/", keep=["id"]))
    assert asked.texts.total() == paid and object_store.get(bucket, keys[0]).startswith(b"id;label;")
    object_store.put(bucket, keys[1], b"mine")
    with pytest.raises(UsageError, match=r"edited since \(part-000002.csv\)"):
        run(
            parts_job(
                tmp_path, url, work=f"s3://{bucket}/work", output=f"s3://{bucket}/jobs/out/", keep=["id"]
            )
        )
