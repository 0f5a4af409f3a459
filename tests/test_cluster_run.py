"""A job on many machines, with threads and processes for them: the same output as on one, whatever dies."""

import csv
import json
import os
import pickle
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from batchllm.budget.forecast import Forecast
from batchllm.cluster.driver import run_cluster
from batchllm.cluster.engine import ShardEnd, ShardTask, error_of
from batchllm.cluster.inspection import cluster_status
from batchllm.cluster.planner import plan_of_work
from batchllm.cluster.shard_run import attempt_folder, check_node
from batchllm.cluster.work import open_work
from batchllm.errors import BudgetStop, InputError, Interrupted, NotReady, Unavailable, UsageError
from batchllm.job import Job, assemble
from batchllm.runner import run_job
from batchllm.simulator import ScriptedResponse, SimulatorSettings, start_in_thread
from tests.cluster_engine import ProcessEngine, ThreadEngine
from tests.command import Command
from tests.fakes import chat_body

if TYPE_CHECKING:
    from tests.object_store import ObjectStore

ROWS = 120
TEXTS = ["good", "", "bad", 'so, "so"', " 007 ", "good"]


class Asked:
    """Counts what the endpoint was asked."""

    def __init__(self) -> None:
        self.texts: Counter[str] = Counter()
        self.answer: Callable[[str], Any] = lambda text: None

    def __call__(self, body: Any) -> Any:
        text = body["messages"][-1]["content"]
        self.texts[text] += 1
        return self.answer(text)


@pytest.fixture
def asked() -> Asked:
    return Asked()


