"""Turns a run into a crontab line and systemd units that need nothing of the shell in which they were made.

Formats: crontab(5), whose ``%`` ends a command; systemd.service(5), systemd.timer(5), systemd.time(7), and
``LoadCredential=`` of systemd.exec(5).
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from batchllm.errors import UsageError

DAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")
"""In the order of crontab(5), which numbers them from 0."""

LONGEST_CRON_COMMAND = 998
"""Characters of a command that Debian's cron takes (``MAX_COMMAND`` is 1000)."""

STOP_MARGIN_S = 60
"""Seconds that a stopped run gets after its grace period, to write what it has."""

_KEY_FLAG = "--api-key-file"
_CREDENTIAL = "key"
_TIME = re.compile(r"(?:([A-Za-z]{3,9})\s+)?([01]?\d|2[0-3]):([0-5]\d)")
_PLAIN_WORD = re.compile(r"[\w@%+=:,./-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class When:
    """When a job runs.

    Attributes:
        minute: Minute of the hour.
        hour: Hour of the day; ``None`` is every hour.
        day: One of ``DAYS``; ``None`` is every day.
    """

    minute: int
    hour: int | None
    day: str | None = None

    @property
    def cron(self) -> str:
        """The five fields of a crontab line."""
        hour = "*" if self.hour is None else self.hour
        day = "*" if self.day is None else DAYS.index(self.day)
        return f"{self.minute} {hour} * * {day}"

    @property
    def calendar(self) -> str:
        """The value of ``OnCalendar=``."""
        day = "" if self.day is None else f"{self.day} "
        hour = "*" if self.hour is None else f"{self.hour:02}"
        return f"{day}*-*-* {hour}:{self.minute:02}:00"


def when(at: str | None, *, hourly: bool = False, weekly: bool = False) -> When:
    """Reads when a job is to run.

    Args:
        at: ``02:30``, or ``Sun 02:30`` for once a week; ``None`` is 02:30, and the full hour with ``hourly``.
        hourly: Every hour, at the minute of ``at``.
        weekly: Once a week, on Monday unless ``at`` names a day.

    Raises:
        UsageError: It is no time, or the options contradict each other.
    """
    usual = "00:00" if hourly else "02:30"
    found = _TIME.fullmatch(usual if at is None else at.strip())
    day = None if found is None or found[1] is None else found[1][:3].title()
    if found is None or (day is not None and day not in DAYS):
        raise UsageError(f"--at {at}: expected a time of day such as 02:30, or 'Sun 02:30' for once a week")
    if hourly and (weekly or day):
        raise UsageError("--hourly excludes --weekly and a day in --at; give one of them")
    return When(int(found[3]), None if hourly else int(found[2]), day or ("Mon" if weekly else None))


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduledRun:
    """A run with everything that it needs.

    Attributes:
        name: Name of its units.
        program: The words that start batchllm, by an absolute path.
        arguments: The words after it, without ``--api-key-file``.
        folder: The working folder.
        environment: Variables that it needs.
        key_file: The file with the key, absolute; ``None`` if the endpoint needs no key.
        grace_s: Seconds that requests in flight get when it is stopped.
    """

    name: str
    program: Sequence[str]
    arguments: Sequence[str]
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    key_file: Path | None = None
    grace_s: float = 30.0

    def words(self, key_file: str | None) -> list[str]:
        """The command, with the key in this file."""
        key = [] if key_file is None else [_KEY_FLAG, key_file]
        return [*self.program, *self.arguments, *key]


def crontab_line(run: ScheduledRun, at: When) -> str:
    """Returns one line for crontab(5).

    Raises:
        UsageError: A word has a line break, or the line is longer than every cron takes.
    """
    words = run.words(None if run.key_file is None else str(run.key_file))
    variables = [f"{name}={_cron_word(value)}" for name, value in run.environment.items()]
    command = f"cd {_cron_word(str(run.folder))} && " + " ".join([*variables, *map(_cron_word, words)])
    if any(sign in command for sign in "\n\r\0"):
        raise UsageError(
            "a crontab line has no room for a line break: put the job into a file (batchllm init)"
        )
    if len(command) > LONGEST_CRON_COMMAND:
        raise UsageError(
            f"the command has {len(command):,} characters, and cron takes {LONGEST_CRON_COMMAND}: put the job into "
            "a file (batchllm init), or use systemd (--only service)"
        )
    return f"{at.cron} {command}"


def service_unit(run: ScheduledRun) -> str:
    """Returns the service that runs the job once.

    Raises:
        UsageError: The working folder has a name that no unit can hold.
    """
    folder = str(run.folder)
    if any(ord(sign) < 32 for sign in folder) or folder != folder.strip() or folder.endswith("\\"):
        raise UsageError(f"{folder!r}: no unit of systemd can name this folder; run this in another one")
    program, *arguments = run.words(
        None if run.key_file is None else f"${{CREDENTIALS_DIRECTORY}}/{_CREDENTIAL}"
    )
    if run.key_file is not None:
        *arguments, credential = arguments
    # A program's path is taken as it is; in the other words a $ begins a variable.
    command = [_systemd_word(program), *(_systemd_word(word).replace("$", "$$") for word in arguments)]
    lines = ["[Unit]", f"Description=batchllm: {run.name}", f"OnFailure={run.name}-failed.service", ""]
    lines += ["[Service]", "Type=oneshot", f"WorkingDirectory={folder.replace('%', '%%')}"]
    lines += [f"Environment={_systemd_word(f'{name}={value}')}" for name, value in run.environment.items()]
    if run.key_file is not None:
        lines.append(f"LoadCredential={_CREDENTIAL}:{str(run.key_file).replace('%', '%%')}")
        command.append(credential)
    lines += [f"ExecStart={' '.join(command)}", "SuccessExitStatus=75"]
    lines.append(f"TimeoutStopSec={run.grace_s + STOP_MARGIN_S:.0f}")
    return "\n".join(lines)


def timer_unit(run: ScheduledRun, at: When) -> str:
    """Returns the timer that starts the service; a time that the machine slept through is made up for."""
    return "\n".join(
        [
            "[Unit]",
            f"Description=When batchllm runs {run.name}",
            "",
            "[Timer]",
            f"OnCalendar={at.calendar}",
            "Persistent=true",
            "",
            "[Install]",
            "WantedBy=timers.target",
        ]
    )


def failure_unit(run: ScheduledRun) -> str:
    """Returns the service that is started when a run has failed; it is meant to be edited."""
    return "\n".join(
        [
            "[Unit]",
            f"Description=After batchllm failed: {run.name}",
            "",
            "[Service]",
            "Type=oneshot",
            "# Put what tells you here: a mail, a webhook. This writes one line to the journal of systemd.",
            f'ExecStart=/bin/sh -c "echo {run.name} failed, see journalctl --user -u {run.name}.service"',
        ]
    )


def unit_name(text: str) -> str:
    """Returns a name for units made of any text; see systemd.unit(5)."""
    return re.sub(r"[^A-Za-z0-9:_.-]+", "-", text).strip("-.") or "job"


def _cron_word(word: str) -> str:
    r"""Quotes a word for a shell behind cron.

    Some crons remove the backslash of ``\%``, some leave it to the shell, and some read two backslashes as one. So a
    percent sign stands outside quotes, where a shell removes the backslash too, and no backslash precedes another.
    """
    quoted = shlex.quote(word)
    if "\\" not in word and "%" not in word:
        return quoted
    pieces = re.split(r"(%)", word)
    return "".join(
        "\\%" if piece == "%" else "'" + piece.replace("'", "'\"'\"'").replace("\\", "\\''") + "'"
        for piece in pieces
        if piece
    )


def _systemd_word(word: str) -> str:
    """Quotes a word for systemd: specifiers, quotes, and C escapes for control characters."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    escaped = re.sub(r"[\x01-\x1f\x7f]", lambda found: f"\\x{ord(found[0]):02x}", escaped)
    return escaped if _PLAIN_WORD.fullmatch(escaped) else f'"{escaped}"'
