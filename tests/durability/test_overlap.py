"""Several runs of one job at once: one works, the others say "not now" and have sent nothing."""

import subprocess
from pathlib import Path

import pytest

from tests.durability.checker import check_crash, check_finished
from tests.durability.commands import CommandJob, kill, ledger_server, wait_for_requests
from tests.rotation import rotating

ROWS = 40


@pytest.mark.timeout(300)
@pytest.mark.parametrize("runs", rotating([2, 3, 5, 8]))
def test_of_several_runs_at_once_one_works_and_the_others_exit_75(quick_folder: Path, runs: int) -> None:
    with ledger_server(quick_folder) as server:
        job = CommandJob.of(
            quick_folder / "job", server, [f"row {i}" for i in range(ROWS)], latency_ms=400, concurrency=4
        )
        processes = [job.start() for _ in range(runs)]
        statuses = sorted(process.wait(120) for process in processes)
        assert statuses == [0] + [75] * (runs - 1)
        assert job.asked() == ROWS
        assert check_finished(job, most_maybe=0) == []


def test_the_lock_is_free_as_soon_as_its_holder_was_killed(quick_folder: Path) -> None:
    with ledger_server(quick_folder) as server:
        job = CommandJob.of(
            quick_folder / "job", server, [f"row {i}" for i in range(ROWS)], latency_ms=300, concurrency=4
        )
        holder = job.start()
        assert wait_for_requests(job, holder, more_than=3)
        second = job.finish()
        assert second.returncode == 75
        assert "has this job" in second.stderr
        assert kill(holder)
        assert check_crash(job, concurrency=4) == []
        assert job.finish().returncode == 0
        assert check_finished(job, most_maybe=4) == []


def test_a_run_that_is_told_to_wait_for_the_lock_takes_over(quick_folder: Path) -> None:
    with ledger_server(quick_folder) as server:
        job = CommandJob.of(
            quick_folder / "job", server, [f"row {i}" for i in range(ROWS)], latency_ms=100, concurrency=4
        )
        first = job.start()
        assert wait_for_requests(job, first, more_than=0)
        waiting = job.start("--wait-lock", "60")
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(0.2)
        assert (first.wait(60), waiting.wait(60)) == (0, 0)
        assert job.asked() == ROWS
