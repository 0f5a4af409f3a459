"""Opens a job by its output for the commands that only read its journal; ``clean`` removes the journal."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from batchllm.errors import InputError, UsageError
from batchllm.job import Job
from batchllm.journal import JobLock, JournalReader, remove
from batchllm.prepare.job_paths import JobPaths, job_paths, journal_of
from batchllm.prepare.saved_job import restored


@contextmanager
def open_job(output: Path) -> Iterator[tuple[JournalReader, JobPaths, Job]]:
    """Opens the journal of an output, or the journal itself; yields it with the job's paths and the job.

    Raises:
        InputError: The journal does not exist, is damaged, or has no job yet.
    """
    path = journal_of(output)
    with JournalReader.open(path) as reader:
        kept = reader.get("job")
        if kept is None:
            raise InputError(path, "no run of this job has begun; run it first")
        job = restored(kept)
        paths = job_paths(job)
        yield reader, JobPaths(paths.output, path, paths.lock, paths.journal_lock), job


def clean_job(output: Path, *, force: bool = False) -> list[Path]:
    """Removes journal and lock of a finished job; returns what was removed.

    Raises:
        NotNow: A run has the job.
        UsageError: The job is not finished.
    """
    with open_job(output) as (reader, paths, _):
        finished, trial = reader.finished, reader.trial_finished
    with JobLock(paths.lock):
        if not finished and not force:
            state = "only a trial of the job is finished" if trial else "the job is not finished"
            raise UsageError(f"{output}: {state}; finish it, or lose its answers with --force")
        remove(paths.journal)
        paths.lock.unlink(missing_ok=True)
    return [paths.journal, paths.lock]


def local_time(seconds: float) -> str:
    """Formats seconds since the epoch as local time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
