"""Handles signals: the first one stops a run in order, the second at once."""

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from batchllm.errors import STOPPING, Interrupted


class Stoppable(Protocol):
    """A run that signals can stop."""

    def stop(self, error: BaseException) -> None:
        """Sends nothing more, and waits for what is in flight."""

    def abort(self) -> None:
        """Gives up what is in flight."""


@contextmanager
def signals_stop(run: Stoppable) -> Iterator[None]:
    """Handles signals inside the ``with`` block, in the main thread only; ignored signals stay ignored (nohup)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    received: list[int] = []

    def handle(number: int) -> None:
        received.append(number)
        run.stop(Interrupted(received[0]))
        if len(received) > 1:
            run.abort()

    before = {number: signal.getsignal(number) for number in STOPPING}
    numbers = [number for number in STOPPING if before[number] != signal.SIG_IGN]
    for number in numbers:
        loop.add_signal_handler(number, handle, number)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
            signal.signal(number, before[number] or signal.SIG_DFL)
