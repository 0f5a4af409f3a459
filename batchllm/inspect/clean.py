"""``clean``: removes the journal of a finished job."""

from pathlib import Path

from batchllm.errors import UsageError
from batchllm.inspect.open_job import open_job
from batchllm.journal import JobLock, remove


def clean_job(output: Path, *, force: bool = False) -> list[Path]:
    """Removes journal and lock of a finished job; returns what was removed.

    Raises:
        NotNow: A run is at it.
        UsageError: The job is not finished.
    """
    with open_job(output) as (reader, places):
        finished = reader.finished
    with JobLock(places.lock):
        if not finished and not force:
            raise UsageError(
                f"{output}: the job is not finished; finish it, or lose its answers with --force"
            )
        remove(places.journal)
        places.lock.unlink(missing_ok=True)
    return [places.journal, places.lock]
