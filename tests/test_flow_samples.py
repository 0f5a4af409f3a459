"""Samples, re-asking and conversations as flows: in both modes, with their columns, and what `show` says of them."""

import csv
import json
from pathlib import Path
from typing import Any

import orjson
import pytest

from batchllm.cli import terminal
from batchllm.errors import UsageError
from batchllm.flows.samples import majority
from batchllm.inspect.show import show_row
from batchllm.inspect.status import job_status
from batchllm.job import Job, assemble
from batchllm.records import Answer, ChatRequest
from batchllm.runner import Forecast, Result, run_job
from tests.batch_jobs import BatchJob, simulated
from tests.fakes import FakeClient, Outcome, answered, lost

FILTERED = answered(None, finish_reason="content_filter")


class SampledJob:
    """A job of few rows whose requests are answered one after the other from a list.

    Attributes:
        bodies: What was sent.
    """

    def __init__(self, folder: Path, rows: int = 1, task: str = "classify", **flags: Any) -> None:
        self.path = folder / "rows.csv"
        self.path.write_text("text\n" + "".join(f"It is number {number}.\n" for number in range(rows)))
        self.task = task
        self.flags = {"input": str(self.path), "provider": "simulator", "no_early_stop": True, **flags}
        self.bodies: list[dict[str, Any]] = []

    def run(self, *outcomes: Outcome, **flags: Any) -> Result:
        left = list(outcomes)

        def script(request: ChatRequest, attempt: int) -> Outcome:
            self.bodies.append(orjson.loads(request.body))
            return left.pop(0)

        job = assemble(self.task, {**self.flags, **flags}, {})
        result = run_job(job, client=FakeClient(script, latency_s=0))
        assert not left, "an answer that nobody asked for"
        return result

    @property
    def output(self) -> Path:
        return self.path.with_name(f"rows.{self.task}.simulated.csv")

    @property
    def row(self) -> dict[str, str]:
        with self.output.open(newline="") as file:
            return next(csv.DictReader(file))


def labels(*words: str) -> list[Outcome]:
    return [answered(word) for word in words]


def test_the_majority_is_the_label_and_the_share_of_it_the_agreement(tmp_path: Path) -> None:
    job = SampledJob(tmp_path, samples=3)
    assert job.run(*labels("positive", "negative", "Positive.")).exit_status == 0
    row = job.row
    assert (row["label"], row["agreement"]) == ("positive", "0.6667")
    assert json.loads(row["samples"]) == ["positive", "negative", "positive"]
    assert (row["attempts"], row["prompt_tokens"], row["completion_tokens"]) == ("3", "15", "9")
    assert [body["temperature"] for body in job.bodies] == [0.7] * 3
    assert job.run().summary.attempts == 0


def test_a_temperature_that_is_given_holds_for_samples(tmp_path: Path) -> None:
    job = SampledJob(tmp_path, samples=2, temperature=0.2)
    job.run(*labels("positive", "positive"))
    assert {body["temperature"] for body in job.bodies} == {0.2}
    assert job.row["agreement"] == "1.0"


def test_a_missing_sample_disagrees_and_a_row_without_any_fails(tmp_path: Path) -> None:
    job = SampledJob(tmp_path, samples=3)
    assert job.run(*labels("negative", "negative"), FILTERED).exit_status == 0
    row = job.row
    assert (row["label"], row["agreement"]) == ("negative", "0.6667")
    assert json.loads(row["samples"]) == ["negative", "negative", None]
    (tmp_path / "other").mkdir()
    job = SampledJob(tmp_path / "other", samples=2)
    assert job.run(FILTERED, FILTERED).exit_status == 1
    assert job.row["error"].startswith("sample/1: the content filter")
    assert job.run(*labels("neutral", "neutral"), retry_failed=True).exit_status == 0
    assert job.row["label"] == "neutral"


def test_a_job_of_single_requests_keeps_its_answer_as_the_first_sample(tmp_path: Path) -> None:
    job = SampledJob(tmp_path, temperature=0.5)
    job.run(*labels("positive"))
    job.run(*labels("negative", "negative"), samples=3)
    assert json.loads(job.row["samples"]) == ["positive", "negative", "negative"]
    assert job.row["label"] == "negative"
    job.run(samples=2)
    assert json.loads(job.row["samples"]) == ["positive", "negative"]


def test_a_sample_that_does_not_validate_is_re_asked_by_itself(tmp_path: Path) -> None:
    job = SampledJob(tmp_path, task="run", prompt="{{ text }}", schema="n int", samples=2)
    job.run(*labels('{"n": 1}', "no", '{"n": 2}'))
    assert [len(body["messages"]) for body in job.bodies] == [2, 2, 4]
    assert json.loads(job.row["samples"]) == [1, 2]
    said = "\n".join(show_row(job.output, 0))
    assert (
        said.index("request sample/1 (")
        < said.index("request sample/2 (")
        < said.index("request sample/2/reask/1 (")
    )
    assert said.count("HTTP 200") == 3
    status = job_status(job.output)
    assert (status.counts.answered, status.requests["answered"], status.requests["failed"]) == (1, 2, 1)
    assert "1 of 1 row answered" in status.to_text()
    assert "2 requests answered, 1 failed" in status.to_text()


def test_text_is_the_first_sample(tmp_path: Path) -> None:
    job = SampledJob(tmp_path, task="summarize", samples=2)
    job.run(*labels("one", "other"))
    assert (job.row["summary"], job.row["agreement"]) == ("one", "")
    assert json.loads(job.row["samples"]) == ["one", "other"]


