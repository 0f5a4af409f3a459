"""The README cannot drift: its options are those of --help, and its blocks run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from batchllm.errors import INTERNAL_ERROR, ExitStatus
from batchllm.job.options import TABLE
from batchllm.job.reference import option_reference
from batchllm.simulator import SimulatorSettings, start_in_thread
from tests.command import Command

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_the_first_two_sh_blocks_are_one_command_line_each() -> None:
    shell = [text for language, text in BLOCKS if language == "sh"]
    assert len(shell) == 2
    assert all(text.count("\n") == 1 for text in shell)
    assert "simulator" in shell[0]
    assert shell[1] == "scripts/test\n"
    assert "pytest" in (ROOT / "scripts" / "test").read_text("utf-8")


def test_it_fits_on_three_screens() -> None:
    assert README.count("\n") <= 150


@pytest.mark.parametrize(
    "block", [text for language, text in BLOCKS if language == "bash"], ids=lambda text: text[:30]
)
def test_every_other_block_of_commands_runs(block: str, samples: Path, clean_environment: Path) -> None:
    with start_in_thread(SimulatorSettings()) as server:
        environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(clean_environment),
            "OPENAI_BASE_URL": server.base_url,
            "OPENAI_API_KEY": "sk-rehearsal",
            "OPENAI_MODEL": "gpt-4o-mini",
        }
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            cwd=samples,
            env=environment,
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr


def test_the_block_of_python_runs(
    samples: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (block,) = [text for language, text in BLOCKS if language == "python"]
    monkeypatch.chdir(samples)
    exec(compile(block, "README.md", "exec"), {})
    assert "positive" in capsys.readouterr().out


def test_the_documented_options_are_those_of_the_commands() -> None:
    documented = (ROOT / "docs" / "reference" / "options.md").read_text("utf-8")
    assert documented == option_reference() + "\n", "python -m batchllm.job.reference makes it"
    flags = {flag for option in TABLE if option.tasks for flag in option.flags if flag.startswith("--")}
    assert set(re.findall(r"`(--[a-z-]+)`", documented)) == flags


@pytest.mark.parametrize("task", ["summarize", "classify", "codegen", "run"])
def test_help_names_every_option_of_its_command(
    batchllm: Command, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    text = re.sub(r"\x1b\[[0-9;]*m", "", batchllm(task, "--help").out)
    shown = set(re.findall(r"--[a-z][a-z-]+", text)) - {"--help"}
    wanted = {
        flag for option in TABLE if task in option.tasks for flag in option.flags if flag.startswith("--")
    }
    assert shown == wanted


def test_every_exit_status_is_documented() -> None:
    table = (ROOT / "docs" / "reference" / "exit-status.md").read_text("utf-8")
    numbers = set(
        map(int, re.findall(r"\b(\d+)\b", " ".join(re.findall(r"^\| ([\d, ]+) \|", table, re.MULTILINE))))
    )
    assert numbers == {int(status) for status in ExitStatus} | {INTERNAL_ERROR}
    assert "our fault" in table


def test_nobody_is_told_to_install_batchllm_from_an_index() -> None:
    pages = [README, *(page.read_text("utf-8") for page in (ROOT / "docs").rglob("*.md"))]
    command = r"(pip|pipx|uv tool|uv) install(?! -)( -\S+)* '?batchllm\b"
    assert not [found[0] for page in pages if (found := re.search(command, page))]
