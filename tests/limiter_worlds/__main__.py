"""Runs worlds by hand: ``python -m tests.limiter_worlds --worlds 600 --first-seed 1000``."""

import argparse
import sys
import time

from .classes import CLASSES, spec_of
from .figures import misses, overall, table
from .session import maker_of, run_all
from .spec import parse


def main(arguments: list[str] | None = None) -> int:
    """Prints the table and what is missed; 1 where something is."""
    parser = argparse.ArgumentParser(prog="python -m tests.limiter_worlds")
    parser.add_argument("--worlds", type=int, default=600)
    parser.add_argument("--first-seed", type=int, default=1000)
    parser.add_argument("--class", dest="name", choices=CLASSES)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--limiter", default="product", help="product, or module:function")
    parser.add_argument("--failing", type=int, default=10, help="how many of the worst worlds are listed")
    parser.add_argument("--shrink", action="store_true", help="shrink the worlds that are listed")
    parser.add_argument("--spec", help="one world, by its line, with a trace")
    given = parser.parse_args(arguments)
    if given.spec:
        from .trace import traced

        print(traced(parse(given.spec), maker_of(given.limiter)))
        return 0
    began = time.monotonic()
    specs = [spec_of(seed, given.name) for seed in range(given.first_seed, given.first_seed + given.worlds)]
    outcomes = run_all(specs, given.jobs, given.limiter)
    print(table(outcomes))
    print(", ".join(f"{what} {count}" for what, count in overall(outcomes).items()))
    missed = misses(outcomes)
    for line in missed:
        print("missed:", line)
    worst = sorted((o for o in outcomes if o.fails), key=lambda o: (o.unfinished, o.excess_s, o.slow_s))
    for outcome in worst[::-1][: given.failing]:
        print(outcome)
        if given.shrink:
            from .shrink import shrunk

            print("  ", shrunk(outcome.spec, maker_of(given.limiter)))
        else:
            print("  ", outcome.spec)
    print(f"{len(outcomes)} worlds in {time.monotonic() - began:.0f} s")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
