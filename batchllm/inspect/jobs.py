"""``jobs`` lists the jobs of the state folder and of other folders; ``clean`` removes those that are done with."""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from batchllm.errors import InputError, JobError, NotNow, UsageError
from batchllm.inspect.job import clean_job, open_job
from batchllm.inspect.status import is_running
from batchllm.job.paths import FOLDER_JOURNAL
from batchllm.job.values import duration_s
from batchllm.journal import state_path
from batchllm.prepare.job_paths import JobPaths, rows_path
from batchllm.printable import counted
from batchllm.progress import compact

SUFFIX = ".journal"


@dataclass(frozen=True, slots=True)
class JobEntry:
    """A job that was found by its journal.

    Attributes:
        path: Its output; its journal, where the output is standard output or the journal cannot be read.
        journal: Its journal.
        task: ``summarize``, ``classify``, ``codegen`` or ``run``; ``None`` if the journal cannot be read.
        state: ``running``, ``finished``, ``unfinished``, or why the journal cannot be read.
        rows: Rows of the input; ``None`` if no run has counted them.
        answered: Rows that have an answer.
        size_bytes: Bytes of the files that ``clean`` removes.
        changed_at: When a run last changed it, in seconds since the epoch.
        files: The files that ``clean`` removes.
    """

    path: Path
    journal: Path
    task: str | None
    state: str
    rows: int | None
    answered: int
    size_bytes: int
    changed_at: float
    files: tuple[Path, ...]

    @property
    def age_s(self) -> float:
        """Seconds since a run last changed it."""
        return max(0.0, time.time() - self.changed_at)

    @property
    def size_text(self) -> str:
        """Its size, such as ``1.2 MB``."""
        return f"{compact(self.size_bytes)}B"

    def to_text(self) -> str:
        """Returns the entry as one line."""
        rows = "" if self.rows is None else f", {self.answered:,} of {counted(self.rows, 'row')} answered"
        return f"{self.path}: {self.state}{rows}, {self.size_text}, {age_text(self.age_s)} old"

    def to_json(self) -> dict[str, Any]:
        """Returns the entry for ``--json``."""
        return {
            "path": str(self.path),
            "journal": str(self.journal),
            "task": self.task,
            "state": self.state,
            "rows": self.rows,
            "answered": self.answered,
            "size_bytes": self.size_bytes,
            "age_s": round(self.age_s),
        }


def age_text(seconds: float) -> str:
    """Formats an age by its largest unit: ``3 days``, ``2 hours``."""
    for unit, size_s in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= size_s:
            count = int(seconds // size_s)
            return counted(count, unit)
    return f"{int(seconds)} s"


def jobs(*folders: str | PathLike[str]) -> list[JobEntry]:
    """Lists the jobs of the user's state folder, where those of tables in memory are, and of the given folders.

    Args:
        folders: Further folders, with the jobs whose outputs are in a folder in them, or journals.

    Returns:
        The jobs, the last changed first.

    Raises:
        InputError: There is no such folder.
    """
    found = {entry.journal: entry for journal in _journals(folders) for entry in _entries(journal)}
    return sorted(found.values(), key=lambda entry: entry.changed_at, reverse=True)


def clean(*folders: str | PathLike[str], older_than: float | str = 0, force: bool = False) -> list[JobEntry]:
    """Removes the jobs of the state folder, and of the given folders, that no run has changed for a while.

    Of a job in the state folder its copies of rows and answers are removed too; an output elsewhere stays. A job that
    runs is left alone.

    Args:
        folders: Further folders, or journals.
        older_than: The least age, in seconds or as ``30d``, ``12h``.
        force: Remove unfinished jobs too: their answers are lost.

    Returns:
        The jobs that were removed.

    Raises:
        UsageError: ``older_than`` is no time.
        CannotWrite: A file cannot be removed.
    """
    try:
        least_s = duration_s(older_than)
    except ValueError as error:
        raise UsageError(f"older_than {error}") from None
    removed = []
    for entry in jobs(*folders):
        if entry.age_s < least_s or entry.task is None or (entry.state != "finished" and not force):
            continue
        try:
            clean_job(entry.journal, force=force)
        except NotNow:
            continue
        for path in entry.files:
            path.unlink(missing_ok=True)
        removed.append(entry)
    return removed


def _journals(folders: Sequence[str | PathLike[str]]) -> Iterator[Path]:
    yield from sorted(state_path("").glob(f"*{SUFFIX}"))
    for folder in map(Path, folders):
        if folder.is_dir():
            yield from sorted(folder.absolute().glob(f"*{SUFFIX}"))
            yield from sorted(folder.absolute().glob(f"*/{FOLDER_JOURNAL}"))
        elif folder.is_file():
            yield folder.absolute()
        else:
            raise InputError(folder, "there is no such folder")


def _entries(journal: Path) -> Iterator[JobEntry]:
    try:
        with open_job(journal) as (reader, paths, job):
            state = "running" if is_running(reader) else "finished" if reader.finished else "unfinished"
            files = tuple(path for path in _files(journal, paths) if path.exists())
            output, rows, answered = paths.output or journal, reader.get("rows"), reader.counts().answered
            yield JobEntry(output, journal, job.task, state, rows, answered, *_size_and_change(files), files)
    except JobError as error:
        reason = str(error).removeprefix(f"{journal}: ")
        yield JobEntry(journal, journal, None, reason, None, 0, *_size_and_change([journal]), ())


def _files(journal: Path, paths: JobPaths) -> Iterator[Path]:
    """Yields the files that belong to this job alone."""
    yield journal
    yield from (journal.with_name(journal.name + sidecar) for sidecar in ("-wal", "-shm"))
    yield from (rows_path(journal, suffix) for suffix in (".jsonl", ".parquet"))
    if paths.output is not None and paths.output.parent == state_path(""):
        yield paths.output


def _size_and_change(files: Iterable[Path]) -> tuple[int, float]:
    """Returns the bytes of files, and when the last of them was changed."""
    size, changed_at = 0, 0.0
    for path in files:
        with suppress(OSError):
            found = path.stat()
            size, changed_at = size + found.st_size, max(changed_at, found.st_mtime)
    return size, changed_at
