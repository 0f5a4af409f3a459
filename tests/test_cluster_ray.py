"""Ray itself: logical nodes in a network namespace, a limited endpoint, and deaths.

Ray listens on all interfaces, so it runs where there is nothing but loopback. Where no namespace can be made (not
Linux, or not allowed), these are skipped.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.proof, pytest.mark.timeout(900)]

ROOT = Path(__file__).parent.parent
NAMESPACE = ("unshare", "-rn", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")


@pytest.fixture(autouse=True, scope="module")
def needs() -> None:
    pytest.importorskip("ray")
    if (
        shutil.which("unshare") is None
        or subprocess.run([*NAMESPACE, "true"], capture_output=True).returncode
    ):
        pytest.skip("no network namespace can be made here, and Ray listens on all interfaces")


def world(folder: Path, **plan: Any) -> dict[str, Any]:
    """Runs a job of ``rows`` rows at 600 requests a minute on three nodes, twice; see ``ray_world``."""
    folder.mkdir(exist_ok=True)
    path = folder / "plan.json"
    flags = ["--rpm", "600"]
    path.write_text(json.dumps({"rpm": 600, "latency_s": 0.3, "flags": flags, "folder": str(folder), **plan}))
    said = subprocess.run(
        [*NAMESPACE, sys.executable, "-m", "tests.ray_world", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert said.returncode == 0, said.stderr[-4000:]
    found: dict[str, Any] = json.loads(said.stdout[said.stdout.rindex('\n{"exit"') :])
    return found


def check(found: dict[str, Any], rows: int, deaths: int) -> None:
    """Nothing is lost, little is paid twice or refused, and the same command sends nothing."""
    assert len(found["died"]) == deaths and not any(": 0 " in died for died in found["died"]), found
    assert found["exit"] == 0, found
    assert found["lost"] == 0 and found["in_order"], found
    assert found["summary"]["answered"] == rows
    # In flight and one flush of a worker that has a third to a half of ten requests a second: 0.3 s and 1 s of them.
    assert found["twice"] <= 8 * deaths, found
    assert found["twice"] <= found["summary"]["possibly_billed_twice"], found
    assert found["refused"] <= 0.001 * rows, found
    assert found["second_exit"] == 0 and found["second_requests"] == 0, found


def test_a_killed_worker_costs_its_last_second(tmp_path: Path) -> None:
    check(world(tmp_path, rows=300, deaths=[["worker", 0.4]]), 300, 1)


def test_the_work_folder_can_be_in_an_object_store(tmp_path: Path) -> None:
    check(world(tmp_path, rows=200, deaths=[["worker", 0.4]], store=True), 200, 1)


def test_one_node_without_the_key_stops_the_job_before_the_first_request(tmp_path: Path) -> None:
    found = world(tmp_path, rows=30, deaths=[], nodes=1, keyless=True)
    assert found["exit"] == 2 and found["requests"] == 0, found
    assert "on node" in found["stderr"] and "OPENAI_API_KEY" in found["stderr"], found


def test_a_node_and_the_holder_of_the_leases_die_and_the_whole_limit_is_used(tmp_path: Path) -> None:
    found = world(tmp_path, rows=1500, deaths=[["node", 0.33], ["holder", 0.66]])
    check(found, 1500, 2)
    assert 1500 / 10 / found["span_s"] >= 0.93, "of 10 requests a second"


def test_an_address_without_a_cluster_is_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text\nhello\n")
    words = [
        "classify",
        "rows.csv",
        "--base-url",
        "http://127.0.0.1:1",
        "-m",
        "m",
        "--engine",
        "ray",
        "--work",
        "work",
    ]
    said = subprocess.run(
        [*NAMESPACE, sys.executable, "-m", "batchllm", *words, "--ray-address", "127.0.0.1:1"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OPENAI_API_KEY": "sk"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert said.returncode == 69 and "no Ray cluster at 127.0.0.1:1 (Connection refused)" in said.stderr, said