@pytest.fixture
def url(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    with start_in_thread(SimulatorSettings(latency_s=0.01), script=asked) as simulator:
        yield simulator.base_url


def table(path: Path, rows: int = ROWS, texts: Sequence[str] = TEXTS) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerow(["id", "text"])
        writer.writerows([f"{number:04}", texts[number % len(texts)]] for number in range(rows))
    return path


def job_of(folder: Path, url: str | None, **flags: Any) -> Job:
    given = {
        "input": str(folder / "rows.csv"),
        "base_url": url,
        "model": "m",
        "output": str(folder / "out.csv"),
        "engine": "ray",
        "work": str(folder / "work"),
        **flags,
    }
    kept = {name: value for name, value in given.items() if value is not None}
    return assemble("classify", kept, {"OPENAI_API_KEY": "k"})


def no_cluster(job: Job) -> Any:
    pytest.fail("it connects to no cluster")


def test_the_output_is_that_of_one_machine_and_a_second_run_sends_nothing(
    tmp_path: Path, url: str, asked: Asked
) -> None:
    table(tmp_path / "rows.csv")
    job = job_of(tmp_path, url)
    engine = ThreadEngine()
    result = run_cluster(job, engine_of=lambda job: engine)
    plan = plan_of_work(open_work(str(tmp_path / "work")))
    assert sorted(engine.submitted) == [shard.number for shard in plan.shards[1:]], "the driver has the first"
    answered = sum(bool(TEXTS[number % len(TEXTS)]) for number in range(ROWS))
    assert result.exit_status == 0 and result.possibly_billed_rows == ()
    assert (result.summary.answered, result.summary.skipped) == (answered, ROWS - answered)
    assert result.summary.requests == result.summary.answers == answered == asked.texts.total()

    again = run_cluster(job, engine_of=no_cluster)
    assert again.summary.attempts == 0 and asked.texts.total() == answered

    alone = run_job(job_of(tmp_path, url, output=str(tmp_path / "alone.csv")))
    assert alone.output is not None and result.output is not None
    assert result.output.read_bytes() == alone.output.read_bytes()


def test_several_requests_a_row_go_on_from_the_logs(tmp_path: Path, url: str, asked: Asked) -> None:
    table(tmp_path / "rows.csv", 60)
    job = job_of(tmp_path, url, samples=3)
    run_cluster(job, engine_of=lambda job: ThreadEngine())
    paid = asked.texts.total()
    assert paid == 3 * 50
    # The journal beside the output and every summary are gone: only the answer logs are left.
    (tmp_path / "out.csv.journal").unlink()
    (tmp_path / "out.csv").unlink()
    for done in (tmp_path / "work" / "done").iterdir():
        done.unlink()
    result = run_cluster(job, engine_of=lambda job: ThreadEngine())
    assert result.exit_status == 0 and asked.texts.total() == paid


def test_equal_rows_share_a_request_within_their_shard(tmp_path: Path, url: str, asked: Asked) -> None:
    table(tmp_path / "rows.csv", 50, texts=["same"])
    engine = ThreadEngine()
    result = run_cluster(job_of(tmp_path, url, dedupe=True), engine_of=lambda job: engine)
    assert asked.texts.total() == 1 + len(engine.submitted)
    assert result.summary.answered == 50


def test_a_conversation_is_answered_in_one_shard(tmp_path: Path, url: str, asked: Asked) -> None:
    with (tmp_path / "rows.csv").open("w") as file:
        file.write("text,thread\n" + "".join(f"turn {row},{row // 7}\n" for row in range(70)))
    result = run_cluster(job_of(tmp_path, url, conversation="thread"), engine_of=lambda job: ThreadEngine())
    plan = plan_of_work(open_work(str(tmp_path / "work")))
    assert all(shard.first_row % 7 == 0 for shard in plan.shards) and len(plan.shards) > 3
    assert result.summary.answered == 70 == asked.texts.total()


def test_first_answers_that_are_all_unusable_stop_the_job_before_it_fans_out(
    tmp_path: Path, url: str, asked: Asked
) -> None:
    table(tmp_path / "rows.csv", texts=["x"])
    asked.answer = lambda text: ScriptedResponse(body=chat_body("none of them"))
    engine = ThreadEngine()
    with pytest.raises(BudgetStop):
        run_cluster(job_of(tmp_path, url), engine_of=lambda job: engine)
    assert engine.submitted == [] and asked.texts.total() <= 20


def test_a_node_without_the_key_stops_the_job_before_the_first_request(
    tmp_path: Path, url: str, asked: Asked
) -> None:
    table(tmp_path / "rows.csv")
    job = pickle.loads(pickle.dumps(job_of(tmp_path, url)))  # a driver in another process than the nodes
    with pytest.raises(UsageError, match="on node .*OPENAI_API_KEY"):
        run_cluster(job, engine_of=lambda job: ThreadEngine(environ={}))
    assert asked.texts.total() == 0


def test_what_a_worker_is_told_has_no_key(tmp_path: Path) -> None:
    table(tmp_path / "rows.csv")
    flags = {"input": str(tmp_path / "rows.csv"), "base_url": "http://127.0.0.1:1", "model": "m"}
    job = assemble("classify", flags, {"OPENAI_API_KEY": "sk-secret-1234"})
    assert b"sk-secret" not in pickle.dumps(ShardTask(job=job, work="w", shard=0, run="r"))


def test_the_paths_of_a_job_hold_in_whatever_folder_a_worker_runs(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    table(tmp_path / "rows.csv")
    (tmp_path / "k").write_text("sk")
    (tmp_path / "prices.json").write_text(
        '{"m": {"input_cost_per_token": 1e-6, "output_cost_per_token": 1e-6}}'
    )
    tasks: list[ShardTask] = []

    class Told(ThreadEngine):
        def check(self, task: ShardTask) -> Sequence[ShardEnd]:
            tasks.append(task)
            raise UsageError("that is enough")

    files = {"input": "rows.csv", "api_key_file": "k", "prices": "prices.json", "media_root": "."}
    with pytest.raises(UsageError, match="that is enough"):
        run_cluster(job_of(tmp_path, url, **files), engine_of=lambda job: Told())
    told = tasks[0].job
    found = (*told.inputs, told.endpoint.key_source, told.prices, told.media_root)
    assert [str(path) for path in found] == [
        str(tmp_path / name) for name in ("rows.csv", "k", "prices.json", "")
    ]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"work": None}, "--engine needs --work"),
        ({"via": "batch"}, "--via batch"),
        ({"output": "work/", "work": "work"}, "name the same folder"),
        ({"shard": "1/3"}, "--shard is for"),
        ({"header": {"X-Secret": "1"}}, "--header X-Secret"),
        ({"url": None, "provider": "simulator"}, "--provider simulator"),
    ],
)
def test_what_does_not_go_with_many_machines_is_refused(
    tmp_path: Path, flags: dict[str, Any], words: str
) -> None:
    table(tmp_path / "rows.csv")
    job = job_of(tmp_path, **{"url": "http://127.0.0.1:1", **flags})
    with pytest.raises(UsageError, match=words):
        run_cluster(job, engine_of=no_cluster)
    assert not (tmp_path / "work").exists()


