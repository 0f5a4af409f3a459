"""The output of a small job is made while its last answers are awaited, not after them.

Once every row is on its way, the run has nothing to do but to wait for a latency of the endpoint; what a small job
waits for at its end, the making of its output, fits into that. Nothing is written before the run has ended: the
records wait in memory. A large job's output takes longer than any answer, and is made when it is written.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing

from batchllm.journal import Journal
from batchllm.runner.export import Export
from batchllm.runner.stage import Stage

MOST_ROWS = 10_000
MOST_BYTES = 16 * 1024 * 1024
"""Of the input; the output is some more."""


@asynccontextmanager
async def prepared(export: Export, stage: Stage, journal: Journal) -> AsyncIterator[Callable[[], None]]:
    """Gives what is to be called as soon as all rows are on their way; it prepares the output inside the block.

    Only in a job's first run: what an earlier one left may look like an end, and be sent again.
    """
    small = stage.census.rows <= MOST_ROWS and stage.census.bytes <= MOST_BYTES
    wanted = small and journal.new
    task: asyncio.Task[None] | None = None

    async def prepare() -> None:
        with closing(export.prepare()) as steps:
            for _ in steps:
                await asyncio.sleep(0)  # answers come first

    def begin() -> None:
        nonlocal task
        if wanted and task is None:
            task = asyncio.create_task(prepare())

    try:
        yield begin
    finally:
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
    if task is not None and not task.cancelled():
        task.result()
