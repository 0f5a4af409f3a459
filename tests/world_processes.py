"""Processes of a random world: commands, workers and a holder of leases that a test can kill at any moment.

A nursery, which has imported the program once, forks each of them, so that a process costs some milliseconds. Workers
are no children of the command that asked for them: they outlive it as orphans unless they are killed.

``python -m tests.world_processes SOCKET`` is the nursery.
"""

import asyncio
import faulthandler
import importlib
import json
import os
import pickle
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

from batchllm.cluster.engine import ShardEnd, ShardTask
from batchllm.cluster.lease_service import JobBudget, LeaseService
from batchllm.cluster.shard_run import run_shard
from batchllm.job import Job
from batchllm.leases import Lease, LeaseHolder, LeaseRequest, Leases
from tests.cluster_engine import LocalEngine

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class World:
    """What every process of a world is told.

    Attributes:
        folder: Where processes write what they say, and where the socket of the holder is.
        nursery: The socket of the nursery.
        environ: The environment.
        constants: Numbers of the program that are others here, by ``module:name``.
        ttl_s: How long a lease lasts.
        workers: Shards that are answered side by side.
    """

    folder: Path
    nursery: str
    environ: Mapping[str, str]
    constants: Mapping[str, float] = field(default_factory=dict)
    ttl_s: float = 3.0
    workers: int = 3

    @property
    def holder(self) -> Path:
        """The socket of the holder of the leases."""
        return self.folder / "holder"

    def tell(self, what: str, *values: Any) -> Any:
        """Asks the nursery for something."""
        with Client(self.nursery, "AF_UNIX") as nursery:
            nursery.send((what, *values))
            return nursery.recv()

    def start(self, kind: str, content: Any) -> int:
        """Starts a process; returns its number."""
        pid: int = self.tell("start", kind, pickle.dumps((self, content)))
        return pid

    def living(self, kind: str) -> list[int]:
        """The processes of a kind that live."""
        found: list[int] = self.tell("living", kind)
        return found

    def status(self, pid: int) -> int | None:
        """The exit status of a process; ``None`` while it lives."""
        found: int | None = self.tell("status", pid)
        return found

    def kill(self, pid: int) -> bool:
        """Kills a process at once; returns whether it lived."""
        lived: bool = self.tell("kill", pid, signal.SIGKILL)
        return lived


class WorldEngine(LocalEngine):
    """Runs attempts in processes of the nursery."""

    def __init__(self, world: World, job: Job) -> None:
        super().__init__(job.workers or world.workers)
        self._world = world

    def leases(self, task: ShardTask) -> Leases:
        return leases_of(self._world, task)

    def submit(self, task: ShardTask) -> None:
        self.running[self._world.start("worker", task)] = task

    def ended(self, timeout_s: float) -> Sequence[tuple[ShardTask, ShardEnd | None]]:
        until = time.monotonic() + timeout_s
        while True:
            statuses = {pid: self._world.status(pid) for pid in self.running}
            over = [pid for pid, status in statuses.items() if status is not None]
            if over or time.monotonic() >= until:
                return [(self.running.pop(pid), self._end_of(pid, statuses[pid])) for pid in over]
            time.sleep(0.03)

    def cancel(self) -> None:
        for pid in self.running:
            self._world.kill(pid)

    def _end_of(self, pid: int, status: int | None) -> ShardEnd | None:
        if status != 0:
            return None
        end: ShardEnd = pickle.loads((self._world.folder / f"end-{pid}").read_bytes())
        return end


def leases_of(world: World, task: ShardTask) -> Leases:
    budget = JobBudget.of(task.job, task.work, task.run)

    async def renew(request: LeaseRequest) -> Lease:
        reader, writer = await asyncio.open_unix_connection(str(world.holder))
        try:
            writer.write(pickle.dumps((budget, request)))
            writer.write_eof()
            content = await reader.read()
        finally:
            writer.close()
        if not content:
            raise ConnectionError("the holder has died")
        lease: Lease = pickle.loads(content)
        return lease

    return Leases(renew=renew, worker=uuid4().hex)


async def _hold(world: World, restarted: bool) -> None:
    service = LeaseService(restarted=restarted)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(pickle.dumps(service.renew(*pickle.loads(await reader.read()))))
        writer.close()

    world.holder.unlink(missing_ok=True)
    server = await asyncio.start_unix_server(answer, str(world.holder))
    await server.serve_forever()


