"""Three simulators as processes of their own, one of which is killed and returns: what the living grant is used."""

import csv
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from batchllm.job import assemble
from batchllm.runner import run_job

pytestmark = pytest.mark.proof

LIMITS = (600, 1_200, 2_400)
DIES_S, BACK_S = 15.0, 30.0
ROWS = 9_000


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def simulator(port: int, rpm: int) -> Iterator[subprocess.Popen[bytes]]:
    words = ["simulate", "--port", str(port), "--rpm", str(rpm), "--latency", "0.3"]
    process = subprocess.Popen(
        [sys.executable, "-m", "batchllm", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, "it did not start"
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.timeout(400)
def test_what_the_living_grant_is_used_and_no_row_is_lost(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("text\n" + "".join(f"row {n}\n" for n in range(ROWS)))
    ports = [free_port() for _ in LIMITS]
    died: list[float] = []
    with ExitStack() as stack:
        processes = [
            stack.enter_context(simulator(port, rpm)) for port, rpm in zip(ports, LIMITS, strict=True)
        ]
        lines = "".join(
            f'[[endpoints]]\nprovider = "vllm"\nbase_url = "http://127.0.0.1:{port}/v1"\nrpm = {rpm}\n'
            for port, rpm in zip(ports, LIMITS, strict=True)
        )
        (tmp_path / "job.toml").write_text(
            f'[job]\ninput = "in.csv"\nprompt = "Say {{{{ text }}}}"\nmodel = "m"\noutput = "out.csv"\n{lines}'
        )

        def kill_and_return() -> None:
            time.sleep(DIES_S)
            died.append(time.monotonic())
            os.kill(processes[2].pid, signal.SIGKILL)
            processes[2].wait()
            time.sleep(BACK_S - DIES_S)
            stack.enter_context(simulator(ports[2], LIMITS[2]))
            died.append(time.monotonic())

        thread = threading.Thread(target=kill_and_return)
        thread.start()
        result = run_job(assemble("run", {"job_file": str(tmp_path / "job.toml")}, {}))
        took_s, ended = result.summary.seconds, time.monotonic()
        thread.join()
    assert result.exit_status == 0
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["text"] for row in rows] == [f"row {n}" for n in range(ROWS)]
    assert all(f"Say row {n}" in row["response"] for n, row in enumerate(rows))
    granted = (sum(LIMITS) * took_s - LIMITS[2] * (died[1] - died[0])) / 60.0
    assert ended > died[1] + 5, "it was over before the one that died was back"
    used = ROWS / granted
    print(f"{used:.3f} of what the living grant, in {took_s:.1f} s; {result.summary.endpoints}")
    assert used >= 0.95
    assert result.summary.rate_limited <= 0.01 * ROWS
