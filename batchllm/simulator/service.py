"""The simulator beside other work, in a thread of its own, or alone until a signal."""

import asyncio
import signal
import sys
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from batchllm.simulator.chat import Script
from batchllm.simulator.server import Simulator
from batchllm.simulator.settings import SimulatorSettings


@contextmanager
def start_in_thread(
    settings: SimulatorSettings | None = None, *, script: Script | None = None
) -> Iterator[Simulator]:
    """Runs a simulator in a thread with a loop of its own, for as long as the block lasts.

    Its counters change while they are read.

    Raises:
        UsageError: The port is taken.
    """
    simulator = Simulator(settings, script=script)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="simulator", daemon=True)
    thread.start()

    def wait_for(coroutine: Coroutine[Any, Any, object]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, loop).result()

    try:
        wait_for(simulator.__aenter__())
        try:
            yield simulator
        finally:
            wait_for(simulator.__aexit__())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def serve(settings: SimulatorSettings) -> None:
    """Serves until SIGINT or SIGTERM, and says on stderr where.

    Raises:
        UsageError: The port is taken.
    """
    asyncio.run(_serve(settings))


async def _serve(settings: SimulatorSettings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with Simulator(settings) as simulator:
        print(f"simulator: {simulator.base_url} (Ctrl-C stops it)", file=sys.stderr, flush=True)  # noqa: T201
        await stop.wait()
