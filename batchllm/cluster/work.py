"""The work folder: what all machines of a job share, in a folder that they all see or in an object store.

::

    plan.json                    the ranges of rows; written once
    shards/000007/claim-0003     the third attempt at shard 7; written once, by its worker
    shards/000007/log-0003       its answer log; in an object store log-0003-000000, log-0003-000001, …
    shards/000007/state-0003     how far it is, every few seconds
    shards/000007/part-0003      what it was about to put into the folder of parts
    done/000007.json             the summary of the shard
    done/000007-first-100.json   the summary of those of its rows that a trial wants
    skipped.json                 the files of records that --bad-rows left out; only beside a folder of parts
    retries.json                 the runs that ask again, each with its raised limit, if any
    budget.json                  what is spent, and leased to workers; only with a budget
    driver/claim-0002            the second command that runs the job; written once
    driver/state-0002            that it lives, every two seconds, or has ended
    restart-0001/                the same for the job that --restart began anew
    run-RUN                      a run has begun: every machine has to see it
    stop-RUN                     that run is to stop

Nothing but ``state``, ``budget`` and ``retries`` is written twice; beside a folder of parts, and where rows are asked
again, also ``done`` and ``skipped``. The name of what a worker or command writes has the number of its attempt. Nothing
depends on a listing, which may be late: names are counted, and the next one is asked for until it is not there.
"""

import errno
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

from batchllm import stores
from batchllm.cluster.plan import Shard
from batchllm.errors import CannotWrite, StorageFailure
from batchllm.journal.files import sync

PLAN = "plan.json"
BUDGET = "budget.json"
RETRIES = "retries.json"
SKIPPED_NOTES = "skipped.json"


class WorkFolder(ABC):
    """Files by name; use ``open_work``.

    Every method raises a ``JobError`` where the folder cannot be read or written.
    """

    @abstractmethod
    def __str__(self) -> str: ...

    @abstractmethod
    def create(self, name: str, content: bytes) -> bool:
        """Writes a file whole if there is none, durably; of several that try at once, one succeeds.

        Args:
            name: The file.
            content: What nobody else writes.

        Returns:
            Whether this call wrote it.
        """

    @abstractmethod
    def put(self, name: str, content: bytes) -> None:
        """Writes a file, whole or not at all."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Removes a file, if there is one, and the folder that has nothing else."""

    @abstractmethod
    def get(self, name: str) -> bytes | None:
        """Returns a file's content; ``None`` if there is none."""

    @abstractmethod
    def append(self, name: str, sequence: int, content: bytes) -> None:
        """Appends to a log, durably; ``sequence`` counts from 0, and one writer has the log to itself."""

    @abstractmethod
    def log(self, name: str) -> list[bytes]:
        """Returns what was appended to a log, in pieces that each begin with a frame; nothing if there is no log."""

    @abstractmethod
    def inside(self, name: str) -> "WorkFolder":
        """Returns a folder in this one, which need not exist yet."""

    def put_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Writes an object as a file of JSON."""
        self.put(name, json.dumps(value).encode())

    def get_json(self, name: str, *keys: str) -> Any:
        """Returns the object of a file of JSON, which has these keys; ``None`` if there is no file.

        Raises:
            StorageFailure: It is damaged. No reader guesses what it said: rows could be paid again.
        """
        content = self.get(name)
        if content is None:
            return None
        try:
            found = json.loads(content)
        except ValueError:
            found = None
        if not isinstance(found, dict) or any(key not in found for key in keys):
            without = " (without it, what was spent so far counts as nothing)" if name == BUDGET else ""
            raise StorageFailure(
                f"{self}/{name} is damaged; restore it from a copy, or remove it{without}, and run the same command "
                "again"
            )
        return found

    def has(self, name: str) -> bool:
        """Whether there is a file."""
        return self.get(name) is not None

    def newest(self, *, restart: bool = False) -> "WorkFolder":
        """Returns the folder of the job that ``--restart`` began last; this one where none did.

        Args:
            restart: Return the folder for the next one.
        """
        number, folder = 1, self
        while (following := self.inside(f"restart-{number:04}")).has(PLAN):
            number, folder = number + 1, following
        return following if restart and self.has(PLAN) else folder


class SharedFolder(WorkFolder):
    """A folder of a file system that all machines mount."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        return str(self._path)

    def create(self, name: str, content: bytes) -> bool:
        """Creates a file; see ``WorkFolder``."""
        path = self._path / name
        try:
            temporary = _written_beside(path, content)
            try:
                os.link(temporary, path)  # as exclusive as O_EXCL, and never half written
                is_new = True
            except FileExistsError:
                is_new = False
            finally:
                temporary.unlink()
            sync(path.parent)
        except OSError as error:
            raise _failure(path, error) from error
        return is_new

    def put(self, name: str, content: bytes) -> None:
        """Writes a file; see ``WorkFolder``."""
        path = self._path / name
        try:
            temporary = _written_beside(path, content)
            temporary.replace(path)
            sync(path.parent)
        except OSError as error:
            raise _failure(path, error) from error

    def remove(self, name: str) -> None:
        """Removes a file; see ``WorkFolder``."""
        path = self._path / name
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise _failure(path, error) from error
        if path.parent != self._path:
            with suppress(OSError):  # it has more
                path.parent.rmdir()

    def get(self, name: str) -> bytes | None:
        """Reads a file; see ``WorkFolder``."""
        path = self._path / name
        try:
            return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _failure(path, error) from error

    def append(self, name: str, sequence: int, content: bytes) -> None:
        """Appends to a log; see ``WorkFolder``."""
        path = self._path / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, content, os.O_CREAT | os.O_APPEND)
            if sequence == 0:
                sync(path.parent)
        except OSError as error:
            raise _failure(path, error) from error

    def log(self, name: str) -> list[bytes]:
        """Reads a log; see ``WorkFolder``."""
        found = self.get(name)
        return [] if found is None else [found]

    def inside(self, name: str) -> WorkFolder:
        """Returns a folder in this one; see ``WorkFolder``."""
        return SharedFolder(self._path / name)


