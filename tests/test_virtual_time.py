import asyncio
import time

import pytest

from tests.virtual_time import Deadlock, run_virtual


def test_a_day_of_sleep_takes_no_time() -> None:
    async def day() -> float:
        await asyncio.sleep(86_400)
        return asyncio.get_running_loop().time()

    started = time.monotonic()
    assert run_virtual(day()) == pytest.approx(86_400, abs=1e-6)
    assert time.monotonic() - started < 5


def test_timers_fire_in_order() -> None:
    async def order() -> list[int]:
        seen: list[int] = []

        async def at(delay: int) -> None:
            await asyncio.sleep(delay)
            seen.append(delay)

        await asyncio.gather(at(3), at(1), at(2))
        return seen

    assert run_virtual(order()) == [1, 2, 3]


def test_a_wait_that_nothing_ends_is_an_error_and_not_a_hang() -> None:
    async def stuck() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Deadlock):
        run_virtual(stuck())
