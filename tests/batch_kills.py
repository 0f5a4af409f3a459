"""Kills between any two steps of a job by batch: in this process as an exception, in another as SIGKILL.

A step is a call of one of ``STEPS``; a kill falls right before or right after it. In this process a kill also
cuts the journal off, so that nothing of the dying run reaches the disk any more.

As a program (``python -m tests.batch_kills FOLDER URL POINT``) one call of the command dies by SIGKILL.
"""

import asyncio
import functools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from batchllm.batch import collect
from batchllm.client.batches import BatchApi
from batchllm.errors import JobError, NotReady
from batchllm.journal import BatchStore, Journal
from tests.batch_jobs import BatchJob

STEPS: tuple[tuple[type, str], ...] = (
    (BatchStore, "prepare"),
    (BatchStore, "update"),
    (BatchApi, "upload"),
    (BatchApi, "create"),
    (BatchApi, "retrieve"),
    (BatchApi, "find"),
    (BatchApi, "find_file"),
    (BatchApi, "download"),
    (Journal, "save_all"),
    (Journal, "record_outcome"),
    (Journal, "flush"),
    (Journal, "put_now"),
)


class Killed(BaseException):
    """The process is dead."""


class Killer:
    """Counts the points before and after steps, and kills at one of them.

    Attributes:
        points: Names of the points passed, in order.
    """

    def __init__(self, at: int | None, die: Callable[[], None]) -> None:
        self._at = at
        self._die = die
        self.points: list[str] = []

    def pass_point(self, name: str) -> None:
        self.points.append(name)
        if len(self.points) - 1 == self._at:
            self._die()

    def around(self, kind: type, name: str) -> Any:
        original = getattr(kind, name)

        @functools.wraps(original)
        def plain(*args: Any, **named: Any) -> Any:
            self.pass_point(f"before {name}")
            found = original(*args, **named)
            if not asyncio.isfuture(found):
                self.pass_point(f"after {name}")
            return found

        @functools.wraps(original)
        async def awaited(*args: Any, **named: Any) -> Any:
            self.pass_point(f"before {name}")
            found = await original(*args, **named)
            self.pass_point(f"after {name}")
            return found

        return patch.object(kind, name, awaited if asyncio.iscoroutinefunction(original) else plain)


def with_kill(work: Callable[[], Any], at: int | None, die: Callable[[], None]) -> tuple[Any, list[str]]:
    """Does some work, and dies at a point of it.

    Returns:
        What the work returned or raised, and the points that were passed.
    """
    killer = Killer(at, die)
    patches = [killer.around(*step) for step in STEPS]
    for each in (*patches, patch.object(collect, "PAGE", 4)):
        each.start()
    try:
        return work(), killer.points
    except (JobError, Killed) as error:
        return error, killer.points
    finally:
        patch.stopall()


def killed_call(job: BatchJob, at: int | None, **flags: Any) -> tuple[Any, list[str]]:
    """One call of the command that dies at a point, in this process."""
    opened: list[Journal] = []
    open_journal = Journal.open.__func__  # type: ignore[attr-defined]

    def remember(cls: type[Journal], *args: Any, **named: Any) -> Journal:
        opened.append(open_journal(cls, *args, **named))
        return opened[-1]

    def die() -> None:
        writer = opened[-1]._writer
        writer.failure = writer.failure or RuntimeError("dead")
        raise Killed

    with patch.object(Journal, "open", classmethod(remember)):
        return with_kill(lambda: job.call(**flags), at, die)


def points_of(job: BatchJob, calls: int = 60) -> list[list[str]]:
    """The points of each call of a job that nobody kills."""
    points: list[list[str]] = []
    for _ in range(calls):
        found, passed = killed_call(job, None)
        points.append(passed)
        if not isinstance(found, NotReady):
            return points
    raise AssertionError("not ready")


if __name__ == "__main__":
    folder, url, point = sys.argv[1:]
    job = BatchJob(Path(folder), url, rows=8)
    with_kill(job.call, int(point), lambda: os.kill(os.getpid(), signal.SIGKILL))
