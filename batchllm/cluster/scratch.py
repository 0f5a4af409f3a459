"""The folder of an attempt on its machine: it goes when the attempt ends, or with the next one if its process died."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from batchllm.errors import CannotWrite, NotNow
from batchllm.journal import JobLock

PREFIX = "batchllm-worker-"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yields a new folder in the machine's folder for temporary files, and removes those that dead processes left.

    A lock beside the folder is taken before the folder is made, so a folder whose lock is free belongs to nobody.

    Raises:
        CannotWrite: The folder cannot be made.
    """
    parent = Path(tempfile.gettempdir())
    _remove_dead(parent)
    folder = parent / f"{PREFIX}{uuid4().hex}"
    with JobLock(folder.with_suffix(".lock")):
        try:
            folder.mkdir(mode=0o700)
        except OSError as error:
            raise CannotWrite(
                f"{folder}: {error.strerror}; a worker needs a folder for temporary files, see TMPDIR"
            ) from error
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _remove_dead(parent: Path) -> None:
    for lock in parent.glob(f"{PREFIX}*.lock"):
        with suppress(NotNow, CannotWrite), JobLock(lock):  # a process that lives, or another user's
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
