"""Signals, once and twice, at random moments; standard output and standard error that nobody reads."""

import dataclasses
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.durability.checker import check_crash, check_finished, facts_of
from tests.durability.commands import (
    CommandJob,
    LedgerServer,
    environment,
    kill,
    ledger_server,
    wait_for_requests,
)
from tests.durability.workers import ROOT
from tests.rotation import rotating

ROWS = 200
CONCURRENCY = 16
TEXTS = [f"row {number}" for number in range(ROWS)]
STATUS = {signal.SIGHUP: 129, signal.SIGINT: 130, signal.SIGTERM: 143}


def job_of(folder: Path, server: LedgerServer, latency_ms: float) -> CommandJob:
    return CommandJob.of(folder / "job", server, TEXTS, latency_ms=latency_ms, concurrency=CONCURRENCY)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("number", rotating(STATUS), ids=lambda number: number.name)
def test_one_signal_lets_what_is_in_flight_land_and_keeps_it(
    number: signal.Signals, quick_folder: Path
) -> None:
    with ledger_server(quick_folder) as server:
        job = job_of(quick_folder, server, latency_ms=300)
        choice = random.Random(number)
        for _ in range(2):
            run = job.start()
            assert wait_for_requests(job, run, more_than=job.asked() + 1)
            time.sleep(choice.uniform(0.0, 0.4))
            run.send_signal(number)
            assert run.wait(20) == STATUS[number]
            assert facts_of(job.journal).unreplied == set()
            assert check_crash(job, concurrency=CONCURRENCY) == []
            assert not job.output.exists()
        assert job.finish().returncode == 0
        assert check_finished(job, most_maybe=0) == []
        assert job.asked() == ROWS, "nothing was paid twice"


def seconds_of_a_second_signal(job: CommandJob, number: signal.Signals) -> float:
    """How long a run goes on after a second signal while all its answers are a minute away."""
    run = job.start()
    assert wait_for_requests(job, run, more_than=job.asked())
    run.send_signal(number)
    time.sleep(0.3)
    assert run.poll() is None, "after one signal it waits for what is in flight"
    started_s = time.monotonic()
    run.send_signal(number)
    assert run.wait(10) == STATUS[number]
    return time.monotonic() - started_s


@pytest.mark.timeout(120)
@pytest.mark.parametrize("number", rotating(STATUS), ids=lambda number: number.name)
def test_a_second_signal_ends_the_run_within_two_seconds(number: signal.Signals, quick_folder: Path) -> None:
    with ledger_server(quick_folder) as server:
        job = job_of(quick_folder, server, latency_ms=300)
        slow = dataclasses.replace(job, latency_ms=60_000)
        run = job.start()
        assert wait_for_requests(job, run, more_than=20)
        run.send_signal(signal.SIGTERM)
        assert run.wait(20) == 143
        answered = len(facts_of(job.journal).answers)
        took_s = min(seconds_of_a_second_signal(slow, number) for _ in range(2))  # the machine may be busy
        assert took_s < 2.0
        assert len(facts_of(job.journal).answers) == answered
        assert check_crash(job, concurrency=CONCURRENCY) == []
        assert job.finish().returncode == 0
        assert check_finished(job, most_maybe=2 * CONCURRENCY) == []


@pytest.mark.proof
@pytest.mark.timeout(120)
def test_a_signal_at_any_moment_of_a_run_ends_it_in_order(quick_folder: Path) -> None:
    """Also before its first request and while it writes: no traceback, nothing lost, a true exit status."""
    with ledger_server(quick_folder) as server:
        job = job_of(quick_folder, server, latency_ms=20)
        lock = Path(f"{job.output}.lock")
        ends = []
        for step in range(12):
            run = job.start()
            while run.poll() is None and not (lock.exists() and lock.read_text().strip() == str(run.pid)):
                time.sleep(0.005)
            time.sleep(step * 0.06)
            number = list(STATUS)[step % 3]
            run.send_signal(number)
            ends.append((number, run.wait(20)))
            assert check_crash(job, concurrency=CONCURRENCY) == []
        # Once Python itself is leaving, a signal does what the system does: a shell shows the same number.
        assert all(end in (0, STATUS[number], -number) for number, end in ends), ends
        assert any(end == STATUS[number] for number, end in ends), ends
        assert "Traceback" not in (job.folder / "stderr").read_text()
        assert job.finish().returncode == 0
        assert check_finished(job, most_maybe=0) == []


@pytest.mark.timeout(120)
def test_a_run_that_was_told_to_ignore_the_hangup_ignores_it(quick_folder: Path) -> None:
    with ledger_server(quick_folder) as server:
        job = job_of(quick_folder, server, latency_ms=100)
        run = subprocess.Popen(
            ["sh", "-c", "trap '' HUP; exec \"$@\"", "sh", *job.arguments("--quiet")],
            cwd=ROOT,
            env=environment(job.folder),
        )
        assert wait_for_requests(job, run, more_than=20)
        run.send_signal(signal.SIGHUP)
        assert run.wait(60) == 0
        assert check_finished(job, most_maybe=0) == []


@pytest.mark.timeout(120)
def test_closed_standard_streams_never_kill_a_run(quick_folder: Path) -> None:
    with ledger_server(quick_folder) as server:
        job = job_of(quick_folder, server, latency_ms=20)
        run = job.start(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert run.stdout is not None
        assert run.stderr is not None
        run.stdout.close()
        run.stderr.close()
        assert run.wait(60) == 0
        assert check_finished(job, most_maybe=0) == []


@pytest.mark.timeout(120)
def test_standard_streams_that_were_never_open_do_no_harm(quick_folder: Path) -> None:
    with ledger_server(quick_folder) as server:
        job = job_of(quick_folder, server, latency_ms=20)
        shut = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *job.arguments()]
        assert subprocess.run(shut, cwd=ROOT, env=environment(job.folder), timeout=60).returncode == 0
        assert check_finished(job, most_maybe=0) == []


@pytest.mark.timeout(120)
def test_a_reader_of_the_output_that_goes_away_costs_no_answer(quick_folder: Path) -> None:
    with ledger_server(quick_folder) as server:
        job = job_of(quick_folder, server, latency_ms=20)
        arguments = ["-o", "-", "--journal", str(job.journal)]
        run = job.start(*arguments, stdout=subprocess.PIPE)
        assert run.stdout is not None
        run.stdout.close()
        assert run.wait(60) == 0
        assert len(facts_of(job.journal).answers) == ROWS
        assert job.asked() == ROWS


@pytest.mark.timeout(120)
def test_a_run_that_was_killed_while_it_was_being_stopped_is_finished_by_the_same_command(
    quick_folder: Path,
) -> None:
    with ledger_server(quick_folder) as server:
        job = job_of(quick_folder, server, latency_ms=400)
        run = job.start()
        assert wait_for_requests(job, run, more_than=10)
        run.send_signal(signal.SIGTERM)
        time.sleep(0.05)
        assert kill(run)
        assert check_crash(job, concurrency=CONCURRENCY) == []
        assert job.finish().returncode == 0
        assert check_finished(job, most_maybe=CONCURRENCY) == []