def test_a_sample_without_a_reply_is_tried_again_while_no_other_came(tmp_path: Path) -> None:
    job = SampledJob(tmp_path, samples=2, max_attempts=1)
    assert job.run(lost(), lost()).exit_status == 1
    assert job.run(*labels("positive", "positive")).exit_status == 0


@pytest.mark.parametrize(
    ("values", "chosen", "agreement"),
    [
        ([1, 1, 2], 1, 0.6667),
        ([True, 1, 1], 1, 0.6667),
        ([None, "a", "b"], None, 0.3333),
        ([[1], [2], [2]], [1], None),
    ],
)
def test_each_scalar_field_is_voted_on(values: list[Any], chosen: Any, agreement: float | None) -> None:
    answers = [Answer(columns={"x": value}) for value in values]
    found = majority(answers, votes=True).columns
    assert (found["x"], found["agreement"], found["samples"]) == (chosen, agreement, values)


def test_several_fields_are_voted_on_each_and_agree_in_the_mean() -> None:
    answers = [Answer(columns={"x": 1, "y": "a"}), Answer(columns={"x": 1, "y": "b"}), None]
    found = majority(answers, votes=True).columns
    assert (found["x"], found["y"], found["agreement"]) == (1, "a", 0.5)
    assert found["samples"] == [{"x": 1, "y": "a"}, {"x": 1, "y": "b"}, None]


def test_samples_come_by_batch_in_one_wave(tmp_path: Path) -> None:
    with simulated() as server:
        job = BatchJob(tmp_path, server.base_url, rows=8, samples=3)
        assert job.until_done().exit_status == 0
        assert [batch.requests for batch in job.batches] == [24]
        for row in job.answers:
            assert len(json.loads(row["samples"])) == 3
            assert row["attempts"] == "3"
        job.until_done()
        assert len(job.batches) == 1


def test_a_re_ask_by_batch_is_one_more_wave_where_it_is_asked_for(tmp_path: Path) -> None:
    with simulated() as server:
        prompt = {"task": "run", "prompt": "{{ text }}", "schema": "n int", "no_early_stop": True}
        (tmp_path / "without").mkdir()
        job = BatchJob(
            tmp_path / "without", server.base_url, rows=4, param={"response_format": None}, **prompt
        )
        assert job.until_done().exit_status == 1
        assert len(job.batches) == 1
        job = BatchJob(tmp_path, server.base_url, rows=4, reask=1, param={"response_format": None}, **prompt)
        assert job.until_done().exit_status == 1
        assert [batch.requests for batch in job.batches] == [4, 4]
        assert {row["attempts"] for row in job.answers} == {"2"}
        assert all(row["error"].startswith("reask/1: ") for row in job.answers)
        assert job.until_done().exit_status == 1
        assert len(job.batches) == 2


def test_a_conversation_by_batch_is_one_wave_a_turn(tmp_path: Path) -> None:
    with simulated() as server:
        job = BatchJob(tmp_path, server.base_url, rows=9, task="run", prompt="{{ text }}", conversation="id")
        with job.input.open("w") as file:
            file.write("id,text\n" + "".join(f"{number % 3},turn {number}\n" for number in range(9)))
        assert job.until_done().exit_status == 0
        assert [batch.requests for batch in job.batches] == [3, 3, 3]
        assert all(row["response"] for row in job.answers)
        said = "\n".join(show_row(job.output, 8))
        assert said.index("turn 2") < said.index("turn 5") < said.index("turn 8")
        assert job.until_done().summary.answered == 9
        assert len(job.batches) == 3


def talk(folder: Path, turns: int, **flags: Any) -> Job:
    path = folder / "talk.csv"
    path.write_text("id,text\n" + "".join(f"a,this is turn number {number}\n" for number in range(turns)))
    words = {"input": str(path), "prompt": "{{ text }}", "provider": "simulator", "conversation": "id"}
    return assemble("run", {**words, "max_tokens": 20, **flags}, {})


def forecast_of(job: Job) -> Forecast:
    """What a run says before it begins."""
    found: list[Forecast] = []

    def confirm(forecast: Forecast) -> None:
        found.append(forecast)
        raise UsageError("no")

    with pytest.raises(UsageError, match="no"):
        run_job(job, confirm=confirm, wait=True)
    return found[0]


def test_the_estimate_of_a_conversation_has_its_history(tmp_path: Path) -> None:
    alone, together = (forecast_of(talk(tmp_path, 20, conversation=name)) for name in (None, "id"))
    each = (alone.prompt_tokens or 0) / 20
    assert (together.prompt_tokens or 0) > 20 * each + 190 * 15, (
        "each turn has those before it, and their answers"
    )


def test_a_conversation_of_more_than_ten_turns_asks_before_it_goes_by_batch(tmp_path: Path) -> None:
    long, short = (forecast_of(talk(tmp_path, turns, via="batch")) for turns in (11, 10))
    assert (long.waves, short.waves) == (11, 10)
    job = talk(tmp_path, 11, via="batch")
    with pytest.raises(UsageError, match="up to 11 batches.*-y"):
        terminal.confirm(job, long, quiet=True, yes=False)
    terminal.confirm(job, long, quiet=True, yes=True)
    terminal.confirm(job, short, quiet=True, yes=False)
    assert "at most 11 waves of batches" in terminal.line_before(job, long)
