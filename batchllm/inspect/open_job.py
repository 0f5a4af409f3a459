"""The journal of a job, opened for the commands that only read it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from batchllm.errors import InputError
from batchllm.journal import JournalReader
from batchllm.prepare.job_paths import JobPaths, job_paths
from batchllm.prepare.saved_job import restored


def journal_of(output: Path) -> Path:
    """The journal beside an output; the path itself where that is a journal."""
    beside = output.with_name(output.name + ".journal")
    return output if output.name.endswith(".journal") and not beside.exists() else beside


@contextmanager
def open_job(output: Path) -> Iterator[tuple[JournalReader, JobPaths]]:
    """The journal of an output, or of its own path."""
    path = journal_of(output)
    with JournalReader.open(path) as reader:
        kept = reader.get("job")
        if kept is None:
            raise InputError(path, "no run of this job has begun; run it first")
        paths = job_paths(restored(kept))
        yield reader, JobPaths(paths.output, path, paths.lock)
