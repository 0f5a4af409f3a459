"""``batchllm schedule``: prints a crontab line and a systemd timer for a job."""

import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from batchllm.errors import UsageError

STATUSES = """\
# What an exit status means here:
#   0   every row has an answer          1   finished, some rows failed (see the error column)
#   2   wrong use, nothing was paid      3   stopped at a budget, or early
#   65  the input cannot be read        69   endpoint unavailable, or out of quota
#   73  cannot write                    74   I/O error
#   75  another run has this job, a batch is not ready, or --max-time is over: not a failure
# After 3, 69, 73, 74 and 75 the same command goes on, so the next time does."""


def schedule(
    context: typer.Context,
    job: Annotated[
        str, typer.Argument(help="A job file, or a command: summarize, classify, …", metavar="JOB")
    ],
    at: Annotated[str, typer.Option(help="Time of day, HH:MM.", metavar="HH:MM")] = "02:30",
) -> None:
    """Print a crontab line and a systemd timer that run a job every day.

    Everything after JOB belongs to the command: batchllm schedule --at 02:30 classify reviews.csv -o out.csv
    """
    hour, minute = _time_of_day(at)
    words = [*_program(), *_command(job, context.args)]
    typer.echo(STATUSES)
    typer.echo()
    typer.echo("# crontab -e")
    typer.echo(crontab_line(words, Path.cwd(), hour, minute))
    typer.echo()
    typer.echo(systemd_units(words, Path.cwd(), hour, minute))


def crontab_line(words: list[str], folder: Path, hour: int, minute: int) -> str:
    """One line for crontab(5), where a percent sign would otherwise end the command."""
    command = f"cd {shlex.quote(str(folder))} && {shlex.join(words)} || [ $? -eq 75 ]"
    return f"{minute} {hour} * * * {command}".replace("%", "\\%")


def systemd_units(words: list[str], folder: Path, hour: int, minute: int) -> str:
    """A service and a timer for systemd, as systemd.service(5) and systemd.timer(5) want them quoted."""
    command = " ".join(_systemd_word(word) for word in words)
    return f"""\
# ~/.config/systemd/user/batchllm.service
[Unit]
Description=batchllm

[Service]
Type=oneshot
WorkingDirectory={str(folder).replace("%", "%%")}
ExecStart={command}
SuccessExitStatus=75

# ~/.config/systemd/user/batchllm.timer; then: systemctl --user enable --now batchllm.timer
[Unit]
Description=batchllm every day

[Timer]
OnCalendar=*-*-* {hour:02}:{minute:02}:00
Persistent=true

[Install]
WantedBy=timers.target"""


def _time_of_day(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)", text)
    if match is None:
        raise UsageError(f"--at {text}: expected a time of day such as 02:30")
    return int(match[1]), int(match[2])


def _program() -> list[str]:
    """This program by its absolute path: cron and systemd know no profile."""
    own = Path(sys.argv[0])
    if own.name == "batchllm" and own.exists():
        return [str(own.absolute())]
    found = shutil.which("batchllm")
    return [found] if found else [sys.executable, "-m", "batchllm"]


def _command(job: str, arguments: list[str]) -> list[str]:
    """The words after the program: a job file's path made absolute, ``--quiet`` where it is not said."""
    words = ["run", str(Path(job).absolute())] if job.endswith(".toml") else [job]
    words += [str(Path(word).absolute()) if _is_file(word) else word for word in arguments]
    return words if {"-q", "--quiet"} & set(words) else [*words, "--quiet"]


def _is_file(word: str) -> bool:
    return not word.startswith("-") and Path(word).is_file()


def _systemd_word(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return escaped if re.fullmatch(r"[\w@%+=:,./-]+", escaped) else f'"{escaped}"'
