"""Whole jobs from and to an object store, which runs in another process and checks credentials."""

import csv
import gzip
import io
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchllm import run
from batchllm.formats.input_file import InputFile
from batchllm.journal import state_path
from batchllm.stores import driver
from batchllm.stores import objects as objects_module
from tests.bench import Bench
from tests.command import Said
from tests.cutting_proxy import CuttingProxy, cutting_proxy
from tests.object_store import ObjectStore
from tests.test_stores_web import serving

ROWS = 12
TABLE = b"id,text\n" + b"".join(b'%d,"good, %d"\n' % (index, index) for index in range(ROWS))


@pytest.fixture
def bucket(object_store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    return object_store.new_bucket()


@pytest.fixture
def proxy(bucket: str, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[CuttingProxy]:
    with cutting_proxy(object_store.port) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        backoff = {"init_backoff": timedelta(milliseconds=1)}
        monkeypatch.setattr(driver, "_RETRIES", {"max_retries": 2, "backoff": backoff})
        driver._bucket.cache_clear()
        yield proxy


def rows_of(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode())))


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def sent(bench: Bench) -> int:
    return len(bench.server.received)


def test_a_job_goes_from_object_to_object_and_again_sends_nothing(
    bench: Bench, bucket: str, object_store: ObjectStore
) -> None:
    object_store.put(bucket, "in/reviews.csv", TABLE)
    said = bench.run("classify", f"s3://{bucket}/in/reviews.csv")
    output = f"s3://{bucket}/in/reviews.classify.csv"
    assert output in said.err
    found = rows_of(object_store.get(bucket, "in/reviews.classify.csv"))
    assert [(row["id"], row["text"]) for row in found] == [(str(n), f"good, {n}") for n in range(ROWS)]
    assert {row["label"] for row in found} <= {"positive", "negative", "neutral"}
    assert sent(bench) == ROWS
    assert sorted(object_store.keys(bucket)) == ["in/reviews.classify.csv", "in/reviews.csv"]
    assert object_store.uploads(bucket) == []
    assert files_in(bench.folder) == []
    before = object_store.get(bucket, "in/reviews.classify.csv")
    bench.run("classify", f"s3://{bucket}/in/reviews.csv")
    assert (sent(bench), object_store.get(bucket, "in/reviews.classify.csv")) == (ROWS, before)


@pytest.mark.proof
def test_every_command_that_looks_at_an_output_takes_its_url(
    bench: Bench, bucket: str, object_store: ObjectStore
) -> None:
    object_store.put(bucket, "in/reviews.csv", TABLE)
    bench.run("classify", f"s3://{bucket}/in/reviews.csv")
    output = f"s3://{bucket}/in/reviews.classify.csv"
    assert f"{ROWS} of {ROWS}" in bench.command("status", output).out
    assert "good, 3" in bench.command("show", output, 4).out
    assert output in bench.command("jobs").out
    assert bench.command("evaluate", output, "--gold", "id").status == 0
    assert bench.command("compare", output, output).status == 0
    assert bench.command("report", output).status == 0
    assert (bench.folder / "reviews.classify.report.html").exists()
    copy = f"s3://{bucket}/copy.jsonl.gz"
    assert bench.command("export", output, "-o", copy).status == 0
    lines = gzip.decompress(object_store.get(bucket, "copy.jsonl.gz")).splitlines()
    assert [json.loads(line)["id"] for line in lines] == [str(n) for n in range(ROWS)]
    assert bench.command("clean", output).status == 0
    assert "there are no jobs" in bench.command("jobs").err


@pytest.mark.proof
def test_parquet_goes_from_bucket_to_bucket_without_a_copy_on_disk(
    bench: Bench, bucket: str, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pa.table({"id": pa.array(range(ROWS), pa.int16()), "text": [f"good, {n}" for n in range(ROWS)]})
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=5)
    object_store.put(bucket, "in.parquet", sink.getvalue())
    monkeypatch.setattr(InputFile, "local_path", None)
    bench.run("classify", f"s3://{bucket}/in.parquet", "-o", f"s3://{bucket}/out.parquet")
    written = pq.read_table(io.BytesIO(object_store.get(bucket, "out.parquet")))
    assert written.select(["id", "text"]).equals(table)
    assert set(written["label"].to_pylist()) <= {"positive", "negative", "neutral"}


