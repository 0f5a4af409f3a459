"""The benchmarks measure what they say: outputs are held against inputs, and the arithmetic is right.

Times are never asserted here.
"""

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def suite(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The benchmark's command; its modules are scripts beside each other, not a package."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import run

    yield run
    for name in set(sys.modules) - before:
        place = getattr(sys.modules[name], "__file__", None)
        if place and Path(place).parent == BENCHMARKS:
            del sys.modules[name]


def measure(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, str(BENCHMARKS / "run.py"), "--small", *arguments]
    command += ["--folder", str(tmp_path / "work"), "--results", str(tmp_path / "results")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    results: dict[str, Any] = json.loads((tmp_path / "results" / "latest.json").read_text("utf-8"))
    return results


def test_a_perfect_scheduler_fills_each_slot_the_moment_it_is_free(suite: ModuleType) -> None:
    from makespan import perfect_makespan_s

    assert perfect_makespan_s([1.0] * 10, 5) == 2.0
    assert perfect_makespan_s([3.0, 1.0, 1.0, 1.0], 2) == 3.0
    assert perfect_makespan_s([1.0, 1.0, 5.0], 2) == 6.0


def test_rows_and_latencies_are_the_same_every_time(suite: ModuleType) -> None:
    from endpoint import latency_of
    from rows import texts

    assert list(texts(3, 10)) == list(texts(3, 10))
    assert all(len(text.split()) == 10 for text in texts(3, 10))
    assert latency_of(7, 0.5, 1.0) == latency_of(7, 0.5, 1.0) != latency_of(8, 0.5, 1.0)
    assert latency_of(7, 0.5, 0.0) == 0.5


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda lines: lines, None),
        (lambda lines: [lines[0], lines[2], lines[1]], "row 0 of"),
        (lambda lines: lines[:-1], "fewer rows"),
        (lambda lines: [*lines, lines[-1]], "more rows"),
        (
            lambda lines: [lines[0], lines[1].replace(",yes row-0000000", ",yes row-0000001"), lines[2]],
            "answer",
        ),
        (lambda lines: [lines[0], lines[1].replace(",yes row-0000000", ","), lines[2]], "answer"),
        (lambda lines: [line.replace("response", "other") for line in lines], "no answer column"),
    ],
)
def test_an_output_that_is_not_right_is_not_fast(
    suite: ModuleType, tmp_path: Path, change: Callable[[list[str]], list[str]], problem: str | None
) -> None:
    from rows import problem_of, write_input

    source = write_input(tmp_path, 2, 5)
    header, *lines = source.read_text().splitlines()
    written = [f"{header},response", *(f"{line},yes row-{at:07d}" for at, line in enumerate(lines))]
    output = tmp_path / "out.csv"
    output.write_text("\n".join(change(written)) + "\n")
    found = problem_of(source, output, tagged=True)
    if problem is None:
        assert found is None
    else:
        assert found is not None
        assert problem in found


def test_a_figure_is_judged_by_the_median_of_its_paired_ratios(suite: ModuleType, tmp_path: Path) -> None:
    from report import Figure, Report

    slow = Figure(
        part="throughput",
        what="batchllm <&>",
        samples=[3000.0, 4000.0, 9000.0],
        unit="rows/s",
        ratios=[0.9, 0.5, 0.55],
        target=0.6,
    )
    quick = Figure(part="startup", what="--help", samples=[0.2], unit="s", target=0.3, at_most=True)
    assert (slow.value, slow.ratio, slow.reached) == (4000.0, 0.55, False)
    assert (quick.ratio, quick.reached) == (None, True)
    Report(facts={"machine": "this one"}, figures=[slow, quick], notes=["noisy"]).write(tmp_path)
    table = (tmp_path / "latest.md").read_text("utf-8")
    assert "| 4,000 rows/s | 0.55 (0.50–0.90) | ≥ 0.6 | **missed** |" in table
    assert "this one" in table
    assert "noisy" in table
    plot = ElementTree.fromstring((tmp_path / "throughput.svg").read_text("utf-8"))
    assert any("batchllm <&>" in (text.text or "") for text in plot.iter("{http://www.w3.org/2000/svg}text"))


def test_the_small_form_measures_throughput_and_every_row_is_answered(tmp_path: Path) -> None:
    report = measure(tmp_path, "--rows", "200", "--only", "throughput")
    names = [figure["what"] for figure in report["figures"]]
    assert names == ["raw aiohttp loop, 64 in flight", "batchllm, 64 in flight", "cookbook", "gather"]
    assert all(figure["value"] > 0 for figure in report["figures"])
    assert report["facts"]["machine"]
    assert (tmp_path / "results" / "throughput.svg").exists()
    left = {path.suffix for path in (tmp_path / "work").glob("*.csv.*")}
    assert not left, "a run left its journal"


@pytest.mark.slow
def test_the_small_form_measures_every_part(tmp_path: Path) -> None:
    report = measure(tmp_path, "--full")
    parts = {figure["part"] for figure in report["figures"]}
    assert parts == {"throughput", "makespan", "startup", "dry_run", "idle", "scale"}
    again = next(f for f in report["figures"] if f["what"] == "requests sent twice after the kill")
    assert 0 <= again["value"] <= 64
