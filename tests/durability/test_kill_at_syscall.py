"""A run is killed at its every call that changes a file; the same command again finishes the job."""

from pathlib import Path

import pytest

from tests.durability.injection import KILL, points_of, sweep

pytestmark = pytest.mark.proof


@pytest.mark.timeout(600)
def test_a_run_killed_at_any_call_that_changes_a_file_is_finished_by_the_same_command(
    calls: dict[tuple[str, str], int], quick_folder: Path
) -> None:
    counters = sweep(points_of(calls, KILL), quick_folder)
    print(counters.report())
    assert not counters.violations, counters.report()
    assert counters.fired >= 200, counters.report()
    assert counters.twice >= counters.fired // 5, "a third of the points should see a second kill"
