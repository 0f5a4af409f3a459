"""The wall clock jumps while a job runs, dies and is resumed; nothing is decided by it."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.durability.injection import CONCURRENCY, KILL, Point, finish, strace_options
from tests.durability.scenario import Scenario
from tests.durability.workers import Driver
from tests.rotation import rotating

DAY_S = 86_400.0
CLOCKS = {
    "a day ahead": [DAY_S],
    "a day behind": [-DAY_S],
    "a day forth and back at every look": [0.0, DAY_S],
    "ten seconds back in the middle": [0.0] * 20 + [-10.0] * 10_000,
    "an hour forth in the middle": [0.0] * 20 + [3600.0] * 10_000,
    "an hour back in the middle": [0.0] * 20 + [-3600.0] * 10_000,
    "slower than time": [-float(look) for look in range(10_000)],
    "the year 1970": [-time.time()],
}


@pytest.mark.parametrize("clock", rotating(CLOCKS))
def test_a_clock_that_jumps_changes_nothing(clock: str, quick_folder: Path) -> None:
    scenario = Scenario.make(quick_folder / "job")
    with Driver() as driver:
        started_s = time.monotonic()
        assert driver.run(scenario.folder, clock=CLOCKS[clock]).status == 0
        assert time.monotonic() - started_s < 10.0, "it waited for a clock"
        assert list(finish(scenario, driver, most_maybe=2)) == []
    with closing(sqlite3.connect(scenario.journal)) as journal:
        (least,) = journal.execute("SELECT min(latency_s) FROM reply").fetchone()
    assert least >= 0.0


@pytest.mark.parametrize("clock", ["a day ahead", "a day behind"])
def test_a_clock_that_jumped_between_two_runs_changes_nothing(
    clock: str, strace: None, quick_folder: Path
) -> None:
    scenario = Scenario.make(quick_folder / "job")
    with Driver(strace_options(KILL)) as killer, Driver() as driver:
        assert killer.run(scenario.folder, aim=Point(KILL, "journal", "fdatasync", 15).aim()).was_killed
        run = driver.run(scenario.folder, clock=CLOCKS[clock])
        assert run.status == 0
        assert run["possibly_billed_twice"] <= CONCURRENCY + 1
        assert list(finish(scenario, driver, most_maybe=CONCURRENCY + 2)) == []
