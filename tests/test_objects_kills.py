"""Real runs of the command line between two objects, killed at any moment: nothing is lost, paid twice or left half."""

import csv
import io
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest

from batchllm.simulator import Simulator, SimulatorSettings, start_in_thread
from tests.cutting_proxy import CuttingProxy, cutting_proxy
from tests.object_store import ObjectStore

pytestmark = pytest.mark.proof

ROWS = 400
CONCURRENCY = 8
# Each cell is long, so that input and output need several requests of the proxy's size.
TABLE = b"id,text\n" + b"".join(b'%d,"row %d: %s"\n' % (n, n, b"word " * 200) for n in range(ROWS))


class World:
    """A store behind a proxy, an endpoint, and the command that joins them."""

    def __init__(
        self, bucket: str, store: ObjectStore, proxy: CuttingProxy, server: Simulator, folder: Path
    ) -> None:
        self.bucket, self.store, self.proxy, self.server, self.folder = bucket, store, proxy, server, folder
        self.environment = {
            **{name: os.environ[name] for name in ("PATH", "PYTHONPATH", "HOME") if name in os.environ},
            **store.environment(proxy.url),
            "TMPDIR": str(folder),
        }

    def start(self) -> "subprocess.Popen[bytes]":
        source, output = f"s3://{self.bucket}/in.csv", f"s3://{self.bucket}/out.csv"
        words = [
            "classify",
            source,
            "-o",
            output,
            "--base-url",
            self.server.base_url,
            "-m",
            "gpt-4",
            "--quiet",
        ]
        return subprocess.Popen(
            [sys.executable, "-m", "batchllm", *words, "-c", str(CONCURRENCY)],
            env=self.environment,
            cwd=self.folder,
            stderr=subprocess.PIPE,
        )

    def kill_when(self, is_time: Callable[[], bool]) -> int:
        """Starts a run and kills it at a moment, unless it ends before; returns its status."""
        with self.start() as run:
            while run.poll() is None and not is_time():
                time.sleep(0.001)
            if run.poll() is None:
                run.send_signal(signal.SIGKILL)
            return run.wait()

    def finish(self) -> None:
        with self.start() as run:
            _, said = run.communicate(timeout=120)
        assert run.returncode == 0, said.decode()

    def asked(self) -> Counter[str]:
        """How often each row was sent."""
        return Counter(orjson.loads(each.body)["messages"][-1]["content"] for each in self.server.received)

    def check_output(self) -> None:
        found = list(csv.DictReader(io.StringIO(self.store.get(self.bucket, "out.csv").decode())))
        assert [row["id"] for row in found] == [str(n) for n in range(ROWS)]
        assert all(row["label"] and not row["error"] for row in found)
        assert sorted(self.store.keys(self.bucket)) == ["in.csv", "out.csv"]
        assert [path for path in self.folder.iterdir() if path.is_file()] == []


@pytest.fixture
def world(object_store: ObjectStore, tmp_path: Path) -> Iterator[World]:
    settings = SimulatorSettings(keep_requests=10_000, latency_s=0.01)
    with cutting_proxy(object_store.port) as proxy, start_in_thread(settings) as server:
        bucket = object_store.new_bucket()
        object_store.put(bucket, "in.csv", TABLE)
        yield World(bucket, object_store, proxy, server, tmp_path)


def test_a_run_that_is_killed_at_any_request_goes_on_and_pays_for_what_was_in_flight_alone(
    world: World,
) -> None:
    rng = random.Random(7)
    kills = 0
    for at in sorted(rng.sample(range(1, ROWS), 4)):
        kills += world.kill_when(lambda at=at: len(world.server.received) >= at) == -signal.SIGKILL  # type: ignore[misc]
        assert world.store.keys(world.bucket) == ["in.csv"]
    assert kills == 4
    world.finish()
    world.check_output()
    asked = world.asked()
    assert len(asked) == ROWS
    assert sum(asked.values()) - ROWS <= kills * CONCURRENCY
    world.finish()
    assert world.asked() == asked


def test_a_run_that_is_killed_while_it_uploads_leaves_nothing_and_pays_for_nothing_again(
    world: World,
) -> None:
    world.proxy.sent_bytes, world.proxy.stalls = 100_000, True
    assert world.kill_when(lambda: world.proxy.cuts > 0) == -signal.SIGKILL
    asked = world.asked()
    assert (len(asked), sum(asked.values())) == (ROWS, ROWS)
    assert (world.store.keys(world.bucket), world.store.uploads(world.bucket)) == (["in.csv"], [])
    world.proxy.sent_bytes = None
    world.finish()
    world.check_output()
    assert world.asked() == asked


def test_a_run_that_is_killed_between_upload_and_end_knows_its_output(world: World) -> None:
    world.kill_when(lambda: "out.csv" in world.store.keys(world.bucket))
    world.finish()
    world.check_output()
    assert sum(world.asked().values()) == ROWS


def test_the_output_of_another_machine_is_refused(
    world: World, tmp_path_factory: pytest.TempPathFactory
) -> None:
    world.finish()
    before = world.store.get(world.bucket, "out.csv")
    world.environment["HOME"] = str(tmp_path_factory.mktemp("other-machine"))
    with world.start() as run:
        _, said = run.communicate(timeout=60)
    assert run.returncode == 2 and b"exists and is not this job's" in said
    assert world.store.get(world.bucket, "out.csv") == before
    assert sum(world.asked().values()) == ROWS