class SharedObjects(WorkFolder):
    """A prefix of an object store."""

    def __init__(self, url: stores.ObjectUrl) -> None:
        self._url = url

    def __str__(self) -> str:
        return str(self._url)

    def create(self, name: str, content: bytes) -> bool:
        """Creates a file; see ``WorkFolder``."""
        # A lost connection can hide that it was this call's, which the content tells.
        return stores.create(self._url / name, content) or self.get(name) == content

    def put(self, name: str, content: bytes) -> None:
        """Writes a file; see ``WorkFolder``."""
        stores.put(self._url / name, content)

    def remove(self, name: str) -> None:
        """Removes a file; see ``WorkFolder``."""
        stores.delete(self._url / name)

    def get(self, name: str) -> bytes | None:
        """Reads a file; see ``WorkFolder``."""
        return stores.whole(self._url / name)

    def append(self, name: str, sequence: int, content: bytes) -> None:
        """Appends to a log; see ``WorkFolder``."""
        self.put(_piece(name, sequence), content)

    def log(self, name: str) -> list[bytes]:
        """Reads a log; see ``WorkFolder``."""
        pieces = (self.get(_piece(name, sequence)) for sequence in count())
        return list(iter(lambda: next(pieces), None))

    def inside(self, name: str) -> WorkFolder:
        """Returns a folder in this one; see ``WorkFolder``."""
        return SharedObjects(self._url / name)


def open_work(place: str) -> WorkFolder:
    """Opens a work folder, by its path or URL.

    Raises:
        UsageError: It is a URL of another kind.
    """
    if stores.is_url(place):
        return SharedObjects(stores.object_url(place))
    return SharedFolder(Path(place).absolute())


def claim_name(shard: Shard, attempt: int) -> str:
    """The name of a claim; attempts count from 1."""
    return f"shards/{shard.name}/claim-{attempt:04}"


def log_name(shard: Shard, attempt: int) -> str:
    """The name of an attempt's answer log."""
    return f"shards/{shard.name}/log-{attempt:04}"


def state_name(shard: Shard, attempt: int) -> str:
    """The name of the file that says how far an attempt is."""
    return f"shards/{shard.name}/state-{attempt:04}"


def part_name(shard: Shard, attempt: int) -> str:
    """The name of the note on the part that an attempt writes."""
    return f"shards/{shard.name}/part-{attempt:04}"


def done_name(shard: Shard) -> str:
    """The name of a shard's summary; that of a trial has its name."""
    trial = "" if shard.trial is None else f"-{shard.trial.name}"
    return f"done/{shard.name}{trial}.json"


def run_name(run: str) -> str:
    """The name of the file that says that a run of the job has begun."""
    return f"run-{run}"


def stop_name(run: str) -> str:
    """The name of the file that stops a run."""
    return f"stop-{run}"


def attempts_at(work: WorkFolder, shard: Shard) -> int:
    """Returns how many attempts at a shard were claimed."""
    return next(number for number in count(1) if not work.has(claim_name(shard, number))) - 1


def claim(work: WorkFolder, shard: Shard, content: bytes) -> int:
    """Claims the next attempt at a shard; returns its number, from 1.

    Args:
        work: The work folder.
        shard: The shard.
        content: Says whose it is; nobody else's is equal.
    """
    return next(
        number
        for number in count(attempts_at(work, shard) + 1)
        if work.create(claim_name(shard, number), content)
    )


def _piece(name: str, sequence: int) -> str:
    return f"{name}-{sequence:06}"


def _written_beside(path: Path, content: bytes) -> Path:
    """Writes a temporary file in the folder of a path, which is made where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    _write(temporary, content, os.O_CREAT | os.O_EXCL)
    return temporary


def _write(path: Path, content: bytes, flags: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | flags, 0o600)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _failure(path: Path, error: OSError) -> CannotWrite | StorageFailure:
    kind = StorageFailure if error.errno == errno.EIO else CannotWrite
    return kind(f"{path}: {error.strerror}; every machine has to be able to write the folder of --work")
