"""What it costs to wait: the CPU share of a run that its limit holds back."""

import signal
import subprocess
import time

from processes import batchllm_run, cpu_s_of, run
from report import Figure
from rows import write_input
from servers import slow_server
from suite import Bench

TARGET = 2.0


def measure(bench: Bench) -> list[Figure]:
    """The part ``idle``."""
    figures = []
    for limit in (("--rpm", "60"), ("--rpm", "600"), ("--tpm", "10000")):
        share = _share(bench, limit)
        if share is None:
            bench.notes.append("idle needs /proc")
            return []
        figures.append(
            Figure(
                part="idle",
                what=f"CPU while {' '.join(limit)} holds 2,000 rows back",
                samples=[share],
                unit="% of a core",
                target=TARGET if limit == ("--rpm", "60") else None,
                at_most=True,
            )
        )
    return figures


def _share(bench: Bench, limit: tuple[str, ...]) -> float | None:
    shares: list[float] = []

    def watch(process: subprocess.Popen[bytes]) -> None:
        time.sleep(bench.size.idle_settle_s)
        try:
            before, since = cpu_s_of(process), time.monotonic()
            time.sleep(bench.size.idle_s)
            shares.append((cpu_s_of(process) - before) / (time.monotonic() - since) * 100)
        except OSError:
            shares.clear()
        process.send_signal(signal.SIGTERM)

    output = bench.output("idle")
    with slow_server(0.02) as server:
        source = write_input(bench.folder, 2_000)
        command = batchllm_run(source, output, server.base_url, *limit)
        run(command, bench.folder, meanwhile=watch, expected=(143,))
    bench.output("idle")
    return shares[0] if shares else None
