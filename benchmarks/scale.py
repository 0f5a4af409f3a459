"""A million rows: memory, time a row, a finished job run again, and a job that was killed half-way.

It takes a quarter of an hour, so every step that is done is kept in ``scale.json`` beside the inputs; the same
command goes on where it stopped.
"""

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from processes import Broken, batchllm_run, run
from report import Figure
from rows import problem_of, write_input
from servers import Server, slow_server, static_server
from suite import Bench

CONCURRENCY = 64
Step = dict[str, float]


class Scale:
    """The steps, each done once in a folder.

    Args:
        bench: How many rows, and where.
        server: Answers.
    """

    def __init__(self, bench: Bench, server: Server) -> None:
        self._bench = bench
        self._server = server
        self._rows = bench.size.scale_rows
        self._kept = bench.folder / f"scale-{self._rows}.json"
        self._done: dict[str, Step] = json.loads(self._kept.read_text()) if self._kept.exists() else {}

    def step(self, name: str, work: Callable[[], Step]) -> Step:
        """A step's figures; measured unless an earlier run of the suite has done so."""
        if name not in self._done:
            self._done[name] = work()
            self._kept.write_text(json.dumps(self._done, indent=2))
        return self._done[name]

    def whole(self, rows: int, output: Path, *, fresh: bool = True) -> Step:
        """A job from its start to its end, or, not fresh, once more."""
        source = write_input(self._bench.folder, rows)
        if fresh:
            self._bench.output(output.stem)
        measured = run(self._command(source, output), self._bench.folder)
        if problem := problem_of(source, output, tagged=self._server.tagged):
            raise Broken(problem)
        return {"seconds": measured.seconds, "peak_rss_mb": measured.peak_rss_mb, "cpu_s": measured.cpu_s}

    def killed(self, output: Path) -> Step:
        """A job that is killed when half of its requests were sent."""
        source = write_input(self._bench.folder, self._rows)
        self._bench.output(output.stem)
        before = self._server.requests()

        def kill(process: subprocess.Popen[bytes]) -> None:
            while self._server.requests() - before < self._rows / 2 and process.poll() is None:
                time.sleep(0.01 if self._bench.small else 0.25)
            process.send_signal(signal.SIGKILL)

        command = self._command(source, output)
        measured = run(command, self._bench.folder, meanwhile=kill, expected=(-signal.SIGKILL,))
        return {"seconds": measured.seconds, "requests": self._server.requests() - before}

    def resumed(self, output: Path, sent: float) -> Step:
        """The killed job's second run: when its first request leaves, and that no answer was paid twice."""
        source = write_input(self._bench.folder, self._rows)
        before = self._server.requests()
        first_s: list[float] = []
        started_at = time.monotonic()

        def watch(process: subprocess.Popen[bytes]) -> None:
            while process.poll() is None:
                if self._server.requests() > before:
                    first_s.append(time.monotonic() - started_at)
                    return
                time.sleep(0.005)

        measured = run(self._command(source, output), self._bench.folder, meanwhile=watch)
        again = sent + self._server.requests() - before - self._rows
        if problem := problem_of(source, output, tagged=self._server.tagged):
            raise Broken(problem)
        return {"first_request_s": first_s[0], "seconds": measured.seconds, "sent_again": again}

    def _command(self, source: Path, output: Path) -> list[str]:
        return batchllm_run(source, output, self._server.base_url, "-c", str(CONCURRENCY))


def measure(bench: Bench) -> list[Figure]:
    """The part ``scale``."""
    many, few = bench.size.scale_rows, bench.size.scale_rows // 10
    large, half = bench.folder / "large.csv", bench.folder / "half.csv"
    latency_s = bench.size.scale_latency_s
    with slow_server(latency_s) if latency_s else static_server(bench.folder) as server:
        scale = Scale(bench, server)
        short = scale.step("short", lambda: scale.whole(few, bench.folder / "short.csv"))
        long = scale.step("long", lambda: scale.whole(many, large))
        again = scale.step("again", lambda: scale.whole(many, large, fresh=False))
        bench.output(large.stem)
        killed = scale.step("killed", lambda: scale.killed(half))
        resumed = scale.step("resumed", lambda: scale.resumed(half, killed["requests"]))
    for name in ("short", "half"):
        bench.output(name)
    row_long, row_short = long["seconds"] / many * 1e6, short["seconds"] / few * 1e6
    return [
        _figure(
            f"peak memory, {many:,} rows",
            long["peak_rss_mb"],
            "MB",
            short["peak_rss_mb"],
            1.1,
            f"{few:,} rows",
        ),
        _figure(f"peak memory, {many:,} rows, in all", long["peak_rss_mb"], "MB", None, 250),
        _figure(f"time a row, {many:,} rows", row_long, "µs", row_short, 1.15, f"{few:,} rows"),
        _figure("a finished job run again", again["seconds"], "s", long["seconds"], 0.1, "the first run"),
        _figure(
            f"first request after a kill at {many // 2:,} rows",
            resumed["first_request_s"],
            "s",
            killed["seconds"],
            0.05,
            "the first half",
        ),
        _figure("requests sent twice after the kill", resumed["sent_again"], "requests", None, CONCURRENCY),
    ]


def _figure(
    what: str, value: float, unit: str, base: float | None, target: float, against: str = ""
) -> Figure:
    ratios = () if base is None else (value / base,)
    return Figure(
        part="scale",
        what=what,
        samples=[value],
        unit=unit,
        ratios=ratios,
        against=against,
        target=target,
        at_most=True,
    )
