"""The installed command as processes beside a server, and scenes of them that are played at the same time."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

T = TypeVar("T")
AT_ONCE = 8


@dataclass
class Ran:
    """A finished, or killed, run of the command.

    Attributes:
        status: Its exit status; ``None`` where it was killed because it was still running at its time limit.
        seconds: How long it ran, the interpreter's start included.
        ended_s: When it ended, on the server's clock.
        summary: The JSON of ``--summary``; empty where there is none.
    """

    status: int | None
    out: str
    err: str
    seconds: float
    ended_s: float
    summary: dict[str, Any]


def write_rows(path: Path, rows: int) -> Path:
    """``rows`` rows that are told apart by their number and cost the same."""
    lines = [
        f"row {number:04d} says that the kettle boils and the tea is nearly ready" for number in range(rows)
    ]
    path.write_text("text\n" + "\n".join(lines) + "\n")
    return path


class CommandRun:
    """``batchllm run`` as a process of its own, in a folder of its own."""

    def __init__(
        self,
        folder: Path,
        base_url: str,
        rows: int,
        *words: object,
        clock: Callable[[], float],
        key: str = "sk-field",
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._clock = folder, clock
        told = [
            "run",
            "-p",
            "Repeat: {{ text }}",
            write_rows(folder / "in.csv", rows),
            "-o",
            folder / "out.csv",
        ]
        told += ["--base-url", base_url, "-m", "m", "--max-tokens", 100, "-y"]
        told += ["--summary", folder / "summary.json", *words]
        path = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))
        environment = {
            "PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": path, "OPENAI_API_KEY": key
        }  # fmt: skip
        self._out, self._err = (folder / "stdout").open("wb"), (folder / "stderr").open("wb")
        self._began = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "batchllm", *map(str, told)],
            stdout=self._out, stderr=self._err, stdin=subprocess.DEVNULL, env=environment, cwd=folder,
        )  # fmt: skip

    def interrupt(self) -> None:
        """Sends what Ctrl-C sends."""
        self._process.send_signal(signal.SIGINT)

    def wait(self, limit_s: float) -> Ran:
        """Waits for the end; kills what is still running ``limit_s`` after its start."""
        status: int | None
        try:
            status = self._process.wait(max(0.0, self._began + limit_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            status = None
            self._process.kill()
            self._process.wait()
        seconds, ended_s = time.monotonic() - self._began, self._clock()
        self._out.close()
        self._err.close()
        summary = self._folder / "summary.json"
        return Ran(
            status,
            (self._folder / "stdout").read_text(),
            (self._folder / "stderr").read_text(),
            seconds,
            ended_s,
            json.loads(summary.read_text()) if summary.exists() else {},
        )


def wait_until(holds: Callable[[], bool], limit_s: float) -> bool:
    """Whether ``holds`` became true within ``limit_s`` seconds."""
    end = time.monotonic() + limit_s
    while not holds() and time.monotonic() < end:
        time.sleep(0.02)
    return holds()


def scene(play: Callable[..., Any]) -> Callable[[T], T]:
    """Marks a test with the scene that it judges: called with a folder and the test's parameters.

    The test gets what the scene returns as its fixture ``seen``.
    """

    def mark(test: T) -> T:
        test.play = play  # type: ignore[attr-defined]
        return test

    return mark


@pytest.fixture(scope="module")
def stage(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Any]]]:
    """Plays the scenes of all chosen tests of the module, some at once: they mostly wait. The slow ones go first."""
    items = [item for item in request.session.items if getattr(item, "module", None) is request.module]
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
    pool = ThreadPoolExecutor(AT_ONCE)
    played = {}
    for item in items:
        params = item.callspec.params if hasattr(item, "callspec") else {}
        folder = tmp_path_factory.mktemp("scene")
        played[item.nodeid] = pool.submit(item.function.play, folder, **params)  # type: ignore[attr-defined]
    yield played
    pool.shutdown(cancel_futures=True)


@pytest.fixture
def seen(stage: dict[str, Future[Any]], request: pytest.FixtureRequest) -> Any:
    """What the test's scene returned."""
    return stage[request.node.nodeid].result()
