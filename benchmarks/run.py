"""Measures batchllm side by side with the raw aiohttp loop and with what people use today.

``python benchmarks/run.py`` runs every part but ``scale``, which takes a quarter of an hour: name it in
``--only`` or give ``--full``. Results go to ``benchmarks/results/``.
"""

import argparse
import compileall
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import dry_run
import idle
import makespan
import scale
import several
import startup
import throughput
from processes import allow_connections
from report import Figure, Report, facts
from servers import NGINX
from suite import SMALL, Bench, Size

import batchllm

PARTS: dict[str, Callable[[Bench], list[Figure]]] = {
    "throughput": throughput.measure,
    "endpoints": several.measure,
    "makespan": makespan.measure,
    "startup": startup.measure,
    "dry_run": dry_run.measure,
    "idle": idle.measure,
    "scale": scale.measure,
}
LONG = ("scale",)


def main(arguments: list[str] | None = None) -> int:
    """Measures, writes the results, and says whether every target was reached (exit status 0) or not (1)."""
    options = _parser().parse_args(arguments)
    allow_connections()
    compileall.compile_dir(Path(batchllm.__file__).parent, quiet=1)  # as an installation does
    size = SMALL if options.small else Size()
    asked = {"rows": options.rows, "repeats": options.repeats, "scale_rows": options.scale_rows}
    size = replace(size, **{name: value for name, value in asked.items() if value is not None})
    folder = options.folder or Path(tempfile.mkdtemp(prefix="batchllm-benchmarks-", dir=_disk()))
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    bench = Bench(
        size, folder, [place.absolute() / "bin" / "python" for place in options.peers_venv], options.small
    )
    if options.small:
        bench.notes.append("the small form: it shows that everything is right, its times say nothing")
    found = facts(folder, "nginx" if NGINX else "benchmarks/endpoint.py")
    figures: list[Figure] = []
    try:
        for part in options.only or [part for part in PARTS if options.full or part not in LONG]:
            for figure in PARTS[part](bench):
                figures.append(replace(figure, target=None) if options.small else figure)
            # After every part, so that a long run that is ended leaves what it has.
            report = Report(facts=found, figures=figures, notes=bench.notes)
            report.write(options.results)
            print(f"{part}: measured", file=sys.stderr, flush=True)
    finally:
        if options.folder is None:
            shutil.rmtree(folder)
    print(report.table())
    return int(any(figure.reached is False for figure in figures))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    here = Path(__file__).resolve().parent
    parser.add_argument(
        "--only", type=_parts, help="parts to measure, separated by commas: " + ", ".join(PARTS)
    )
    parser.add_argument("--full", action="store_true", help="every part, scale too")
    parser.add_argument("--small", action="store_true", help="a minute, for the correctness of it all")
    parser.add_argument("--rows", type=int, help="rows of throughput  [50000]")
    parser.add_argument("--repeats", type=int, help="pairs of each comparison  [5]")
    parser.add_argument("--scale-rows", type=int, help="rows of scale  [1000000]")
    parser.add_argument(
        "--peers-venv",
        type=Path,
        action="append",
        default=[],
        help="environment with litellm, bespokelabs-curator or ondine; may be given again",
    )
    parser.add_argument("--folder", type=Path, help="where inputs and journals lie, kept  [a temporary one]")
    parser.add_argument("--results", type=Path, default=here / "results")
    return parser


def _parts(text: str) -> list[str]:
    parts = text.split(",")
    if unknown := set(parts) - set(PARTS):
        raise argparse.ArgumentTypeError(f"no such part: {', '.join(sorted(unknown))}")
    return parts


def _disk() -> str | None:
    """/var/tmp, which is a disk where /tmp is often memory: journals must pay for being durable."""
    return "/var/tmp" if Path("/var/tmp").is_dir() else None


if __name__ == "__main__":
    sys.exit(main())
