"""The circle that every call of the command walks: look after the batches there are, send what is in none, wait.

A *session* is the calls that belong to one go at the job: from the first until one ends otherwise than "not
ready". A row that is given up is not sent again before the next session, or a row that always fails would keep
the job from ever ending.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from batchllm.batch.calls import job_error
from batchllm.batch.collect import Collector
from batchllm.batch.rejection import is_queue_full, read
from batchllm.batch.steps import GONE, Steps
from batchllm.batch.submit import BatchSubmitter
from batchllm.batch.waiting import Waiting
from batchllm.client.batches import CallFailed
from batchllm.errors import BudgetStop, ExitStatus, JobError, NotReady, Unavailable, UsageError
from batchllm.journal import BatchRecord, BatchState, Journal
from batchllm.plan.work_item import WorkItem
from batchllm.signals import signals_stop

T = TypeVar("T")

SESSION = "batch_session"
MAX_EMPTY_BATCHES = 3
"""Batches of a session that may end one after the other without bringing a single row to its end."""


class BatchLoop:
    """One call's way around the circle.

    Args:
        journal: What is known.
        steps: Takes a batch from state to state.
        collector: Brings results row_counters.
        sender: Makes batches.
        items: A pass over the rows; told the session's first attempt, it leaves out what was given up since.
        online: Sends what is in no batch one by one, instead of the sender (``--via online``).
        waiting: How to wait.
        show: Told, while it waits, how many requests of live batches are done; ``None`` when it waits no more.
        answered: Whether the job has an answer: then trouble is the endpoint's, not wrong use.
        grace_s: How long a step may still take after a signal.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        steps: Steps,
        collector: Collector,
        sender: BatchSubmitter,
        items: Callable[[int], AsyncGenerator[Sequence[WorkItem], None]],
        online: Callable[[], Awaitable[None]] | None,
        waiting: Waiting,
        show: Callable[[int | None], None],
        answered: Callable[[], bool],
        grace_s: float = 30.0,
    ) -> None:
        self._journal = journal
        self._book = journal.batches
        self._steps = steps
        self._collector = collector
        self._sender = sender
        self._items = items
        self._online = online
        self._waiting = waiting
        self._show = show
        self._answered = answered
        self._grace_s = grace_s
        self._since = _session(journal)
        self._stopped_by: BaseException | None = None
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[Any] | None = None

    async def travel(self) -> None:
        """Goes around until every row has its end.

        Raises:
            NotReady: Batches are under way, and the call does not wait.
            JobError: The job cannot go on; everything received is in the journal.
        """
        patience, sender = self._waiting.patience, self._sender
        pause_s = patience.first_s
        try:
            moved = True
            while True:
                moved = await self._guarded(self._look()) or moved
                held = self._steps.held or sender.held
                if moved or held:
                    self._show(None)
                    await (self._guarded(self._send()) if self._online is None else self._online())
                    held = self._steps.held or sender.held
                live = self._book.live()
                if not live and sender.short is not None:
                    raise BudgetStop(sender.short)
                if not live and not held:
                    return
                if not self._waiting.wait:
                    raise NotReady(not_ready(live, held=held))
                self._show(sum(batch.completed or 0 for batch in live))
                await self._guarded(self._pause(pause_s))
                pause_s = min(patience.most_s, pause_s * 1.5)
                moved = False
        finally:
            self._show(None)

    def stop(self, error: BaseException) -> None:
        """Ends the call in order: the step that is being made may end, within the grace period."""
        self._stopped_by = self._stopped_by or error
        self._stopping.set()
        asyncio.get_running_loop().call_later(self._grace_s, self.abort)

    def abort(self) -> None:
        """Ends it now; the next call takes up any step that was cut off."""
        if self._task is not None:
            self._task.cancel()

    async def _guarded(self, work: Coroutine[Any, Any, T]) -> T:
        """Does some work that signals may stop."""
        self._task = asyncio.create_task(work)
        try:
            with signals_stop(self):
                await asyncio.wait({self._task})
        finally:
            if not self._task.done():
                self._task.cancel()
                await asyncio.gather(self._task, return_exceptions=True)
        if self._task.cancelled():
            self._check()
        result: T = self._task.result()
        self._check()
        return result

    def _check(self) -> None:
        if self._stopped_by is not None:
            raise self._stopped_by

    async def _pause(self, pause_s: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), pause_s)
        except TimeoutError:
            return

    async def _look(self) -> bool:
        """Takes every live batch as far as it goes; returns whether the rows of any came row_counters."""
        self._steps.held = False
        moved = False
        trouble: JobError | None = None
        for batch in self._book.live():
            self._check()
            try:
                after = await self._forward(batch)
            except CallFailed as failed:
                if failed.status != 404:
                    what = f"batch {batch.remote_id or batch.name}"
                    raise job_error(failed, what=what, paid=self._answered()) from failed
                trouble = trouble or UsageError(unknown_words(batch))
            except (UsageError, Unavailable) as error:
                trouble = trouble or error
                moved = True
            else:
                moved = moved or after.state is BatchState.DONE
        if trouble is not None:
            raise trouble
        return moved

    async def _forward(self, batch: BatchRecord) -> BatchRecord:
        """Takes a batch as far as it goes, row_counters if it can be.

        Raises:
            UsageError, Unavailable: It is row_counters, and says that further requests would be refused alike.
            CallFailed: It is not.
        """
        if batch.state is not BatchState.ENDED:
            try:
                batch = await self._steps.forward(batch, create=self._online is None)
            except CallFailed as failed:
                if failed.status == 404 and self._waiting.ephemeral:
                    batch = self._book.update(batch, state=BatchState.ENDED, status=GONE)
                elif batch.remote_id is None and is_queue_full(str(failed)):
                    batch = await self._sender.no_room(batch, str(failed))
                else:
                    raise
        if batch.state is not BatchState.ENDED:
            return batch
        refusal = None
        if batch.status == "failed":
            refusal = read(batch.errors, batch.requests, answered=self._answered())
            refusal = self._sender.learned(batch, refusal)
        batch = await self._collector.collect(batch, refusal, answered=self._answered())
        if refusal is not None and refusal.systemic:
            message = f"the endpoint refused batch {batch.remote_id}: {refusal.words}"
            raise Unavailable(message) if self._answered() else UsageError(message)
        if (fatal := self._collector.fatal) is not None:
            wrong_use = fatal.exit_status is ExitStatus.USAGE and not self._answered()
            raise UsageError(fatal.message) if wrong_use else Unavailable(fatal.message)
        return batch

    async def _send(self) -> None:
        """Puts every row that is in no batch, and has no end, into one.

        Raises:
            Unavailable: Batch after batch ends without bringing anything.
        """
        ended = [
            batch
            for batch in self._book.all()
            if batch.first_attempt >= self._since
            and batch.state is BatchState.DONE
            and batch.status in ("completed", "expired")
        ]
        last = ended[-MAX_EMPTY_BATCHES:]
        if len(last) == MAX_EMPTY_BATCHES and not any(batch.finished_rows for batch in last):
            raise Unavailable(
                f"the last {MAX_EMPTY_BATCHES} batches ended ({last[-1].status}) without finishing a single row; "
                "try again later, or finish the job with --via online"
            )
        await self._sender.send(self._items(self._since), self._check, paid=self._answered())


