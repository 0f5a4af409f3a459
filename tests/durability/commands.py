"""The real command against the ledger server: jobs, processes, kills."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.durability.scenario import Scenario, write_input
from tests.durability.workers import ROOT

STEP_S = 0.01
LONG_S = 120.0


@dataclass(frozen=True)
class LedgerServer:
    """Where the server listens, and where it keeps its ledgers."""

    url: str
    ledgers: Path


@contextmanager
def ledger_server(folder: Path) -> Iterator[LedgerServer]:
    """The server with its ledgers in ``folder``."""
    command = [sys.executable, "-m", "tests.durability.ledger_server", str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        try:
            yield LedgerServer(f"http://127.0.0.1:{int(server.stdout.readline())}", folder)
        finally:
            server.kill()


@dataclass(frozen=True)
class CommandJob(Scenario):
    """A job of the real command; its ledger is the server's."""

    server: str = ""
    ledgers: Path = Path()
    latency_ms: float = 0.0
    faults_percent: float = 0.0
    concurrency: int = 64

    @classmethod
    def of(cls, folder: Path, server: "LedgerServer", texts: Sequence[str], **details: Any) -> "CommandJob":
        folder.mkdir()
        write_input(folder / "input.csv", texts)
        return cls(folder, server.url, server.ledgers, **details)

    @property
    def ledger(self) -> Path:
        return self.ledgers / f"{self.folder.name}.jsonl"

    def arguments(self, *more: str) -> list[str]:
        """The command, which is the same for every run of the job."""
        url = f"{self.server}/{self.folder.name}/{self.latency_ms:g}/{self.faults_percent:g}/v1"
        command = [sys.executable, "-m", "batchllm", "run", "-p", "Echo: {{ text }}", str(self.input)]
        command += [] if "-o" in more else ["-o", str(self.output)]
        command += ["--base-url", url, "-m", "echo", "--add", "response_id"]
        return [*command, "-c", str(self.concurrency), "--column", "text", *more]

    def start(self, *more: str, **how: object) -> "subprocess.Popen[bytes]":
        """A run in the background; its standard error is kept in a file."""
        usual = {"cwd": ROOT, "env": environment(self.folder), "stdin": subprocess.DEVNULL}
        with (self.folder / "stderr").open("ab") as errors:
            usual |= {"stdout": errors, "stderr": errors}
            return subprocess.Popen(self.arguments(*more), **(usual | how))  # type: ignore[call-overload,no-any-return]

    def finish(self, *more: str) -> "subprocess.CompletedProcess[str]":
        """A run to its end."""
        return subprocess.run(
            self.arguments(*more),
            cwd=ROOT,
            env=environment(self.folder),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LONG_S,
        )

    def asked(self) -> int:
        """Requests that the server has seen."""
        return self.ledger.read_bytes().count(b"\n") if self.ledger.exists() else 0


def environment(home: Path) -> Mapping[str, str]:
    """What a run gets of the environment: nothing that could change it."""
    return {"PATH": os.environ.get("PATH", ""), "HOME": str(home), "LANG": "C.UTF-8"}


def wait_for_requests(job: CommandJob, process: "subprocess.Popen[bytes]", *, more_than: int) -> bool:
    """Waits until the server has seen more requests; ``False`` where the run ended first."""
    until = time.monotonic() + LONG_S
    while job.asked() <= more_than:
        if process.poll() is not None:
            return False
        assert time.monotonic() < until, "the run sends nothing"
        time.sleep(STEP_S)
    return True


def kill(process: "subprocess.Popen[bytes]") -> bool:
    """Kills a run; whether it was still alive."""
    process.kill()
    return process.wait() == -signal.SIGKILL
