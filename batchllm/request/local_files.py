"""Reads files that cells name, from one folder only.

A table may come from anywhere, so a cell must not be able to send ``/etc/passwd`` to an endpoint. A local file is
read only under ``--media-root``: its real path must lie in that folder, each part of the path is opened without
following links (so a link created after the check has no effect), and it must be a regular file of bounded size.
"""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from batchllm.request.outcome import InvalidRow

_NO_FOLLOW = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class LocalFiles:
    """Reads files under a folder.

    Args:
        root: The folder; ``None`` allows no file.
        kind: What the files are, and the reason of a row that fails for one: ``image``, ``document``.
        max_bytes: The largest file that is read.
    """

    def __init__(self, root: Path | None, kind: str, max_bytes: int) -> None:
        self._root = None if root is None else os.path.realpath(root)
        self._kind = kind
        self._max_bytes = max_bytes

    def read(self, name: str) -> bytes:
        """Returns the content of a file.

        Args:
            name: Its path from the folder on.

        Raises:
            InvalidRow: It cannot be read, or must not be.
        """
        if self._root is None:
            raise self._refused(name, "is a local file; --media-root DIR says where they may be")
        try:
            real = os.path.realpath(os.path.join(self._root, name))  # noqa: PTH118 - the name may be anything
            inside = os.path.relpath(real, self._root)
            if os.path.commonpath((real, self._root)) != self._root or inside == ".":
                raise self._refused(name, f"lies outside of --media-root {self._root}")
            content = self._content(_open_beneath(self._root, Path(inside).parts), name)
        except (OSError, ValueError) as error:
            if isinstance(error, InvalidRow):
                raise
            reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a path"
            raise self._refused(name, f"cannot be read: {reason}") from error
        if len(content) > self._max_bytes:
            raise self._refused(name, f"is larger than {self._max_bytes // 1_000_000} MB")
        return content

    def _content(self, descriptor: int, name: str) -> bytes:
        """Reads a regular file, at most one byte more than allowed; closes the descriptor."""
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise self._refused(name, "is not a regular file")
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                return file.read(self._max_bytes + 1)
        finally:
            os.close(descriptor)

    def _refused(self, name: str, reason: str) -> InvalidRow:
        return InvalidRow(self._kind, f"the {self._kind} {short(name)} {reason}")


def _open_beneath(root: str, names: Sequence[str]) -> int:
    """Opens the file from the root down; fails where a part of the path is a link."""
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name in names[:-1]:
            inner = os.open(name, _NO_FOLLOW | os.O_DIRECTORY, dir_fd=folder)
            os.close(folder)
            folder = inner
        return os.open(names[-1], _NO_FOLLOW, dir_fd=folder)
    finally:
        os.close(folder)


def short(name: str) -> str:
    """Returns a file's name for a message."""
    return repr(name if len(name) <= 80 else name[:79] + "…")
