"""Takes one batch from one durable state to the next.

The intent of an upload and of a creation is durable before the call, and its result before the next step. If a run
dies between a call and its record, the endpoint is asked: a file is known by its name, which is the batch's name; a
batch by the name in its metadata, or by its file, which was uploaded for it alone. A creation is repeated only when
it is too old to be still under way and the endpoint does not list it.
"""

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable
from typing import IO

from batchllm.batch.errors import possibly_done, retry_call, retry_delay_s
from batchllm.client.batches import BatchApi, CallFailed, RemoteBatch
from batchllm.journal import BatchRecord, BatchState, BatchStore
from batchllm.presets import BatchFacts
from batchllm.retry import Disposition, Verdict

log = logging.getLogger("batchllm.runner")

DROPPED = "dropped"
"""The status of a batch that was never created."""

GONE = "gone"
"""The status of a batch that the endpoint does not know any more, and that was given up."""

_NO_FILE = re.compile(r"no such file|file\b.*\b(?:not found|expired|deleted|does not exist)", re.I)


class Steps:
    """Takes batches through their states.

    Args:
        api: Opens the endpoint at the first call.
        store: Where each state is made durable.
        facts: The endpoint's limits.
        unknown_s: Seconds after which a batch that the endpoint does not list was not created.

    Attributes:
        held: A creation was refused for a rate limit, and is made later.
    """

    def __init__(
        self,
        api: Callable[[], Awaitable[BatchApi]],
        store: BatchStore,
        facts: BatchFacts,
        unknown_s: float,
    ) -> None:
        self._api = api
        self._store = store
        self._facts = facts
        self._unknown_s = unknown_s
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
                if possibly_done(failed) and (found := await self._find_file(batch)) is not None:
                    file_id = found
                    break
                delay_s = retry_delay_s(failed, tries)
                if delay_s is None:
                    raise
                await asyncio.sleep(delay_s)
        return self._store.update(batch, state=BatchState.UPLOADED, file_id=file_id)

    async def create(self, batch: BatchRecord) -> BatchRecord:
        """UPLOADED → CREATED; CREATING if the result is unknown, UPLOADED if the endpoint asks for a pause.

        Raises:
            CallFailed: The endpoint refuses it; it is still UPLOADED.
        """
        file_id, api = batch.file_id, await self._api()
        assert file_id is not None, "a batch is created from its file"
        batch = self._store.update(batch, state=BatchState.CREATING)
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
            batch = self._store.update(batch, state=BatchState.UPLOADED)
            if failed.verdict.disposition in (Disposition.REFUSED, Disposition.TRANSIENT):
                log.info("%s waits: %s", batch.name, failed)
                self.held = True
                return batch
            raise
        return self._record(batch, remote)

    async def advance(self, batch: BatchRecord, *, create: bool) -> BatchRecord:
        """Takes a batch of an earlier run as far as it goes: found, created, dropped, or polled.

        Args:
            batch: The batch; not ENDED yet.
            create: Create a batch that is not created yet; otherwise drop it.

        Raises:
            CallFailed: The endpoint cannot be asked, or refuses; ``status`` 404: it does not know the batch.
        """
        if batch.state is BatchState.PREPARED:
            file_id = await self._find_file(batch)
            if file_id is None:
                return await self.drop(batch)
            batch = self._store.update(batch, state=BatchState.UPLOADED, file_id=file_id)
        if batch.state is BatchState.CREATING:
            batch = await self._find(batch)
        if batch.state is BatchState.UPLOADED:
            return await self._recreate(batch) if create else await self.drop(batch)
        if batch.state is BatchState.CREATED:
            api, remote_id = await self._api(), batch.remote_id or ""
            remote = await retry_call(lambda: api.retrieve(remote_id))
            if remote.name not in (None, batch.name):
                message = f"{remote_id} is another job's batch"
                raise CallFailed(Verdict(Disposition.FATAL, "http_404", message), 404)
            return self._record(batch, remote)
        return batch

    async def cancel(self, batch: BatchRecord) -> BatchRecord:
        """Cancels a batch; one that was not created is dropped."""
        if batch.state is not BatchState.CREATED:
            batch = await self.advance(batch, create=False)
        if batch.state is not BatchState.CREATED:
            return batch
        api, remote_id = await self._api(), batch.remote_id or ""
        try:
            remote = await retry_call(lambda: api.cancel(remote_id))
        except CallFailed as failed:
            if failed.status == 404:
                raise
            remote = await retry_call(lambda: api.retrieve(remote_id))  # it has ended meanwhile
            if not remote.is_final:
                raise
        return self._record(batch, remote)

    async def drop(self, batch: BatchRecord) -> BatchRecord:
        """Ends a batch that was never created, and tries to delete its file at the endpoint."""
        if batch.file_id is not None:
            api, file_id = await self._api(), batch.file_id
            try:
                await api.delete_file(file_id)
            except CallFailed as failed:
                log.info("the file %s was not deleted: %s", file_id, failed)
        return self._store.update(batch, state=BatchState.ENDED, status=DROPPED)

    async def _recreate(self, batch: BatchRecord) -> BatchRecord:
        """Creates a batch whose file an earlier run uploaded."""
        try:
            return await self.create(batch)
        except CallFailed as failed:
            if failed.status in (400, 404) and _NO_FILE.search(str(failed)):
                return await self.drop(self._store.update(batch, file_id=None))
            raise

    async def _find(self, batch: BatchRecord) -> BatchRecord:
        """CREATING → CREATED if the endpoint has it, UPLOADED if it cannot have it any more."""
        api = await self._api()
        remote = await retry_call(lambda: api.find(batch.name, batch.file_id))
        if remote is not None:
            return self._record(batch, remote)
        if 0 <= time.time() - batch.state_changed_at < self._unknown_s:
            return batch
        return self._store.update(batch, state=BatchState.UPLOADED)

    async def _find_file(self, batch: BatchRecord) -> str | None:
        """Returns the id of the batch's file at the endpoint; an incomplete file is deleted."""
        api = await self._api()
        try:
            found = await retry_call(lambda: api.find_file(batch.filename, batch.prepared_at))
            if found is None:
                return None
            file_id, size = found
            if size in (None, batch.bytes):
                return file_id
            await api.delete_file(file_id)
        except CallFailed as failed:
            log.info("the files of the endpoint cannot be listed: %s", failed)
        return None

    def _record(self, batch: BatchRecord, remote: RemoteBatch) -> BatchRecord:
        """Records what the endpoint says of a batch."""
        state = BatchState.ENDED if remote.is_final else BatchState.CREATED
        return self._store.update(
            batch,
            **({} if state is batch.state else {"state": state}),
            remote_id=remote.id,
            status=remote.status,
            last_polled_at=time.time(),
            total=remote.total,
            completed=remote.completed,
            failed=remote.failed,
            output_file_id=remote.output_file_id,
            error_file_id=remote.error_file_id,
            errors=remote.errors,
        )
