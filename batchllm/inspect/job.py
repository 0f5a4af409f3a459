"""Opens a job by its output for the commands that only read its journal; ``clean`` removes the journal."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from batchllm.errors import CannotWrite, InputError, NotNow, UsageError
from batchllm.job import Job
from batchllm.journal import ForeignDatabase, JobLock, JournalReader, remove
from batchllm.prepare.existing_output import exported_note
from batchllm.prepare.job_paths import JobPaths, job_paths, journal_of, lock_beside
from batchllm.prepare.saved_job import job_in


@contextmanager
def open_job(output: Path) -> Iterator[tuple[JournalReader, JobPaths, Job]]:
    """Opens the journal of an output, or the journal itself; yields it with the job's paths and the job.

    Raises:
        InputError: The journal does not exist, is damaged, or has no job yet.
    """
    path = journal_of(output)
    with JournalReader.open(path) as reader:
        job = job_in(reader)
        if job is None:
            raise InputError(path, "no run of this job has begun; run it first")
        yield reader, replace(job_paths(job), journal=path), job


def clean_job(output: Path, *, force: bool) -> list[Path]:
    """Removes the journal of a finished job, or of one in which nothing was sent; returns what was removed.

    Args:
        output: The job's output, or its journal.
        force: Also a journal of an unfinished job, and one that is damaged or of another version.

    Raises:
        NotNow: A run has the job.
        UsageError: The job is not finished, or nobody can say.
        InputError: There is no journal, or it is another program's file.
    """
    journal = journal_of(output)
    try:
        refusal, locks = _not_finished(output, journal)
    except (ForeignDatabase, CannotWrite, NotNow):
        raise
    except InputError as error:
        if not journal.is_file() or journal.is_symlink():
            raise
        refusal = (
            f"{error.path}: the journal cannot be read, so nobody can say whether its job is finished "
            f"({error.reason.partition(';')[0]}); remove it, and the answers that may be in it, with --force"
        )
        locks = (lock_beside(journal), journal.with_name(f"{journal.name}.lock"))
    with ExitStack() as stack:
        for lock in locks:
            stack.enter_context(JobLock(lock))
        if refusal and not force:
            raise UsageError(refusal)
        remove(journal)
        exported_note(journal).unlink(missing_ok=True)
    return [journal]


def _not_finished(output: Path, journal: Path) -> tuple[str, tuple[Path, ...]]:
    """Why a journal should not be removed, empty if it may be, and the locks of its job."""
    with JournalReader.open(journal) as reader:
        if reader.get("job") is None and reader.count_attempts() == (0, 0):
            return "", (lock_beside(journal),)
    with open_job(output) as (reader, paths, _):
        state = "only a trial of the job is finished" if reader.trial_finished else "the job is not finished"
        refusal = f"{output}: {state}; finish it, or lose its answers with --force"
        return "" if reader.finished else refusal, paths.locks


def local_time(seconds: float) -> str:
    """Formats seconds since the epoch as local time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
