"""A clean environment for every test: no key, no proxy, no settings, a home and a state folder of its own."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from batchllm.errors import STOPPING
from tests.command import Command
from tests.rotation import POINT

if TYPE_CHECKING:
    from batchllm.simulator import Simulator
    from tests.bench import Bench
    from tests.object_store import ObjectStore


_SETTINGS = ("OPENAI_", "AZURE_", "AWS_", "GOOGLE_", "BATCHLLM_", "XDG_", "SSL_CERT_")

# How long an example takes is the machine's affair. The same commit is judged by the same examples;
# --hypothesis-profile=random looks for new ones.
settings.register_profile("fixed", deadline=None, derandomize=True)
settings.register_profile("random", deadline=None)
settings.load_profile("fixed")


def pytest_configure(config: pytest.Config) -> None:
    """Lets the programs that tests start receive signals that ``nohup`` or a background shell ignores.

    A program inherits an ignored signal, but not a handler. So the process that runs tests handles those signals by
    doing nothing. The process that only distributes tests to workers leaves them ignored, so that workers see it.
    """
    if config.getoption("dist", "no") == "no" or hasattr(config, "workerinput"):
        for number in STOPPING:
            if signal.getsignal(number) == signal.SIG_IGN:
                signal.signal(number, lambda number, frame: None)


def pytest_report_header() -> str:
    """Names the points of rotating sets, so that a run can be repeated."""
    return f"BATCHLLM_TEST_POINT={POINT}"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Removes every variable that batchllm or the SDK reads; gives a HOME that is empty."""
    for name in list(os.environ):
        upper = name.upper()
        if upper.startswith(_SETTINGS) or upper.endswith(("_API_KEY", "_PROXY", "_CA_BUNDLE")):
            monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    return home


@pytest.fixture
def batchllm(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command line as a function."""
    return Command(monkeypatch, capsys)


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    """A copy of the sample jobs, to write beside."""
    return Path(shutil.copytree(Path(__file__).parent.parent / "sample_jobs", tmp_path / "sample_jobs"))


@pytest.fixture
def server() -> "Iterator[Simulator]":
    """The simulator as a server, with its usual settings."""
    from batchllm.simulator import SimulatorSettings, start_in_thread

    with start_in_thread(SimulatorSettings(keep_requests=50)) as running:
        yield running


@pytest.fixture
def bench(tmp_path: Path, batchllm: Command) -> "Iterator[Bench]":
    """The command on a server of its own, whose answers a test may dictate."""
    from batchllm.simulator import SimulatorSettings, start_in_thread
    from tests.bench import Bench

    bench = Bench(tmp_path, batchllm)
    settings = SimulatorSettings(keep_requests=100)
    with start_in_thread(settings, script=lambda body: bench.answers(body)) as bench.server:
        yield bench


@pytest.fixture(scope="session")
def object_store_server(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[ObjectStore]":
    """An S3 in a process of its own; one for all tests."""
    pytest.importorskip("moto")
    from tests.object_store import running_store

    with running_store(tmp_path_factory.mktemp("object-store")) as store:
        yield store


@pytest.fixture
def object_store(object_store_server: "ObjectStore", monkeypatch: pytest.MonkeyPatch) -> "ObjectStore":
    """An S3 with credentials for it in the environment; each test makes buckets of its own."""
    for name, value in object_store_server.environment().items():
        monkeypatch.setenv(name, value)
    return object_store_server
