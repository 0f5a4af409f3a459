"""The checker catches what it is there for: each broken protocol violates the invariant that it breaks."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.durability.checker import check_crash
from tests.durability.controls import CONTROLS
from tests.durability.images import disk_before, images_of, record
from tests.durability.injection import CONCURRENCY, KILL, Point, finish, strace_options
from tests.durability.scenario import Scenario
from tests.durability.workers import Driver

pytestmark = pytest.mark.proof

# What each control breaks: the invariants of which at least one has to be named.
AT_A_POWER_CUT = {
    "never_synced": ("I1", "I2", "I3"),
    "intent_not_awaited": ("I3",),
    "acknowledged_before_durable": ("I1",),
    "output_not_synced": ("I9",),
    "folder_not_synced": ("I2",),
}
AT_A_KILL = {
    "no_intent": ("I3",),
    "intent_not_awaited": ("I3",),
    "acknowledged_before_durable": ("I1",),
}
ALWAYS = {"settled_by_key": ("I5",), "no_intent": ("I3",)}


def test_every_control_has_its_test() -> None:
    assert set(CONTROLS) == {*AT_A_POWER_CUT, *AT_A_KILL, *ALWAYS}


@pytest.mark.parametrize("control", AT_A_POWER_CUT)
def test_a_power_cut_shows(control: str, strace: None, tmp_path: Path, quick_folder: Path) -> None:
    scenario = Scenario.make(tmp_path / "job")
    disk = disk_before(scenario.folder)
    images = list(images_of(disk, record(scenario, control=control), torn=1))
    random.Random(control).shuffle(images)
    wanted = AT_A_POWER_CUT[control]

    def violations() -> Iterator[str]:
        for number, (_, image) in enumerate(images):
            cut = Scenario(quick_folder / str(number))
            cut.folder.mkdir()
            for file, content in image.items():
                (cut.folder / file).write_bytes(content)
            yield from check_crash(cut, concurrency=CONCURRENCY)
            cut.remove()

    assert any(violation.startswith(wanted) for violation in violations()), f"{control} was not caught"


@pytest.mark.parametrize("control", AT_A_KILL)
def test_a_kill_shows(control: str, strace: None, quick_folder: Path) -> None:
    wanted = AT_A_KILL[control]

    def violations() -> Iterator[str]:
        with Driver(strace_options(KILL)) as killer:
            # A group is there for the next run as soon as it is written, so the kill comes before that, or behind it.
            for call, k in [
                *(("pwrite64", k) for k in range(30, 200, 10)),
                *(("fdatasync", k) for k in range(6, 40, 2)),
            ]:
                scenario = Scenario.make(quick_folder / f"{call} {k}")
                point = Point(KILL, "journal", call, k)
                killer.run(scenario.folder, aim=point.aim(), control=control)
                yield from check_crash(scenario, concurrency=CONCURRENCY)

    assert any(violation.startswith(wanted) for violation in violations()), f"{control} was not caught"


@pytest.mark.parametrize("control", ALWAYS)
def test_a_run_shows(control: str, quick_folder: Path) -> None:
    scenario = Scenario.make(quick_folder / "job")
    with Driver() as driver:
        assert driver.run(scenario.folder, control=control).status == 0
        found = list(finish(scenario, driver, most_maybe=CONCURRENCY))
    assert any(violation.startswith(ALWAYS[control]) for violation in found), found


def test_a_sound_run_shows_nothing(quick_folder: Path) -> None:
    scenario = Scenario.make(quick_folder / "job")
    with Driver() as driver:
        assert driver.run(scenario.folder).status == 0
        assert list(finish(scenario, driver, most_maybe=2)) == []