def _session(journal: Journal) -> int:
    """The first attempt of the session: that of the last call if it ended "not now", else one begins."""
    runs = journal.reader().runs()
    kept: int | None = journal.get(SESSION)
    if kept is not None and len(runs) > 1 and runs[-2]["exit_status"] == int(ExitStatus.NOT_NOW):
        return kept
    journal.put(SESSION, journal.next_attempt)
    return journal.next_attempt


def not_ready(live: Sequence[BatchRecord], *, held: bool) -> str:
    """What a call says that does not wait."""
    requests = sum(batch.requests for batch in live)
    done = sum((batch.completed or 0) + (batch.failed or 0) for batch in live)
    are = "batch is" if len(live) == 1 else "batches are"
    words = f"{len(live)} {are} under way, {done:,} of {requests:,} requests done"
    if any(batch.state is BatchState.CREATING for batch in live):
        words += ", and whether the endpoint has the last one is not known yet"
    if held:
        words += "; the other rows wait for room in the endpoint's queue"
    return f"{words}; run the same command again to go on, or add --wait"


def unknown_words(batch: BatchRecord) -> str:
    """What to do about a batch, or its results, that the endpoint does not know."""
    what = (
        f"batch {batch.remote_id}"
        if batch.state is BatchState.CREATED
        else f"the results of {batch.remote_id}"
    )
    return (
        f"the endpoint does not know {what} ({batch.requests:,} requests, possibly billed): use the URL and the key it "
        "was made with, or give it up with 'batchllm batches cancel OUTPUT'"
    )
