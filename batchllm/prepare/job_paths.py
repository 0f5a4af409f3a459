"""Names a job's files, and checks that they can be written before anything is sent."""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from batchllm.errors import CannotWrite, InputError, JobError, UsageError
from batchllm.formats.files import input_file, output_target
from batchllm.job import Job
from batchllm.job.paths import FOLDER_JOURNAL, is_folder, journal_on_disk
from batchllm.journal import JournalReader, check_folder, state_path
from batchllm.stores import ObjectPath

_UNUSUAL = re.compile(r"[^\w.-]+")


@dataclass(frozen=True, slots=True)
class JobPaths:
    """The files of a job.

    Attributes:
        output: The file or folder to write; ``None`` is standard output.
        journal: The journal.
        lock: Held while a run is alive.
        journal_lock: Held as well if ``--journal`` names a journal, which other outputs could name too.
    """

    output: Path | None
    journal: Path
    lock: Path
    journal_lock: Path | None = None

    @property
    def locks(self) -> tuple[Path, ...]:
        """What is held while a run is alive."""
        return (self.lock,) if self.journal_lock is None else (self.lock, self.journal_lock)


def job_paths(job: Job) -> JobPaths:
    """Returns the files of a job; for standard output they are in the user's state folder."""
    if job.output is not None:
        usual = journal_in(job.output) if job.into_folder else journal_beside(job.output)
        lock = lock_beside(usual)
        if job.journal in (None, usual):
            return JobPaths(job.output, usual, lock)
        return JobPaths(job.output, job.journal, lock, job.journal.with_name(job.journal.name + ".lock"))
    if job.journal is not None:
        return JobPaths(None, job.journal, job.journal.with_name(job.journal.name + ".lock"))
    inputs = ", ".join(str(path.resolve()) for path in job.inputs)
    subject = json.dumps([job.fingerprint(), inputs or "None"], sort_keys=True)
    name = f"{job.task}-{hashlib.sha256(subject.encode()).hexdigest()[:16]}"
    journal = state_path(f"{name}.journal")
    return JobPaths(None, journal, journal.with_name(f"{name}.lock"))


def lock_beside(journal: Path) -> Path:
    """Returns the usual lock of a job with this journal, which is beside it."""
    return journal.with_name(f"{journal.name.removesuffix('.journal')}.lock")


def journal_of(output: Path) -> Path:
    """Returns the journal beside an output; the path itself if that is a journal.

    Raises:
        UsageError: The path is a folder.
    """
    if is_disk_folder(output):
        if (output / FOLDER_JOURNAL).exists():
            return output / FOLDER_JOURNAL
        if any(output.glob("part-??????.*")):
            raise UsageError(
                f"{output} is a folder of parts, which has no journal; give the job's work folder to status, "
                "report and export"
            )
        raise UsageError(f"{output} is a folder; name the OUTPUT of a job, or its journal")
    beside = journal_beside(output)
    if isinstance(output, ObjectPath):
        return beside
    is_journal = output.name.endswith(".journal") or _is_database(output)
    return output if is_journal and not beside.exists() else beside


