"""One run per job: a kernel lock that dies with its holder."""

import os
import signal
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from batchllm.errors import CannotWrite, NotNow
from batchllm.journal import JobLock

HOLDER = """
import sys
from pathlib import Path
from batchllm.journal.lock import JobLock
lock = JobLock(Path(sys.argv[1]))
lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out.csv.lock"


def holder_of(path: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def end(process: "subprocess.Popen[str]", number: int = signal.SIGTERM) -> None:
    process.send_signal(number)
    process.communicate()


def test_a_second_run_is_told_who_has_the_job(path: Path) -> None:
    process = holder_of(path)
    try:
        with pytest.raises(NotNow, match=rf"pid {process.pid}\b") as caught:
            JobLock(path).acquire()
        assert caught.value.exit_status == 75
        assert path.read_text() == f"{process.pid}\n"  # who looks does not wipe it
    finally:
        end(process)


def test_kill_9_leaves_no_stale_lock(path: Path) -> None:
    end(holder_of(path), signal.SIGKILL)
    assert path.exists()
    with JobLock(path):
        assert path.read_text() == f"{os.getpid()}\n"


def test_a_run_can_wait_for_the_other_to_end(path: Path) -> None:
    process = holder_of(path)
    assert process.stdin is not None
    before = time.monotonic()
    with pytest.raises(NotNow):
        JobLock(path, wait_s=0.2).acquire()
    assert time.monotonic() - before >= 0.2
    process.stdin.close()
    with JobLock(path, wait_s=30):
        assert process.wait() == 0
    assert process.stdout is not None
    process.stdout.close()


def test_it_excludes_a_second_holder_in_one_process_too(path: Path) -> None:
    with JobLock(path), pytest.raises(NotNow):
        JobLock(path).acquire()
    with JobLock(path):
        pass


def test_the_lock_file_is_private_and_goes_with_the_lock(path: Path) -> None:
    before = os.umask(0)
    try:
        with JobLock(path):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(before)
    assert not path.exists()


def test_removing_the_file_never_lets_two_runs_in_at_once(path: Path) -> None:
    """Processes that take and leave the lock as fast as they can never meet."""
    code = textwrap.dedent("""
        import os, sys
        from pathlib import Path
        from batchllm.errors import NotNow
        from batchllm.journal.lock import JobLock
        path = Path(sys.argv[1])
        taken = 0
        while taken < 100:
            try:
                with JobLock(path, wait_s=5):
                    os.close(os.open(f"{path}.inside", os.O_CREAT | os.O_EXCL))
                    os.unlink(f"{path}.inside")
                    taken += 1
            except NotNow:
                pass
    """)
    runs = [subprocess.Popen([sys.executable, "-c", code, str(path)]) for _ in range(3)]
    assert [run.wait(60) for run in runs] == [0, 0, 0]


def test_a_link_at_its_place_is_refused_and_its_target_left_alone(path: Path, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    path.symlink_to(tmp_path / "victim")
    with pytest.raises(CannotWrite, match="symbolic link"):
        JobLock(path).acquire()
    assert (tmp_path / "victim").read_text() == "precious"


def test_a_place_where_no_lock_can_be_is_said(tmp_path: Path) -> None:
    with pytest.raises(CannotWrite, match="not a folder"):
        JobLock(tmp_path / "missing" / "out.lock").acquire()
    assert not (tmp_path / "missing").exists()
    (tmp_path / "folder.lock").mkdir()
    with pytest.raises(CannotWrite, match="lock cannot be taken"):
        JobLock(tmp_path / "folder.lock").acquire()


def test_what_stands_in_the_lock_file_decides_nothing(path: Path) -> None:
    path.write_bytes(b"\xff not a pid")
    with JobLock(path), pytest.raises(NotNow, match="another run"):
        path.write_bytes(b"\xff not a pid")
        JobLock(path).acquire()


def test_the_lock_is_tried_before_anything_heavy_loads() -> None:
    program = textwrap.dedent(
        """
        import sys
        from batchllm.journal import JobLock
        heavy = {"openai", "aiohttp", "pandas", "tiktoken", "typer", "jinja2", "httpx", "pydantic"}
        print(sorted(heavy & set(sys.modules)))
        """
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
