"""A finished job's input is edited; the next run asks for exactly what is new."""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.durability.checker import check_finished
from tests.durability.commands import CommandJob, ledger_server, wait_for_requests
from tests.durability.scenario import Scenario, read_csv, write_input
from tests.durability.workers import Driver

TEXTS = [f"text {number}" for number in range(1000)]
MANY = {"concurrency": 64, "column": "text"}

Rows = list[list[str]]


def rewritten(change: Callable[[Rows], None], **how: Any) -> Callable[[Path], None]:
    """An edit that reads the cells, changes them and writes them back."""

    def edit(path: Path) -> None:
        rows = read_csv(path)
        change(rows)
        lines = [",".join(f'"{cell}"' for cell in row) for row in rows]
        end = how.get("end", "\n")
        path.write_bytes((end.join(lines) + end).encode(how.get("encoding", "utf-8")))

    return edit


def insert_on_top(rows: Rows) -> None:
    rows[1:1] = [[f"new {i}", f"new text {i}", "x"] for i in range(10)]


def delete(rows: Rows) -> None:
    del rows[500:510]


def shuffle(rows: Rows) -> None:
    records = rows[1:]
    random.Random(1).shuffle(records)
    rows[1:] = records


def edit_unused(rows: Rows) -> None:
    for row in rows[1:200]:
        row[2] = "edited"


def edit_used(rows: Rows) -> None:
    for row in rows[100:110]:
        row[1] += ", edited"


def add_unused(rows: Rows) -> None:
    for number, row in enumerate(rows):
        row.append("more" if number == 0 else str(number))


def append(rows: Rows) -> None:
    rows += [[f"new {i}", f"new text {i}", "x"] for i in range(100)]


def repeat(rows: Rows) -> None:
    rows += [list(row) for row in rows[1:11]]


def nothing(rows: Rows) -> None:
    """The cells stay; their encoding or line ends change."""


EDITS = {
    "insert 10 on top": (rewritten(insert_on_top), 10),
    "delete 10": (rewritten(delete), 0),
    "shuffle": (rewritten(shuffle), 0),
    "edit an unused column": (rewritten(edit_unused), 0),
    "edit a used column in 10 rows": (rewritten(edit_used), 10),
    "add an unused column": (rewritten(add_unused), 0),
    "append 100": (rewritten(append), 100),
    "repeat 10 rows": (rewritten(repeat), 10),
    "CRLF line ends": (rewritten(nothing, end="\r\n"), 0),
}
IN_OTHER_ENCODINGS = {
    "a byte order mark": rewritten(nothing, encoding="utf-8-sig"),
    "UTF-16": rewritten(nothing, encoding="utf-16"),
}


@pytest.fixture(scope="module")
def driver() -> Iterator[Driver]:
    with Driver() as process:
        yield process


@pytest.fixture(scope="module")
def done(driver: Driver, tmp_path_factory: pytest.TempPathFactory) -> Scenario:
    """A job of 1,000 rows that has all its answers."""
    scenario = Scenario.make(tmp_path_factory.mktemp("edits") / "job", TEXTS)
    assert driver.run(scenario.folder, flags=MANY).status == 0
    assert len(scenario.notes()) > 0
    return scenario


def asked(scenario: Scenario) -> int:
    return sum(note["event"] == "request" for note in scenario.notes())


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_asks_only_for_what_is_new(edit: str, done: Scenario, driver: Driver, tmp_path: Path) -> None:
    change, new = EDITS[edit]
    scenario = done.copy(tmp_path / "job")
    change(scenario.input)
    run = driver.run(scenario.folder, flags=MANY)
    assert (run.status, asked(scenario) - len(TEXTS)) == (0, new), run
    assert check_finished(scenario, most_maybe=0) == []


@pytest.mark.parametrize("edit", IN_OTHER_ENCODINGS)
def test_another_encoding_of_the_same_cells_asks_for_nothing(
    edit: str, done: Scenario, driver: Driver, tmp_path: Path
) -> None:
    scenario = done.copy(tmp_path / "job")
    IN_OTHER_ENCODINGS[edit](scenario.input)
    run = driver.run(scenario.folder, flags=MANY)
    assert (run.status, asked(scenario)) == (0, len(TEXTS)), run