def _is_database(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(16) == b"SQLite format 3\0"
    except OSError:
        return False


def journal_beside(output: Path) -> Path:
    """Returns the usual journal of an output: beside it, or for an object in the user's state folder."""
    if not isinstance(output, ObjectPath):
        return journal_on_disk(output)
    url = str(output)
    name = _UNUSUAL.sub("-", url.replace("://", "-"))[-80:].strip("-.")
    return state_path(f"{name}-{hashlib.sha256(url.encode()).hexdigest()[:16]}.journal")


def journal_in(folder: Path) -> Path:
    """Returns the journal of a folder of outputs: in it, or for one in a bucket in the user's state folder."""
    return journal_beside(folder) if isinstance(folder, ObjectPath) else folder / FOLDER_JOURNAL


def folder_journal(output: Path) -> Path | None:
    """Returns the journal of the folder of outputs that a file is one of; ``None`` where it is none."""
    journal = journal_in(output.parent)
    if not journal.exists():
        return None
    with JournalReader.open(journal) as reader:
        return journal if reader.get(f"output/{output.name}") is not None else None


def rows_path(journal: Path, suffix: str = ".jsonl") -> Path:
    """Returns the file with the rows of a job of the library whose rows are in memory."""
    return journal.with_name(f"{journal.name.removesuffix('.journal')}.rows{suffix}")


def check_job_paths(job: Job, paths: JobPaths) -> None:
    """Refuses files that could not be written later, before anything is read, locked or paid; leaves no trace.

    Raises:
        CannotWrite: A folder is missing or cannot be written, a name is too long, or no file can be there.
        InputError: The folder that is missing is that of an input.
    """
    if isinstance(paths.output, ObjectPath):
        _check_object(job, paths.output / FOLDER_JOURNAL if job.into_folder else paths.output)
    elif paths.output is not None:
        beside = [path for path in job.inputs if path.parent == paths.output.parent]
        if beside and not paths.output.parent.exists():
            raise InputError(beside[0], "cannot be opened: its folder does not exist")
        check_writable_folder(paths.output.parent, "another output with -o")
        if not job.into_folder:
            output_target(paths.output).check()
        elif paths.output.is_dir():
            check_writable_folder(paths.output, "another output with -o")
        elif paths.output.exists():
            raise CannotWrite(f"{paths.output} is a file; name another folder with -o")
    if not job.into_folder or paths.journal.parent.is_dir() or paths.journal.parent != paths.output:
        check_folder(paths.journal)
    _check_written(job.summary, "--summary")
    _check_written(job.log_file, "--log-file")


def _check_object(job: Job, path: ObjectPath) -> None:
    """Refuses an object that cannot be written; a fault that its bucket has for an input too is that of the input.

    Raises:
        JobError: It cannot be written, or an input in its bucket cannot be read.
    """
    try:
        output_target(path).check()
    except JobError:
        for each in job.inputs:
            if isinstance(each, ObjectPath) and each.url.bucket == path.url.bucket:
                if each.is_pattern:
                    each.matches()
                elif each.is_dir():
                    next(each.iterdir(), None)
                else:
                    input_file(each, str(each)).ends()
        raise


def is_disk_folder(path: Path) -> bool:
    """Whether a path is that of a folder on disk."""
    return not isinstance(path, ObjectPath) and is_folder(path)


@contextmanager
def made_folder(folder: Path | None) -> Iterator[None]:
    """Makes the folder of a job's outputs, if any, for the ``with`` block; one that stays empty is removed again.

    Raises:
        CannotWrite: It cannot be made.
    """
    if folder is None or folder.is_dir():
        yield
        return
    try:
        folder.mkdir()
    except OSError as error:
        raise CannotWrite(f"{folder}: the folder cannot be made: {error.strerror}") from error
    try:
        yield
    finally:
        with suppress(OSError):
            folder.rmdir()


def _check_written(path: Path | None, option: str) -> None:
    """Refuses a file of an option that could not be written at the end.

    Raises:
        CannotWrite: Its folder cannot be written, or it is a folder.
    """
    if path is None:
        return
    check_writable_folder(path.parent, f"another file with {option}")
    try:
        if path.is_dir():
            raise CannotWrite(f"{path} is a folder; name a file with {option}")
        is_new = not path.exists()
        if is_new or path.is_file():
            with path.open("ab"):
                pass
        if is_new:
            path.unlink()
    except OSError as error:
        raise CannotWrite(f"{path}: {error.strerror}; name another file with {option}") from None


def check_writable_folder(folder: Path, other: str) -> None:
    """Refuses a folder in which no file can be made; ``other`` is what to name instead.

    Raises:
        CannotWrite: It is none, or cannot be written.
    """
    if not folder.is_dir():
        raise CannotWrite(f"{folder} is not a folder; create it, or name {other}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise CannotWrite(f"{folder} cannot be written; change its permissions, or name {other}")
