"""The power fails after any file operation of a run; what is left is recovered by the same command."""

from pathlib import Path

import pytest

from tests.durability.images import disk_before, images_of, record, recover_all
from tests.durability.injection import EIO, FIRES_AT, KILL, Point, RunCounters, strace_options
from tests.durability.scenario import TEXTS, Scenario
from tests.durability.workers import Driver
from tests.rotation import rotating

CHECKPOINT_PAGES = 20
"""The log moves into the database every so many pages, which a small job would not reach otherwise."""


def cut_everywhere(scenario: Scenario, folder: Path, *, torn: int) -> RunCounters:
    """Traces the job's next run, and recovers the disks that a power cut may leave at each of its operations."""
    disk = disk_before(scenario.folder)
    operations = record(scenario, checkpoint_pages=CHECKPOINT_PAGES)
    images = list(images_of(disk, operations, torn=torn))
    counters = recover_all(images, folder)
    print(f"{len(operations)} operations, {len(images)} disks: {counters.report()}")
    return counters


@pytest.mark.proof
@pytest.mark.timeout(900)
def test_a_power_cut_at_any_operation_costs_no_acknowledged_answer(
    strace: None, tmp_path: Path, quick_folder: Path
) -> None:
    counters = cut_everywhere(Scenario.make(tmp_path / "job"), quick_folder, torn=5)
    assert not counters.violations, counters.report()
    assert counters.fired >= 800


@pytest.mark.proof
@pytest.mark.timeout(900)
def test_a_power_cut_while_a_dead_run_is_resumed_costs_no_acknowledged_answer(
    strace: None, tmp_path: Path, quick_folder: Path
) -> None:
    scenario = Scenario.make(tmp_path / "job")
    with Driver(strace_options(KILL)) as killer:
        assert killer.run(scenario.folder, aim=Point(KILL, "journal", "pwrite64", 80).aim()).was_killed
    counters = cut_everywhere(scenario, quick_folder, torn=1)
    assert not counters.violations, counters.report()
    assert counters.fired >= 200


@pytest.mark.parametrize("k", rotating([4, 9, 14, 19, 24]))
def test_what_a_failed_sync_left_unwritten_was_never_acknowledged(
    k: int, strace: None, tmp_path: Path, quick_folder: Path
) -> None:
    """After a sync that failed, a disk may hold nothing of what was to be synced, and later syncs say nothing of it."""
    scenario = Scenario.make(tmp_path / "job")
    disk = disk_before(scenario.folder)
    failing = ["-e", f"inject=fdatasync:error=EIO:when={FIRES_AT}"]
    aim = Point(EIO, "journal", "fdatasync", k).aim()
    operations = record(scenario, status=74, inject=failing, aim=aim)
    images = list(images_of(disk, operations, torn=2))[-40:]
    counters = recover_all(images, quick_folder)
    assert not counters.violations, counters.report()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_power_cuts_cost_no_acknowledged_answer(
    strace: None, tmp_path: Path, quick_folder: Path
) -> None:
    counters = cut_everywhere(Scenario.make(tmp_path / "job", TEXTS * 2), quick_folder, torn=40)
    assert not counters.violations, counters.report()
    assert counters.fired >= 15_000
