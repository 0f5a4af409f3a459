"""Shows the progress of a run, a few times a second."""

import asyncio
from collections import deque
from dataclasses import asdict, dataclass
from datetime import datetime

from batchllm.budget.account import Account
from batchllm.counters import RunCounters
from batchllm.errors import Interrupted
from batchllm.journal import Journal
from batchllm.limiter import EndpointRouter, Limiter
from batchllm.online.endpoint_events import EndpointEvents, figures_of
from batchllm.online.waits import Events, limit_words, span_text, waiting_words
from batchllm.plan.work_item import WorkItem
from batchllm.printable import counted
from batchllm.progress import Progress
from batchllm.stopping import RunStop

SHOW_EVERY_S = 0.25
RATE_OVER_S = 30.0
"""The rate of the rows is that of so many seconds."""
ENDPOINTS = "endpoint_figures"
"""The journal's key for what each of several endpoints did in the last run."""
LEAST_S = 1.0
"""Seconds from which on there is a rate."""


class RowRate:
    """The rate at which rows are finished."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def count(self, now: float, rows: int) -> None:
        """Counts the rows that are finished so far."""
        self._seen.append((now, rows))
        while len(self._seen) > 2 and self._seen[1][0] <= now - RATE_OVER_S:
            self._seen.popleft()

    def words(self, left: int) -> list[str]:
        """Returns the rate, and the time that it needs for the rows that are left."""
        if not self._seen:
            return []
        (began, before), (now, rows) = self._seen[0], self._seen[-1]
        if now - began < LEAST_S or rows <= before:
            return []
        rate = (rows - before) / (now - began)
        return [rate_words(rate), f"{span_text(left / rate)} left"] if left > 0 else [rate_words(rate)]


def rate_words(rate: float) -> str:
    """Returns rows a second in words: ``41 rows/s``, ``2.5 rows/s``, ``3.1 rows/min``."""
    if rate >= 10:
        return f"{rate:,.0f} rows/s"
    return f"{rate:.1f} rows/s" if rate >= 0.1 else f"{rate * 60:.1f} rows/min"


def stopping_words(in_flight: int) -> str:
    """Says beside the bar what a run that is stopped waits for."""
    return f"stopping, {counted(in_flight, 'request')} in flight" if in_flight else "stopping"


def stopping_line(in_flight: int, stop: RunStop) -> str:
    """Says once what a run that is stopped waits for, and for how long."""
    at_once = "; Ctrl-C again ends it at once" if isinstance(stop.reason, Interrupted) else ""
    waited_for = f"{counted(in_flight, 'request')} in flight {'gets' if in_flight == 1 else 'get'}"
    return f"Stopping: {waited_for} up to {stop.grace_s:g} s{at_once}."


@dataclass(eq=False, kw_only=True)
class RunDisplay:
    """Shows a run inside the ``async with`` block, and keeps what it learns about pace and prices for the next one."""

    limiter: Limiter[WorkItem] | EndpointRouter[WorkItem]
    endpoint: str
    progress: Progress
    counters: RunCounters
    account: Account
    journal: Journal
    stop: RunStop

    def __post_init__(self) -> None:
        limiter = self.limiter
        self._now = asyncio.get_running_loop().time
        self._several = EndpointEvents(limiter) if isinstance(limiter, EndpointRouter) else None
        self._events = Events(self.endpoint if self._several is None else "any of the endpoints")
        self._rate = RowRate()
        if self._several is None and self.journal.get(ENDPOINTS) is not None:
            self.journal.put(ENDPOINTS, None)

    async def __aenter__(self) -> None:
        self.progress.start(self.counters.rows, 0)
        self.stop.subscribe(self._stopped, lambda: None)
        self._ticker = asyncio.create_task(self._tick())

    async def __aexit__(self, *_: object) -> None:
        self._ticker.cancel()
        self._show(tell=False)
        self.progress.close()
        self.journal.put("learned", self.limiter.learned())

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(SHOW_EVERY_S)
            self._show()

    def _show(self, *, tell: bool = True) -> None:
        """Shows how far the run is; with ``tell`` also, once, what it waits for."""
        counters, now, wall = self.counters, self._now(), datetime.now()
        view = self.limiter.view(now)
        line = self._events.line(view, now, wall, counters.last_refusal) if tell else None
        if line is not None and self.stop.reason is None:
            counters.log.write("waiting", reason=view.limits, message=line)
            self.progress.tell(line)
        of_endpoints = self._show_endpoints(now, wall)
        waits = waiting_words(view, now, wall, counters.last_refusal)
        if self.stop.reason is not None:
            waits = stopping_words(counters.in_flight)
        finished = counters.finished
        self._rate.count(now, finished - counters.finished_before - counters.reused - counters.skipped)
        speed = [] if waits else self._rate.words(counters.rows - finished)
        limit = "" if waits else limit_words(view)
        note = ", ".join(filter(None, [*speed, self.account.to_text(counters), limit, of_endpoints]))
        failed = counters.failed + counters.unanswered
        self.progress.show(finished, failed, counters.known_tokens, note, waits)
        self.account.keep(self.journal, view)

    def _show_endpoints(self, now: float, wall: datetime) -> str:
        """Tells what became of each of several endpoints, and keeps their figures; returns them in words."""
        if self._several is None:
            return ""
        states = self._several.router.states(now)
        for line in self._several.lines(states, now, wall):
            self.counters.log.write("endpoint", message=line)
            self.progress.tell(line)
        if self.counters.endpoints != (found := figures_of(states)):
            self.counters.endpoints = found
            self.journal.put(ENDPOINTS, [asdict(each) for each in found])
        return self._several.words(states)

    def _stopped(self) -> None:
        if self.counters.in_flight:
            self.progress.tell(stopping_line(self.counters.in_flight, self.stop))
