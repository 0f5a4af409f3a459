"""What was measured, as a table, as JSON and as a plot; medians and ratios, with the machine's facts."""

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any
from xml.sax.saxutils import escape


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of the table.

    Attributes:
        part: The part of the suite.
        what: What was measured.
        samples: One value a repetition, in ``unit``.
        ratios: One ratio a repetition, each to its own pair; empty where nothing is compared.
        target: What the ratio (or, without ratios, the value) must reach; ``None`` is for information.
        at_most: Whether the target is an upper bound.
        note: What a reader must know beside the number.
    """

    part: str
    what: str
    samples: Sequence[float]
    unit: str
    ratios: Sequence[float] = ()
    against: str = ""
    target: float | None = None
    at_most: bool = False
    note: str = ""

    @property
    def value(self) -> float:
        """The median of the samples."""
        return median(self.samples)

    @property
    def ratio(self) -> float | None:
        """The median of the ratios."""
        return median(self.ratios) if self.ratios else None

    @property
    def reached(self) -> bool | None:
        """Whether the target is reached; ``None`` where there is none."""
        if self.target is None:
            return None
        judged = self.value if self.ratio is None else self.ratio
        return judged <= self.target if self.at_most else judged >= self.target


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything one run of the suite found."""

    facts: dict[str, Any]
    figures: Sequence[Figure]
    notes: Sequence[str]

    def write(self, folder: Path) -> None:
        """Writes ``latest.json``, ``latest.md`` and, where throughput was measured, ``throughput.svg``."""
        folder.mkdir(parents=True, exist_ok=True)
        lines = [
            asdict(figure) | {"value": figure.value, "ratio": figure.ratio, "reached": figure.reached}
            for figure in self.figures
        ]
        text = json.dumps({"facts": self.facts, "notes": self.notes, "figures": lines}, indent=2)
        (folder / "latest.json").write_text(text + "\n", "utf-8")
        (folder / "latest.md").write_text(self.table(), "utf-8")
        bars = [figure for figure in self.figures if figure.part == "throughput" and figure.unit == "rows/s"]
        if bars:
            (folder / "throughput.svg").write_text(plot(bars), "utf-8")

    def table(self) -> str:
        """The report as Markdown."""
        lines = ["# Benchmarks", ""]
        lines += [f"- {name}: {value}" for name, value in self.facts.items()]
        lines += [f"- Note: {note}" for note in self.notes]
        lines += ["", "| part | what | median | ratio (spread) | target | |", "|---|---|--:|--:|--:|---|"]
        lines += [_line(figure) for figure in self.figures]
        return "\n".join(lines) + "\n"


def _line(figure: Figure) -> str:
    ratio = ""
    if figure.ratio is not None:
        ratio = f"{figure.ratio:.2f} ({min(figure.ratios):.2f}–{max(figure.ratios):.2f})"
        ratio += f" of {figure.against}" if figure.against else ""
    target = ""
    if figure.target is not None:
        target = f"{'≤' if figure.at_most else '≥'} {figure.target:g}"
    verdict = {True: "reached", False: "**missed**", None: ""}[figure.reached]
    end = "; ".join(part for part in (verdict, figure.note) if part)
    return f"| {figure.part} | {figure.what} | {number(figure.value)} {figure.unit} | {ratio} | {target} | {end} |"


def number(value: float) -> str:
    """A number with about three digits that say something."""
    if value >= 1_000:
        return f"{round(value, -1):,.0f}"
    return f"{value:.3g}"


def plot(figures: Sequence[Figure]) -> str:
    """Bars of rows a second, each against the raw loop of its own pair, as SVG."""
    left, width, step = 300, 420, 30
    widest = max(1.0, *(figure.ratio or 1.0 for figure in figures))
    height = step * len(figures) + 60
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 140}" height="{height}" '
        'font-family="sans-serif" font-size="13">',
        '<rect width="100%" height="100%" fill="white"/>',
        '<text x="10" y="22" font-weight="bold">Rows a second, raw aiohttp loop = 1</text>',
    ]
    for place, figure in enumerate(figures):
        ratio = figure.ratio if figure.ratio is not None else 1.0
        y = 40 + place * step
        color = "#2a6f97" if figure.what.startswith("batchllm") else "#a9b4bd"
        length = width * ratio / widest
        parts += [
            f'<text x="{left - 8}" y="{y + 15}" text-anchor="end">{escape(figure.what)}</text>',
            f'<rect x="{left}" y="{y}" width="{length:.1f}" height="20" fill="{color}"/>',
            f'<text x="{left + length + 6:.1f}" y="{y + 15}">{ratio:.2f} ({number(figure.value)}/s)</text>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def facts(folder: Path, server: str) -> dict[str, Any]:
    """What a reader needs to know of the machine to repeat the figures.

    Args:
        folder: Where journals lie while measuring: its file system decides what durable costs.
        server: The static server.
    """
    versions = {
        name: metadata.version(name) for name in ("batchllm-cli", "openai", "aiohttp", "orjson", "tiktoken")
    }
    return {
        "machine": f"{_processor()}, {os.cpu_count()} cores, {_memory_gb():.0f} GB, {platform.platform()}",
        "python": platform.python_version(),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "commit": _commit(),
        "file system": _file_system(folder),
        "static server": server,
        "load before": f"{os.getloadavg()[0]:.1f}",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine()
    )


def _memory_gb() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9


def _commit() -> str:
    here = Path(__file__).parent
    asked = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True
    )
    return asked.stdout.strip() or "unknown"


def _file_system(folder: Path) -> str:
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return "unknown"
    above = [(place, kind) for place, kind in mounts if folder.resolve().is_relative_to(place)]
    return max(above, key=lambda mount: len(mount[0]))[1] if above else "unknown"
