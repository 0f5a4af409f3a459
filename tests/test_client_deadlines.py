import asyncio

import pytest

from batchllm.client.deadlines import Deadlines
from tests.virtual_time import run_virtual


async def attempt(deadlines: Deadlines, seconds: float) -> str:
    task = asyncio.current_task()
    assert task is not None
    deadlines.begin(task, asyncio.get_running_loop().time())
    try:
        await asyncio.sleep(seconds)
        return "answered"
    except asyncio.CancelledError:
        if not deadlines.was_late(task):
            raise
        return f"late at {asyncio.get_running_loop().time():g}"
    finally:
        deadlines.end(task)


def test_each_attempt_has_its_own_time_from_its_own_start() -> None:
    async def whole() -> list[str]:
        deadlines = Deadlines(10)

        async def later(start: float, seconds: float) -> str:
            await asyncio.sleep(start)
            return await attempt(deadlines, seconds)

        attempts = [later(0, 9.9), later(3, 50), later(4, 50), later(5, 1), later(20, 50)]
        return await asyncio.gather(*attempts)

    assert run_virtual(whole()) == ["answered", "late at 13", "late at 14", "answered", "late at 30"]


def test_one_task_may_be_late_again_and_again() -> None:
    async def whole() -> list[str]:
        deadlines = Deadlines(10)
        return [await attempt(deadlines, 50), await attempt(deadlines, 5), await attempt(deadlines, 50)]

    assert run_virtual(whole()) == ["late at 10", "answered", "late at 25"]


def test_somebody_elses_cancellation_goes_through() -> None:
    async def whole() -> None:
        task = asyncio.create_task(attempt(Deadlines(10), 50))
        await asyncio.sleep(1)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        run_virtual(whole())


def test_somebody_elses_cancellation_wins_over_ours_at_the_same_instant() -> None:
    async def whole() -> None:
        task = asyncio.create_task(attempt(Deadlines(10), 50))
        asyncio.get_running_loop().call_at(10, task.cancel)
        await task

    with pytest.raises(asyncio.CancelledError):
        run_virtual(whole())


def test_after_an_attempt_ended_nothing_cancels_its_task() -> None:
    async def whole() -> str:
        deadlines = Deadlines(10)
        first = await attempt(deadlines, 9)
        await asyncio.sleep(30)
        return first

    assert run_virtual(whole()) == "answered"