@pytest.mark.proof
def test_a_compressed_object_is_an_input_and_a_trial_has_an_output_of_its_own(
    bench: Bench, bucket: str, object_store: ObjectStore
) -> None:
    object_store.put(bucket, "reviews.csv.gz", gzip.compress(TABLE))
    output = f"s3://{bucket}/out.jsonl"
    words = ("classify", f"s3://{bucket}/reviews.csv.gz")
    bench.run(*words, "-n", 3)
    trial = gzip.decompress(object_store.get(bucket, "reviews.classify.trial.csv.gz"))
    assert len(rows_of(trial)) == 3
    bench.run(*words, "-o", output)
    assert object_store.get(bucket, "out.jsonl").count(b"\n") == ROWS


def test_an_output_that_is_not_this_jobs_is_refused_until_force(
    bench: Bench, bucket: str, object_store: ObjectStore
) -> None:
    reviews = bench.file("reviews.csv", TABLE)
    object_store.put(bucket, "out.csv", b"somebody else's")
    words = ("classify", reviews, "-o", f"s3://{bucket}/out.csv")
    said = bench.run(*words, status=2)
    assert f"s3://{bucket}/out.csv exists and is not this job's" in said.err and sent(bench) == 0
    assert object_store.get(bucket, "out.csv") == b"somebody else's"
    bench.run(*words, "--force")
    assert len(rows_of(object_store.get(bucket, "out.csv"))) == ROWS
    object_store.put(bucket, "out.csv", b"edited by hand")
    said = bench.run(*words, status=2)
    assert "was edited since batchllm wrote it" in said.err
    assert object_store.get(bucket, "out.csv") == b"edited by hand"
    assert sent(bench) == ROWS


def test_an_input_that_changed_between_two_runs_pays_for_its_new_rows_alone(
    bench: Bench, bucket: str, object_store: ObjectStore
) -> None:
    object_store.put(bucket, "in.csv", TABLE)
    words = ("classify", f"s3://{bucket}/in.csv", "-o", f"s3://{bucket}/out.csv")
    bench.run(*words)
    object_store.put(bucket, "in.csv", TABLE + b"12,quite new\n")
    bench.run(*words)
    assert sent(bench) == ROWS + 1
    assert len(rows_of(object_store.get(bucket, "out.csv"))) == ROWS + 1


def test_an_input_that_changes_while_the_job_runs_is_noticed_and_nothing_is_paid_twice(
    bench: Bench, bucket: str, object_store: ObjectStore
) -> None:
    object_store.put(bucket, "in.csv", TABLE)
    words = ("classify", f"s3://{bucket}/in.csv", "-o", f"s3://{bucket}/out.csv")

    def change(body: object) -> None:
        object_store.put(bucket, "in.csv", TABLE + b"12,quite new\n")

    bench.answers = change
    said = bench.run(*words, status=65)
    assert f"s3://{bucket}/in.csv" in said.err and "changed while" in said.err
    assert object_store.keys(bucket) == ["in.csv"]
    bench.answers = lambda body: None
    bench.run(*words)
    assert sent(bench) == ROWS + 1
    assert len(rows_of(object_store.get(bucket, "out.csv"))) == ROWS + 1


@pytest.mark.parametrize("size", [pytest.param("one request", marks=pytest.mark.proof), "parts"])
def test_a_connection_that_is_cut_in_the_middle_of_the_upload_leaves_no_half_object(
    bench: Bench,
    bucket: str,
    proxy: CuttingProxy,
    object_store: ObjectStore,
    monkeypatch: pytest.MonkeyPatch,
    size: str,
) -> None:
    if size == "parts":
        monkeypatch.setattr(objects_module, "SINGLE_PUT_BYTES", 1000)
    reviews = bench.file("reviews.csv", TABLE + b"12," + b"long " * 20_000 + b"\n")
    words = ("classify", reviews, "-o", f"s3://{bucket}/out.csv")
    proxy.sent_bytes = 50_000
    said = bench.run(*words, status=74)
    assert f"s3://{bucket}/out.csv: the store cannot be reached" in said.err and proxy.cuts
    assert (object_store.keys(bucket), object_store.uploads(bucket)) == ([], [])
    proxy.sent_bytes = None
    bench.run(*words)
    assert len(rows_of(object_store.get(bucket, "out.csv"))) == ROWS + 1
    assert sent(bench) == ROWS + 1


