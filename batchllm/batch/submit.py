"""Submits rows that are in no batch, as far as the endpoint's queue and the budget have room.

Rows are written into files, one model each, cut at the endpoint's limits. A file has no name on disk, so a run that
dies leaves none behind. No endpoint says how many tokens may be queued; that is found when it refuses a batch. What
was found stays in the journal.
"""

import tempfile
from array import array
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, closing, contextmanager
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

from batchllm.batch.errors import BatchRejection, is_queue_full, job_error, read_rejection
from batchllm.batch.lines import request_line
from batchllm.batch.steps import Steps
from batchllm.budget.budget import BudgetMeter
from batchllm.client.batches import CallFailed
from batchllm.counters import RunCounters
from batchllm.formats import storage_error
from batchllm.journal import BatchRecord, Journal, State, new_name
from batchllm.plan.work_item import WorkItem
from batchllm.presets import BatchFacts
from batchllm.records import Answer, ChatRequest, Failure, FailureKind, Paid

CAPS = "batch_caps"
"""The journal's key for ``Caps``."""

MARGIN = 0.95
"""Share of the byte limit that is used: some endpoints count the form around the file, or megabytes of 10^6."""

SHRINK = 0.7
"""The queue is taken to hold this share of what it refused, unless the endpoint says more."""

HEADROOM = 0.9
"""Share of the endpoint's own limit that is used: it counts tokens differently."""

_NOT_SENT = Failure(FailureKind.UNSENT, "there is no room for it now", Paid.NO, 0.0)


@dataclass(slots=True)
class BatchFile:
    """A file of requests that is being written.

    Attributes:
        name: The name of its batch.
        model: The model of all its requests.
        file: Its bytes; closing it removes them.
        requests: The journal's ids of its requests, in the order of its lines.
        size: Its bytes so far.
        tokens: Its prompt tokens, estimated.
    """

    name: str
    model: str
    file: IO[bytes]
    requests: "array[int]" = field(default_factory=lambda: array("q"))
    size: int = 0
    tokens: int = 0
    digest: Any = field(default_factory=sha256)

    def add(self, request_id: int, line: bytes, tokens: int) -> None:
        """Writes a line."""
        self.file.write(line)
        self.digest.update(line)
        self.requests.append(request_id)
        self.size += len(line)
        self.tokens += tokens


@dataclass(slots=True)
class Caps:
    """Limits of the endpoint that its preset does not know, found when it refused something.

    Attributes:
        requests, size: Most lines and bytes of a file.
        tokens: By model, most estimated tokens that may be queued at once.
    """

    requests: int | None = None
    size: int | None = None
    tokens: dict[str, int] = field(default_factory=dict)


class RequestTooLarge(Exception):
    """A request is longer than a file may be."""


class QueueFull(Exception):
    """The endpoint's queue has no room for a request now."""


class BatchFileWriter:
    """Writes requests into files.

    Args:
        facts: The endpoint's limits.
        caps: Its limits that were found.
        queued: By model, the tokens in batches that are under way.
        folder: The folder of the files: on the journal's disk.

    Attributes:
        held: Some requests have no room in the queue now.
    """

    def __init__(self, facts: BatchFacts, caps: Caps, queued: dict[str, int], folder: Path) -> None:
        self._facts = facts
        self._caps = caps
        self._queued = queued
        self._folder = folder
        self._most_requests = min(facts.max_requests, caps.requests or facts.max_requests)
        self._most_bytes = min(int(facts.max_bytes * MARGIN), caps.size or facts.max_bytes)
        self._batch_files: dict[str, BatchFile] = {}
        self.held = False

    def put(self, request_id: int, request: ChatRequest) -> BatchFile | None:
        """Adds a request to its model's file.

        Returns:
            The full file before it, if this request began a new one.

        Raises:
            RequestTooLarge: The request alone is longer than a file may be.
            QueueFull: The request has to wait for room in the queue; sets ``held``.
        """
        tokens = tokens_of(request)
        batch_file = self._batch_files.get(request.model) or self._new(request.model)
        line = request_line(batch_file.name, len(batch_file.requests), self._facts.endpoint, request.body)
        if len(line) > self._most_bytes:
            raise RequestTooLarge(f"the request has {len(line):,} bytes; a batch takes {self._most_bytes:,}")
        cap = self._caps.tokens.get(request.model)
        queued = self._queued.get(request.model, 0)
        if cap is not None and queued + batch_file.tokens + tokens > cap and (queued or batch_file.tokens):
            self.held = True
            raise QueueFull
        full = None
        if len(batch_file.requests) >= self._most_requests or batch_file.size + len(line) > self._most_bytes:
            full = self._take(request.model)
            batch_file = self._new(request.model)
            line = request_line(batch_file.name, 0, self._facts.endpoint, request.body)
        with storage(self._folder):
            batch_file.add(request_id, line, tokens)
        return full

    def rest(self) -> Iterator[BatchFile]:
        """Returns the files that are not full."""
        for model in list(self._batch_files):
            if (batch_file := self._take(model)) is not None:
                yield batch_file

    def close(self) -> None:
        """Removes the files that were not returned."""
        for batch_file in self._batch_files.values():
            batch_file.file.close()

    def _take(self, model: str) -> BatchFile | None:
        batch_file = self._batch_files.pop(model, None)
        if batch_file is None or not batch_file.requests:
            return None
        self._queued[model] = self._queued.get(model, 0) + batch_file.tokens
        with storage(self._folder):
            batch_file.file.flush()
        return batch_file

    def _new(self, model: str) -> BatchFile:
        with storage(self._folder):
            file = tempfile.TemporaryFile(dir=self._folder, prefix=".batchllm-")  # noqa: SIM115 - BatchFile closes it
        batch_file = self._batch_files[model] = BatchFile(new_name(), model, file)
        return batch_file


