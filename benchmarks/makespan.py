"""How long a job of slow requests takes, against what its latencies and its concurrency allow."""

import heapq
from collections.abc import Iterable

from endpoint import latency_of
from report import Figure
from rows import write_input
from servers import slow_server
from suite import Bench, pairs
from throughput import RAW_LOOP

FIXED_TARGET = 1.35
TAIL_TARGET = 1.2


def perfect_makespan_s(latencies_s: Iterable[float], concurrency: int) -> float:
    """Seconds that a scheduler without any cost of its own takes (Graham's list scheduling, 1966).

    Each request starts the moment a slot is free, in the order of the input. Nobody who learns a latency only
    when it has passed does better than this rule on every input.
    """
    free_at = [0.0] * concurrency
    for latency_s in latencies_s:
        heapq.heapreplace(free_at, free_at[0] + latency_s)
    return max(free_at)


def measure(bench: Bench) -> list[Figure]:
    """The part ``makespan``; the long tail takes three times as long a run, and spreads less."""
    repeats = bench.size.repeats
    return [
        *_measure(bench, repeats, 0.0, FIXED_TARGET, "every answer after"),
        *_measure(bench, min(repeats, 3), 1.0, TAIL_TARGET, "lognormal, sigma 1, median"),
    ]


def _measure(bench: Bench, repeats: int, sigma: float, target: float, about: str) -> list[Figure]:
    size = bench.size
    source = write_input(bench.folder, size.makespan_rows)
    latencies = [latency_of(index, size.makespan_latency_s, sigma) for index in range(size.makespan_rows)]
    ideal_s = perfect_makespan_s(latencies, size.makespan_concurrency)
    flag = ("-c", str(size.makespan_concurrency))
    with slow_server(size.makespan_latency_s, sigma) as server:
        runs = pairs(
            repeats,
            lambda: bench.contender([*RAW_LOOP, *flag], source, server),
            lambda: bench.batchllm(source, server, *flag),
        )
    what = (
        f"{size.makespan_rows:,} rows, -c {size.makespan_concurrency}, {about} {size.makespan_latency_s:g} s"
    )
    return [
        Figure(
            part="makespan",
            what=f"{name}: {what}",
            samples=[taken.seconds for taken in taken_by],
            unit="s",
            ratios=[taken.seconds / ideal_s for taken in taken_by],
            against=f"the ideal {ideal_s:.2f} s",
            target=target if name == "batchllm" else None,
            at_most=True,
        )
        for name, taken_by in (
            ("raw aiohttp loop", [raw for raw, _ in runs]),
            ("batchllm", [ours for _, ours in runs]),
        )
    ]
