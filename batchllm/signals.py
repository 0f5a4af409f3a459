"""Signals: the first one stops a run in order, the second at once."""

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from batchllm.errors import STOPPING, Interrupted


class Stoppable(Protocol):
    """What a signal needs of a sender."""

    def stop(self, error: BaseException) -> None:
        """Nothing new leaves; what is in flight may land."""

    def abort(self) -> None:
        """What is in flight is given up."""


@contextmanager
def signals_stop(sender: Stoppable) -> Iterator[None]:
    """Hears signals while a sender is travelled; only the main thread can. One that is ignored stays so (nohup)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    heard: list[int] = []

    def hear(number: int) -> None:
        heard.append(number)
        sender.stop(Interrupted(heard[0]))
        if len(heard) > 1:
            sender.abort()

    before = {number: signal.getsignal(number) for number in STOPPING}
    numbers = [number for number in STOPPING if before[number] != signal.SIG_IGN]
    for number in numbers:
        loop.add_signal_handler(number, hear, number)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
            signal.signal(number, before[number] or signal.SIG_DFL)