class BatchSubmitter:
    """Makes batches of rows.

    Args:
        journal: Where batches are recorded.
        steps: Uploads and creates.
        facts: The endpoint's limits.
        meter: The budget.
        counters: Counts rows that cannot be sent at all.
        one_model: All rows ask the same model, so that the first one without room is the last.

    Attributes:
        held: Some rows wait for room in the queue.
        shortage: Why the budget has no room for a row; ``None`` if it has.
    """

    def __init__(
        self,
        journal: Journal,
        steps: Steps,
        facts: BatchFacts,
        *,
        meter: BudgetMeter,
        counters: RunCounters,
        one_model: bool,
    ) -> None:
        self._journal = journal
        self._steps = steps
        self._facts = facts
        self._meter = meter
        self._counters = counters
        self._one_model = one_model
        self._caps = Caps(**(journal.get(CAPS) or {}))
        self.held = False
        self.shortage: str | None = None

    async def submit(
        self, items: AsyncGenerator[Sequence[WorkItem], None], check: Callable[[], None], *, paid: bool
    ) -> None:
        """Puts rows into batches until there is no more room.

        Args:
            items: The rows.
            check: Raises if the run is to stop.
            paid: The job has paid answers.

        Raises:
            JobError: The endpoint refuses files or batches as such.
        """
        self.held, self.shortage = False, None
        queued: Counter[str] = Counter()
        for batch in self._journal.batches.live():
            queued[batch.model] += batch.tokens
        writer = BatchFileWriter(self._facts, self._caps, queued, self._journal.path.parent)
        with closing(writer):
            async with aclosing(items):
                async for page in items:
                    for item in page:
                        check()
                        if (full := self._put(writer, item)) is not None:
                            await self._make_batch(full, check, paid)
                    if self.shortage is not None or (writer.held and self._one_model):
                        break
            for batch_file in writer.rest():
                await self._make_batch(batch_file, check, paid)
        self.held = self.held or writer.held

    def _put(self, writer: BatchFileWriter, item: WorkItem) -> BatchFile | None:
        """Writes a row into a file; returns the file before it, if that is full."""
        if self.shortage is not None:
            return None
        reserved = self._meter.reserve(item.request)
        if reserved is None:
            self.shortage = self._meter.shortage(item.request)
            return None
        try:
            return writer.put(item.request_id, item.request)
        except QueueFull:
            self._meter.release(item.request, reserved, _NOT_SENT)
        except RequestTooLarge as error:
            self._meter.release(item.request, reserved, _NOT_SENT)
            self._journal.record_outcome(item.request_id, State.FAILED, None, item.earlier)
            self._counters.count_finished(Answer(error=str(error), reason="too_large"))
        return None

    async def _make_batch(self, batch_file: BatchFile, check: Callable[[], None], paid: bool) -> None:
        """Records, uploads and creates the batch of a file."""
        with batch_file.file:
            check()
            batch = self._journal.batches.prepare(
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
                    self.apply_rejection(batch, BatchRejection(str(failed), too_long=True))
                    await self._steps.drop(batch)
                elif is_queue_full(str(failed)):
                    await self.drop_refused(batch, str(failed))
                else:
                    what = "a batch" if batch.file_id else "a file of requests"
                    raise job_error(failed, what=f"{what} was refused", paid=paid) from failed

    async def drop_refused(self, batch: BatchRecord, message: str) -> BatchRecord:
        """Drops a batch whose creation was refused because the queue is full; its rows go into a smaller one."""
        self.apply_rejection(batch, read_rejection([{"message": message}], batch.requests, answered=True))
        return await self._steps.drop(batch)

    def apply_rejection(self, batch: BatchRecord, rejection: BatchRejection) -> BatchRejection:
        """Lowers the limits after a rejection; a request that the empty queue has no room for is rejected itself."""
        caps = self._caps
        if rejection.too_long:
            caps.requests = max(1, batch.requests // 2)
            caps.size = max(1, batch.bytes // 2)
        if rejection.queue_full:
            live = self._journal.batches.live()
            others = [one for one in live if one.model == batch.model and one.batch_id != batch.batch_id]
            if batch.requests == 1 and not others:
                error = {"code": "token_limit_exceeded", "message": rejection.message}
                return BatchRejection(rejection.message, lines={0: error})
            together = batch.tokens + sum(one.tokens for one in others)
            cap = int(together * SHRINK)
            if rejection.limit_tokens is not None and rejection.limit_tokens < together:
                cap = int(rejection.limit_tokens * HEADROOM)
            caps.tokens[batch.model] = max(1, min(cap, caps.tokens.get(batch.model, cap)))
        self._journal.put(CAPS, asdict(caps))
        return rejection


def tokens_of(request: ChatRequest) -> int:
    """Returns the prompt tokens of a request, counted, or estimated as endpoints do: a quarter of its bytes."""
    return request.prompt_tokens or len(request.body) // 4


@contextmanager
def storage(folder: Path) -> Iterator[None]:
    """Converts an OSError into the matching JobError."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, folder, "a batch's file cannot be written here") from error
