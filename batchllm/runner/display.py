"""What is shown of a run while it goes on, a few times a second."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from batchllm.journal import Journal
from batchllm.limiter import Limiter, View
from batchllm.progress import Progress
from batchllm.runner.money import Money
from batchllm.runner.tally import Tally
from batchllm.runner.ticket import Ticket

SHOW_EVERY_S = 0.25


@asynccontextmanager
async def shown(
    limiter: Limiter[Ticket], *, progress: Progress, tally: Tally, money: Money, journal: Journal
) -> AsyncIterator[None]:
    """Shows the run inside the ``with`` block, and keeps what it learns about pace and prices for the next one."""
    loop = asyncio.get_running_loop()

    def show() -> None:
        view = limiter.view(loop.time())
        words = [money.note(tally), "" if view.limits == "nothing" else f"limit: {view.limits}"]
        note = ", ".join(word for word in words if word)
        progress.show(tally.ended, tally.failed + tally.unanswered, tally.tokens, note)
        money.keep(journal, view)

    async def tick() -> None:
        while True:
            await asyncio.sleep(SHOW_EVERY_S)
            show()

    progress.start(tally.rows, 0)
    ticker = asyncio.create_task(tick())
    try:
        yield
    finally:
        ticker.cancel()
        show()
        progress.close()
        journal.put("learned", limiter.learned())


def pace_words(view: View) -> str:
    """The pace held, for the summary."""
    words = []
    if view.requests_per_minute:
        words.append(f"{view.requests_per_minute:,.0f} requests/min")
    if view.tokens_per_minute:
        words.append(f"{view.tokens_per_minute:,.0f} tokens/min")
    return ", ".join(words)
