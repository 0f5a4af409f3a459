"""``export`` while a job is on its way, and the run that goes on afterwards."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.durability.checker import check_finished
from tests.durability.commands import CommandJob, environment, kill, ledger_server, wait_for_requests
from tests.durability.scenario import read_csv
from tests.durability.workers import ROOT


def export(job: CommandJob, *more: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "batchllm", "export", str(job.output), *more]
    return subprocess.run(command, cwd=ROOT, env=environment(job.folder), capture_output=True, text=True)


@pytest.mark.timeout(120)
def test_an_export_of_a_dead_run_does_not_stand_in_the_way_of_the_next(quick_folder: Path) -> None:
    with ledger_server(quick_folder) as server:
        texts = [f"row {number}" for number in range(60)]
        job = CommandJob.of(quick_folder / "job", server, texts, latency_ms=100, concurrency=8)
        run = job.start()
        assert wait_for_requests(job, run, more_than=20)
        assert kill(run)
        done = export(job)
        assert done.returncode == 0, done.stderr
        assert 0 < len(read_csv(job.output)) - 1 < len(texts)
        last = job.finish()
        assert last.returncode == 0, last.stderr
        assert check_finished(job, most_maybe=8) == []


@pytest.mark.timeout(120)
def test_an_export_while_a_run_goes_on_does_not_stand_in_its_way(quick_folder: Path) -> None:
    with ledger_server(quick_folder) as server:
        texts = [f"row {number}" for number in range(60)]
        job = CommandJob.of(quick_folder / "job", server, texts, latency_ms=250, concurrency=4)
        run = job.start()
        assert wait_for_requests(job, run, more_than=12)
        done = export(job)
        assert done.returncode == 0, done.stderr
        assert 0 < len(read_csv(job.output)) - 1 < len(texts)
        assert run.wait(60) == 0
        assert check_finished(job, most_maybe=0) == []
        assert job.finish().returncode == 0
