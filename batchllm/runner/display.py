"""Shows the progress of a run, a few times a second."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

from batchllm.budget.account import Account
from batchllm.counters import RunCounters
from batchllm.journal import Journal
from batchllm.limiter import Limiter
from batchllm.online.waits import Events, bar_words
from batchllm.plan.work_item import WorkItem
from batchllm.progress import Progress

SHOW_EVERY_S = 0.25


@asynccontextmanager
async def shown(
    limiter: Limiter[WorkItem],
    *,
    endpoint: str,
    progress: Progress,
    counters: RunCounters,
    account: Account,
    journal: Journal,
) -> AsyncIterator[None]:
    """Shows the run inside the ``with`` block, and keeps what it learns about pace and prices for the next one."""
    loop = asyncio.get_running_loop()
    events = Events(endpoint)

    def show(*, tell: bool = True) -> None:
        now, wall = loop.time(), datetime.now()
        view = limiter.view(now)
        line = events.line(view, now, wall, counters.last_refusal) if tell else None
        if line is not None:
            counters.log.write("waiting", reason=view.limits, message=line)
            progress.tell(line)
        progress.show(
            counters.finished,
            counters.failed + counters.unanswered,
            counters.tokens,
            account.to_text(counters),
            bar_words(view, now, wall, counters.last_refusal),
        )
        account.keep(journal, view)

    async def tick() -> None:
        while True:
            await asyncio.sleep(SHOW_EVERY_S)
            show()

    progress.start(counters.rows, 0)
    ticker = asyncio.create_task(tick())
    try:
        yield
    finally:
        ticker.cancel()
        show(tell=False)
        progress.close()
        journal.put("learned", limiter.learned())
