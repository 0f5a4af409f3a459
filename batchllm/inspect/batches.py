"""``batchllm batches``: the batches of jobs by their journals alone, and the end of those of one job."""

import asyncio
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from batchllm import __version__
from batchllm.batch.calls import job_error
from batchllm.batch.setup import facts_of
from batchllm.batch.steps import GONE, Steps
from batchllm.batch.waiting import PollIntervals
from batchllm.client.batches import BatchApi, CallFailed
from batchllm.endpoint import LazyClient
from batchllm.errors import ExitStatus, InputError
from batchllm.inspect.open_job import journal_of
from batchllm.job import Job, reconnect
from batchllm.journal import BatchRecord, BatchState, JobLock, Journal, JournalReader
from batchllm.prepare.job_paths import job_paths
from batchllm.prepare.saved_job import restored


@dataclass(frozen=True, slots=True)
class BatchLine:
    """A batch of a job.

    Attributes:
        output: The job's output, or its journal where it writes to standard output.
        batch: What the journal knows of it.
    """

    output: str
    batch: BatchRecord

    def words(self) -> str:
        """One line: output, name at the endpoint, state, counts, model, times."""
        batch = self.batch
        done = "?" if batch.completed is None else f"{batch.completed:,}"
        counts = f"{done} of {batch.requests:,} done"
        if batch.failed:
            counts += f", {batch.failed:,} failed"
        seen = f", seen {_clock(batch.last_polled_at)}" if batch.last_polled_at else ""
        made = f"made {_clock(batch.prepared_at)}{seen}"
        return (
            f"{self.output}: {batch.remote_id or batch.name} {_state(batch)}, {counts}, {batch.model}, {made}"
        )


def list_batches(outputs: Iterable[Path]) -> Iterator[BatchLine]:
    """The batches of jobs, as the last run of each saw them, oldest first.

    Args:
        outputs: Outputs, or their journals; without any, every journal of the current folder.

    Raises:
        InputError: There is no such journal, or it is damaged.
    """
    for path in list(outputs) or sorted(Path().glob("*.journal")):
        with JournalReader.open(journal_of(path)) as reader:
            kept = reader.get("job")
            output = (kept or {}).get("output") or str(path)
            yield from (BatchLine(_near(output), batch) for batch in reader.batches())


def cancel_batches(
    output: Path, environ: Mapping[str, str], *, api_key_file: Path | None = None
) -> list[BatchLine]:
    """Asks the endpoint to stop every batch of a job; what was done is kept, and collected by the next run.

    A batch that the endpoint does not know, or whose results it has no more, is given up: its requests will be
    sent again, and may be paid twice.

    Args:
        output: The job's output, or its journal.
        environ: The environment, for the key.
        api_key_file: File with the key.

    Returns:
        The batches that were stopped or given up.

    Raises:
        NotNow: A run is at the job.
        JobError: The endpoint cannot be asked, or there is no journal.
    """
    path = journal_of(output)
    with JournalReader.open(path) as reader:
        kept = reader.get("job")
        if kept is None:
            raise InputError(path, "no run of this job has begun; run it first")
        job = restored(kept)
        if all(batch.state is BatchState.DONE for batch in reader.batches()):
            return []
    with ExitStack() as locks:
        paths = job_paths(job)
        for lock in filter(None, (paths.lock, paths.journal_lock)):
            locks.enter_context(JobLock(lock))
        journal = locks.enter_context(Journal.open(path, version=__version__))
        try:
            live = journal.batches.live()
            endpoint = reconnect(job.endpoint, environ, api_key_file=api_key_file)
            live = asyncio.run(_cancel(replace(job, endpoint=endpoint), journal, live))
        finally:
            journal.close(int(ExitStatus.NOT_NOW))
    return [BatchLine(_near(str(output)), batch) for batch in live]


async def _cancel(job: Job, journal: Journal, live: list[BatchRecord]) -> list[BatchRecord]:
    after: list[BatchRecord] = []
    async with AsyncExitStack() as stack:
        client = LazyClient(job, stack)
        steps = Steps(client.batches, journal.batches, facts_of(job), PollIntervals(unknown_s=0.0))
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
    """Which files of an ended batch's results are at the endpoint no more."""
    files = {"output_file_id": batch.output_file_id, "error_file_id": batch.error_file_id}
    return [name for name, file_id in files.items() if file_id and not await api.has_file(file_id)]


def _state(batch: BatchRecord) -> str:
    if batch.state is BatchState.DONE:
        return f"{batch.status}, collected"
    if batch.state is BatchState.ENDED:
        return f"{batch.status}, to be collected"
    if batch.state is BatchState.CREATING:
        return "perhaps created"
    return str(batch.status or batch.state)


def _near(output: str) -> str:
    """A path as short as it can be said from here."""
    try:
        return str(Path(output).relative_to(Path.cwd()))
    except ValueError:
        return output


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
