"""Rows that are in no batch go into new ones, as far as the endpoint's queue and the budget have room.

No endpoint says how many tokens may be queued, so the first batches find out: one that is refused for want of room
lowers what is queued at once, and its rows wait. What was found stays in the journal, so no later call asks again.
"""

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, closing
from dataclasses import asdict
from typing import Any, Protocol

from batchllm.batch.calls import job_error
from batchllm.batch.files import BatchFile, BatchFileWriter, Caps, QueueFull, RequestTooLarge
from batchllm.batch.rejection import BatchRejection, is_queue_full, read
from batchllm.batch.steps import Steps
from batchllm.client.batches import CallFailed
from batchllm.counters import RunCounters
from batchllm.journal import BatchRecord, Journal, State
from batchllm.plan.work_item import WorkItem
from batchllm.presets import BatchFacts
from batchllm.records import Answer, ChatRequest, Failure, FailureKind, Paid, Response

CAPS = "batch_caps"
SHRINK = 0.7
HEADROOM = 0.9
"""Share of a limit that is used: the endpoint counts tokens otherwise than we do."""

_NOT_SENT = Failure(FailureKind.UNSENT, "there is no room for it now", Paid.NO, 0.0)


class BudgetReserver(Protocol):
    """What sending needs of a budget."""

    def reserve(self, request: ChatRequest) -> Any:
        """Sets aside what a request may take; ``None`` where there is not enough."""

    def settle(self, request: ChatRequest, reserved: Any, outcome: Response | Failure) -> Any:
        """Ends a reservation."""

    def shortage(self, request: ChatRequest) -> str:
        """What is missing, in words."""


class BatchSubmitter:
    """Makes batches of items.

    Args:
        journal: Where batches are recorded.
        steps: Uploads and creates.
        facts: What the endpoint's Batch API takes.
        budget: The budget.
        counters: Counts rows that cannot be sent at all.
        one_model: All rows ask the same model, so that the first without room is the last.

    Attributes:
        held: Some rows wait for room.
        short: Why the budget has no room for a row; ``None`` where it has.
    """

    def __init__(
        self,
        journal: Journal,
        steps: Steps,
        facts: BatchFacts,
        *,
        budget: BudgetReserver,
        counters: RunCounters,
        one_model: bool,
    ) -> None:
        self._journal = journal
        self._book = journal.batches
        self._steps = steps
        self._facts = facts
        self._budget = budget
        self._counters = counters
        self._one_model = one_model
        self._caps = Caps(**(journal.get(CAPS) or {}))
        self.held = False
        self.short: str | None = None

    async def send(
        self, passing: AsyncGenerator[Sequence[WorkItem], None], check: Callable[[], None], *, paid: bool
    ) -> None:
        """Puts items into batches until there is no more room.

        Args:
            passing: The items.
            check: Raises where the run is to stop.
            paid: Whether anything of this job was paid.

        Raises:
            JobError: The endpoint refuses files or batches as such.
        """
        self.held, self.short = False, None
        queued: Counter[str] = Counter()
        for batch in self._book.live():
            queued[batch.model] += batch.tokens
        writer = BatchFileWriter(self._facts, self._caps, queued, self._journal.path.parent)
        with closing(writer):
            async with aclosing(passing):
                async for items in passing:
                    for item in items:
                        check()
                        if (full := self._put(writer, item)) is not None:
                            await self._dispatch(full, check, paid)
                    if self.short is not None or (writer.held and self._one_model):
                        break
            for batch_file in writer.rest():
                await self._dispatch(batch_file, check, paid)
        self.held = self.held or writer.held

    def _put(self, writer: BatchFileWriter, item: WorkItem) -> BatchFile | None:
        """Puts a item into a file; returns the one before it, where that is full."""
        if self.short is not None:
            return None
        reserved = self._budget.reserve(item.request)
        if reserved is None:
            self.short = self._budget.shortage(item.request)
            return None
        try:
            return writer.put(item.request_id, item.request)
        except QueueFull:
            self._budget.settle(item.request, reserved, _NOT_SENT)
        except RequestTooLarge as error:
            self._budget.settle(item.request, reserved, _NOT_SENT)
            self._journal.record_outcome(item.request_id, State.FAILED, None, item.earlier)
            self._counters.ended_with(Answer(error=str(error), reason="too_large"))
        return None

    async def _dispatch(self, batch_file: BatchFile, check: Callable[[], None], paid: bool) -> None:
        """Makes a batch of a file: prepared, uploaded, created."""
        with batch_file.file:
            check()
            batch = self._book.prepare(
                batch_file.name,
                batch_file.requests,
                model=batch_file.model,
                size=batch_file.size,
                tokens=batch_file.tokens,
                sha256=batch_file.digest.hexdigest(),
            )
            try:
                batch = await self._steps.upload(batch, batch_file.file)
                await self._steps.create(batch)
            except CallFailed as failed:
                self.held = True
                if failed.status == 413:
                    self.learned(batch, BatchRejection(words=str(failed), too_long=True))
                    await self._steps.drop(batch)
                elif is_queue_full(str(failed)):
                    await self.no_room(batch, str(failed))
                else:
                    what = "a batch" if batch.file_id else "a file of requests"
                    raise job_error(failed, what=f"{what} was refused", paid=paid) from failed

    async def no_room(self, batch: BatchRecord, words: str) -> BatchRecord:
        """Drops a batch whose creation was refused for want of room: its rows wait for a smaller one."""
        self.learned(batch, read([{"message": words}], batch.requests, answered=True))
        return await self._steps.drop(batch)

    def learned(self, batch: BatchRecord, refusal: BatchRejection) -> BatchRejection:
        """Takes note of what the endpoint will not take; a request that has no room at all is refused itself."""
        if refusal.too_long:
            self._caps.requests = max(1, batch.requests // 2)
            self._caps.size = max(1, batch.bytes // 2)
        if refusal.queue_full:
            live = self._book.live()
            others = [one for one in live if one.model == batch.model and one.batch_id != batch.batch_id]
            if batch.requests == 1 and not others:
                error = {"code": "token_limit_exceeded", "message": refusal.words}
                return BatchRejection(words=refusal.words, lines={0: error})
            together = batch.tokens + sum(one.tokens for one in others)
            cap = int(together * SHRINK)
            if refusal.limit_tokens is not None and refusal.limit_tokens * HEADROOM < together * HEADROOM:
                cap = int(refusal.limit_tokens * HEADROOM)
            known = self._caps.tokens.get(batch.model)
            self._caps.tokens[batch.model] = max(1, cap if known is None else min(cap, known))
        self._journal.put(CAPS, asdict(self._caps))
        return refusal