def test_the_work_folder_of_another_job_is_refused(tmp_path: Path, url: str) -> None:
    table(tmp_path / "rows.csv", 30)
    run_cluster(job_of(tmp_path, url), engine_of=lambda job: ThreadEngine())
    other = str(tmp_path / "other.csv")
    with pytest.raises(UsageError, match="plan of another job"):
        run_cluster(job_of(tmp_path, url, model="n", output=other), engine_of=no_cluster)
    table(tmp_path / "rows.csv", 31)
    with pytest.raises(UsageError, match="plan of another input"):
        run_cluster(job_of(tmp_path, url, output=other), engine_of=no_cluster)


def test_answers_of_a_run_on_this_machine_alone_are_not_overlooked(tmp_path: Path, url: str) -> None:
    table(tmp_path / "rows.csv", 30)
    run_job(job_of(tmp_path, url))
    with pytest.raises(UsageError, match="without --work"):
        run_cluster(job_of(tmp_path, url), engine_of=lambda job: ThreadEngine())


def test_a_node_that_does_not_see_the_work_folder_stops_the_job(
    tmp_path: Path, url: str, asked: Asked
) -> None:
    table(tmp_path / "rows.csv")

    class Elsewhere(ThreadEngine):
        def check(self, task: ShardTask) -> Sequence[ShardEnd]:
            return super().check(replace(task, work=str(tmp_path / "unmounted")))

    with pytest.raises(UsageError, match="not the folder that the other machines see"):
        run_cluster(job_of(tmp_path, url), engine_of=lambda job: Elsewhere())
    assert asked.texts.total() == 0
    assert list((tmp_path / "work").iterdir()) == [], "a refused command leaves nothing"


def test_a_node_with_another_version_is_refused(tmp_path: Path) -> None:
    table(tmp_path / "rows.csv")
    task = ShardTask(job=job_of(tmp_path, "http://127.0.0.1:1"), work="w", shard=0, run="r", version="0.0")
    end = check_node(task, {})
    assert end.exit_status == 2 and "and not 0.0" in (end.error or "")


@pytest.mark.parametrize("status", [400, 200])
def test_a_shard_whose_rows_all_fail_does_not_stop_the_job(
    tmp_path: Path, url: str, asked: Asked, status: int
) -> None:
    """As on one machine: once requests have succeeded, the rows are to blame."""
    table(tmp_path / "rows.csv", texts=[f"text {row:03}" for row in range(ROWS)])
    body = chat_body("none of them") if status == 200 else {"error": {"message": "too rude", "code": "rude"}}
    asked.answer = lambda text: (
        ScriptedResponse(status=status, body=body) if int(text.split()[-1]) > 50 else None
    )
    result = run_cluster(job_of(tmp_path, url, max_attempts=1), engine_of=lambda job: ThreadEngine())
    assert result.exit_status == 1
    assert (result.summary.answered, result.summary.failed) == (51, ROWS - 51)
    paid = asked.texts.total()
    assert run_cluster(job_of(tmp_path, url), engine_of=no_cluster).exit_status == 1
    assert asked.texts.total() == paid


@pytest.mark.proof
def test_a_job_that_was_refused_may_be_changed(tmp_path: Path, url: str) -> None:
    table(tmp_path / "rows.csv", 30)

    def refuse(forecast: Any) -> None:
        raise UsageError("nothing was sent")

    with pytest.raises(UsageError, match="nothing was sent"):
        run_cluster(job_of(tmp_path, url), engine_of=lambda job: ThreadEngine(), confirm=refuse)
    result = run_cluster(job_of(tmp_path, url, model="n"), engine_of=lambda job: ThreadEngine())
    assert result.exit_status == 0


