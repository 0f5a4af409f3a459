"""One batch, from one durable state to the next.

The order is what the promise rests on: the intent of an upload and of a creation is durable before the call, and
what the call brought is durable before the next step. A run that dies between a call and its record leaves a
question, and the endpoint has the answer: a file is known by its name, which is the batch's; a batch by the name
in its metadata, or by its file, which was uploaded for it alone. Only when a creation is so old that it cannot be
on its way any more, and the list does not have it, is it made again.
"""

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable
from typing import IO

from batchllm.batch.calls import pause_of, possibly_done, steadily
from batchllm.batch.waiting import PollIntervals
from batchllm.client.batches import BatchApi, CallFailed, RemoteBatch
from batchllm.journal import BatchRecord, BatchState, BatchStore
from batchllm.presets import BatchFacts
from batchllm.retry import Disposition, Verdict

log = logging.getLogger("batchllm.runner")

DROPPED = "dropped"
"""The status of a batch that was never created."""

GONE = "gone"
"""The status of a batch that the endpoint knows no more, and that was given up."""

_NO_FILE = re.compile(r"no such file|file\b.*\b(?:not found|expired|deleted|does not exist)", re.I)


class Steps:
    """Takes batches through their stages.

    Args:
        api: Opens the endpoint at the first call.
        book: Where each state is made durable.
        facts: What the endpoint's Batch API takes.
        patience: How long what takes.
        clock: Seconds since the epoch, to be compared with the journal's times.

    Attributes:
        held: A creation was refused for its rate: it is made later.
    """

    def __init__(
        self,
        api: Callable[[], Awaitable[BatchApi]],
        book: BatchStore,
        facts: BatchFacts,
        patience: PollIntervals,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._api = api
        self._book = book
        self._facts = facts
        self._patience = patience
        self._clock = clock
        self.held = False

    async def upload(self, batch: BatchRecord, file: IO[bytes]) -> BatchRecord:
        """PREPARED → UPLOADED."""
        api = await self._api()
        tries = 0
        while True:
            try:
                file_id = await api.upload(file, batch.filename)
                break
            except CallFailed as failed:
                tries += 1
                if possibly_done(failed) and (found := await self._uploaded(batch)) is not None:
                    file_id = found
                    break
                pause_s = pause_of(failed, tries)
                if pause_s is None:
                    raise
                await asyncio.sleep(pause_s)
        return self._book.update(batch, state=BatchState.UPLOADED, file_id=file_id)

    async def create(self, batch: BatchRecord) -> BatchRecord:
        """UPLOADED → CREATED; or CREATING where nobody knows, or UPLOADED where the endpoint wants a pause.

        Raises:
            CallFailed: The endpoint will not have it; it is UPLOADED still.
        """
        file_id, api = batch.file_id, await self._api()
        assert file_id is not None, "a batch is created of its file"
        batch = self._book.update(batch, state=BatchState.CREATING)
        try:
            remote = await api.create(
                file_id,
                endpoint=self._facts.endpoint,
                window=self._facts.windows[0],
                name=batch.name,
            )
        except CallFailed as failed:
            if possibly_done(failed):
                log.info("whether %s was created is not known: %s", batch.name, failed)
                return batch
            batch = self._book.update(batch, state=BatchState.UPLOADED)
            if failed.verdict.disposition in (Disposition.REFUSED, Disposition.TRANSIENT):
                log.info("%s waits: %s", batch.name, failed)
                self.held = True
                return batch
            raise
        return self._seen(batch, remote)

    async def forward(self, batch: BatchRecord, *, create: bool) -> BatchRecord:
        """Takes a batch of an earlier call as far as it goes now: found, created, dropped, or looked at.

        Args:
            batch: Not ENDED yet.
            create: Whether one that is not created yet shall be; else it is dropped.

        Raises:
            CallFailed: The endpoint cannot be asked, or says no; ``status`` 404: it does not know the batch.
        """
        if batch.state is BatchState.PREPARED:
            file_id = await self._uploaded(batch)
            if file_id is None:
                return await self.drop(batch)
            batch = self._book.update(batch, state=BatchState.UPLOADED, file_id=file_id)
        if batch.state is BatchState.CREATING:
            batch = await self._found(batch)
        if batch.state is BatchState.UPLOADED:
            return await self._recreate(batch) if create else await self.drop(batch)
        if batch.state is BatchState.CREATED:
            api, remote_id = await self._api(), batch.remote_id or ""
            remote = await steadily(lambda: api.retrieve(remote_id))
            if remote.name not in (None, batch.name):
                words = f"{remote_id} is another job's batch"
                raise CallFailed(Verdict(Disposition.FATAL, "http_404", words), 404)
            return self._seen(batch, remote)
        return batch

    async def cancel(self, batch: BatchRecord) -> BatchRecord:
        """Asks the endpoint to stop a batch; one that was not created is dropped."""
        if batch.state is not BatchState.CREATED:
            batch = await self.forward(batch, create=False)
        if batch.state is not BatchState.CREATED:
            return batch
        api, remote_id = await self._api(), batch.remote_id or ""
        try:
            remote = await steadily(lambda: api.cancel(remote_id))
        except CallFailed as failed:
            if failed.status == 404:
                raise
            remote = await steadily(lambda: api.retrieve(remote_id))  # it has ended meanwhile
            if not remote.is_final:
                raise
        return self._seen(batch, remote)

    async def drop(self, batch: BatchRecord) -> BatchRecord:
        """Ends a batch that was never created; its file at the endpoint is deleted where that works."""
        if batch.file_id is not None:
            api, file_id = await self._api(), batch.file_id
            try:
                await api.delete_file(file_id)
            except CallFailed as failed:
                log.info("the file %s was not deleted: %s", file_id, failed)
        return self._book.update(batch, state=BatchState.ENDED, status=DROPPED)

    async def _recreate(self, batch: BatchRecord) -> BatchRecord:
        """Creates a batch whose file an earlier call uploaded."""
        try:
            return await self.create(batch)
        except CallFailed as failed:
            if failed.status in (400, 404) and _NO_FILE.search(str(failed)):
                return await self.drop(self._book.update(batch, file_id=None))
            raise

    async def _found(self, batch: BatchRecord) -> BatchRecord:
        """CREATING → CREATED where the endpoint has it, UPLOADED where it cannot have it any more."""
        api = await self._api()
        remote = await steadily(lambda: api.find(batch.name, batch.file_id))
        if remote is not None:
            return self._seen(batch, remote)
        if 0 <= self._clock() - batch.state_changed_at < self._patience.unknown_s:
            return batch
        return self._book.update(batch, state=BatchState.UPLOADED)

    async def _uploaded(self, batch: BatchRecord) -> str | None:
        """The file of a batch at the endpoint; a part of it is deleted."""
        api = await self._api()
        try:
            found = await steadily(lambda: api.find_file(batch.filename, batch.prepared_at))
            if found is None:
                return None
            file_id, size = found
            if size in (None, batch.bytes):
                return file_id
            await api.delete_file(file_id)
        except CallFailed as failed:
            log.info("the files of the endpoint cannot be looked through: %s", failed)
        return None

    def _seen(self, batch: BatchRecord, remote: RemoteBatch) -> BatchRecord:
        """Records what the endpoint shows."""
        state = BatchState.ENDED if remote.is_final else BatchState.CREATED
        return self._book.update(
            batch,
            **({} if state is batch.state else {"state": state}),
            remote_id=remote.id,
            status=remote.status,
            last_polled_at=self._clock(),
            total=remote.total,
            completed=remote.completed,
            failed=remote.failed,
            output_file_id=remote.output_file_id,
            error_file_id=remote.error_file_id,
            errors=remote.errors,
        )
