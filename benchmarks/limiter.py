"""The limiter's bench: every scenario in virtual time, against written models of endpoints, and the peers.

``python benchmarks/limiter.py`` prints the whole table (some minutes); ``--quick`` a shorter one. The models are
in ``tests/limiter_bench``. The exit status is 1 when a line misses its bar.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.limiter_bench import scenarios as s
from tests.limiter_bench.peers import PEERS

Line = Callable[[], s.Result]


def lines(quick: bool) -> Iterator[Line]:
    """Every line of the table, as something to run."""
    long, seeds = (600.0, (1,)) if quick else (1800.0, (1, 2))
    for rpm in (60.0, 600.0, 6000.0, 30_000.0):
        for kind in (s.SLIDING, s.BUCKET, s.FIXED, s.FIXED10, s.COUNTER):
            if kind == s.COUNTER and rpm == 60.0:
                continue  # stands with the hard ones: a counter of 60 has no room for jitter
            until = long if rpm < 30_000 else long / 6.0
            yield partial(s.known_requests, kind, rpm, until)
    for rpm in (600.0, 6000.0, 30_000.0):
        yield partial(s.known_requests, s.BUCKET1, rpm, long if rpm < 30_000 else long / 6.0)
    yield partial(s.hard_bins, s.BINS, 600.0, 1800.0, 97.5)
    yield partial(s.hard_bins, s.BINS, 6000.0, 1800.0, 97.5)
    yield partial(s.hard_bins, s.BUCKET1, 60.0, 3600.0, 94.0)
    yield partial(s.hard_bins, s.COUNTER, 60.0, 3600.0, 97.0)
    for kind in (s.SLIDING, s.BUCKET, s.FIXED):
        yield partial(s.known_tokens, kind, 2_000_000, s.uneven_rows(), long, 99.5, "S4 all sizes,")
    for kind in (s.SLIDING, s.BUCKET, s.FIXED):
        yield partial(s.known_tokens, kind, 200_000, s.uneven_rows(), 1800.0, 98.9, "S5 all sizes,")
        yield partial(s.known_tokens, kind, 200_000, s.two_sizes(200_000), 1800.0, 97.0, "S5 two sizes,")
    yield partial(s.both_limits, 1000, 2_000_000, long)
    yield partial(s.both_limits, 3000, 2_000_000, long)
    for charge in ("max_tokens", "estimate", "usage"):
        yield partial(s.charged_as, charge, long)
    yield from lawful_lines(1200.0 if quick else 3600.0)
    yield from search_lines(quick, seeds)
    for slots in (4, 256, 1024):
        yield partial(s.engine, slots, 1800.0)
    yield partial(s.engine, 1024, 1800.0, explicit=1024)
    yield partial(s.engine, 4, 1800.0, queue=16)
    yield partial(s.engine, 64, 1800.0, queue=32)
    yield partial(s.ramp, 1800.0 if quick else 5400.0)


def lawful_lines(until: float) -> Iterator[Line]:
    """S7."""
    cases: dict[str, dict[str, Any]] = {
        "exact estimates": {},
        "server charges 0.8 of the estimate": {"bias": 0.8},
        "server charges 1.15 of the estimate": {"bias": 1.15},
        "another client takes 30 %": {"foreign": 0.3},
        "answers take 15 s, out of order": {
            "latency_s": lambda row, world: world.rng.lognormvariate(2.5, 0.6)
        },
        "a third of the headers lost": {"headers": "late"},
    }
    for name, changes in cases.items():
        yield partial(s.lawful, name, until, **changes)
    yield partial(s.lawful, "limit told as well", until, told=True)


def search_lines(quick: bool, seeds: tuple[int, ...]) -> Iterator[Line]:
    """S8."""
    for rpm, until in ((60.0, 7200.0), (600.0, 3600.0), (6000.0, 1800.0)):
        if quick and rpm == 6000.0:
            continue
        for kind in (s.BUCKET, s.BUCKET1, s.SLIDING, s.FIXED, s.FIXED10, s.COUNTER):
            for tells in ("seconds", "none"):
                for seed in seeds:
                    yield partial(s.found, kind, rpm, until, tells=tells, seed=seed)
    for kind in (s.SLIDING, s.BUCKET):
        for tells in ("seconds", "none"):
            for seed in seeds:
                yield partial(s.changing, kind, tells=tells, seed=seed)


def peer_lines() -> Iterator[Line]:
    """The peers' algorithms where the limit is known."""
    for name in PEERS:
        for kind in (s.SLIDING, s.BUCKET, s.FIXED, s.BUCKET1):
            yield partial(s.peer, name, kind, 600.0, 300.0)


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="shorter runs, one seed")
    parser.add_argument("--only", default="", help="only lines whose name contains this")
    arguments = parser.parse_args()
    started = time.perf_counter()
    missed = 0
    print("| scenario | share of limit × time | refused | bar | |")
    print("|---|---|---|---|---|")
    for line in (*lines(arguments.quick), *peer_lines()):
        result = line()
        if arguments.only not in result.name:
            continue
        missed += not result.passes
        bar = f"≥ {result.least_use:g} %, ≤ {result.most_refused:g} %" if result.least_use else ""
        mark = "" if result.passes else "**missed** "
        print(
            f"| {result.name} | {result.use:.2f} % | {result.refused:.3f} % | {bar} | {mark}{result.note} |",
            flush=True,
        )
    print(f"\n{missed} lines missed their bar; {time.perf_counter() - started:.0f} s")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
