"""mypy and pyright know the keywords of the library; importing it takes no time."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

RIGHT = """
import asyncio
from pathlib import Path
import batchllm
from batchllm import FinishedRow, Job, JobError, Options, Result, arun, astream, run

def on_row(row: FinishedRow) -> None:
    print(row.index, row["label"], row.error)

common: Options = {"model": "m", "max_cost": "5.00"}
result: Result = run("a.csv", "classify", on_row=on_row, **common)
run("a.csv", "classify", labels=["a", "b"], provider="groq", rpm=5)
run([{"text": "a"}], prompt="x", labels={"a": "b"}, schema={"type": "object"}, api_key=lambda: "k", prices={"m": {}})
run(Path("a.csv"), prompt="x", progress=lambda done, total: print(done, total), keep=False)
run("a.csv", prompt="x", progress=True, tools=[{"type": "function"}])
run("a.csv", "classify", engine="ray", work=Path("/shared/work"), ray_address="auto", workers=8)
print(result.summary.answered, result.exit_status, result.parsed, Job.from_file("job.toml"))
async def main() -> None:
    other: Result = await arun("a.csv", "classify", temperature=0)
    async for row in astream("a.csv", "classify", ordered=True):
        print(row["label"], other)
try:
    asyncio.run(main())
except JobError as error:
    print(error.exit_status, len(batchllm.jobs()), batchllm.clean(older_than="30d"))
"""

WRONG = """
from batchllm import run
run("a.csv", "classify", labells="a")
run("a.csv", "classify", provider=3)
run("a.csv", "clasify")
run("a.csv", "classify", max_cost=["1"])
run("a.csv", "classify", via="bach")
run("a.csv", "classify", progress="yes")
run("a.csv", "classify", engine="dask", work="work")
"""


def check(tool: list[str], tmp_path: Path) -> dict[str, set[int]]:
    """The lines of each program at which a type checker finds an error."""
    programs = {"right": tmp_path / "right.py", "wrong": tmp_path / "wrong.py"}
    programs["right"].write_text(RIGHT)
    programs["wrong"].write_text(WRONG)
    done = subprocess.run(
        [sys.executable, "-m", *tool, *map(str, programs.values())],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    found = [
        re.search(r"(right|wrong)\.py:(\d+)", line) for line in done.stdout.splitlines() if "error" in line
    ]
    assert any(found), done.stdout + done.stderr
    return {name: {int(match[2]) for match in found if match and match[1] == name} for name in programs}


TOOLS = {
    "mypy": ["mypy", "--strict", "--no-error-summary", "--follow-imports=silent"],
    "pyright": ["basedpyright", "--level", "error"],
}


@pytest.mark.parametrize("tool", TOOLS)
def test_a_type_checker_knows_the_keywords(tool: str, tmp_path: Path) -> None:
    assert check(TOOLS[tool], tmp_path) == {"right": set(), "wrong": set(range(3, 10))}


IMPORTS = """
import sys, time
began = time.perf_counter()
import asyncio, json, dataclasses, pathlib
usual = time.perf_counter()
import batchllm
ended = time.perf_counter()
print((ended - began) / (usual - began))
"""


def test_importing_takes_at_most_half_as_long_again_as_the_standard_library_does() -> None:
    ratios = []
    for _ in range(5):
        done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=True)
        ratios.append(float(done.stdout))
        if ratios[-1] <= 1.5:
            return

    raise AssertionError(f"importing took {min(ratios):.2f} of the time at best")
