"""The real command is killed at random moments under load, again and again, and no answer is lost."""

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.durability.checker import check_crash, check_finished, check_rerun, facts_of
from tests.durability.commands import CommandJob, LedgerServer, kill, ledger_server, wait_for_requests
from tests.durability.workers import WORKERS

ROWS = 3000
KILLS = 25
CONCURRENCY = 64
LATENCY_MS = 150
FAULTS_PERCENT = 5
LONGEST_S = 0.6
"""A run is killed at most so long after its first request."""


@dataclass
class Outcome:
    """What happened to one job."""

    kills: int = 0
    in_flight: int = 0
    lost_on_the_way: int = 0
    requests: int = 0
    violations: list[str] = field(default_factory=list)


def killed_again_and_again(name: str, folder: Path, server: LedgerServer, *, kills: int) -> Outcome:
    """Kills a job's runs at random moments, then lets the same command finish it."""
    texts = [f"row {number} of {name}" for number in range(ROWS)]
    job = CommandJob.of(
        folder / name,
        server,
        texts,
        latency_ms=LATENCY_MS,
        faults_percent=FAULTS_PERCENT,
        concurrency=CONCURRENCY,
    )
    outcome, choice = Outcome(), random.Random(name)
    for _ in range(kills):
        before = job.asked()
        process = job.start()
        if choice.random() < 0.1:
            time.sleep(choice.uniform(0.05, 1.0))  # while it starts
        elif wait_for_requests(job, process, more_than=before):
            time.sleep(choice.uniform(0.0, LONGEST_S))
        outcome.kills += kill(process)
        outcome.violations += check_crash(job, concurrency=CONCURRENCY)
        outcome.in_flight += len(facts_of(job.journal).unreplied)
    outcome.violations += ended(job, outcome)
    return outcome


def ended(job: CommandJob, outcome: Outcome) -> Iterator[str]:
    """The same command finishes the job; once more, and it does nothing."""
    last = job.finish()
    if last.returncode == 1:  # a row whose answer got lost three times is sent again by the next run
        last = job.finish()
    if last.returncode != 0:
        yield f"the last run ended {last.returncode}: {last.stderr[-300:]}"
        return
    notes = job.notes()
    outcome.requests = len(notes)
    outcome.lost_on_the_way = sum(note["disposition"] in ("reset", "cut") for note in notes)
    yield from check_finished(job, most_maybe=outcome.in_flight + outcome.lost_on_the_way)
    before = job.output.read_bytes()
    if job.finish().returncode != 0:
        yield "the re-run failed"
    yield from check_rerun(job, before, len(notes))


def kill_jobs(folder: Path, *, jobs: int) -> list[Outcome]:
    with ledger_server(folder) as server, ThreadPoolExecutor(WORKERS) as pool:
        names = [f"job{number}" for number in range(jobs)]
        return list(pool.map(lambda name: killed_again_and_again(name, folder, server, kills=KILLS), names))


def check(outcomes: list[Outcome]) -> None:
    for outcome in outcomes:
        print(
            f"{outcome.kills} kills, {outcome.in_flight} requests in flight at them, {outcome.lost_on_the_way} "
            f"answers lost on the way, {outcome.requests} requests for {ROWS} rows"
        )
        assert not outcome.violations, outcome.violations[:10]
        assert outcome.kills >= KILLS * 0.8, "most kills must find the run alive"
        assert outcome.in_flight >= outcome.kills, "the runs were killed under load"


@pytest.mark.proof
@pytest.mark.timeout(900)
def test_100_random_kills_of_3000_rows_with_64_in_flight_and_5_percent_faults_lose_no_answer(
    quick_folder: Path,
) -> None:
    check(kill_jobs(quick_folder, jobs=4))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_1000_random_kills_lose_no_answer(quick_folder: Path) -> None:
    check(kill_jobs(quick_folder, jobs=40))
