"""Rows a second against a static server: batchllm, the raw aiohttp loop, and what people use today."""

import subprocess
import sys
from pathlib import Path

from peers import PEERS
from report import Figure
from rows import write_input
from servers import Server, static_server
from suite import Bench, pairs

HERE = Path(__file__).resolve().parent
RAW_LOOP = [sys.executable, str(HERE / "raw_loop.py")]
TARGET = 0.6
# Slow peers get a part of the rows, enough that start-up weighs little. The module says whether it is there.
SHARE = {"cookbook": 0.2, "gather": 0.1, "litellm": 0.04, "curator": 0.06, "ondine": 0.04}
MODULE = {"litellm": "litellm", "curator": "bespokelabs.curator", "ondine": "ondine"}


def measure(bench: Bench) -> list[Figure]:
    """The part ``throughput``."""
    source = write_input(bench.folder, bench.size.rows)
    figures: list[Figure] = []
    with static_server(bench.folder) as server:
        if server.tagged:
            bench.notes.append(
                "nginx is not installed; the server was the bottleneck: ratios flatter the slower one"
            )
        for concurrency in bench.size.concurrency:
            figures += _against_raw_loop(bench, source, server, concurrency)
        raw_rate = figures[0].value
        for peer in PEERS:
            if python := _python_of(peer, bench):
                figures.append(_peer(bench, peer, python, server, raw_rate))
            elif not bench.small:
                bench.notes.append(f"{peer} was not measured: no --peers-venv has it")
    return figures


def _against_raw_loop(bench: Bench, source: Path, server: Server, concurrency: int) -> list[Figure]:
    rows, flag = bench.size.rows, ("-c", str(concurrency))
    runs = pairs(
        bench.size.repeats,
        lambda: bench.contender([*RAW_LOOP, *flag], source, server),
        lambda: bench.batchllm(source, server, *flag),
    )
    about = f"{concurrency} in flight"
    return [
        Figure(
            part="throughput",
            what=f"raw aiohttp loop, {about}",
            samples=[rows / raw.seconds for raw, _ in runs],
            unit="rows/s",
            note=f"{_microseconds([raw.cpu_s for raw, _ in runs], rows):.0f} µs of CPU a row",
        ),
        Figure(
            part="throughput",
            what=f"batchllm, {about}",
            samples=[rows / ours.seconds for _, ours in runs],
            unit="rows/s",
            ratios=[raw.seconds / ours.seconds for raw, ours in runs],
            against="the raw loop",
            target=TARGET,
            note=f"{_microseconds([ours.cpu_s for _, ours in runs], rows):.0f} µs of CPU a row",
        ),
    ]


def _peer(bench: Bench, peer: str, python: Path, server: Server, raw_rate: float) -> Figure:
    rows = max(100, round(bench.size.rows * SHARE[peer]))
    source = write_input(bench.folder, rows)
    command = [str(python), str(HERE / "peers.py"), peer, "-c", str(bench.size.concurrency[0])]
    repeats = max(1, bench.size.repeats // 2)
    runs = [bench.contender(command, source, server) for _ in range(repeats)]
    return Figure(
        part="throughput",
        what=peer,
        samples=[rows / taken.seconds for taken in runs],
        unit="rows/s",
        ratios=[rows / taken.seconds / raw_rate for taken in runs],
        against="the raw loop",
        note=f"{rows:,} rows, {_microseconds([taken.cpu_s for taken in runs], rows):.0f} µs of CPU a row",
    )


def _microseconds(seconds: list[float], rows: int) -> float:
    return sorted(seconds)[len(seconds) // 2] / rows * 1e6


def _python_of(peer: str, bench: Bench) -> Path | None:
    """The interpreter that can run a peer; peers without a package of their own run in this one."""
    if peer not in MODULE:
        return Path(sys.executable)
    if bench.small:
        return None
    for python in bench.peers_pythons:
        tried = subprocess.run([str(python), "-c", f"import {MODULE[peer]}"], capture_output=True)
        if tried.returncode == 0:
            return python
    return None
