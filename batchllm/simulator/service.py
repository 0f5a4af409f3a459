"""The simulator beside other work: in a thread of its own, or alone until a signal."""

import asyncio
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from batchllm.simulator.app import Received, Simulator
from batchllm.simulator.chat import Script
from batchllm.simulator.ledger import Ledger
from batchllm.simulator.settings import SimulatorSettings


@dataclass(frozen=True, slots=True)
class Running:
    """A simulator in another thread. Its counters change while they are read.

    Attributes:
        base_url: The root of its API.
        ledger: What it saw and sent.
        received: The latest chat requests, as many as ``keep_requests`` says.
    """

    base_url: str
    ledger: Ledger
    received: deque[Received]


@contextmanager
def start_in_thread(
    settings: SimulatorSettings | None = None, *, script: Script | None = None
) -> Iterator[Running]:
    """Run a simulator in a thread with a loop of its own, for as long as the block lasts.

    Raises:
        UsageError: The port is taken.
    """
    simulator = Simulator(settings, script=script)
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    started = threading.Event()

    async def live() -> None:
        async with simulator:
            started.set()
            await stop.wait()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(live())

    with ThreadPoolExecutor(1, thread_name_prefix="simulator") as thread:
        life = thread.submit(run)
        life.add_done_callback(lambda _: started.set())
        started.wait()
        if life.done():
            life.result()  # it never got as far as serving: this raises why
        try:
            yield Running(simulator.base_url, simulator.ledger, simulator.received)
        finally:
            if not life.done():
                loop.call_soon_threadsafe(stop.set)
            life.result()


def serve(settings: SimulatorSettings) -> None:
    """Serve until SIGINT or SIGTERM; says on stderr where.

    Raises:
        UsageError: The port is taken.
    """
    asyncio.run(_serve(settings))


async def _serve(settings: SimulatorSettings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with Simulator(settings) as simulator:
        sys.stderr.write(f"simulator: {simulator.base_url} (Ctrl-C stops it)\n")
        sys.stderr.flush()
        await stop.wait()
