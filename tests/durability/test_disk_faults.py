"""The disk is full, or reports an error, at a run's every call that changes a file, once or from there on.

The run ends with 73 or 74 and names the file, or goes on because the call did not matter; what was acknowledged
is there, and the same command finishes the job once the disk is well again.
"""

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.durability.checker import check_crash, check_finished
from tests.durability.commands import CommandJob, ledger_server, wait_for_requests
from tests.durability.injection import EIO, EIO_ON, ENOSPC, ENOSPC_ON, points_of, sweep

FAULTS = (ENOSPC, ENOSPC_ON, EIO, EIO_ON)


def check(calls: dict[tuple[str, str], int], folder: Path, fault: str, *, every: int) -> None:
    counters = sweep(points_of(calls, fault, every=every), folder)
    print(counters.report())
    assert not counters.violations, counters.report()
    status = 73 if fault.startswith(ENOSPC) else 74
    assert counters.statuses[status] >= counters.fired // 2, f"few runs ended {status}: {counters.statuses}"


@pytest.mark.timeout(600)
@pytest.mark.proof
@pytest.mark.parametrize("fault", FAULTS)
def test_a_disk_that_fails_ends_the_run_and_costs_no_answer(
    calls: dict[tuple[str, str], int], quick_folder: Path, fault: str
) -> None:
    check(calls, quick_folder, fault, every=3)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_disk_that_fails_at_any_call_ends_the_run_and_costs_no_answer(
    calls: dict[tuple[str, str], int], quick_folder: Path, fault: str
) -> None:
    check(calls, quick_folder, fault, every=1)


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A file system of its own that is soon full."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("no disk was filled: a file system cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(path: Path) -> None:
    """Takes all the room there is."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        for piece in (1 << 16, 512):
            while os.write(descriptor, b"x" * piece):
                pass
    except OSError as error:
        assert error.errno == errno.ENOSPC
    finally:
        os.close(descriptor)


@pytest.mark.timeout(120)
def test_a_disk_that_somebody_else_fills_stops_the_run_and_costs_no_answer(tmp_path: Path) -> None:
    texts = [f"row {number}" for number in range(400)]
    with small_disk(tmp_path / "disk", 8) as disk, ledger_server(tmp_path) as server:
        job = CommandJob.of(disk / "job", server, texts, latency_ms=100, concurrency=16)
        run = job.start()
        assert wait_for_requests(job, run, more_than=40)
        ballast = disk / "ballast"
        fill(ballast)
        assert run.wait(60) == 73
        ballast.unlink()
        assert check_crash(job, concurrency=16) == []
        last = job.finish()
        assert last.returncode == 0, last.stderr
        assert check_finished(job, most_maybe=16) == []


@pytest.mark.timeout(120)
def test_a_disk_without_room_is_found_before_the_first_request(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1) as disk, ledger_server(tmp_path) as server:
        job = CommandJob.of(disk / "job", server, [f"row {number}" for number in range(1000)], concurrency=16)
        run = job.finish()
        assert run.returncode == 73
        assert "free" in run.stderr
        assert not (tmp_path / "job.jsonl").exists()
