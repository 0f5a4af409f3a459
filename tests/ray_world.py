"""A Ray cluster of logical nodes on this machine, a limited endpoint, and a job that meets deaths.

It runs as a program in a network namespace of its own, since Ray listens on all interfaces::

    unshare -rn sh -c 'ip link set lo up && exec python -m tests.ray_world PLAN.json'

PLAN has ``rows``, ``rpm``, ``latency_s``, ``folder``, ``store`` (the work folder is in an object store), and
``deaths``: what is killed (``node``, ``worker`` or ``holder``) when a share of the rows is answered. With ``keyless``
one more node has no key, which ends the job. The last line of the output is a JSON object.
"""

import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]  # Ray brings it

from batchllm.simulator import SimulatorSettings, start_in_thread

HOLDER = "LeaseActor"
WORKER = "ShardWorker"


def main() -> None:
    os.environ["OPENAI_API_KEY"] = "sk-of-the-nodes"
    plan = json.loads(Path(sys.argv[1]).read_text())
    folder = Path(plan["folder"])
    rows = folder / "rows.csv"
    texts = [f"row {number} of the table" for number in range(plan["rows"])]
    with rows.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text"])
        writer.writerows([f"{number:05}", text] for number, text in enumerate(texts))
    settings = SimulatorSettings(
        requests_per_minute=plan["rpm"], latency_s=plan["latency_s"], headers=plan.get("headers", True)
    )
    asked: Counter[str] = Counter()
    times: list[float] = []

    def answer(body: Any) -> None:
        asked[body["messages"][-1]["content"]] += 1
        times.append(time.monotonic())

    with (
        work_of(plan, folder) as work,
        cluster(plan.get("nodes", 3), keyless=plan.get("keyless", False)) as (address, nodes),
        start_in_thread(settings, script=answer) as simulator,
    ):
        command = [
            sys.executable, "-m", "batchllm", "run", str(rows), "-p", "Say: {{ text }}", "--model", "m",
            "-o", str(folder / "out.csv"), "--base-url", simulator.base_url, "--engine", "ray",
            "--ray-address", address, "--work", work, "--summary", str(folder / "summary.jsonl"),
            *plan.get("flags", []),
        ]  # fmt: skip
        deaths = threading.Thread(
            target=kill, args=(plan["deaths"], simulator, plan["rows"], nodes), daemon=True
        )
        deaths.start()
        began = time.monotonic()
        first = subprocess.run(command, capture_output=True, text=True)
        seconds = time.monotonic() - began
        once = (simulator.ledger.answered, simulator.ledger.refused, simulator.ledger.requests)
        if plan.get("keyless"):
            requests = simulator.ledger.requests
            print(f"\n{json.dumps({'exit': first.returncode, 'stderr': first.stderr, 'requests': requests})}")
            return
        second = subprocess.run(command, capture_output=True, text=True)
        again = simulator.ledger.requests - once[2]
    if first.returncode:
        sys.exit(f"exit {first.returncode}: {first.stdout} {first.stderr}")
    with (folder / "out.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    print(
        "\n"  # Ray writes to this stream too
        + json.dumps(
            {
                "exit": first.returncode,
                "stderr": first.stderr,
                "seconds": seconds,
                "span_s": times[once[0] - 1] - times[0],
                "every_5_s": [
                    Counter(int((at - times[0]) // 5) for at in times[: once[2]])[n] for n in range(60)
                ],
                "died_at_s": [at - times[0] for at in DIED_AT],
                "twice": sum(count > 1 for count in asked.values()),
                "answered": once[0],
                "refused": once[1],
                "requests": once[2],
                "in_order": [row["text"] for row in found] == texts,
                "lost": sum(not row["response"] for row in found),
                "second_exit": second.returncode,
                "second_stderr": second.stderr,
                "second_requests": again,
                "summary": json.loads((folder / "summary.jsonl").read_text().splitlines()[0]),
                "died": DIED,
            }
        )
    )


DIED: list[str] = []
DIED_AT: list[float] = []


def kill(deaths: list[list[Any]], simulator: Any, rows: int, nodes: list[Any]) -> None:
    """Kills what the plan says, when that share of the rows is answered."""
    for what, share in deaths:
        while simulator.ledger.answered < share * rows:
            time.sleep(0.1)
        if what == "holder":
            victims = [each for each in psutil.Process().children(recursive=True) if HOLDER in _title(each)]
        else:
            raylet = psutil.Process(busy(nodes))
            workers = [each for each in raylet.children(recursive=True) if WORKER in _title(each)]
            victims = [raylet, *raylet.children(recursive=True)] if what == "node" else workers[:1]
        for victim in victims:
            try:
                victim.send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                continue
        DIED_AT.append(time.monotonic())
        DIED.append(f"{what}: {len(victims)} processes")


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def busy(nodes: list[Any]) -> int:
    """Returns the raylet of a node that answers a shard and does not have the holder."""
    for node in nodes:
        raylet = node.all_processes["raylet"][0].process.pid
        titles = [_title(each) for each in psutil.Process(raylet).children(recursive=True)]
        if any(WORKER in title for title in titles) and not any(HOLDER in title for title in titles):
            return int(raylet)
    return int(nodes[0].all_processes["raylet"][0].process.pid)


@contextmanager
def work_of(plan: dict[str, Any], folder: Path) -> Iterator[str]:
    """The work folder: a folder, or with ``store`` objects in an S3 in this namespace."""
    if not plan.get("store"):
        yield str(folder / "work")
        return
    from tests.object_store import running_store

    with running_store(folder) as store:
        os.environ |= store.environment()
        yield f"s3://{store.new_bucket()}/job"


@contextmanager
def cluster(nodes: int, *, keyless: bool = False) -> Iterator[tuple[str, list[Any]]]:
    """A head without workers, some nodes of two CPUs, and one more whose environment has no key."""
    from ray.cluster_utils import Cluster

    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        os.environ["RAY_TMPDIR"] = folder
        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 100_000_000}
        world = Cluster(initialize_head=True, head_node_args=head)
        try:
            made = [world.add_node(num_cpus=2, object_store_memory=100_000_000) for _ in range(nodes)]
            if keyless:
                other = {"OPENAI_API_KEY": ""}
                world.add_node(num_cpus=2, object_store_memory=100_000_000, env_vars=other)
            world.wait_for_nodes()
            yield world.address, made
        finally:
            world.shutdown()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
