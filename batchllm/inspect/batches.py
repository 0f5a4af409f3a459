"""``batchllm batches``: lists the batches of jobs by their journals, or cancels those of one job."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from batchllm import __version__
from batchllm.batch.errors import job_error
from batchllm.batch.loop import facts_of
from batchllm.batch.steps import GONE, Steps
from batchllm.client.batches import BatchApi, CallFailed
from batchllm.endpoint import LazyClient
from batchllm.errors import ExitStatus, JobError
from batchllm.inspect.job import local_time, open_job
from batchllm.job import Job, reconnect
from batchllm.journal import BatchRecord, BatchState, JobLock, Journal, JournalReader
from batchllm.prepare.job_paths import journal_of


@dataclass(frozen=True, slots=True)
class BatchLine:
    """A batch of a job.

    Attributes:
        output: The job's output, or its journal if it writes to standard output.
        batch: The batch.
    """

    output: str
    batch: BatchRecord

    def to_text(self) -> str:
        """Returns one line: output, name at the endpoint, state, counts, model, times."""
        batch = self.batch
        done = "?" if batch.completed is None else f"{batch.completed:,}"
        counts = f"{done} of {batch.requests:,} done"
        if batch.failed:
            counts += f", {batch.failed:,} failed"
        seen = f", seen {local_time(batch.last_polled_at)}" if batch.last_polled_at else ""
        made = f"made {local_time(batch.prepared_at)}{seen}"
        return (
            f"{self.output}: {batch.remote_id or batch.name} {_state(batch)}, {counts}, {batch.model}, {made}"
        )


def list_batches(
    outputs: Iterable[Path], skipped: Callable[[str], None] = lambda reason: None
) -> Iterator[BatchLine]:
    """Yields the batches of jobs, as the last run of each saw them, oldest first.

    Args:
        outputs: Outputs, or their journals; without any, every journal of the current folder.
        skipped: Told of each journal of the folder that cannot be read.

    Raises:
        InputError: A journal that was named does not exist, or is damaged.
    """
    named = list(outputs)
    for path in named or sorted(Path().glob("*.journal")):
        try:
            yield from _batches_of(path)
        except JobError as error:
            if named:
                raise
            skipped(f"skipped: {error}")


def _batches_of(path: Path) -> list[BatchLine]:
    with JournalReader.open(journal_of(path)) as reader:
        kept = reader.get("job")
        output = (kept or {}).get("output") or str(path)
        return [BatchLine(_relative(output), batch) for batch in reader.batches()]


def cancel_batches(
    output: Path, environ: Mapping[str, str], *, api_key_file: Path | None = None
) -> list[BatchLine]:
    """Cancels every batch of a job; the next run collects what was done.

    A batch that the endpoint does not know, or whose results are gone, is given up: its requests will be sent again,
    and are possibly billed twice.

    Args:
        output: The job's output, or its journal.
        environ: The environment, for the key.
        api_key_file: File with the key.

    Returns:
        The batches that were cancelled or given up.

    Raises:
        NotNow: A run has the job.
        JobError: The endpoint cannot be asked, or the journal does not exist.
    """
    with open_job(output) as (reader, paths, job):
        if all(batch.state is BatchState.DONE for batch in reader.batches()):
            return []
    with ExitStack() as locks:
        for lock in paths.locks:
            locks.enter_context(JobLock(lock))
        journal = locks.enter_context(Journal.open(paths.journal, version=__version__))
        try:
            live = journal.batches.live()
            endpoint = reconnect(job.endpoint, environ, api_key_file=api_key_file)
            live = asyncio.run(_cancel(replace(job, endpoint=endpoint), journal, live))
        finally:
            journal.close(int(ExitStatus.NOT_NOW))
    return [BatchLine(_relative(str(output)), batch) for batch in live]


async def _cancel(job: Job, journal: Journal, live: list[BatchRecord]) -> list[BatchRecord]:
    after: list[BatchRecord] = []
    async with AsyncExitStack() as stack:
        client = LazyClient(job, stack)
        steps = Steps(client.batches, journal.batches, facts_of(job), unknown_s=0.0)
        for batch in live:
            try:
                if batch.state is not BatchState.ENDED:
                    after.append(await steps.cancel(batch))
                elif lost := await _lost(await client.batches(), batch):
                    after.append(journal.batches.update(batch, status=GONE, **dict.fromkeys(lost)))
            except CallFailed as failed:
                if failed.status != 404:
                    what = f"batch {batch.remote_id or batch.name}"
                    raise job_error(failed, what=what, paid=True) from failed
                after.append(journal.batches.update(batch, state=BatchState.ENDED, status=GONE))
    return after


async def _lost(api: BatchApi, batch: BatchRecord) -> list[str]:
    """Returns the files of an ended batch's results that the endpoint does not have any more."""
    files = {"output_file_id": batch.output_file_id, "error_file_id": batch.error_file_id}
    return [name for name, file_id in files.items() if file_id and not await api.has_file(file_id)]


def _state(batch: BatchRecord) -> str:
    if batch.state is BatchState.DONE:
        return f"{batch.status}, collected"
    if batch.state is BatchState.ENDED:
        return f"{batch.status}, to be collected"
    if batch.state is BatchState.CREATING:
        return "possibly created"
    return str(batch.status or batch.state)


def _relative(output: str) -> str:
    """Returns a path relative to the current folder, if it is inside."""
    try:
        return str(Path(output).relative_to(Path.cwd()))
    except ValueError:
        return output
