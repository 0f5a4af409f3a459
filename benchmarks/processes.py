"""Whole processes, timed: wall clock, CPU and peak memory, as the kernel counts them."""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

_MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024
BATCHLLM = str(Path(sys.executable).with_name("batchllm"))


class Broken(Exception):
    """A contender failed, or its output is wrong: there is nothing to measure."""


@dataclass(frozen=True, slots=True)
class Run:
    """One whole process.

    Attributes:
        seconds: From its start to its end, start-up included.
        cpu_s: Seconds of CPU, user and system, of all its threads.
        peak_rss_mb: The most memory it held, in 1,000,000 bytes. Linux counts the parent's memory at the fork
            as the child's, so the benchmark keeps itself small.
        started_at: When it started, by the monotonic clock.
    """

    seconds: float
    cpu_s: float
    peak_rss_mb: float
    started_at: float


def environment(folder: Path) -> dict[str, str]:
    """The environment of every contender: no proxy, no settings, a key that is none, a state folder aside.

    Bytecode is kept, as that of an installed program is: what a checkout would compile at every start is no
    part of a start.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith(("OPENAI_", "BATCHLLM_", "AZURE_"))
        and not name.upper().endswith("_PROXY")
        and name != "PYTHONDONTWRITEBYTECODE"
    }
    return kept | {"OPENAI_API_KEY": "benchmark", "XDG_STATE_HOME": str(folder / "state")}


def start(command: Sequence[str], folder: Path) -> subprocess.Popen[bytes]:
    """Starts a process whose output goes to a log in the folder."""
    with (folder / "log.txt").open("wb") as log:
        return subprocess.Popen(
            list(command),
            cwd=folder,
            env=environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def run(
    command: Sequence[str],
    folder: Path,
    *,
    meanwhile: Callable[[subprocess.Popen[bytes]], None] | None = None,
    expected: tuple[int, ...] = (0,),
) -> Run:
    """Runs a process to its end.

    Args:
        command: The program and its arguments.
        folder: Where its log goes.
        meanwhile: Called once it runs; may watch it, may end it.
        expected: Exit statuses that are right (minus the signal's number where one ended it).

    Raises:
        Broken: It ended with another status.
    """
    started_at = time.monotonic()
    process = start(command, folder)
    if meanwhile is not None:
        meanwhile(process)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - started_at
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in expected:
        tail = (folder / "log.txt").read_text("utf-8", "replace")[-2_000:]
        raise Broken(f"{' '.join(command)} ended with {process.returncode}:\n{tail}")
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * _MAXRSS_BYTES / 1e6, started_at)


def cpu_s_of(process: subprocess.Popen[bytes]) -> float:
    """Seconds of CPU that a running process has used so far (Linux).

    Raises:
        OSError: There is no ``/proc``.
    """
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def allow_connections(wanted: int = 4_096) -> None:
    """Raises the limit of open files, which hundreds of connections need; children inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def batchllm_run(source: Path, output: Path, base_url: str, *more: str) -> list[str]:
    """The command that every part measures: one short prompt, one answer column, journal and limiter on."""
    from rows import PROMPT

    command = [BATCHLLM, "run", "-p", PROMPT + "{{ text }}", str(source), "-o", str(output)]
    return [*command, "--base-url", base_url, "-m", "benchmark-1", "--yes", "--quiet", *more]


def remove_output(output: Path) -> None:
    """Removes an output and everything beside it that a run left: journal, lock, unfinished files."""
    for path in output.parent.glob(output.name + "*"):
        path.unlink()
