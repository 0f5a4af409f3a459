"""A journal that was damaged on the disk says so, or is complete; no row ever gets another's answer."""

import asyncio
import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchllm.errors import InputError, JobError
from batchllm.journal import Journal, JournalReader, RowRecord, State
from batchllm.journal.records import text_crc
from tests.journal_jobs import admit, answer_to, damage_cells, finished_job, response, save, ticking, unread

NAMES = [None if row % 9 == 0 else f"name {row % 15}" for row in range(40)]


async def run_again(path: Path, identity: str) -> list[RowRecord]:
    """The next run of the job, as the runner does it: what has no answer is sent."""
    with Journal.open(path, threaded=False) as journal:
        journal._store.connection.execute("PRAGMA synchronous=OFF")  # quick; nothing crashes here
        journal.begin_plan(identity)
        for found in unread(journal):
            journal.record_outcome(found.request_id, State.ANSWERED, found.attempt_id, found.attempts)
        rows = {row.row_index: row for row in journal.planned()}
        for row_index in range(len(NAMES)):
            if row_index not in rows:
                (rows[row_index],) = await admit(journal, [NAMES[row_index]], row_index)
        for row in rows.values():
            if row.request_id is not None and row.state not in (State.ANSWERED, State.FAILED):
                (attempt_id,) = await journal.intend([row.request_id])
                body = answer_to(NAMES[row.row_index], row.ordinal) + b" paid again"
                await save(journal, attempt_id, response(body))
                journal.record_outcome(row.request_id, State.ANSWERED, attempt_id, row.attempts + 1)
        return list(journal.reader().outcomes())


def check(entries: list[RowRecord]) -> None:
    """Every row has its own answer, and no two rows have one."""
    assert [entry.row_index for entry in entries] == list(range(len(NAMES)))
    for entry, name in zip(entries, NAMES, strict=True):
        if name is None:
            assert entry.unsent_reason == "skipped"
        else:
            assert entry.body.startswith(f'{{"answer to": "{name}", '.encode())
    answered = [entry.body for entry in entries if entry.unsent_reason is None]
    assert len(set(answered)) == len(answered)


def survives(path: Path) -> Counter[str]:
    """Runs the job on copies of a damaged journal, on the same input and on an edited one."""
    ends: Counter[str] = Counter()
    for identity in ("job", "edited"):
        copy = path.with_name("copy")
        for suffix in ("", "-wal", "-shm"):
            Path(f"{copy}{suffix}").unlink(missing_ok=True)
            if Path(f"{path}{suffix}").exists():
                shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")
        try:
            entries = asyncio.run(run_again(copy, identity))
        except JobError as error:
            assert error.exit_status in (65, 73), error  # 73: a flipped format number makes it read-only
            ends["loud"] += 1
        else:
            check(entries)
            ends["complete"] += 1
    return ends


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("finished") / "j"
    finished_job(path, NAMES)
    return path.read_bytes()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "j"


def test_the_undamaged_journal_is_complete(path: Path, finished: bytes) -> None:
    path.write_bytes(finished)
    assert survives(path) == {"complete": 2}


def test_a_flipped_bit_is_loud_or_harmless(path: Path, finished: bytes) -> None:
    rng = random.Random(1)
    ends: Counter[str] = Counter()
    used = [place for place in range(len(finished)) if finished[place]]
    for place in rng.sample(used, 100):
        data = bytearray(finished)
        data[place] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        ends += survives(path)
    assert ends["loud"] > 30
    assert ends["complete"] > 20


@pytest.mark.slow
def test_a_flipped_bit_anywhere_is_loud_or_harmless(path: Path, finished: bytes) -> None:
    rng = random.Random(5)
    for place in (place for place in range(len(finished)) if finished[place]):
        data = bytearray(finished)
        data[place] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        survives(path)


def test_a_truncated_file_is_loud(path: Path, finished: bytes) -> None:
    rng = random.Random(2)
    cuts = {*range(0, len(finished), 4096), *rng.sample(range(len(finished)), 60)}
    for cut in sorted(cuts):
        path.write_bytes(finished[:cut])
        assert survives(path) == {"loud": 2}, cut


