"""Standard input, put on disk first, so that it can be read more than once."""

import errno
import os
import secrets
from pathlib import Path
from typing import BinaryIO

from batchllm.errors import CannotWrite, StorageFailure

_CHUNK_BYTES = 1 << 20
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR}


def spool(stream: BinaryIO, folder: Path) -> Path:
    """Copy a stream to a new temporary file that only its owner can read.

    Args:
        stream: What to copy, to its end.
        folder: Where the file is created.

    Returns:
        The path of the file; the caller removes it when the run is over.

    Raises:
        CannotWrite: There is no room, or the folder cannot be written.
        StorageFailure: The disk reported an error.
    """
    path = folder / f"batchllm-stdin-{secrets.token_hex(8)}"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                while chunk := stream.read(_CHUNK_BYTES):
                    file.write(chunk)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    except OSError as error:
        kind = CannotWrite if error.errno in _NO_ROOM else StorageFailure
        raise kind(f"{path}: standard input cannot be spooled here: {error.strerror}") from error
    return path
