"""A scheduled job under the conditions of cron, and under Debian's cron itself.

The line is the one that ``batchllm schedule`` prints. The folder's name has what has to be escaped in it.
"""

import dataclasses
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.durability.checker import check_finished, check_rerun
from tests.durability.commands import CommandJob, environment, kill, ledger_server, wait_for_requests
from tests.durability.workers import ROOT

CRON_D = Path("/etc/cron.d")
REBOOTED = Path("/run/crond.reboot")
"""Where cron remembers that it has run the jobs of ``@reboot``, which come at once and not at the next minute."""

TEXTS = [f"row {number}" for number in range(60)]


@contextmanager
def scheduled(folder: Path) -> Iterator[tuple[CommandJob, str]]:
    """A job, and the command of its crontab line."""
    home = folder / "50% off"
    home.mkdir()
    with ledger_server(home) as server:
        job = CommandJob.of(home / "job", server, TEXTS, latency_ms=100, concurrency=8)
        words = job.arguments()[3:]  # without the interpreter, -m and the package
        printed = subprocess.run(
            [sys.executable, "-m", "batchllm", "schedule", "--at", "02:30", *words],
            cwd=job.folder,
            env={**environment(job.folder), "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        line = next(line for line in printed.splitlines() if line.startswith("30 2 * * * "))
        yield job, line.removeprefix("30 2 * * * ")


def start_as_cron_does(job: CommandJob, command: str) -> "subprocess.Popen[str]":
    """No terminal, no profile, the four variables of cron, ``\\%`` left to the shell as Debian's cron does."""
    assert "%" not in command.replace("\\%", ""), "a bare % ends a crontab line"
    variables = ["SHELL=/bin/sh", "PATH=/usr/bin:/bin", f"HOME={job.folder}", "LOGNAME=nobody"]
    return subprocess.Popen(
        ["env", "-i", *variables, "/bin/sh", "-c", command],
        cwd="/",
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.timeout(120)
def test_a_job_under_the_conditions_of_cron_ends_0_and_says_nothing(quick_folder: Path) -> None:
    with scheduled(quick_folder) as (job, command):
        run = start_as_cron_does(job, command)
        assert (*run.communicate(timeout=60), run.returncode) == ("", "", 0)
        assert check_finished(job, most_maybe=0) == []
        before = job.output.read_bytes()
        again = start_as_cron_does(job, command)
        assert (*again.communicate(timeout=60), again.returncode) == ("", "", 0)
        assert check_rerun(job, before, len(TEXTS)) == []


@pytest.mark.timeout(120)
def test_a_job_that_is_still_running_keeps_the_next_night_from_it_and_ends_75(quick_folder: Path) -> None:
    with scheduled(quick_folder) as (job, command):
        long = dataclasses.replace(job, latency_ms=2_000).start()
        assert wait_for_requests(job, long, more_than=0)
        run = start_as_cron_does(job, command)
        run.communicate(timeout=60)
        assert run.returncode == 75, "a line of cron hides no status"
        assert kill(long), "the first run was still at it"
        night = start_as_cron_does(job, command)
        night.communicate(timeout=60)
        assert night.returncode == 0
        assert check_finished(job, most_maybe=8) == []


@pytest.mark.timeout(120)
def test_debians_cron_runs_the_job(quick_folder: Path) -> None:
    if shutil.which("cron") is None or os.geteuid() != 0 or not CRON_D.is_dir():
        pytest.skip("not run under a real cron: it is not installed, or this is not root")
    if (
        Path("/run/crond.pid").exists()
        and subprocess.run(["pgrep", "-x", "cron"], capture_output=True).stdout
    ):
        pytest.skip("not run under a real cron: one is running already and is left alone")
    with scheduled(quick_folder) as (job, command), cron(f"@reboot root {command}\n") as daemon:
        until = time.monotonic() + 60
        while not job.output.exists():
            assert daemon.poll() is None, "cron ended"
            assert time.monotonic() < until, "cron did not run the job"
            time.sleep(0.05)
        # The output is in place a moment before its run has ended; the next one waits for the lock.
        assert job.finish("--wait-lock", "30").returncode == 0
        assert job.asked() == len(TEXTS)
        assert check_finished(job, most_maybe=0) == []


@contextmanager
def cron(table: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Debian's cron in the foreground with one table of ours; leaves everything as it was."""
    path = CRON_D / f"durability-{os.getpid()}"
    had_rebooted = REBOOTED.exists()
    REBOOTED.unlink(missing_ok=True)
    path.write_text(table)
    path.chmod(0o644)
    try:
        with subprocess.Popen(["cron", "-f"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as daemon:
            try:
                yield daemon
            finally:
                daemon.terminate()
    finally:
        path.unlink()
        Path("/run/crond.pid").unlink(missing_ok=True)
        if had_rebooted:
            REBOOTED.touch()
        else:
            REBOOTED.unlink(missing_ok=True)
