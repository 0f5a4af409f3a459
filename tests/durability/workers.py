"""The parent's side of the driver: a process that forks a run for every order, perhaps under strace."""

import json
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).parents[2]
WORKERS = 2
STARTUP_S = 60.0
RUN_S = 60.0


class Run(dict[str, Any]):
    """What a run ended with: ``ended`` is the process's status, negative for a signal; the rest is its own word."""

    @property
    def was_killed(self) -> bool:
        return self.status < 0

    @property
    def status(self) -> int:
        return int(self["ended"])


class Driver:
    """One driver process; a context manager.

    Args:
        strace: Options of strace, or none to run without. ``--seccomp-bpf`` is up to the caller: it spares the
            calls that nobody looks at, but where it is on, strace 6.1 delivers no injected signal.
    """

    def __init__(self, strace: Sequence[str] = ()) -> None:
        self._strace = strace

    def __enter__(self) -> Self:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel.settimeout(STARTUP_S)
        tracer = ["strace", "-f", "-qq", *self._strace] if self._strace else []
        command = [*tracer, sys.executable, "-m", "tests.durability.driver", str(theirs.fileno())]
        with theirs:
            self._process = subprocess.Popen(command, cwd=ROOT, pass_fds=[theirs.fileno()])
        if not self._channel.recv(16):
            raise RuntimeError("the driver did not start")
        self._channel.settimeout(RUN_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()
        try:
            self._process.wait(10.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def run(self, folder: Path, **order: Any) -> Run:
        """One run in a fork; says how it ended."""
        self._channel.send(json.dumps({"folder": str(folder), **order}).encode())
        told = Run()
        while "ended" not in told:
            message = self._channel.recv(1 << 20)
            if not message:
                raise RuntimeError("the driver died")
            told.update(json.loads(message))
        return told


def strace_works() -> bool:
    """Whether faults can be injected: strace is installed, ptrace permitted, and the calls are those of x86-64."""
    if shutil.which("strace") is None or platform.machine() != "x86_64":
        return False
    probe = ["strace", "-f", "--seccomp-bpf", "-e", "trace=getcwd", "-o", "/dev/null", "true"]
    return subprocess.run(probe, capture_output=True).returncode == 0
