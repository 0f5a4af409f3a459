"""Allows one run per job: a kernel lock on a file beside the output.

The kernel drops the lock when its holder dies, so no lock is stale. The file contains the holder's pid, for messages
only. Its holder removes it before it lets go; filelock takes no lock on a file that was removed meanwhile, so two runs
never lock two files of one name.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

from batchllm.errors import CannotWrite, NotNow


class JobLock:
    """Locks a job for this process, from ``acquire`` or ``with`` until ``release`` or the end of the process.

    Args:
        path: The lock file, ``OUTPUT.lock``.
        wait_s: How long to wait for another run to end; 0 does not wait.
        check: Called while it waits; raises to give up.
    """

    def __init__(self, path: Path, *, wait_s: float = 0.0, check: Callable[[], None] = lambda: None) -> None:
        self.path = path
        self._check = check
        self._wait_s = wait_s
        self._lock = FileLock(path, mode=0o600, fallback_to_soft=False)

    def acquire(self) -> None:
        """Takes the lock.

        Raises:
            NotNow: Another run still has the job after ``wait_s``.
            CannotWrite: The file cannot be created, or is no ordinary file.
        """
        if not self.path.parent.is_dir():
            raise CannotWrite(f"{self.path.parent} is not a folder; create it, or name another OUTPUT")
        if self.path.is_symlink():
            raise CannotWrite(f"{self.path} is a symbolic link; remove it and run the same command again")
        try:
            self._lock.acquire(timeout=self._wait_s, poll_interval=0.05, cancel_check=self._is_given_up)
        except Timeout:
            self._check()
            raise NotNow(self._busy()) from None
        except OSError as error:
            raise CannotWrite(
                f"{self.path}: the lock cannot be taken ({error.strerror}); check the output folder and its permissions"
            ) from None
        self._write_pid()

    def release(self) -> None:
        """Removes the file and releases the lock."""
        if self._lock.is_locked:
            with suppress(OSError):  # a file that stays is locked again by the next run
                self.path.unlink()
        self._lock.release()

    def __enter__(self) -> "JobLock":
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _is_given_up(self) -> bool:
        try:
            self._check()
        except BaseException:  # noqa: BLE001 - ``acquire`` raises it again
            return True
        return False

    def _write_pid(self) -> None:
        """Writes the pid; on a full disk it is missing, which does no harm."""
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return
        try:
            os.write(descriptor, b"%d\n" % os.getpid())
        except OSError:
            pass
        finally:
            os.close(descriptor)

    def _busy(self) -> str:
        try:
            pid = int(self.path.read_bytes()[:20])
        except (OSError, ValueError):
            holder = "another run"
        else:
            holder = f"another run (pid {pid})"
        return f"{self.path}: {holder} has this job; wait for it (--wait-lock SECONDS), or try again later"
