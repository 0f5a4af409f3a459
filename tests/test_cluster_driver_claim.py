"""Of several commands on one work folder, from any machines, one runs the job."""

import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from batchllm.cluster import driver_claim
from batchllm.cluster.driver import run_cluster
from batchllm.cluster.driver_claim import DriverClaim
from batchllm.cluster.engine import ShardEnd, ShardTask
from batchllm.cluster.work import PLAN, WorkFolder, open_work
from batchllm.errors import CannotWrite, Interrupted, NotNow, UsageError
from tests.cluster_engine import ThreadEngine
from tests.test_cluster_run import ROWS, Asked, asked, job_of, no_cluster, table, url
from tests.test_cluster_work import NewWork, new_work

__all__ = ["asked", "new_work", "url"]


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("BEAT_S", 0.05), ("DEAD_S", 0.5), ("LOOK_S", 0.01)):
        monkeypatch.setattr(driver_claim, name, seconds)


def claim_of(
    work: WorkFolder, run: str, *, wait_s: float = 0.0, check: Callable[[], None] = lambda: None
) -> DriverClaim:
    return DriverClaim(work, run, wait_s=wait_s, check=check)


def dead(work: WorkFolder, run: str) -> None:
    """Leaves the claim of a command that was killed."""
    claim = claim_of(work, run)
    claim._number = 1
    assert work.create("driver/claim-0001", json.dumps(claim._whose).encode())
    claim._put(ended=False)


def test_a_second_command_is_refused_while_the_first_lives_and_let_in_once_it_has_ended(
    tmp_path: Path,
) -> None:
    work = open_work(str(tmp_path))
    with (
        claim_of(work, "one") as first,
        pytest.raises(NotNow, match=r"another command \(pid \d+ on "),
        claim_of(work, "two"),
    ):
        pytest.fail("both have it")
    assert first.failure is None
    with claim_of(work, "two"):
        assert not work.has("stop-one"), "it ended in order"


def test_a_refused_command_leaves_nothing_and_the_one_that_waits_goes_on(
    new_work: NewWork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver_claim, "DEAD_S", 60.0)
    work = new_work()
    began = threading.Event()

    def waits() -> None:
        with claim_of(work, "two", wait_s=60, check=began.set):
            assert work.has("driver/claim-0001") and not work.has("driver/claim-0002")
            work.put(PLAN, b"{}")

    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(UsageError), claim_of(work, "one"):
            work.create("run-one", b"one")
            waiting = pool.submit(waits)
            assert began.wait(30)
            raise UsageError("no cluster")
        waiting.result()
    assert not work.has("run-one")
    assert work.get_json("driver/state-0001")["ended"], "a job has begun there"


def test_a_command_that_was_killed_is_replaced_and_its_workers_are_stopped(tmp_path: Path) -> None:
    work = open_work(str(tmp_path))
    dead(work, "one")
    with claim_of(work, "two"):
        assert work.has("stop-one")
    assert work.has("driver/claim-0002") and not work.has("driver/claim-0003")


def test_of_many_commands_after_a_dead_one_one_gets_the_folder(tmp_path: Path) -> None:
    work, over = open_work(str(tmp_path)), threading.Event()
    dead(work, "dead")

    def run(name: int) -> bool:
        try:
            with claim_of(work, f"run {name}"):
                return over.wait(3.0)
        except NotNow:
            return False

    with ThreadPoolExecutor(5) as pool:
        runs = [pool.submit(run, name) for name in range(5)]
        while sum(each.done() for each in runs) < 4:
            over.wait(0.01)
        over.set()
        assert sum(each.result() for each in runs) == 1


def test_a_command_that_was_thought_dead_hears_of_it(tmp_path: Path) -> None:
    work = open_work(str(tmp_path))
    with claim_of(work, "one") as first:
        assert work.create("driver/claim-0002", b'{"run": "two", "pid": 7, "node": "other"}')
        first._thread.join(5.0)
        assert isinstance(first.failure, NotNow) and "pid 7 on other" in str(first.failure)


def test_a_command_waits_for_the_other_one_until_it_is_stopped(tmp_path: Path) -> None:
    work = open_work(str(tmp_path))
    with claim_of(work, "one") as first:
        looks: list[int] = []

        def stopped() -> None:
            looks.append(1)
            if len(looks) > 20:
                raise Interrupted(2)

        with pytest.raises(Interrupted), claim_of(work, "two", wait_s=60.0, check=stopped):
            pytest.fail("both have it")
        with ThreadPoolExecutor(1) as pool:
            second = claim_of(work, "two", wait_s=60.0)
            waiting = pool.submit(second.__enter__)
            first.__exit__(None, None, None)
            assert waiting.result() is second
            second.__exit__(None, None, None)


def test_a_folder_that_cannot_be_written_any_more_ends_the_claim(tmp_path: Path) -> None:
    work = open_work(str(tmp_path / "work"))
    with claim_of(work, "one") as first:
        (tmp_path / "work").rename(tmp_path / "away")
        (tmp_path / "work").write_text("")
        first._thread.join(5.0)
        assert isinstance(first.failure, CannotWrite)


def test_two_commands_on_one_work_folder_pay_once(tmp_path: Path, url: str, asked: Asked) -> None:
    table(tmp_path / "rows.csv", texts=["good"])

    class Meanwhile(ThreadEngine):
        def submit(self, task: ShardTask) -> None:
            if not self.submitted:
                with pytest.raises(NotNow):
                    run_cluster(job_of(tmp_path, url, output=str(tmp_path / "2.csv")), engine_of=no_cluster)
            super().submit(task)

    assert run_cluster(job_of(tmp_path, url), engine_of=lambda job: Meanwhile()).exit_status == 0
    assert asked.texts.total() == ROWS


@pytest.mark.proof
def test_a_command_whose_folder_was_taken_stops_with_its_workers(
    tmp_path: Path, url: str, asked: Asked
) -> None:
    table(tmp_path / "rows.csv", texts=["good"])
    work = open_work(str(tmp_path / "work"))
    ends: list[ShardEnd | None] = []

    class Taken(ThreadEngine):
        def submit(self, task: ShardTask) -> None:
            super().submit(task)
            work.create("driver/claim-0002", b'{"run": "two", "pid": 7, "node": "other"}')

        def ended(self, timeout_s: float) -> Sequence[tuple[ShardTask, ShardEnd | None]]:
            found = super().ended(timeout_s)
            ends.extend(end for _, end in found)
            return found

    with pytest.raises(NotNow, match="pid 7 on other"):
        run_cluster(job_of(tmp_path, url, rpm=600), engine_of=lambda job: Taken())
    assert 0 < asked.texts.total() < ROWS
    assert all(end is not None and end.exit_status in (0, 130) for end in ends) and ends
