"""A job by batch, killed before and after every step: each row answered once, no batch created twice."""

import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batchllm.client.batches import BatchApi
from batchllm.errors import NotReady
from batchllm.journal import BatchRecord, BatchState, BatchStore
from batchllm.simulator import Running
from tests.batch_jobs import FACTS, BatchJob, simulated
from tests.batch_kills import Killed, killed_call, points_of

ROWS = 8


def check(job: BatchJob, server: Running, batches: int = 1) -> None:
    ledger = server.ledger
    assert (ledger.batches, ledger.batch_requests) == (batches, ROWS), "a batch was created twice"
    rows = job.answers
    assert [row["id"] for row in rows] == [str(number) for number in range(ROWS)]
    assert {(row["label"], row["error"]) for row in rows} == {("positive", "")}


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    """The points of the two calls of an undisturbed job."""
    with simulated() as server:
        job = BatchJob(tmp_path_factory.mktemp("plain"), server.base_url, rows=ROWS)
        calls = points_of(job)
    return [calls[0], calls[-1]]


def test_the_points_are_all_there(points: list[list[str]]) -> None:
    first, last = points
    for name in ("prepare", "upload", "update", "create"):
        assert {f"before {name}", f"after {name}"} <= set(first)
    for name in ("retrieve", "update", "download", "record_outcome", "flush", "put_now"):
        assert {f"before {name}", f"after {name}"} <= set(last)
    assert last.count("before save_all") == 2


def kill_and_finish(folder: Path, points: list[int], *, files: int = 1) -> None:
    """Kills one call after the other of a fresh job at given points, then lets it end."""
    with simulated() as server:
        job = BatchJob(folder, server.base_url, rows=ROWS)
        job.facts = replace(FACTS, max_requests=ROWS // files)
        for point in points:
            found, _ = killed_call(job, point)
            assert isinstance(found, Killed | NotReady) or found.exit_status == 0
        assert job.until_done().exit_status == 0
        check(job, server, files)
        before = job.output.read_bytes()
        assert job.call().exit_status == 0
        assert (job.output.read_bytes(), server.ledger.batches) == (before, files)


def test_killed_at_every_point_of_the_first_call(tmp_path: Path, points: list[list[str]]) -> None:
    for point, name in enumerate(points[0]):
        folder = tmp_path / f"{point}"
        folder.mkdir()
        try:
            kill_and_finish(folder, [point])
        except AssertionError as error:
            raise AssertionError(f"killed {name} (point {point})") from error


def test_killed_at_every_point_of_the_call_that_collects(tmp_path: Path, points: list[list[str]]) -> None:
    for point, name in enumerate(points[1]):
        folder = tmp_path / f"{point}"
        folder.mkdir()
        with simulated() as server:
            job = BatchJob(folder, server.base_url, rows=ROWS)
            job.begin()
            for _ in range(60):
                found, passed = killed_call(job, point)
                if isinstance(found, Killed) or len(passed) >= len(points[1]):
                    break
            assert job.until_done().exit_status == 0, name
            check(job, server)


@pytest.mark.parametrize("files", [1, 4])
def test_killed_again_and_again(tmp_path: Path, points: list[list[str]], files: int) -> None:
    rng = random.Random(files)
    for trial in range(10):
        folder = tmp_path / f"{trial}"
        folder.mkdir()
        first = rng.randrange(len(points[0]) * files)
        kill_and_finish(folder, [first, *(rng.randrange(len(points[1])) for _ in range(3))], files=files)


def test_the_kills_find_a_batch_that_is_created_without_looking_for_it(
    tmp_path: Path, points: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(self: BatchApi, *args: object) -> None:
        return None

    monkeypatch.setattr(BatchApi, "find", nothing)
    with pytest.raises(AssertionError, match="created twice"):
        kill_and_finish(tmp_path, [points[0].index("after create")])


def test_the_kills_find_a_batch_whose_intent_was_not_durable(
    tmp_path: Path, points: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    update = BatchStore.update

    def ephemeral(self: BatchStore, batch: BatchRecord, **fields: Any) -> BatchRecord:
        if fields.get("state") is BatchState.CREATING:
            return replace(batch, state=BatchState.CREATING)
        return update(self, batch, **fields)

    monkeypatch.setattr(BatchStore, "update", ephemeral)
    with pytest.raises(AssertionError, match="created twice"):
        kill_and_finish(tmp_path, [points[0].index("after create")])


def test_killed_for_good_as_a_process(tmp_path: Path, points: list[list[str]]) -> None:
    wanted = ("after prepare", "after upload", "before create", "after create")
    for name in wanted:
        folder = tmp_path / name.replace(" ", "-")
        folder.mkdir()
        with simulated() as server:
            job = BatchJob(folder, server.base_url, rows=ROWS)
            command = [sys.executable, "-m", "tests.batch_kills", str(folder), server.base_url]
            died = subprocess.run(
                [*command, str(points[0].index(name))], cwd=Path(__file__).parent.parent, check=False
            )
            assert died.returncode == -signal.SIGKILL, name
            assert job.until_done().exit_status == 0
            check(job, server)


def test_a_batch_that_half_a_collection_was_killed_in_as_a_process(
    tmp_path: Path, points: list[list[str]]
) -> None:
    with simulated() as server:
        job = BatchJob(tmp_path, server.base_url, rows=ROWS)
        job.begin()
        command = [sys.executable, "-m", "tests.batch_kills", str(tmp_path), server.base_url]
        for name in ("before save_all", "after record_outcome", "before put_now"):
            at = len(points[1]) - 1 - points[1][::-1].index(name)
            died = subprocess.run([*command, str(at)], cwd=Path(__file__).parent.parent, check=False)
            assert died.returncode == -signal.SIGKILL or name != "before save_all"
        assert job.until_done().exit_status == 0
        check(job, server)
