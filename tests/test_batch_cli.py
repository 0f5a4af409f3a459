"""Batches on the command line: silence while they are not ready, the list, cancelling, waiting, signals."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.batch_jobs import BatchJob, simulated

ROOT = Path(__file__).parent.parent


LASTING_S = 3600.0
"""Seconds of a batch that a slow machine does not outlast."""


class Shell:
    """Runs ``batchllm`` as a process in a folder with one small input."""

    def __init__(self, folder: Path, base_url: str) -> None:
        self.folder = folder
        self.environ = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(folder)}
        self.job = ["classify", "in.csv", "-o", "out.csv", "--provider", "simulator", "--base-url", base_url]
        BatchJob(folder, base_url, rows=6)

    def start(self, *words: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "batchllm", *words]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, cwd=self.folder, env=self.environ, stdout=pipe, stderr=pipe, text=True
        )

    def run(self, *words: str) -> tuple[int, str, str]:
        process = self.start(*words)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def batch(self, *words: str) -> tuple[int, str, str]:
        return self.run(*self.job, "--via", "batch", *words)


def test_a_job_that_is_not_ready_is_silent_when_quiet_and_cancelled_when_asked(tmp_path: Path) -> None:
    with simulated(seconds=LASTING_S) as server:
        shell = Shell(tmp_path, server.base_url)
        assert shell.batch("--quiet") == (75, "", "")
        assert shell.batch("--quiet") == (75, "", "")
        status, _, err = shell.batch()
        assert status == 75
        assert "1 batch is under way, 0 of 6 requests done" in err
        assert "--wait" in err
        status, out, _ = shell.run("batches")
        assert status == 0
        assert re.search(
            "out.csv: batch_simulator000001 (validating|in_progress), 0 of 6 done, simulator", out
        )
        assert "6 to go, 6 of them in batches" in shell.run("status", "out.csv")[1]
        status, out, _ = shell.run("batches", "cancel", "out.csv")
        assert status == 0
        assert "cancelling" in out
        status, _, err = shell.run(*shell.job, "--quiet")
        while status == 75:
            status, _, err = shell.run(*shell.job, "--quiet")
        assert (status, err) == (0, "")
        assert server.ledger.requests == 6
        assert "cancelled, collected" in shell.run("batches", "out.csv")[1]


def test_a_signal_ends_waiting_and_loses_nothing(tmp_path: Path) -> None:
    with simulated(seconds=LASTING_S) as server:
        shell = Shell(tmp_path, server.base_url)
        process = shell.start(*shell.job, "--via", "batch", "--wait")
        while server.ledger.batches == 0:
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 143
        assert "Traceback" not in err
        assert shell.batch("--quiet")[0] == 75
        assert server.ledger.batches == 1


def test_max_time_ends_waiting_and_the_same_command_goes_on(tmp_path: Path) -> None:
    with simulated(seconds=3.0) as server:
        shell = Shell(tmp_path, server.base_url)
        assert shell.batch("--wait", "--max-time", "1s", "--quiet") == (75, "", "")
        while (status := shell.batch("--quiet")[0]) == 75:
            pass
        assert status == 0
        assert server.ledger.batches == 1


def test_the_simulator_of_the_run_itself_needs_wait(tmp_path: Path) -> None:
    shell = Shell(tmp_path, "http://127.0.0.1:9/v1")
    shell.job = ["classify", "in.csv", "-o", "out.csv", "--provider", "simulator"]
    status, _, err = shell.batch()
    assert status == 2
    assert "--wait" in err
    assert "batchllm simulate" in err
    assert not (tmp_path / "out.csv.journal").exists()
    assert shell.batch("--wait", "--quiet") == (0, "", "")


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["batches"], 0, "there are no batches"),
        (["batches", "cancel"], 2, "takes one OUTPUT"),
        (["batches", "nothing.csv"], 65, "there is no journal"),
        (["batches", "cancel", "nothing.csv"], 65, "there is no journal"),
    ],
)
def test_what_there_is_not_is_said(tmp_path: Path, words: list[str], status: int, said: str) -> None:
    found, _, err = Shell(tmp_path, "http://127.0.0.1:9/v1").run(*words)
    assert found == status
    assert said in err


def test_rows_in_a_batch_are_not_exported(tmp_path: Path) -> None:
    with simulated(seconds=LASTING_S) as server:
        shell = Shell(tmp_path, server.base_url)
        assert shell.batch()[0] == 75
        status, _, err = shell.run("export", "out.csv", "-o", "so-far.csv")
        assert (status, "0 rows written" in err) == (0, True), err
        assert len((tmp_path / "so-far.csv").read_text().splitlines()) == 1


@pytest.mark.proof
def test_an_endpoint_that_cannot_be_reached_is_unavailable(tmp_path: Path) -> None:
    with simulated(seconds=LASTING_S) as server:
        shell = Shell(tmp_path, server.base_url)
        assert shell.batch("--quiet")[0] == 75
    status, _, err = shell.run("batches", "cancel", "out.csv")
    assert status == 69
    assert err.count("\n") == 1
