"""What happens when the journal cannot go on: everybody hears of it, and nothing is tried again."""

import asyncio
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from batchllm.errors import StorageFailure
from batchllm.journal import Journal, JournalReader, State
from batchllm.journal.bulk import BulkRow
from batchllm.journal.store import Store
from tests.journal_jobs import admit, key_of, response, save


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out.csv.journal"


def test_a_defect_in_the_thread_reaches_every_waiter(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody may wait for ever because the thread met something unforeseen."""

    async def whole() -> None:
        journal = Journal.open(path)
        journal.begin_plan("job")
        rows = await admit(journal, range(3))

        def broken(self: Store, rows: Sequence[BulkRow], calls: Sequence[Any] = ()) -> list[Any]:
            raise ZeroDivisionError

        monkeypatch.setattr(Store, "write", broken)
        waits = [journal.intend([row.request_id or 0]) for row in rows]
        for found in await asyncio.gather(*waits, return_exceptions=True):
            assert isinstance(found, ZeroDivisionError)
        with pytest.raises(ZeroDivisionError):
            journal.record_outcome(1, State.ANSWERED, 1, 1)
        journal.close()

    asyncio.run(whole())


def test_an_error_of_the_disk_ends_all_writing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is tried again after an I/O error: what a failed fsync left is not known."""
    tries: list[Sequence[BulkRow]] = []

    async def whole() -> None:
        journal = Journal.open(path)
        journal.begin_plan("job")
        rows = await admit(journal, range(3))
        attempt_ids = await journal.intend([row.request_id or 0 for row in rows])
        write = Store.write

        def failing(self: Store, rows: Sequence[BulkRow], calls: Sequence[Any] = ()) -> list[Any]:
            tries.append(rows)
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = 1034  # SQLITE_IOERR_FSYNC
            raise error

        monkeypatch.setattr(Store, "write", failing)
        with pytest.raises(StorageFailure, match="disk"):
            await save(journal, attempt_ids[0], response(b"x"))
        monkeypatch.setattr(Store, "write", write)
        for wait in (
            save(journal, attempt_ids[1], response(b"x")),
            journal.intend([1]),
            journal.admit([(9, key_of("z"), None)]),
        ):
            with pytest.raises(StorageFailure):
                await wait
        with pytest.raises(StorageFailure):
            journal.put("a", 1)
        with pytest.raises(StorageFailure):
            journal.begin_plan("other")
        journal.close(74)  # told already: it closes quietly

    asyncio.run(whole())
    assert len(tries) == 1
    with JournalReader.open(path) as reader:
        assert reader.count_attempts() == (3, 0)
        assert [entry.body for entry in reader.outcomes()] == [b""] * 3
