"""What is there already where an output goes: what identifies its content, and whether it may be replaced."""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from batchllm import stores
from batchllm.errors import CannotWrite, InputError, JobError, UsageError
from batchllm.journal import JournalReader
from batchllm.prepare.job_paths import check_writable_folder
from batchllm.stores import ObjectPath

Known = Callable[[str], dict[str, Any] | None]
"""Returns what a journal knows of an output, by its key."""


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
    check_writable_folder(path.parent, "another output with -o")
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
