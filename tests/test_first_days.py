"""The first days in ``docs/first-days`` work as they are written, against the simulator."""

import os
import sys
from pathlib import Path

import pytest

from batchllm.simulator import SimulatorSettings, start_in_thread
from tests.transcript import Step, run_transcript, steps_of

ROOT = Path(__file__).parent.parent
FIRST_DAYS = sorted((ROOT / "docs" / "first-days").glob("*.md"))
KEY = "sk-first-day"


@pytest.mark.parametrize("path", FIRST_DAYS, ids=lambda path: path.stem)
def test_a_first_day_works_as_it_is_written(path: Path, samples: Path, clean_environment: Path) -> None:
    with start_in_thread(SimulatorSettings(api_key=KEY)) as server:
        environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(clean_environment),
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(ROOT),
            "OPENAI_BASE_URL": server.base_url,
            "OPENAI_API_KEY": KEY,
            "OPENAI_MODEL": "gpt-4o-mini",
        }
        run_transcript(path, samples, environment)


def test_a_transcript_says_what_each_step_should_do() -> None:
    text = (
        "Look:\n```sh\nfalse\n# exit status: 1\n# prints: a\n# prints: b # c\n```\n"
        "```bash\nno\n```\n```sh\ntrue\n```\n"
    )
    failing, fine = steps_of(text)
    assert (failing.status, failing.prints) == (1, ("a", "b # c"))
    assert fine == Step("true\n", 0, ())


@pytest.mark.parametrize(
    "block", ["false\ntrue\n", "echo a\n# prints: b\n", "# exit status: 3\nexit 2\n", ""], ids=repr
)
def test_a_step_that_does_something_else_is_found(tmp_path: Path, block: str) -> None:
    path = tmp_path / "day.md"
    path.write_text(f"```sh\n{block}```\n" if block else "nothing\n")
    with pytest.raises(AssertionError):
        run_transcript(path, tmp_path, {"PATH": os.environ["PATH"]})


def test_folder_and_variables_carry_over_from_step_to_step(tmp_path: Path) -> None:
    path = tmp_path / "day.md"
    path.write_text(
        "```sh\nmkdir 'a b' && cd 'a b' && export X='1 2'\n```\n"
        '```sh\nfalse\n# exit status: 1\n```\n```sh\necho "$X in $(basename "$PWD")"\n# prints: 1 2 in a b\n```\n'
    )
    run_transcript(path, tmp_path, {"PATH": os.environ["PATH"]})