def test_a_worker_that_always_dies_ends_the_job(tmp_path: Path, url: str) -> None:
    table(tmp_path / "rows.csv", 60)

    class Deadly(ThreadEngine):
        def submit(self, task: ShardTask) -> None:
            self.running[Future()] = task

        def ended(self, timeout_s: float) -> Sequence[tuple[ShardTask, ShardEnd | None]]:
            return [(self.running.popitem()[1], None)]

    with pytest.raises(Unavailable, match="died 5 times"):
        run_cluster(job_of(tmp_path, url), engine_of=lambda job: Deadly(1))


@pytest.mark.proof
def test_a_time_limit_stops_every_machine_and_the_job_goes_on(tmp_path: Path, url: str, asked: Asked) -> None:
    table(tmp_path / "rows.csv", texts=["good"])
    with pytest.raises(NotReady):
        run_cluster(job_of(tmp_path, url, max_time="1s", rpm=600), engine_of=lambda job: ThreadEngine())
    paid = asked.texts.total()
    assert 0 < paid < ROWS
    figures = cluster_status(open_work(str(tmp_path / "work")))
    assert figures.workers == {} and figures.to_text("work").startswith("work: not finished")
    assert run_cluster(job_of(tmp_path, url), engine_of=lambda job: ThreadEngine()).exit_status == 0
    assert asked.texts.total() == ROWS


def test_an_output_of_others_is_refused_before_anything_is_paid(
    tmp_path: Path, url: str, asked: Asked
) -> None:
    table(tmp_path / "rows.csv", 30)
    (tmp_path / "out.csv").write_text("mine")
    with pytest.raises(UsageError, match="is not this job's"):
        run_cluster(job_of(tmp_path, url), engine_of=lambda job: ThreadEngine())
    assert asked.texts.total() == 0


def test_an_input_that_is_another_one_on_a_node_stops_the_job(tmp_path: Path, url: str, asked: Asked) -> None:
    table(tmp_path / "rows.csv")

    class Edited(ThreadEngine):
        def submit(self, task: ShardTask) -> None:
            table(tmp_path / "edited", texts=["edited"]).replace(tmp_path / "rows.csv")
            super().submit(task)

    with pytest.raises(InputError, match="not the input of the plan"):
        run_cluster(job_of(tmp_path, url), engine_of=lambda job: Edited())
    assert "edited" not in "".join(asked.texts)


def test_all_shards_ask_for_the_text_column_of_the_whole_input(
    tmp_path: Path, url: str, asked: Asked
) -> None:
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["note", "code"])
        for number in range(ROWS):
            texts = f"note {number:03} has four words", f"c{number}"
            writer.writerow(texts if number < 90 else (f"note{number:03}", "a code of several words"))
    run_cluster(job_of(tmp_path, url), engine_of=lambda job: ThreadEngine())
    assert asked.texts.total() == ROWS
    assert not [text for text in asked.texts if "note" not in text]


def test_an_input_whose_answered_rows_are_edited_is_refused_at_the_end(
    tmp_path: Path, url: str, asked: Asked
) -> None:
    table(tmp_path / "rows.csv", texts=["0000", "other"])

    class Edited(ThreadEngine):
        def submit(self, task: ShardTask) -> None:
            if not self.submitted:
                content = (tmp_path / "rows.csv").read_text()
                (tmp_path / "rows.csv").write_text(content.replace("0000;0000", "0000;edit"))
            super().submit(task)

    with pytest.raises(InputError, match="not the input of the plan"):
        run_cluster(job_of(tmp_path, url), engine_of=lambda job: Edited())
    assert asked.texts.total() == ROWS
    assert "edit" not in "".join(asked.texts)