@pytest.mark.proof
def test_a_connection_that_is_cut_while_the_input_is_read_is_made_again(
    bench: Bench, bucket: str, proxy: CuttingProxy, object_store: ObjectStore
) -> None:
    object_store.put(bucket, "in.csv", TABLE + b"12," + b"long " * 20_000 + b"\n")
    proxy.received_bytes, proxy.cuts_left = 50_000, 2
    bench.run("classify", f"s3://{bucket}/in.csv", "-o", "out.csv")
    assert proxy.cuts == 2 and sent(bench) == ROWS + 1
    assert len(rows_of((bench.folder / "out.csv").read_bytes())) == ROWS + 1


def test_credentials_that_expire_while_the_job_runs_lose_no_answer(
    bench: Bench, bucket: str, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    object_store.put(bucket, "in.csv", TABLE)
    words = ("classify", f"s3://{bucket}/in.csv", "-o", f"s3://{bucket}/out.csv")
    bench.answers = lambda body: monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "expired")
    said = bench.run(*words, status=73)
    assert "the credentials are refused" in said.err and "run the same command again" in said.err
    bench.answers = lambda body: None
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", object_store.secret)
    bench.run(*words)
    assert sent(bench) == ROWS
    assert len(rows_of(object_store.get(bucket, "out.csv"))) == ROWS


def refusal(bench: Bench, *words: object, status: int) -> Said:
    """A run that is refused before anything is sent, and leaves nothing."""
    said = bench.run("classify", *words, status=status)
    assert sent(bench) == 0
    assert len(said.err.strip().splitlines()) == 1, said.err
    left = [name for name in files_in(state_path("").parent) if not name.endswith(".lock")]
    assert left == []
    return said


def test_a_missing_bucket_is_found_before_anything_is_sent(bench: Bench, bucket: str) -> None:
    reviews = bench.file("reviews.csv", TABLE)
    said = refusal(bench, "s3://no-such-bucket/in.csv", "-o", "out.csv", status=65)
    assert "s3://no-such-bucket/in.csv: there is no such bucket" in said.err
    said = refusal(bench, reviews, "-o", "s3://no-such-bucket/out.csv", status=73)
    assert "s3://no-such-bucket/out.csv: there is no such bucket" in said.err
    said = refusal(bench, f"s3://{bucket}/none.csv", "-o", "out.csv", status=65)
    assert f"s3://{bucket}/none.csv: there is no such object" in said.err


def test_wrong_credentials_are_found_before_anything_is_sent_and_never_shown(
    bench: Bench, bucket: str, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    reviews = bench.file("reviews.csv", TABLE)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "thesecretthatmustnotshow")
    for words in ((f"s3://{bucket}/in.csv", "-o", "out.csv"), (reviews, "-o", f"s3://{bucket}/out.csv")):
        said = refusal(bench, *words, "--debug", status=2)
        assert "the credentials are refused" in said.err
        for secret in ("thesecretthatmustnotshow", object_store.key_id, "AWS4-HMAC"):
            assert secret not in said.err + said.out


