"""Killed at every step boundary and at random, online and by batch: each row's own answers, nothing for nothing."""

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from batchllm.errors import NotReady
from batchllm.inspect.show import show_row
from batchllm.journal import Journal, JournalReader
from batchllm.records import ChatRequest
from tests import mortal_runs
from tests.batch_jobs import BatchJob, simulated
from tests.batch_kills import Killed, killed_call
from tests.fakes import Outcome
from tests.flow_jobs import Endpoint, FlowJob, Table, table_of, three_steps, with_flow

CONCURRENCY = 8


class MortalEndpoint(Endpoint):
    """An endpoint whose client dies at a request, before or after the endpoint has answered it.

    Attributes:
        most_lost: Requests that were in flight at a death, all deaths together.
    """

    def __init__(self, faults: float = 0.0, seed: int = 0) -> None:
        super().__init__(faults, seed)
        self.dies_at: int | None = None
        self.after = False
        self.in_flight = self.most_lost = 0
        self.journal: Journal | None = None

    async def send(self, chat: ChatRequest) -> Outcome:
        self.in_flight += 1
        try:
            if self.dies_at is not None and len(self.sent) >= self.dies_at and not self.after:
                self._die()
            await asyncio.sleep(0)
            outcome = await super().send(chat)
            if self.dies_at is not None and len(self.sent) >= self.dies_at and self.after:
                self._die()
            return outcome
        finally:
            self.in_flight -= 1

    def _die(self) -> None:
        if self.journal is not None and self.journal._writer.failure is None:
            self.journal._writer.failure = RuntimeError("dead")  # nothing reaches the disk any more
            self.most_lost += CONCURRENCY
        raise Killed


def run_killed(job: FlowJob, table: Table, at: int | None, *, after: bool, seed: int = 0) -> bool:
    """One run that dies at a request; returns whether it finished."""
    endpoint = job.endpoint
    assert isinstance(endpoint, MortalEndpoint)
    return mortal_runs.run_killed(
        endpoint,
        at,
        after=after,
        work=lambda: job.run(table, three_steps(), concurrency=CONCURRENCY, max_attempts=20),
    )


def needed(endpoint: Endpoint, answers: list[dict[str, str]]) -> int:
    return sum(len(endpoint.chain(row["response"])) for row in answers)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    "at", [pytest.param(at, marks=[] if at % 5 == 2 else pytest.mark.proof) for at in range(18)]
)
def test_a_run_that_dies_at_any_request_of_its_rows_goes_on_with_their_own_answers(
    tmp_path: Path, at: int, after: bool
) -> None:
    table = table_of(6)
    job = FlowJob(tmp_path, MortalEndpoint())
    run_killed(job, table, at, after=after)
    assert run_killed(job, table, None, after=after)
    job.check()
    paid = len(job.endpoint.asked)
    assert paid <= needed(job.endpoint, job.answers) + job.endpoint.most_lost  # type: ignore[attr-defined]
    assert job.run(table, three_steps()) == 0


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(8))
def test_random_kills_under_faults_lose_no_answer_and_pay_only_what_was_in_flight_twice(
    tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    table = table_of(120, seed)
    job = FlowJob(tmp_path, MortalEndpoint(0.05, seed))
    for _ in range(10):
        run_killed(job, table, len(job.endpoint.sent) + chance.randint(1, 60), after=chance.random() < 0.5)
    assert run_killed(job, table, None, after=False)
    job.check()
    paid = len(job.endpoint.asked)
    assert paid <= needed(job.endpoint, job.answers) + job.endpoint.most_lost  # type: ignore[attr-defined]
    assert job.run(table, three_steps()) == 0


def batch_job(folder: Path, url: str, rows: int = 6) -> BatchJob:
    job = BatchJob(folder, url, rows=rows, task="run", prompt="{{ text }}", no_early_stop=True)
    with job.input.open("w") as file:
        file.write("id,text,name,city\n" + "".join(f"{n},text {n % 3},name {n},c\n" for n in range(rows)))
    return job


def finish(job: BatchJob) -> None:
    """The same command until it is done."""
    for _ in range(40):
        try:
            job.call()
        except NotReady:
            continue
        return
    raise AssertionError("not ready")


def check_batch(job: BatchJob, server: Any, rows: int, twice: int = 0) -> None:
    answers = job.answers
    assert [row["error"] for row in answers] == [""] * rows
    for index, row in enumerate(answers):
        said = "\n".join(show_row(job.output, index))
        assert f"topic of {row['text']}" in said
        if "request reply" in said:
            assert f"reply: {row['name']} <" in said
            assert f"check of {row['name']} <" in said
    with JournalReader.open(job.output.with_name("out.csv.journal")) as reader:
        ((requests,),) = reader.select("SELECT count(*) FROM request WHERE state = 1")
    assert requests <= server.ledger.batch_requests <= requests + twice


def test_three_steps_by_batch_are_three_waves(tmp_path: Path) -> None:
    with simulated() as server, with_flow(three_steps()):
        job = batch_job(tmp_path, server.base_url)
        finish(job)
        assert job.batches[0].requests == 6
        assert len(job.batches) == 3
        check_batch(job, server, 6)
        job.call()
        assert len(job.batches) == 3


def test_what_batches_began_single_requests_finish(tmp_path: Path) -> None:
    with simulated() as server, with_flow(three_steps()):
        job = batch_job(tmp_path, server.base_url)
        job.begin()
        with pytest.raises(NotReady):
            job.call()
        assert job.until_done(via="online").exit_status == 0
        assert [row["error"] for row in job.answers] == [""] * 6
        assert len(job.batches) <= 2


@pytest.mark.proof
@pytest.mark.parametrize("part", range(6))
def test_a_kill_at_any_step_of_the_batches_loses_nothing(tmp_path: Path, part: int) -> None:
    with with_flow(three_steps()):
        with simulated() as server:
            (tmp_path / "whole").mkdir()
            calls: list[int] = []
            job = batch_job(tmp_path / "whole", server.base_url, rows=4)
            for _ in range(40):
                found, passed = killed_call(job, None)
                calls.append(len(passed))
                if not isinstance(found, NotReady):
                    break
        points = [(call, at) for call, number in enumerate(calls) for at in range(number)]
        for call, at in points[part::6]:
            folder = tmp_path / f"{call}-{at}"
            folder.mkdir()
            with simulated() as server:
                job = batch_job(folder, server.base_url, rows=4)
                for earlier in range(call):
                    killed_call(job, None)
                    assert earlier < call
                killed_call(job, at)
                finish(job)
                check_batch(job, server, 4, twice=4)
