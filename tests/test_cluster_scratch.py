"""The folders of attempts go with them, or with the next attempt."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from batchllm.cluster.scratch import scratch_folder
from batchllm.errors import CannotWrite

HOLDS = """
import sys
from batchllm.cluster.scratch import scratch_folder
with scratch_folder() as folder:
    (folder / "journal").write_text("x")
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def test_the_folder_goes_with_its_attempt(tmp_path: Path) -> None:
    with pytest.raises(KeyError), scratch_folder() as folder:
        (folder / "deep").mkdir()
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_a_living_process_keeps_its_folder_and_a_dead_one_does_not(tmp_path: Path) -> None:
    (tmp_path / "batchllm-worker-of-somebody").mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        theirs = Path(process.stdout.readline().strip())
        with scratch_folder() as mine, scratch_folder() as other:
            assert theirs.is_dir() and mine.is_dir() and other.is_dir() and mine != other
        assert theirs.is_dir() and not mine.exists()
        process.kill()
        process.wait()
    assert theirs.is_dir()
    with scratch_folder():
        assert not theirs.exists() and not theirs.with_suffix(".lock").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["batchllm-worker-of-somebody"]


def test_a_machine_without_room_for_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(CannotWrite, match="gone"), scratch_folder():
        pytest.fail("there is none")
