"""What a run does beside its rows may fail too: its summary, its start over, its old output."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.durability.checker import check_output, facts_of
from tests.durability.injection import finish
from tests.durability.scenario import Scenario
from tests.durability.workers import Driver


@pytest.fixture(scope="module")
def driver() -> Iterator[Driver]:
    with Driver() as process:
        yield process


def test_a_summary_that_cannot_be_written_is_found_before_the_first_request(
    driver: Driver, quick_folder: Path
) -> None:
    scenario = Scenario.make(quick_folder / "job")
    run = driver.run(scenario.folder, flags={"summary": str(quick_folder / "nowhere" / "summary.json")})
    assert run.status == 73
    assert "--summary" in run["message"]
    assert [note["event"] for note in scenario.notes()] == ["ended"]


def test_a_summary_that_finds_the_disk_full_ends_the_run_with_73_and_costs_no_answer(
    driver: Driver, quick_folder: Path
) -> None:
    scenario = Scenario.make(quick_folder / "job")
    full = quick_folder / "summary.json"
    full.symlink_to("/dev/full")
    run = driver.run(scenario.folder, flags={"summary": str(full)})
    assert run.status == 73
    assert str(full) in run["message"]
    assert list(finish(scenario, driver, most_maybe=2)) == []


def test_starting_over_replaces_the_output_of_the_journal_that_is_put_aside(
    driver: Driver, quick_folder: Path
) -> None:
    scenario = Scenario.make(quick_folder / "job")
    assert driver.run(scenario.folder).status == 0
    before = scenario.output.read_bytes()
    run = driver.run(scenario.folder, flags={"restart": True})
    assert run.status == 0, run
    assert scenario.output.read_bytes() != before, "there are new answers"
    assert check_output(scenario) == []
    assert len(facts_of(Path(f"{scenario.journal}.1")).answers) == len(facts_of(scenario.journal).answers) > 0


def test_an_output_that_was_edited_is_not_replaced_without_force(driver: Driver, quick_folder: Path) -> None:
    scenario = Scenario.make(quick_folder / "job")
    assert driver.run(scenario.folder).status == 0
    edited = scenario.output.read_bytes() + b"a note of mine\n"
    scenario.output.write_bytes(edited)
    assert driver.run(scenario.folder).status == 2
    assert driver.run(scenario.folder, flags={"restart": True}).status == 2
    assert scenario.output.read_bytes() == edited
    assert driver.run(scenario.folder, flags={"force": True}).status == 0
    assert check_output(scenario) == []


def test_a_file_that_batchllm_did_not_write_is_not_replaced(driver: Driver, quick_folder: Path) -> None:
    scenario = Scenario.make(quick_folder / "job")
    scenario.output.write_bytes(b"mine\n")
    assert driver.run(scenario.folder).status == 2
    assert scenario.output.read_bytes() == b"mine\n"
    assert [note["event"] for note in scenario.notes()] == ["ended"]
