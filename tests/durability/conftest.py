"""What the durability tests share: whether strace works here, and how often a run makes each call."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.durability.injection import count_calls
from tests.durability.workers import strace_works


@pytest.fixture(scope="session")
def strace() -> None:
    """Skips where faults cannot be injected, and says so."""
    if not strace_works():
        pytest.skip("no faults were injected: strace is not installed, or ptrace is not permitted here")


@pytest.fixture
def quick_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: what a killed process wrote survives there as on a disk.

    Nothing in these tests hangs on the disk itself, and a sweep syncs some 50,000 times.
    """
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK) or os.statvfs(memory).f_bavail * os.statvfs(memory).f_frsize < 5e7:
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as name:
        yield Path(name)


@pytest.fixture(scope="session")
def calls(strace: None, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], int]:
    """How often each thread of the small job makes each call."""
    return count_calls(tmp_path_factory.mktemp("counted") / "run")
