"""A job file of three steps, killed at random under faults, online and by batch."""

import asyncio
import csv
import random
from pathlib import Path

import pytest

from batchllm.errors import NotReady
from batchllm.journal import Journal, JournalReader
from batchllm.records import ChatRequest
from tests import mortal_runs
from tests.batch_jobs import BatchJob, simulated
from tests.batch_kills import Killed, killed_call
from tests.fakes import Outcome
from tests.step_jobs import CHAIN, StepEndpoint, StepJob, Table

CONCURRENCY = 16


def table_of(rows: int, seed: int) -> Table:
    """Rows with few different texts, so that many first requests are equal."""
    chance = random.Random(seed)
    return [
        {
            "id": str(number),
            "text": f"{chance.choice(('good', 'bad', 'bad'))} thing {chance.randrange(8)}",
            "name": f"name {number}",
        }
        for number in range(rows)
    ]


class MortalEndpoint(StepEndpoint):
    """An endpoint whose client dies at a request, before or after the endpoint has answered it.

    Attributes:
        deaths: How often it died.
    """

    def __init__(self, faults: float, seed: int) -> None:
        super().__init__(faults, seed)
        self.dies_at: int | None = None
        self.after = False
        self.deaths = 0
        self.journal: Journal | None = None

    async def send(self, chat: ChatRequest) -> Outcome:
        dies = self.dies_at is not None and len(self.sent) >= self.dies_at
        if dies and not self.after:
            self._die()
        await asyncio.sleep(0)
        outcome = await super().send(chat)
        if dies:
            self._die()
        return outcome

    def _die(self) -> None:
        assert self.journal is not None, "it is open"
        if self.journal._writer.failure is None:
            self.journal._writer.failure = RuntimeError("dead")  # nothing reaches the disk any more
            self.deaths += 1
        raise Killed


def run_killed(job: StepJob, at: int | None, *, after: bool) -> bool:
    """One run that dies at a request; returns whether it finished."""
    endpoint = job.endpoint
    assert isinstance(endpoint, MortalEndpoint)
    return mortal_runs.run_killed(
        endpoint, at, after=after, work=lambda: job.run(concurrency=CONCURRENCY, max_attempts=20)
    )


@pytest.mark.parametrize(
    ("rows", "kills", "seed"),
    [(40, 3, 0), *(pytest.param(1_000, 10, seed, marks=pytest.mark.proof) for seed in range(3))],
)
def test_random_kills_under_faults_pay_only_what_was_in_flight_twice(
    tmp_path: Path, rows: int, kills: int, seed: int
) -> None:
    chance = random.Random(seed)
    job = StepJob(tmp_path, CHAIN, table_of(rows, seed), MortalEndpoint(0.05, seed))
    endpoint = job.endpoint
    assert isinstance(endpoint, MortalEndpoint)
    for _ in range(kills):
        run_killed(job, len(endpoint.sent) + chance.randint(1, rows // 4), after=chance.random() < 0.5)
    assert run_killed(job, None, after=False)
    for row in job.answers:
        job.check(row)
    assert endpoint.deaths == kills
    replies = {row["reply"] for row in job.answers if row["reply"]}
    complaints = sum(row["kind"] == "complaint" for row in job.answers)
    assert len(replies) == complaints, "no two rows share a reply"
    assert endpoint.paid <= rows + 2 * complaints + CONCURRENCY * kills
    sent = len(endpoint.sent)
    assert run_killed(job, None, after=False)
    assert len(endpoint.sent) == sent

    changed = job.with_text(CHAIN.replace("Answer kindly", "Answer briefly"))
    endpoint.sent.clear()
    endpoint._faults = 0.0
    changed.run(accept_change=True)
    asked = {step: len(bodies) for step, bodies in endpoint.by_step().items()}
    assert asked == {"reply": complaints, "check": complaints}
    for row in changed.answers:
        changed.check(row)


@pytest.mark.parametrize(
    ("rows", "kills", "seed"),
    [(12, 2, 0), *(pytest.param(1_000, 10, seed, marks=pytest.mark.proof) for seed in range(2))],
)
def test_killed_batches_of_three_steps_lose_nothing(tmp_path: Path, rows: int, kills: int, seed: int) -> None:
    chance = random.Random(seed)
    file = tmp_path / "job.toml"
    file.write_text(CHAIN)
    with simulated(failure_rate=0.05) as server:
        job = BatchJob(
            tmp_path, server.base_url, task="run", job_file=str(file), max_attempts=20, dedupe=False
        )
        with job.input.open("w", newline="") as out:
            writer = csv.DictWriter(out, ["id", "text", "name"])
            writer.writeheader()
            writer.writerows(table_of(rows, seed))
        died = 0
        for _ in range(20 * kills):
            try:
                found, _ = killed_call(job, chance.randint(0, 60))
            except RuntimeError:  # the journal was cut off, and something else asked it first
                found = Killed()
            died += isinstance(found, Killed)
            if died == kills:
                break
        for _ in range(100):
            try:
                job.call()
            except NotReady:
                continue
            break
        else:
            raise AssertionError("not ready")
        assert len(job.batches) >= 3
        answers = job.answers
        billed = server.ledger.batch_requests
    assert len(answers) == rows
    for row in answers:
        assert row["error"] == "", row
        assert bool(row["reply"]) == bool(row["fits"]) == (row["kind"] == "complaint"), row
        assert row["reply"] == "" or row["name"] in row["reply"], row
    with JournalReader.open(job.output.with_name("out.csv.journal")) as reader:
        ((requests,),) = reader.select("SELECT count(*) FROM request WHERE state = 1")
        ((attempts,),) = reader.select("SELECT count(*) FROM attempt")
    assert requests == rows + 2 * sum(row["kind"] == "complaint" for row in answers)
    assert billed <= attempts, "every billed request is in the journal"
