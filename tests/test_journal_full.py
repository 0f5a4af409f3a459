"""A full disk: sending stops, and every paid answer that still fits is kept."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchllm.errors import CannotWrite
from batchllm.journal import Journal, JournalReader, State
from tests.journal_jobs import admit, key_of, response, save


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 4 MB, where the system lets us have one."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("a small filesystem needs root and mount")
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a tmpfs is not allowed here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


async def fill(journal: Journal, landed: dict[int, bytes], in_flight: int = 32) -> None:
    """Sends until the journal refuses; what was in flight then still lands, as answers of paid requests do."""
    row_index = 0
    while True:
        rows = await admit(journal, range(row_index, row_index + in_flight), row_index)
        row_index += in_flight
        ids = await journal.intend([row.request_id or 0 for row in rows])
        bodies = {attempt_id: b"%d " % attempt_id + bytes(1500) for attempt_id in ids}
        kept = await asyncio.gather(
            *[save(journal, attempt_id, response(body)) for attempt_id, body in bodies.items()],
            return_exceptions=True,
        )
        for attempt_id, row, end in zip(ids, rows, kept, strict=True):
            if end is None:
                landed[attempt_id] = bodies[attempt_id]
                if journal._writer.failure is None:
                    journal.record_outcome(row.request_id or 0, State.ANSWERED, attempt_id, 1)
            else:
                raise end


def stored_bodies(path: Path) -> dict[int, bytes]:
    with Journal.open(path) as journal:
        rows = journal.reader().select("SELECT attempt_id, body FROM reply WHERE status = 200")
        assert journal.reader().select("PRAGMA integrity_check") == [("ok",)]
    return dict(rows)


def test_a_full_disk_is_exit_73_and_what_was_kept_is_kept(small_disk: Path) -> None:
    path = small_disk / "out.journal"
    landed: dict[int, bytes] = {}

    async def whole() -> None:
        journal = Journal.open(path)
        journal.begin_plan("job")
        with pytest.raises(CannotWrite, match="disk is full") as caught:
            await fill(journal, landed)
        assert caught.value.exit_status == 73
        with pytest.raises(CannotWrite):
            await journal.intend([1])
        with pytest.raises(CannotWrite):
            await journal.admit([(0, key_of("z"), None)])
        journal.close(73)

    asyncio.run(whole())
    assert len(landed) > 500
    shutil.copytree(small_disk, small_disk.parent / "large")  # where there is room again
    stored = stored_bodies(small_disk.parent / "large" / "out.journal")
    assert landed.items() <= stored.items()


def test_a_journal_that_cannot_even_be_created_is_exit_73(small_disk: Path) -> None:
    (small_disk / "ballast").write_bytes(bytes(4 << 20))
    with pytest.raises(CannotWrite) as caught:
        Journal.open(small_disk / "out.journal")
    assert caught.value.exit_status == 73
    (small_disk / "ballast").unlink()
    Journal.open(small_disk / "out.journal").close(0)


def test_answers_that_still_fit_are_saved_one_by_one(tmp_path: Path) -> None:
    """The group that met the end of the disk holds small answers beside a large one: they have room."""
    path = tmp_path / "out.journal"
    ends: list[object] = []

    async def whole() -> None:
        journal = Journal.open(path)
        journal.begin_plan("job")
        rows = await admit(journal, range(8))
        ids = await journal.intend([row.request_id or 0 for row in rows])

        def limit_pages() -> None:
            (pages,) = journal._store.connection.execute("PRAGMA page_count").fetchone()
            journal._store.connection.execute(f"PRAGMA max_page_count = {pages + 8}")

        journal._writer.call(limit_pages)
        bodies = [bytes(100_000) if i == 3 else bytes(100) for i in range(8)]
        saves = [save(journal, i, response(body)) for i, body in zip(ids, bodies, strict=True)]
        ends.extend(await asyncio.gather(*saves, return_exceptions=True))
        with pytest.raises(CannotWrite):
            await journal.intend([1])
        await save(journal, ids[3], response(b"a small answer that lands later"))
        journal.close(73)

    asyncio.run(whole())
    assert isinstance(ends[3], CannotWrite)
    assert [end for end in ends if end is not None] == [ends[3]]
    with JournalReader.open(path) as reader:
        assert reader.select("SELECT count(*) FROM reply") == [(8,)]