@pytest.mark.proof
def test_status_report_and_export_take_the_work_folder(
    tmp_path: Path, url: str, asked: Asked, batchllm: Command
) -> None:
    table(tmp_path / "rows.csv")

    class Dying(ThreadEngine):
        def ended(self, timeout_s: float) -> Sequence[tuple[ShardTask, ShardEnd | None]]:
            found = super().ended(timeout_s)
            if self.submitted[3:]:
                raise ConnectionError("the cluster is gone")
            return found

    engine = Dying()
    with pytest.raises(ConnectionError):
        run_cluster(job_of(tmp_path, url), engine_of=lambda job: engine)
    engine._pool.shutdown()
    paid, work = asked.texts.total(), tmp_path / "work"
    status = json.loads(batchllm("status", work, "--json").out)
    assert 20 < status["done"] < ROWS and status["rows"] == ROWS and status["answers"] == paid
    said = batchllm("status", work).out
    assert said.startswith(f"{work}: ") and "shards" in said
    refused = batchllm("export", work)
    assert refused.status == 2 and "-o" in refused.err
    exported = batchllm("export", work, "-o", tmp_path / "some.csv")
    assert exported.status == 0, exported.err
    with (tmp_path / "some.csv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter=";"))
    assert sum(bool(row["label"]) for row in rows) == paid and not any(row["error"] for row in rows)
    page = batchllm("report", work, "-o", tmp_path / "page.html")
    assert page.status == 0 and (tmp_path / "page.html").stat().st_size > 1000, page.err

    told: list[Forecast] = []
    run_cluster(job_of(tmp_path, url), engine_of=lambda job: ThreadEngine(), confirm=told.append)
    assert told[0].answered == status["done"], "those of shards that are begun too"
    assert asked.texts.total() == sum(bool(TEXTS[number % len(TEXTS)]) for number in range(ROWS))
    assert json.loads(batchllm("status", work, "--json").out)["done"] == ROWS
    assert batchllm("status", work).out.startswith(f"{work}: finished\n")
    assert batchllm("export", work, "-o", tmp_path / "all.csv").status == 0
    assert (tmp_path / "all.csv").read_bytes() == (tmp_path / "out.csv").read_bytes()
    assert json.loads(batchllm("report", work, "--json").out)


@pytest.mark.proof
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_every_machine_and_the_job_goes_on(
    tmp_path: Path, url: str, asked: Asked, number: signal.Signals
) -> None:
    table(tmp_path / "rows.csv", texts=["good"])

    class Signalled(ThreadEngine):
        def submit(self, task: ShardTask) -> None:
            super().submit(task)
            if len(self.submitted) == 3:
                os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as stopped:
        run_cluster(job_of(tmp_path, url, rpm=600), engine_of=lambda job: Signalled())
    assert stopped.value.exit_status == 128 + number and signal.getsignal(number) == before
    assert 0 < asked.texts.total() < ROWS
    assert run_cluster(job_of(tmp_path, url), engine_of=lambda job: ThreadEngine()).exit_status == 0
    assert asked.texts.total() == ROWS


@pytest.mark.proof
def test_the_work_folder_can_be_in_an_object_store(
    tmp_path: Path, url: str, asked: Asked, object_store: "ObjectStore", batchllm: Command
) -> None:
    table(tmp_path / "rows.csv", 60)
    work = f"s3://{object_store.new_bucket()}/jobs/one"
    job = job_of(tmp_path, url, work=work, max_requests=1000)
    result = run_cluster(job, engine_of=lambda job: ThreadEngine())
    assert result.summary.answered == 50 == asked.texts.total()
    assert json.loads(batchllm("status", work, "--json").out)["done"] == 60
    (tmp_path / "out.csv").rename(tmp_path / "first.csv")
    (tmp_path / "out.csv.journal").unlink()
    assert run_cluster(job, engine_of=no_cluster).exit_status == 0 and asked.texts.total() == 50
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "first.csv").read_bytes()


