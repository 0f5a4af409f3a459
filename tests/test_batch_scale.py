"""A large job in batch mode: as many files as the endpoint's limit makes, and memory that does not grow with rows."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.batch_jobs import BatchJob, simulated

CALL = """
import re, sys
from pathlib import Path
from batchllm.errors import NotReady
from tests.batch_jobs import BatchJob
folder, url, rows = sys.argv[1:]
job = BatchJob(Path(folder), url, rows=int(rows))
try:
    print(job.call().summary.answered, end=" ")
except NotReady:
    print(0, end=" ")
print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024)
"""


def call(folder: Path, url: str, rows: int) -> tuple[int, int]:
    """One call of the command in a process of its own: rows answered, and its peak memory in MiB."""
    command = [sys.executable, "-c", CALL, str(folder), url, str(rows)]
    done = subprocess.run(
        command, cwd=Path(__file__).parent.parent, check=True, stdout=subprocess.PIPE, text=True
    )
    answered, mib = map(int, done.stdout.split())
    return answered, mib


def peak(folder: Path, rows: int, batches: int) -> int:
    """The largest peak of the calls of a job, which ends with every row answered."""
    folder.mkdir()
    with simulated() as server:
        most = 0
        for _ in range(200):
            answered, mib = call(folder, server.base_url, rows)
            most = max(most, mib)
            if answered:
                break
        assert (answered, server.ledger.batches, server.ledger.batch_requests) == (rows, batches, rows)
    job = BatchJob.__new__(BatchJob)
    job.output = folder / "out.csv"
    assert [batch.requests for batch in job.batches] == [50_000] * (rows // 50_000) + [rows % 50_000]
    return most


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from Linux's /proc")
@pytest.mark.timeout(1800)
def test_120_000_rows_make_three_files_flat_in_memory(tmp_path: Path) -> None:
    small = peak(tmp_path / "small", 2_000, 1)
    large = peak(tmp_path / "large", 120_000, 3)
    print(f"peak: {small} MiB at 2,000 rows, {large} MiB at 120,000")
    assert large - small < 80