def test_the_same_values_as_jsonl_ask_for_nothing(done: Scenario, driver: Driver, tmp_path: Path) -> None:
    scenario = done.copy(tmp_path / "job")
    header, *rows = read_csv(scenario.input)
    lines = [json.dumps(dict(zip(header, row, strict=True))) for row in rows]
    other = scenario.folder / "input.jsonl"
    other.write_text("\n".join(lines) + "\n")
    run = driver.run(scenario.folder, flags={**MANY, "input": str(other)})
    assert (run.status, asked(scenario)) == (0, len(TEXTS)), run
    assert check_finished(scenario, most_maybe=0) == []


def test_repeated_rows_ask_for_nothing_with_dedupe(done: Scenario, driver: Driver, tmp_path: Path) -> None:
    scenario = done.copy(tmp_path / "job")
    rewritten(repeat)(scenario.input)
    run = driver.run(scenario.folder, flags={**MANY, "dedupe": True})
    assert (run.status, asked(scenario)) == (0, len(TEXTS)), run
    assert [row[3] for row in read_csv(scenario.output)[-10:]] == [f"echo of {text}" for text in TEXTS[:10]]


def test_a_renamed_column_that_is_used_is_refused(done: Scenario, driver: Driver, tmp_path: Path) -> None:
    scenario = done.copy(tmp_path / "job")
    scenario.input.write_bytes(scenario.input.read_bytes().replace(b"text,", b"body,", 1))
    before = scenario.output.read_bytes()
    run = driver.run(scenario.folder, flags=MANY)
    assert (run.status, asked(scenario)) == (2, len(TEXTS)), run
    assert scenario.output.read_bytes() == before


def test_an_input_cut_off_within_a_row_is_refused_with_its_line(
    done: Scenario, driver: Driver, tmp_path: Path
) -> None:
    scenario = done.copy(tmp_path / "job")
    rewritten(nothing)(scenario.input)
    scenario.input.write_bytes(scenario.input.read_bytes()[:-9])  # within a quoted cell
    before = scenario.output.read_bytes()
    run = driver.run(scenario.folder, flags=MANY)
    assert (run.status, asked(scenario)) == (65, len(TEXTS)), run
    assert "line 1001" in run["message"]
    assert scenario.output.read_bytes() == before
    write_input(scenario.input, TEXTS)
    assert driver.run(scenario.folder, flags=MANY).status == 0
    assert asked(scenario) == len(TEXTS)


@pytest.mark.parametrize(
    "change",
    [{"temperature": 0.5}, {"model": "other"}, {"prompt": "Say: {{ text }}"}, {"system": "Be brief."}],
    ids=lambda change: next(iter(change)),
)
def test_a_changed_job_is_refused_until_it_is_accepted(
    change: dict[str, Any], done: Scenario, driver: Driver, tmp_path: Path
) -> None:
    scenario = done.copy(tmp_path / "job")
    run = driver.run(scenario.folder, flags={**MANY, **change})
    assert (run.status, asked(scenario)) == (2, len(TEXTS)), run
    assert "1,000 rows" in run["message"]
    limited = driver.run(scenario.folder, flags={**MANY, **change, "limit": 3})
    assert (limited.status, asked(scenario)) == (2, len(TEXTS)), "a trial is no consent"
    back = driver.run(scenario.folder, flags=MANY)
    assert (back.status, asked(scenario)) == (0, len(TEXTS)), "the old answers are still there"
    again = driver.run(scenario.folder, flags={**MANY, **change, "accept_change": True})
    assert (again.status, asked(scenario)) == (0, 2 * len(TEXTS)), again


@pytest.mark.timeout(120)
def test_an_input_replaced_while_a_run_reads_it_stops_the_run_and_the_next_one_goes_on(
    quick_folder: Path,
) -> None:
    with ledger_server(quick_folder) as server:
        texts = [f"row {number}" for number in range(60)]
        job = CommandJob.of(quick_folder / "job", server, texts, latency_ms=200, concurrency=8)
        run = job.start()
        assert wait_for_requests(job, run, more_than=8)
        write_input(job.folder / "new.csv", ["one more", *texts])
        (job.folder / "new.csv").replace(job.input)
        assert run.wait(60) == 65
        assert "changed while the job ran" in (job.folder / "stderr").read_text()
        assert not job.output.exists()
        assert job.finish().returncode == 0
        assert job.asked() == len(texts) + 1
        assert check_finished(job, most_maybe=0) == []