@pytest.mark.proof
def test_several_endpoints_are_used_and_summed(tmp_path: Path, url: str, asked: Asked) -> None:
    table(tmp_path / "rows.csv", texts=["good"])
    with start_in_thread(SimulatorSettings(latency_s=0.01), script=asked) as other:
        job = job_of(tmp_path, None, base_url=[url, other.base_url], concurrency=6)
        result = run_cluster(job, engine_of=lambda job: ThreadEngine())
    assert result.summary.answered == ROWS == asked.texts.total()
    assert sum(each.answers for each in result.summary.endpoints) == ROWS
    assert {each.endpoint for each in result.summary.endpoints} == {url, other.base_url}


@pytest.mark.proof
def test_several_inputs_are_one_job(tmp_path: Path, url: str, asked: Asked) -> None:
    names = [tmp_path / "a.csv", tmp_path / "b.csv"]
    for name in names:
        table(name, 60)
    job = job_of(tmp_path, url, input=[str(name) for name in names])
    result = run_cluster(job, engine_of=lambda job: ThreadEngine())
    assert result.summary.answered == 100 == asked.texts.total() and result.summary.rows == 120
    alone = run_job(replace(job, output=tmp_path / "alone.csv", engine=None))
    assert (tmp_path / "out.csv").read_bytes() == (
        tmp_path / "alone.csv"
    ).read_bytes() and alone.exit_status == 0


@pytest.mark.proof
def test_a_budget_holds_for_all_machines_and_over_runs(tmp_path: Path, url: str, asked: Asked) -> None:
    table(tmp_path / "rows.csv", texts=["good"])
    for more in (60, 0):
        with pytest.raises(BudgetStop, match=r"^all workers .* larger budget goes on$"):
            run_cluster(job_of(tmp_path, url, max_requests=60), engine_of=lambda job: ThreadEngine())
        assert 40 <= asked.texts.total() <= 60, more
    result = run_cluster(job_of(tmp_path, url, max_requests=ROWS), engine_of=lambda job: ThreadEngine())
    assert result.summary.answered == ROWS == asked.texts.total()


@pytest.mark.proof
def test_killed_workers_cost_at_most_what_was_in_flight_and_one_flush(
    tmp_path: Path, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    rows, in_flight, latency_s = 400, 4, 0.3
    texts = [f"text {number}" for number in range(rows)]
    table(tmp_path / "rows.csv", rows, texts)
    killed: list[int] = []

    def watch(engine: ProcessEngine) -> None:
        if len(killed) < 3 and engine.running and asked.texts.total() > 60 * (len(killed) + 1):
            killed.append(engine.kill_one())

    engine = ProcessEngine(3, watch=watch)
    settings = SimulatorSettings(latency_s=latency_s)
    with start_in_thread(settings, script=asked) as simulator:
        job = job_of(tmp_path, simulator.base_url, concurrency=3 * in_flight)
        result = run_cluster(job, engine_of=lambda job: engine)
    assert len(killed) == 3 and result.exit_status == 0
    assert result.summary.answered == rows
    with (tmp_path / "out.csv").open(newline="") as file:
        assert [row["text"] for row in csv.DictReader(file, delimiter=";")] == texts
    flush = in_flight / latency_s * 1.5
    twice = {int(text.split()[-1]) + 1 for text, count in asked.texts.items() if count > 1}
    assert len(twice) <= 3 * (in_flight + flush)
    assert twice <= set(result.possibly_billed_rows), "the summary names them"


def test_the_folder_of_an_attempt_that_was_killed_is_removed_by_a_later_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    killed, recent = tmp_path / "batchllm-shard-killed", tmp_path / "batchllm-shard-recent"
    for folder in (killed, recent):
        folder.mkdir()
        (folder / "part.csv.journal").touch()
    with attempt_folder() as alive:
        for folder in (killed, alive):
            os.utime(folder, (0, 0))
        with attempt_folder() as other:
            assert set(tmp_path.iterdir()) == {alive, other, recent}
    assert set(tmp_path.iterdir()) == {recent}


def test_an_internal_error_of_a_worker_is_none_of_the_job() -> None:
    end = ShardEnd(shard=3, node="n", exit_status=70, error="KeyError: 'a'")
    error = error_of(end, "shard 3: ")
    assert isinstance(error, RuntimeError) and str(error) == "shard 3: KeyError: 'a'"
