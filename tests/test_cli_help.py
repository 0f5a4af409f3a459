"""Help: plain text in sections, the same on every machine, and instant."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from wcwidth import wcswidth

from batchllm.cli.help import COMMON, EXAMPLES, EXIT_STATUS
from batchllm.errors import ExitStatus
from batchllm.job.options import TABLE
from tests.command import Command
from tests.screen import screen

DOCS = Path(__file__).parent.parent / "docs"
TASKS = [name for name in EXAMPLES if name != "batchllm"]


def test_help_lists_the_commands_by_what_they_are_for(batchllm: Command) -> None:
    said = batchllm("--help")
    sections = [line for line in said.out.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert said.status == 0
    assert sections == [
        "Examples:",
        "Options:",
        "Run a job:",
        "Prepare a job:",
        "Look at the answers:",
        "Look at a job:",
        "Help:",
    ]


@pytest.mark.parametrize("task", ["summarize", "classify", "codegen", "run"])
def test_the_options_of_a_job_come_in_sections(batchllm: Command, task: str) -> None:
    text = batchllm(task, "--help").out
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


def on_a_terminal(columns: int, *words: str) -> list[str]:
    """The lines that a command prints on a terminal of this width."""
    with screen(columns) as terminal, terminal.path.open("w") as stream:
        command = [sys.executable, "-m", "batchllm", *words]
        assert subprocess.run(command, stdout=stream, stderr=stream, check=False, timeout=30).returncode == 0
    assert all(wcswidth(state) <= columns for state in terminal.states)
    return terminal.lines


def test_eighty_columns_and_twenty_four_lines_show_the_first_example_of_the_long_help() -> None:
    assert f"  {EXAMPLES['classify'][0]}" in on_a_terminal(80, "classify", "--help")[:23]


@pytest.mark.parametrize("words", [("help",), ("classify", "-h"), ("help", "run"), ("help", "exit-status")])
def test_help_fits_into_a_narrow_terminal(words: tuple[str, ...]) -> None:
    on_a_terminal(80, *words)


@pytest.mark.parametrize("command", ["status", "export", "report"])
def test_help_names_the_work_folder_and_no_function_of_the_program(batchllm: Command, command: str) -> None:
    said = " ".join(batchllm(command, "-h").out.split())
    assert "with --engine" in said and "work folder" in said and "<" not in said


@pytest.mark.parametrize("task", TASKS)
def test_the_short_help_has_three_examples_and_a_dozen_options(
    batchllm: Command, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    said = batchllm(task, "-h")
    lines = said.out.splitlines()
    assert said.status == 0
    assert [line.strip() for line in lines if line.startswith("  batchllm ")] == list(EXAMPLES[task])
    options = [line for line in lines if re.match(r"  -", line)]
    assert 11 <= len(options) <= 13
    assert len(lines) <= 30
    every = re.search(rf"batchllm {task} --help has all (\d+) options", said.out)
    assert every is not None
    long = batchllm(task, "--help").out
    assert len(re.findall(r"^  -", long, re.MULTILINE)) == int(every[1])


def test_the_options_of_the_short_help_exist() -> None:
    assert set(COMMON) <= {option.name for option in TABLE}


@pytest.mark.parametrize("example", [line for lines in EXAMPLES.values() for line in lines])
def test_the_examples_of_the_help_are_commands_that_work(
    batchllm: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, example: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("reviews.csv", "tasks.csv"):
        Path(name).write_text("text\nThe kettle boils.\n")
    Path("tasks.jsonl").write_text('{"text": "Sort a list."}\n')
    Path("job.toml").write_text('[job]\ninput = "reviews.csv"\ntask = "summarize"\n')
    program, command, *words = shlex.split(example)
    assert program == "batchllm"
    simulated = ["--provider", "simulator"]
    if command == "status":
        assert batchllm("classify", "reviews.csv", *simulated, "-o", "reviews.classify.csv").status == 0
        simulated = []
    elif "--provider" in words:
        simulated = []
    said = batchllm(command, *words, *simulated)
    assert said.status == 0, said.err


@pytest.mark.parametrize("task", ["classify", "status"])
def test_help_about_a_command_is_its_long_help(batchllm: Command, task: str) -> None:
    assert batchllm("help", task).out == batchllm(task, "--help").out


def test_help_without_a_topic_is_that_of_the_program(batchllm: Command) -> None:
    assert batchllm("help").out == batchllm("--help").out == batchllm("-h").out


def test_help_about_something_else_suggests_the_near_one(batchllm: Command) -> None:
    said = batchllm("help", "clasify")
    assert (said.status, said.out) == (2, "")
    assert "did you mean classify?" in said.err


def test_the_exit_statuses_are_those_of_the_documentation_and_of_the_program(batchllm: Command) -> None:
    page = (DOCS / "reference" / "exit-status.md").read_text("utf-8").replace("`", "")
    rows = [
        tuple(cell.strip() for cell in line.strip("|").split("|"))
        for line in page.splitlines()
        if "|" in line
    ]
    assert rows[2:] == list(EXIT_STATUS)
    told = {int(number) for status, *_ in EXIT_STATUS for number in status.split(", ")}
    assert told == {*map(int, ExitStatus), 70}
    said = " ".join(batchllm("help", "exit-status").out.split())
    assert all(" ".join(meaning.split()) in said for _, meaning, _ in EXIT_STATUS)


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


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("status", "a.csv", "b", "c"), "status takes one OUTPUT, and 'b' 'c' are more; leave them out"),
        (("export", "a.csv", "b.csv"), "export takes one OUTPUT, and 'b.csv' is more"),
    ],
)
def test_an_argument_too_many_is_refused_in_one_sentence(
    batchllm: Command, words: tuple[str, ...], message: str
) -> None:
    said = batchllm(*words)
    assert said.status == 2
    assert message in said.err and "Usage:" not in said.err
