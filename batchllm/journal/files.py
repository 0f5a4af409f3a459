"""The files of a journal: where they may be, and how they are created and removed.

Files are created with mode 0600 (SQLite gives ``-wal`` and ``-shm`` the mode of the database), never through a symbolic
link, and never over an existing file.
"""

import os
import stat
from pathlib import Path

from batchllm.errors import CannotWrite, InputError
from batchllm.journal.sqlite_errors import write_error

NETWORK_FILESYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "smb2", "9p", "afs", "ceph", "davfs", "ncpfs", "fuse"}
)
"""Filesystems whose locks and shared memory SQLite cannot rely on; ``fuse`` stands for ``fuse.*`` too."""

LOCAL_FUSE = frozenset({"fuse.fuse-overlayfs"})
"""The root filesystem of rootless containers, which is local and has working locks."""

SIDECARS = ("-wal", "-shm")


def check_folder(path: Path, *, mounts: Path = Path("/proc/self/mountinfo")) -> None:
    """Makes sure that a file at ``path`` can be created and is safe there, before anything is paid.

    Args:
        path: The file that will be created, or the journal that exists.
        mounts: The kernel's list of mounts; where there is none (not Linux), the filesystem is not checked.

    Raises:
        CannotWrite: The folder does not exist, cannot be written, or is on a network filesystem.
    """
    folder = path.parent
    if not folder.is_dir():
        raise CannotWrite(f"{folder} is not a folder; create it, or name another place")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise CannotWrite(f"{folder} cannot be written; change its permissions, or name another place")
    kind = filesystem_of(folder, mounts)
    if kind is not None and kind not in LOCAL_FUSE and kind.partition(".")[0] in NETWORK_FILESYSTEMS:
        raise CannotWrite(
            f"{folder} is on a network filesystem ({kind}), where a journal is not safe; "
            "put it on a local disk with --journal PATH"
        )


def check_space(folder: Path, needed_bytes: int) -> None:
    """Makes sure that there is room in a folder.

    Raises:
        CannotWrite: It has less than ``needed_bytes``.
    """
    try:
        facts = os.statvfs(folder)
    except OSError as error:
        raise CannotWrite(f"{folder}: {error.strerror}; name another place") from None
    free_bytes = facts.f_bavail * facts.f_frsize
    if free_bytes < needed_bytes:
        raise CannotWrite(
            f"{folder} has {free_bytes / 1e6:,.0f} MB free and this job needs about {needed_bytes / 1e6:,.0f} MB; "
            "free some space, or name another place"
        )


def filesystem_of(folder: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str | None:
    """Returns the type of a folder's filesystem (``ext4``), ``None`` where the kernel does not say."""
    try:
        lines = mounts.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return None
    real = folder.resolve()
    best, kind = -1, None
    for line in lines:
        fields, separator, facts = line.partition(" - ")
        if not separator:
            continue
        point = Path(fields.split(" ")[4].encode().decode("unicode_escape"))
        depth = len(point.parts)
        if depth >= best and real.is_relative_to(point):  # a later mount hides an earlier one
            best, kind = depth, facts.split(" ")[0]
    return kind


def exists(path: Path) -> bool:
    """Returns whether there is a file at ``path``.

    Raises:
        InputError: It is a folder, a symbolic link, an empty file.
    """
    try:
        facts = path.lstat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise CannotWrite(f"{path}: {error.strerror}; name another place with --journal PATH") from None
    if not stat.S_ISREG(facts.st_mode):
        what = "a symbolic link" if stat.S_ISLNK(facts.st_mode) else "not an ordinary file"
        raise InputError(path, f"{what}; a journal must be a file of its own, name another")
    if facts.st_size == 0:
        raise InputError(path, "not a journal (it is empty); remove it, or name another")
    return True


def create_private(path: Path) -> None:
    """Creates an empty file, mode 0600 whatever the umask.

    Files that a crash left under that name are removed first, sidecars too: SQLite would use them.

    Raises:
        CannotWrite: It cannot be created.
        StorageFailure: The disk reported an error.
    """
    try:
        for suffix in (*SIDECARS, "-journal", ""):
            Path(f"{path}{suffix}").unlink(missing_ok=True)  # of a link, the link; never its target
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(path, flags, 0o600))
    except OSError as error:
        raise write_error(path, error) from error


def sync(path: Path) -> None:
    """Flushes a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Removes a journal with its sidecars; the caller holds the job's lock.

    Raises:
        CannotWrite: It cannot be removed.
    """
    try:
        for (
            sidecar
        ) in SIDECARS:  # first: SQLite would replay a leftover log into the next journal of that name
            Path(f"{path}{sidecar}").unlink(missing_ok=True)
        path.unlink(missing_ok=True)
    except OSError as error:
        raise write_error(path, error) from error


def state_path(name: str) -> Path:
    """Returns the path of a file in the user's state folder, for jobs whose output is standard output.

    The folder is ``$XDG_STATE_HOME/batchllm``, else ``~/.local/state/batchllm``; it is created, mode 0700.

    Raises:
        CannotWrite: The folder cannot be created.
    """
    home = os.environ.get("XDG_STATE_HOME", "")
    folder = (Path(home) if Path(home).is_absolute() else Path.home() / ".local" / "state") / "batchllm"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise CannotWrite(f"{folder} cannot be created ({error.strerror}); use --journal PATH") from None
    return folder / name
