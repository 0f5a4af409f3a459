"""Help: plain text in sections, the same on every machine, and instant."""

import subprocess
import sys

import pytest

from tests.command import Command


def test_help_lists_the_commands_by_what_they_are_for(batchllm: Command) -> None:
    said = batchllm("--help")
    sections = [line for line in said.out.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert said.status == 0
    assert sections == ["Options:", "Run a job:", "Prepare a job:", "Look at the answers:", "Look at a job:"]


@pytest.mark.parametrize("task", ["summarize", "classify", "codegen", "run"])
def test_the_options_of_a_job_come_in_sections(batchllm: Command, task: str) -> None:
    text = batchllm(task, "-h").out
    for panel in (
        "Output:",
        "Prompt:",
        "Input:",
        "Connection:",
        "Pace:",
        "Request:",
        "Sampling:",
        "Budget:",
        "Run control:",
    ):
        assert f"\n{panel}\n" in text


def test_no_command_at_all_shows_the_help(batchllm: Command) -> None:
    said = batchllm()
    assert said.status == 2
    assert "Run a job:" in said.out + said.err


def test_an_unknown_command_or_option_suggests_the_near_one(batchllm: Command) -> None:
    assert "classify" in batchllm("clasify", "x.csv").err
    assert "--columns" in batchllm("classify", "x.csv", "--colums", "a").err


def test_the_version_is_told() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "batchllm", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("batchllm ")


def test_help_loads_no_rich_text() -> None:
    lines = [
        "import sys",
        "sys.argv = ['batchllm', '--help']",
        "from batchllm.cli import main",
        "try: main()",
        "except SystemExit: print('rich.markdown' in sys.modules)",
    ]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "False"
