"""Standard input goes to a file that only its owner can read."""

import io
import os
import stat
from pathlib import Path

import pytest

from batchllm.errors import CannotWrite
from batchllm.formats import open_source, spool


def test_a_stream_is_copied_whole_and_private(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        path = spool(io.BytesIO(b"a,b\n" + b"1,2\n" * 50_000), tmp_path)
    finally:
        os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert open_source(path, name="stdin").scan().rows == 50_000


def test_a_folder_that_is_not_there_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(CannotWrite, match="standard input cannot be spooled"):
        spool(io.BytesIO(b"a"), tmp_path / "none")


def test_a_stream_that_breaks_leaves_no_file(tmp_path: Path) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        spool(Broken(), tmp_path)
    assert list(tmp_path.iterdir()) == []