def test_an_output_that_may_not_be_written_or_looked_at_is_found_before_anything_is_sent(
    bench: Bench, bucket: str, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    reviews = bench.file("reviews.csv", TABLE)
    output = f"s3://{bucket}/out.csv"
    for name, value in object_store.new_user(["s3:GetObject", "s3:ListBucket"]).items():
        monkeypatch.setenv(name, value)
    said = refusal(bench, reviews, "-o", output, status=73)
    assert f"{output}: it cannot be written with these credentials (AccessDenied)" in said.err
    for name, value in object_store.new_user(["s3:PutObject", "s3:AbortMultipartUpload"]).items():
        monkeypatch.setenv(name, value)
    said = refusal(bench, reviews, "-o", output, status=73)
    assert f"{output}: it is unknown whether it exists" in said.err
    bench.run("classify", reviews, "-o", output, "--force")
    assert len(rows_of(object_store.get(bucket, "out.csv"))) == ROWS


def test_a_signed_url_is_read_and_what_is_secret_in_it_is_kept_nowhere(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bench.folder)
    signed = "X-Amz-Credential=hunter2&X-Amz-Signature=hunter3"
    with serving(lambda request: request.send(200, TABLE)) as (server, _):
        url = f"http://127.0.0.1:{server.server_port}/data/reviews.csv?{signed}"
        words = ("classify", url, "--summary", "run.json", "--log-file", "log.jsonl", "--debug")
        said = bench.run(*words)
        assert {path for path, _, _ in server.requests} == {f"/data/reviews.csv?{signed}"}
        texts = [
            said.out + said.err,
            bench.run(*words).err,
            bench.command(*words, "--dry-run", "--verbose").out,
        ]
        assert len(bench.out("reviews.classify.csv")) == sent(bench) == ROWS
        texts += [bench.command(each, "reviews.classify.csv").out for each in ("status", "jobs")]
        library = run(url, "classify", base_url=bench.server.base_url, model="gpt-4", output="library.csv")
        texts += [repr(library), repr(library.summary)]
        export = bench.command("export", "reviews.classify.csv", "-o", "copy.csv")
        assert export.status == 65 and "give the whole URL again" in export.err
        server.answer = lambda request: request.send(403)
        refused = bench.run(*words[:-1], "-o", "other.csv", status=65)
        assert "/data/reviews.csv?***: the server refuses to send it (HTTP 403)" in refused.err
        wrong = bench.run(*words[:-1], "-o", "other.csv", "--no-such-option", status=2)
        scheduled = bench.command(
            "schedule", "classify", url, "-m", "gpt-4", "--base-url", bench.server.base_url
        )
        assert scheduled.status == 2 and "may be a signature" in scheduled.err
        texts += [export.err, refused.err, wrong.err, scheduled.err + scheduled.out]
    texts += [path.read_bytes().decode("latin-1") for path in bench.folder.rglob("*") if path.is_file()]
    assert not [text for text in texts if "hunter" in text]


@pytest.mark.proof
def test_shards_in_a_bucket_are_merged_there(bench: Bench, bucket: str, object_store: ObjectStore) -> None:
    object_store.put(bucket, "in.csv", TABLE)
    shards = [f"s3://{bucket}/out-{number}.csv" for number in (1, 2)]
    for number, shard in enumerate(shards, 1):
        bench.run("classify", f"s3://{bucket}/in.csv", "--shard", f"{number}/2", "-o", shard)
    assert bench.command("merge", *shards, "-o", f"s3://{bucket}/all.csv").status == 0
    assert [row["id"] for row in rows_of(object_store.get(bucket, "all.csv"))] == [
        str(n) for n in range(ROWS)
    ]
    said = bench.command("merge", *shards, "-o", f"s3://{bucket}/all.csv")
    assert said.status == 2 and "exists and is not this job's" in said.err


@pytest.mark.proof
def test_an_empty_state_folder_is_where_the_journal_of_an_object_is_found_again(
    bench: Bench, bucket: str, object_store: ObjectStore
) -> None:
    reviews = bench.file("reviews.csv", TABLE)
    bench.run("classify", reviews, "-o", f"s3://{bucket}/deep/folder/out.csv")
    (journal,) = state_path("").parent.glob("**/*.journal")
    assert journal.name.startswith(f"s3-{bucket}-deep-folder-out.csv-")
    bench.run("summarize", reviews, "--reuse", f"s3://{bucket}/deep/folder/out.csv", "-o", "again.csv")


def test_the_library_takes_urls(bench: Bench, bucket: str, object_store: ObjectStore) -> None:
    object_store.put(bucket, "in.csv", TABLE)
    options: Any = {"base_url": bench.server.base_url, "model": "gpt-4"}
    result = run(f"s3://{bucket}/in.csv", "classify", output=f"s3://{bucket}/out.jsonl", **options)
    assert str(result.output) == f"s3://{bucket}/out.jsonl"
    assert object_store.get(bucket, "out.jsonl").count(b"\n") == ROWS
    assert len(result.frame()) == ROWS
    frame = run([f"s3://{bucket}/in.csv", f"s3://{bucket}/in.csv"], "classify", **options).frame()
    assert len(frame) == 2 * ROWS


@pytest.mark.proof
def test_a_folder_or_a_pattern_of_a_bucket_is_one_input(
    bench: Bench, bucket: str, object_store: ObjectStore
) -> None:
    for name in ("a.csv", "b.csv", "sub/c.csv", "notes.txt.bak"):
        object_store.put(bucket, f"in/{name}", f"text\n{name} is good\n".encode())
    output = f"s3://{bucket}/all.csv"
    words = ("classify", f"s3://{bucket}/in/**/*.csv", "--add", "source_file", "-o", output)
    bench.run(*words)
    found = rows_of(object_store.get(bucket, "all.csv"))
    assert [row["source_file"] for row in found] == [
        f"s3://{bucket}/in/{name}" for name in ("a.csv", "b.csv", "sub/c.csv")
    ]
    object_store.put(bucket, "in/d.csv", b"text\nd.csv is new\n")
    bench.run(*words)
    assert sent(bench) == 4
    bench.run("classify", f"s3://{bucket}/in/", "-o", "folder.jsonl")
    assert [row["text"][:5] for row in bench.out("folder.jsonl")] == ["a.csv", "b.csv", "d.csv"]
    said = bench.run(
        "classify", f"s3://{bucket}/in/a.csv", f"s3://{bucket}/in/*.csv", "-o", "twice.csv", status=2
    )
    assert f"s3://{bucket}/in/a.csv is named twice" in said.err
    said = bench.run("classify", f"s3://{bucket}/none/*.csv", "-o", "none.csv", status=65)
    assert "matches no file of rows" in said.err


@pytest.mark.proof
def test_each_input_has_its_output_in_a_folder_of_a_bucket(
    bench: Bench, bucket: str, object_store: ObjectStore
) -> None:
    for name in ("a.csv", "b.jsonl"):
        content = b"text\ngood\n" if name == "a.csv" else b'{"text": "bad"}\n'
        object_store.put(bucket, f"in/{name}", content)
    folder = f"s3://{bucket}/out/"
    words = ("classify", f"s3://{bucket}/in/", "-o", folder)
    bench.run(*words)
    assert object_store.keys(bucket) == ["in/a.csv", "in/b.jsonl", "out/a.csv", "out/b.jsonl"]
    assert [row["text"] for row in rows_of(object_store.get(bucket, "out/a.csv"))] == ["good"]
    assert json.loads(object_store.get(bucket, "out/b.jsonl"))["text"] == "bad"
    assert object_store.uploads(bucket) == [] and files_in(bench.folder) == []
    bench.run(*words)
    assert sent(bench) == 2
    assert "2 of 2" in bench.command("status", folder).out
    assert bench.command("report", folder, "--json").status == 0
    object_store.put(bucket, "out/b.jsonl", b"edited")
    said = bench.run(*words, status=2)
    assert f"{folder}b.jsonl was edited since batchllm wrote it" in said.err
    bench.run("classify", f"s3://{bucket}/in/", "-o", "here/")
    assert {"here/.batchllm.journal", "here/a.csv", "here/b.jsonl"} <= set(files_in(bench.folder))
    said = bench.run("classify", f"s3://{bucket}/in/", "-o", "s3://no-such-bucket/out/", status=73)
    assert "there is no such bucket" in said.err


def test_schedule_names_the_credentials_that_cron_needs(
    bench: Bench, bucket: str, object_store: ObjectStore
) -> None:
    words = ("classify", f"s3://{bucket}/in.csv", "-m", "gpt-4", "--base-url", bench.server.base_url)
    said = bench.command("schedule", *words)
    assert said.status == 0
    assert "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in said.err
    assert f"AWS_ENDPOINT_URL={object_store.endpoint}" in said.out
    assert object_store.secret not in said.out + said.err and object_store.key_id not in said.out + said.err


def test_a_missing_bucket_is_reported_under_the_name_of_the_input(bench: Bench, bucket: str) -> None:
    missing = f"s3://{bucket}-none/reviews.csv"
    said = bench.run("classify", missing, status=65)
    assert said.err.startswith(f"batchllm: {missing}: ")
    assert "classify.csv" not in said.err


def test_shards_in_a_store_have_the_names_of_their_commands_and_are_merged_by_a_pattern(
    bench: Bench, bucket: str, object_store: ObjectStore
) -> None:
    source = bench.file("reviews.csv", TABLE)
    parts = [f"out/shard-{number}.csv" for number in (1, 2)]
    for number, part in enumerate(parts, 1):
        bench.run("classify", source, "--shard", f"{number}/2", "-o", f"s3://{bucket}/{part}")
    assert sorted(object_store.keys(bucket)) == parts
    merged = f"s3://{bucket}/out/all.csv"
    for more in ((), ("--force",)):
        said = bench.command("merge", f"s3://{bucket}/out/*", "-o", merged, *more)
        assert f"{ROWS} rows of 2 shards" in said.err
    assert [row["id"] for row in rows_of(object_store.get(bucket, "out/all.csv"))] == [
        str(number) for number in range(ROWS)
    ]
