"""The disk is full, or reports an error, at a run's every call that changes a file, once or from there on.

The run ends with 73 or 74 and names the file, or goes on because the call did not matter; what was acknowledged
is there, and the same command finishes the job once the disk is well again.
"""

from pathlib import Path

import pytest

from tests.durability.injection import EIO, EIO_ON, ENOSPC, ENOSPC_ON, points_of, sweep

FAULTS = (ENOSPC, ENOSPC_ON, EIO, EIO_ON)


def check(calls: dict[tuple[str, str], int], folder: Path, fault: str, *, every: int) -> None:
    tally = sweep(points_of(calls, fault, every=every), folder)
    print(tally.report())
    assert not tally.violations, tally.report()
    status = 73 if fault.startswith(ENOSPC) else 74
    assert tally.statuses[status] >= tally.fired // 2, f"few runs ended {status}: {tally.statuses}"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_disk_that_fails_ends_the_run_and_costs_no_answer(
    calls: dict[tuple[str, str], int], quick_folder: Path, fault: str
) -> None:
    check(calls, quick_folder, fault, every=7)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_disk_that_fails_at_any_call_ends_the_run_and_costs_no_answer(
    calls: dict[tuple[str, str], int], quick_folder: Path, fault: str
) -> None:
    check(calls, quick_folder, fault, every=1)
