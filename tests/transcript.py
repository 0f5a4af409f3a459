"""Runs the ``sh`` blocks of a Markdown file, one after the other, as a reader would type them.

A block is a step. Comments in it say what to expect: ``# exit status: 2`` of its last command (0 if it is not said; an
earlier command that fails ends the block), and ``# prints: TEXT``, which standard output or error has to contain.
Working folder and exported variables carry over from step to step.
"""

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_STATUS = re.compile(r"^# exit status: (\d+)$", re.MULTILINE)
_PRINTS = re.compile(r"^# prints: (.+)$", re.MULTILINE)
_KEEP_STATE = 'trap \'status=$?; export -p > "$STATE"; pwd > "$STATE.pwd"; exit $status\' EXIT\n'
_TAKE_STATE = '. "$STATE"; cd "$(cat "$STATE.pwd")"\n'


@dataclass(frozen=True)
class Step:
    """One block.

    Attributes:
        script: The commands.
        status: The exit status that they should have.
        prints: What they should print, somewhere.
    """

    script: str
    status: int
    prints: tuple[str, ...]


def steps_of(text: str) -> list[Step]:
    """Returns the steps of a Markdown text."""
    found = []
    for script in _BLOCK.findall(text):
        status = _STATUS.search(script)
        found.append(Step(script, int(status[1]) if status else 0, tuple(_PRINTS.findall(script))))
    return found


def run_transcript(path: Path, folder: Path, environment: Mapping[str, str]) -> None:
    """Runs a transcript.

    Args:
        path: The Markdown file.
        folder: The working folder of the first step.
        environment: The variables of the first step.

    Raises:
        AssertionError: A step does something else than the file says.
    """
    steps = steps_of(path.read_text("utf-8"))
    assert steps, f"{path} has no block of sh"
    state = folder / ".transcript"
    before = ""
    for step in steps:
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", before + _KEEP_STATE + step.script],
            cwd=folder,
            env={**environment, "STATE": str(state)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
        said = done.stdout + done.stderr
        assert done.returncode == step.status, f"exit status {done.returncode} of:\n{step.script}\n{said}"
        for text in step.prints:
            assert text in said, f"{text!r} is not in what this prints:\n{step.script}\n{said}"
        before = _TAKE_STATE