def _run(kind: str, world: World, content: Any) -> None:
    """Is a process of the world."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(world.environ)
    said = os.open(world.folder / f"{kind}-{os.getpid()}", os.O_WRONLY | os.O_CREAT)
    os.dup2(said, 1)
    os.dup2(said, 2)
    signal.signal(signal.SIGUSR1, _show_stacks)
    for place, value in world.constants.items():
        module, name = place.split(":")
        setattr(importlib.import_module(module), name, value)
    LeaseHolder.__init__.__kwdefaults__["ttl_s"] = world.ttl_s  # type: ignore[index]
    if kind == "holder":
        asyncio.run(_hold(world, content))
    elif kind == "worker":
        end = run_shard(content, os.environ, leases_of(world, content))
        temporary = world.folder / f".end-{os.getpid()}"
        temporary.write_bytes(pickle.dumps(end))
        temporary.rename(world.folder / f"end-{os.getpid()}")
    else:
        from batchllm.cli import main, result, terminal

        _note_named(world, terminal, result)
        engine = SimpleNamespace(RayEngine=lambda job: WorldEngine(world, job))
        sys.modules["batchllm.cluster.ray_engine"] = engine  # type: ignore[assignment]
        sys.argv = ["batchllm", *content]
        main()


def _show_stacks(number: int, frame: object) -> None:
    """Says what every thread and every task waits for."""
    faulthandler.dump_traceback(all_threads=True)
    for task in list(asyncio.tasks._all_tasks):  # type: ignore[attr-defined]
        task.print_stack(file=sys.stderr)
    sys.stderr.flush()


def _note_named(world: World, terminal: Any, result: Any) -> None:
    """Writes which rows a command names as possibly billed, before it begins and at its end."""
    named: set[int] = set()

    def noting(show: Any) -> Any:
        def noted(job: Any, found: Any, **more: Any) -> None:
            named.update(found.possibly_billed_rows)
            (world.folder / f"named-{os.getpid()}").write_text(json.dumps(sorted(named)))
            show(job, found, **more)

        return noted

    result.show_result = noting(result.show_result)
    terminal.confirm = noting(terminal.confirm)


def _forked(kind: str, data: bytes) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 70
    try:
        _run(kind, *pickle.loads(data))
        status = 0
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:  # noqa: BLE001 - it is the end of a process
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _serve(path: str) -> None:
    kinds: dict[int, str] = {}
    statuses: dict[int, int] = {}

    def status(pid: int) -> int | None:
        if pid not in statuses:
            ended, code = os.waitpid(pid, os.WNOHANG)
            if ended:
                statuses[pid] = os.waitstatus_to_exitcode(code)
        return statuses.get(pid)

    def answer(what: str, *values: Any) -> Any:
        if what == "start":
            pid = _forked(*values)
            kinds[pid] = values[0]
            return pid
        if what == "living":
            return [pid for pid, kind in kinds.items() if kind == values[0] and status(pid) is None]
        pid = values[0]
        if what == "trace" and status(pid) is None:
            os.kill(pid, signal.SIGUSR1)
        if what == "kill" and (lived := status(pid) is None):
            os.kill(pid, values[1])
            statuses[pid] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            return lived
        return False if what == "kill" else status(pid)

    with Listener(path, "AF_UNIX", backlog=64) as listener:
        print("ready", flush=True)
        while True:
            connection: Connection = listener.accept()
            try:
                question = connection.recv()
                if question == ("end",):
                    return
                connection.send(answer(*question))
            except (EOFError, ConnectionError):  # the one that asked was killed
                pass
            finally:
                connection.close()


@contextmanager
def nursery(folder: Path) -> Iterator[str]:
    """Runs a nursery; yields its socket."""
    path = str(folder / "nursery")
    command = [sys.executable, "-m", "tests.world_processes", path]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, env=environ) as process:
        assert process.stdout is not None and process.stdout.readline()
        try:
            yield path
        finally:
            process.kill()


if __name__ == "__main__":
    import batchllm.api
    import batchllm.cli.run
    import batchllm.client
    import batchllm.cluster.driver  # noqa: F401 - each process has it at once

    _serve(sys.argv[1])
