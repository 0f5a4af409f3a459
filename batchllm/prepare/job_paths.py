"""Names a job's files, and checks that they can be written before anything is sent."""

import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchllm import stores
from batchllm.errors import CannotWrite, InputError, JobError, UsageError
from batchllm.formats.files import input_file, output_target
from batchllm.job import Job
from batchllm.job.paths import FOLDER_JOURNAL, is_folder, journal_on_disk
from batchllm.journal import JournalReader, check_folder, state_path
from batchllm.stores import ObjectPath

_UNUSUAL = re.compile(r"[^\w.-]+")

Known = Callable[[str], dict[str, Any] | None]
"""Returns what a journal knows of an output, by its key."""


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


def job_paths(job: Job) -> JobPaths:
    """Returns the files of a job; for standard output they are in the user's state folder."""
    if job.output is not None:
        usual = journal_in(job.output) if job.into_folder else journal_beside(job.output)
        lock = usual.with_name(f"{usual.name.removesuffix('.journal')}.lock")
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
        _check_folder(paths.output.parent, "another output with -o")
        if not job.into_folder:
            output_target(paths.output).check()
        elif paths.output.is_dir():
            _check_folder(paths.output, "another output with -o")
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


def exported_note(journal: Path) -> Path:
    """Returns the file with the digests of exports that replaced the output while a run had the journal."""
    return journal.with_name(f"{journal.name}.exported")


def check_output(
    path: Path, *, written: Mapping[str, Any] | None, force: bool, journal: Path | None = None
) -> None:
    """Refuses an output that cannot or should not be written.

    Args:
        path: The output.
        written: What the journal says of the output: its ``sha256``, and the digest of the file it replaces, since
            the journal is written before the output is put in place.
        force: Overwrite any file.
        journal: The journal, beside which exports are noted.

    Raises:
        UsageError: batchllm did not write the file, or the file was edited since.
        CannotWrite: The path is no regular file, or its folder cannot be written.
    """
    digest = _digest_to_keep(path, force=force)
    if digest is None:
        return
    if journal is not None and digest in _exported(journal):
        return
    if written is None:
        raise UsageError(
            f"{path} exists and is not this job's; name another with -o, or overwrite it with --force"
        )
    if digest not in (written["sha256"], written.get("replaces")):
        raise UsageError(
            f"{path} was edited since batchllm wrote it; move it away, or overwrite it with --force"
        )


def _digest_to_keep(path: Path, *, force: bool) -> str | None:
    """The digest of an output that is there and may not be overwritten just so."""
    if isinstance(path, ObjectPath):
        if force:
            return None
        try:
            return _object_digest(path)
        except InputError as error:
            raise CannotWrite(
                f"{path}: it is unknown whether it exists: {error.reason}, or overwrite it with --force"
            ) from None
    _check_folder(path.parent, "another output with -o")
    try:
        status = os.stat(path)  # noqa: PTH116  follows links on purpose: what would be replaced counts
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CannotWrite(f"{path}: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):
        raise CannotWrite(f"{path} is not a regular file; name another with -o")
    return None if force or status.st_size == 0 else digest_of(path)


def existing_digest(path: Path | None) -> str | None:
    """Returns what identifies the content of an output, ``None`` if there is none, or nobody may look.

    Of a file it is the SHA-256. An object has that as a note, if batchllm put it there; of any other it is the ETag.

    Raises:
        CannotWrite: The store refuses the credentials.
    """
    if not isinstance(path, ObjectPath):
        with suppress(CannotWrite):  # --force, or it was made unreadable while the job ran
            return digest_of(path) if path is not None and path.exists() else None
        return None
    try:
        return _object_digest(path)
    except InputError:
        return None
    except UsageError as error:  # credentials that were good when the run began
        raise CannotWrite(f"{error}, and run the same command again") from None


def _object_digest(path: ObjectPath) -> str | None:
    found = stores.head(path.url)
    if found is None or found.size_bytes == 0:
        return None
    return found.sha256 or f"etag {found.etag}"


def _exported(journal: Path) -> list[str]:
    try:
        return exported_note(journal).read_text("ascii").split()
    except (OSError, ValueError):
        return []


def _check_written(path: Path | None, option: str) -> None:
    """Refuses a file of an option that could not be written at the end.

    Raises:
        CannotWrite: Its folder cannot be written, or it is a folder.
    """
    if path is None:
        return
    _check_folder(path.parent, f"another file with {option}")
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


@contextmanager
def known_files(journal: Path) -> Iterator[Known]:
    """Yields a function that returns what a journal, of any version, knows of an output, by the journal's key for it.

    It is for the journal that replaces this one, and knows nothing where this one is damaged or not there.
    """
    with ExitStack() as stack:
        reader: JournalReader | None = None
        if journal.exists():
            with suppress(JobError):  # damaged, which may be why it is put aside
                reader = stack.enter_context(JournalReader.open(journal, any_version=True))

        def known(key: str) -> dict[str, Any] | None:
            found: dict[str, Any] | None = None
            with suppress(JobError):
                found = None if reader is None else reader.get(key)
            return found and {name: found.get(name) for name in ("sha256", "replaces")}

        yield known


def _check_folder(folder: Path, other: str) -> None:
    if not folder.is_dir():
        raise CannotWrite(f"{folder} is not a folder; create it, or name {other}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise CannotWrite(f"{folder} cannot be written; change its permissions, or name {other}")


def digest_of(path: Path) -> str:
    """Returns the SHA-256 of an output, in hexadecimal.

    Raises:
        CannotWrite: It cannot be read, so nobody can say whose it is.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CannotWrite(
            f"{path} cannot be read, which tells whose it is: {error.strerror}; change its permissions"
        ) from error
