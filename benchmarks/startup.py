"""How long until something happens: ``--help``, ``--version``, and the first request of a small job."""

import sys
import time

from processes import BATCHLLM, Run, batchllm_run, run
from report import Figure
from rows import write_input
from servers import Server, slow_server
from suite import Bench, pairs

HELP_TARGET = 2.0
FIRST_REQUEST_TARGET = 2.5


def measure(bench: Bench) -> list[Figure]:
    """The part ``startup``."""
    return [
        _figure(bench, "batchllm --help", [BATCHLLM, "--help"], "import typer, rich"),
        _figure(bench, "batchllm --version", [BATCHLLM, "--version"], "import typer, rich"),
        _first_request(bench),
    ]


def _bare(bench: Bench, statement: str) -> Run:
    return run([sys.executable, "-c", statement], bench.folder)


def _figure(bench: Bench, what: str, command: list[str], statement: str) -> Figure:
    run(command, bench.folder)  # once unmeasured: bytecode and files are in memory for both
    runs = pairs(
        bench.size.startup_repeats, lambda: _bare(bench, statement), lambda: run(command, bench.folder)
    )
    return Figure(
        part="startup",
        what=what,
        samples=[ours.seconds for _, ours in runs],
        unit="s",
        ratios=[ours.seconds / bare.seconds for bare, ours in runs],
        against=f"a bare {statement}",
        target=HELP_TARGET,
        at_most=True,
    )


def _first_request(bench: Bench) -> Figure:
    with slow_server(0.0) as server:
        _seconds_to_first_request(bench, server)
        taken = [
            (_bare(bench, "import openai").seconds, _seconds_to_first_request(bench, server))
            for _ in range(bench.size.startup_repeats)
        ]
    return Figure(
        part="startup",
        what="first request of a job of 20 rows",
        samples=[ours for _, ours in taken],
        unit="s",
        ratios=[ours / bare for bare, ours in taken],
        against="a bare import openai",
        target=FIRST_REQUEST_TARGET,
        at_most=True,
    )


def _seconds_to_first_request(bench: Bench, server: Server) -> float:
    source, output = write_input(bench.folder, 20), bench.output("startup")
    server.forget()
    started_at = time.monotonic()
    run(batchllm_run(source, output, server.base_url), bench.folder)
    first_at: float = server.forget()["first_at"]
    bench.check(source, output, server)
    return first_at - started_at
