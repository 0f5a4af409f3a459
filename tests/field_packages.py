"""Servers that this project had no hand in, each installed from PyPI into an environment of its own, and started."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest


def installed(request: pytest.FixtureRequest, factory: pytest.TempPathFactory, requirement: str) -> Path:
    """The ``bin`` folder of an environment that holds ``requirement``; kept in pytest's cache, skips without PyPI."""
    cache = getattr(request.config, "cache", None)
    root = Path(cache.mkdir("venvs")) if cache is not None else factory.mktemp("venvs")
    folder = root / requirement.replace("[", "-").replace("]", "")
    done = folder / "installed"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        pip: list[str | Path] = [folder / "bin" / "python", "-m", "pip", "install", "-q", requirement]
        made = subprocess.run(pip, capture_output=True, text=True)
        if made.returncode:
            pytest.skip(f"{requirement} cannot be installed: {made.stderr[-300:]}")
        done.touch()
    return folder / "bin"


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def fetch(url: str, body: bytes | None = None, timeout_s: float = 10) -> bytes:
    with urlopen(Request(url, data=body), timeout=timeout_s) as reply:
        return bytes(reply.read())


@contextmanager
def serving(
    words: list[object], folder: Path, probe: str, environment: Mapping[str, str] | None = None
) -> Iterator[Path]:
    """Runs a server until the block ends; gives the file of its log once ``probe`` answers."""
    log = folder / "server.log"
    told = {"PATH": os.environ["PATH"], "HOME": str(folder)} | dict(environment or {})
    with log.open("wb") as file:
        server = subprocess.Popen(list(map(str, words)), stdout=file, stderr=file, cwd=folder, env=told)
        try:
            deadline = time.monotonic() + 90
            while True:
                try:
                    fetch(probe, timeout_s=2)
                    break
                except (URLError, OSError):
                    assert server.poll() is None and time.monotonic() < deadline, log.read_text()[-800:]
                    time.sleep(0.2)
            yield log
        finally:
            server.terminate()
            server.wait(20)