def test_a_page_of_another_time_is_loud_or_harmless(path: Path, finished: bytes, tmp_path: Path) -> None:
    """A lying disk keeps an old version of a page."""
    older = tmp_path / "older"
    finished_job(older, NAMES[:20])
    old = older.read_bytes()
    for start in range(0, len(old), 4096):
        data = bytearray(finished)
        data[start : start + 4096] = old[start : start + 4096]
        path.write_bytes(data)
        survives(path)


def hot(tmp_path: Path) -> Path:
    """A journal whose run was killed: all of it is still in the log."""

    async def whole() -> None:
        with Journal.open(tmp_path / "live", threaded=False, clock=ticking().__next__) as journal:
            journal.begin_plan("job")
            for start in range(0, len(NAMES), 4):
                rows = [
                    row for row in await admit(journal, NAMES[start : start + 4], start) if row.request_id
                ]
                ids = await journal.intend([row.request_id or 0 for row in rows])
                for row, attempt_id in zip(rows, ids, strict=True):
                    await save(journal, attempt_id, response(answer_to(NAMES[row.row_index], row.ordinal)))
                    journal.record_outcome(row.request_id or 0, State.ANSWERED, attempt_id, 1)
            for suffix in ("", "-wal"):
                shutil.copy(f"{journal.path}{suffix}", f"{tmp_path / 'j'}{suffix}")

    asyncio.run(whole())
    return tmp_path / "j"


def test_a_flipped_bit_in_the_log_never_makes_a_wrong_row(tmp_path: Path) -> None:
    path = hot(tmp_path)
    log = Path(f"{path}-wal")
    whole, rng = log.read_bytes(), random.Random(4)
    assert survives(path) == {"complete": 2}
    for place in rng.sample(range(len(whole)), 25):
        data = bytearray(whole)
        data[place] ^= 1 << rng.randrange(8)
        log.write_bytes(data)
        survives(path)


def test_a_journal_copied_without_its_log_never_makes_a_wrong_row(tmp_path: Path) -> None:
    path = hot(tmp_path)
    Path(f"{path}-wal").unlink()
    assert survives(path) == {"complete": 2}


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE row SET request_id = 3 WHERE row_index = 1",
        "UPDATE row SET unsent_reason = 'skippee' WHERE row_index = 0",
        "UPDATE row SET shares_request = 1 WHERE row_index = 1",
        "UPDATE request SET attempt_id = 3 WHERE request_id = 1",
        "UPDATE request SET state = 2 WHERE request_id = 1",
        "UPDATE request SET attempts = 7 WHERE request_id = 1",
        'UPDATE reply SET body = CAST(\'{"answer to": "name 2"}\' AS BLOB) WHERE attempt_id = 1',
        "UPDATE reply SET body = 5 WHERE attempt_id = 1",
        "UPDATE reply SET status = 500 WHERE attempt_id = 1",
        "UPDATE reply SET latency_s = 0.5 WHERE attempt_id = 1",
        "UPDATE reply SET latency_s = 'text' WHERE attempt_id = 1",
        "UPDATE reply SET attempt_id = 1000 WHERE attempt_id = 1",
        "DELETE FROM reply WHERE attempt_id = 1",
    ],
)
def test_each_link_between_a_row_and_its_answer_is_checked(path: Path, finished: bytes, damage: str) -> None:
    path.write_bytes(finished)
    damage_cells(path, damage)
    with JournalReader.open(path) as reader, pytest.raises(InputError, match="damaged"):
        list(reader.outcomes())


def test_an_attempt_of_another_request_is_found_before_its_outcome_is_recorded(tmp_path: Path) -> None:
    """A reply handed to the wrong open request would become a wrong row."""
    path = hot(tmp_path)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE request SET state = 0, attempt_id = NULL")
    connection.close()
    damage_cells(path, "UPDATE attempt SET request_id = 3 WHERE attempt_id = 1")
    with pytest.raises(InputError, match="attempt does not match"):
        Journal.open(path, threaded=False)


def test_a_row_that_is_out_of_order_is_loud(path: Path) -> None:
    """As a damaged page yields them: the cells are sound, their order is not."""
    rows = [(index, None, "skipped", text_crc("skipped"), 1, *[None] * 13) for index in (2, 1)]

    class Disordered:
        def execute(self, query: str, parameters: tuple[int, ...]) -> "Disordered":
            return self

        def __iter__(self) -> Iterator[tuple[object, ...]]:
            return iter(rows)

        def close(self) -> None:
            pass

    reader = JournalReader(Disordered(), path)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="out of order"):
        list(reader.outcomes())
