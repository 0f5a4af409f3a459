"""Lines for cron and units for systemd, read again by others: a shell, systemd-analyze, and a reader of its syntax."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from batchllm.errors import UsageError
from batchllm.inspect.schedule import (
    ScheduledRun,
    When,
    crontab_line,
    failure_unit,
    service_unit,
    timer_unit,
    unit_name,
    when,
)

NIGHT = When(30, 2)
ODD = [
    "a b",
    "100% of {{ text }}",
    "it's",
    'say "hi"',
    "back\\slash",
    "\\%",
    "\\\\",
    "$HOME ${HOME} $$",
    "",
    ";",
    "ü",
]
printable_words = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=8)
words = st.one_of(printable_words, st.text("ab%\\'\"$; {}`!*~#", max_size=8))


def run_of(
    *arguments: str, folder: str = "/data", program: str = "/bin/echo", **details: object
) -> ScheduledRun:
    return ScheduledRun(
        name="batchllm-night",
        program=[program],
        arguments=arguments,
        folder=Path(folder),
        **details,  # type: ignore[arg-type]
    )


def cron_that_strips(command: str) -> str:
    """What the shell gets from a cron that removes the backslash of ``\\%`` and of a doubled backslash."""
    return re.sub(r"\\([%\\])", r"\1", command)


def cron_that_keeps(command: str) -> str:
    """What the shell gets from Debian's cron."""
    return command


def read_by_shell(command: str) -> list[str]:
    shown = command.replace("cd / && ", "").replace("/bin/echo", "printf '%s\\0'", 1)
    done = subprocess.run(["env", "-i", "sh", "-c", shown], capture_output=True, check=True)
    return done.stdout.decode().split("\0")[:-1]


@pytest.mark.parametrize("cron", [cron_that_strips, cron_that_keeps])
@given(st.lists(words, min_size=1, max_size=4))
@settings(max_examples=25)
@example(ODD)
@example(["\\\\%", "%\\", "'%'\\'"])
def test_a_shell_behind_any_cron_gets_the_same_words(cron, arguments) -> None:  # type: ignore[no-untyped-def]
    line = crontab_line(run_of(*arguments, folder="/"), NIGHT)
    command = line.removeprefix("30 2 * * * ")
    assert not re.search(r"(?<!\\)%", command), "a bare % ends the command"
    assert read_by_shell(cron(command)) == arguments


def test_folder_and_variables_of_a_crontab_line_are_quoted_too() -> None:
    line = crontab_line(run_of("x", folder="/data/50% off", environment={"NAME": "two words"}), NIGHT)
    assert line == "30 2 * * * cd '/data/50'\\%' off' && NAME='two words' /bin/echo x"


def test_the_status_of_a_job_reaches_cron_unchanged() -> None:
    assert "||" not in crontab_line(run_of("x"), NIGHT)


@pytest.mark.parametrize("word", ["two\nlines", "a\rb"])
def test_a_crontab_line_has_no_room_for_a_line_break(word: str) -> None:
    with pytest.raises(UsageError, match="line break"):
        crontab_line(run_of(word), NIGHT)


def test_a_line_longer_than_cron_takes_is_refused() -> None:
    with pytest.raises(UsageError, match="job into a file"):
        crontab_line(run_of("x" * 990), NIGHT)


def read_by_systemd(value: str, *, variables: bool = True) -> list[str]:
    """Words of a setting as systemd.syntax(7) and systemd.service(5) read them."""
    found: list[str] = []
    rest = value
    while rest := rest.lstrip(" "):
        if rest[0] == '"':
            match = re.match(r'"((?:\\.|[^"\\])*)"', rest)
            assert match is not None, rest
            word = match[1]
        else:
            match = re.match(r"[^ ]+", rest)
            assert match is not None
            word = match[0]
            assert word != ";"
        rest = rest[match.end() :]
        word = re.sub(
            r"\\(x[0-9a-f]{2}|[\\\"'])",
            lambda sign: chr(int(sign[1][1:], 16)) if sign[1][0] == "x" else sign[1],
            word,
        )
        assert not re.search(r"(?<!%)(?:%%)*%(?!%)", word), "a specifier"
        word = word.replace("%%", "%")
        if variables and found:
            assert not re.search(r"(?<!\$)(?:\$\$)*\$(?!\$)", word), "a variable"
            word = word.replace("$$", "$")
        found.append(word)
    return found


def setting(unit: str, name: str) -> list[str]:
    return [line.partition("=")[2] for line in unit.splitlines() if line.startswith(f"{name}=")]


@given(st.lists(st.one_of(words, st.text("a\n\t\x1b%", max_size=5)), max_size=4))
@settings(max_examples=50)
@example(ODD)
def test_systemd_gets_the_same_words(arguments: list[str]) -> None:
    (value,) = setting(service_unit(run_of(*arguments)), "ExecStart")
    assert read_by_systemd(value) == ["/bin/echo", *arguments]


def test_a_service_has_folder_variables_and_true_statuses() -> None:
    unit = service_unit(run_of("x", folder="/data/50% off", environment={"A": 'x "$y" 5%'}, grace_s=300))
    assert setting(unit, "WorkingDirectory") == ["/data/50%% off"]
    assert read_by_systemd(setting(unit, "Environment")[0], variables=False) == ['A=x "$y" 5%']
    assert setting(unit, "SuccessExitStatus") == ["75"]
    assert setting(unit, "OnFailure") == ["batchllm-night-failed.service"]
    assert setting(unit, "TimeoutStopSec") == ["360"], "a stop may take as long as the grace period"


def test_systemd_hands_the_key_over_and_cron_reads_its_file() -> None:
    run = run_of("x", key_file=Path("/etc/my keys/50%"))
    unit = service_unit(run)
    assert setting(unit, "LoadCredential") == ["key:/etc/my keys/50%%"]
    assert setting(unit, "ExecStart") == ["/bin/echo x --api-key-file ${CREDENTIALS_DIRECTORY}/key"]
    assert crontab_line(run, NIGHT).endswith("x --api-key-file '/etc/my keys/50'\\%")


@pytest.mark.parametrize("folder", ["/a\nb", "/a ", "/a\\"])
def test_a_folder_that_no_unit_can_name_is_refused(folder: str) -> None:
    with pytest.raises(UsageError, match="no unit"):
        service_unit(run_of("x", folder=folder))


TIMES = {
    "02:30": ("30 2 * * *", "*-*-* 02:30:00"),
    "2:05": ("5 2 * * *", "*-*-* 02:05:00"),
    "Sun 23:00": ("0 23 * * 0", "Sun *-*-* 23:00:00"),
    "saturday 00:01": ("1 0 * * 6", "Sat *-*-* 00:01:00"),
}


@pytest.mark.parametrize(("at", "fields"), TIMES.items())
def test_a_time_is_the_same_to_cron_and_systemd(at: str, fields: tuple[str, str]) -> None:
    moment = when(at)
    assert (moment.cron, moment.calendar) == fields


def test_hourly_and_weekly() -> None:
    assert when(None) == When(30, 2)
    assert (when(None, hourly=True).cron, when("02:15", hourly=True).cron) == ("0 * * * *", "15 * * * *")
    assert when(None, hourly=True).calendar == "*-*-* *:00:00"
    assert (when(None, weekly=True).cron, when("Fri 03:00", weekly=True).cron) == ("30 2 * * 1", "0 3 * * 5")


@pytest.mark.parametrize(
    "time", ["24:00", "2:60", "noon", "", "02-30", "Mo 02:30", "Caturday 02:30", "02:30:00"]
)
def test_a_time_that_is_none_is_refused(time: str) -> None:
    with pytest.raises(UsageError, match="02:30"):
        when(time)


@pytest.mark.parametrize(
    ("at", "flags"), [("Sun 02:30", {"hourly": True}), (None, {"hourly": True, "weekly": True})]
)
def test_times_that_contradict_each_other_are_refused(at: str | None, flags: dict[str, bool]) -> None:
    with pytest.raises(UsageError, match="hourly"):
        when(at, **flags)


@given(st.text(max_size=20))
@settings(max_examples=50)
def test_any_text_makes_a_name_of_units(text: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9:_.-]+", unit_name(text))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize("moment", [NIGHT, When(5, None), When(0, 3, "Sun")])
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path, moment: When) -> None:
    folder = tmp_path / "50% off"
    folder.mkdir()
    run = run_of(*ODD, "a\nb", folder=str(folder), environment={"A": "b c"}, key_file=Path("/etc/a b:c%"))
    units = {
        ".service": service_unit(run),
        ".timer": timer_unit(run, moment),
        "-failed.service": failure_unit(run),
    }
    paths = [tmp_path / f"{run.name}{ending}" for ending in units]
    for path, text in zip(paths, units.values(), strict=True):
        path.write_text(text + "\n")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, paths)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    complaints = [line for line in done.stderr.splitlines() if run.name in line]
    assert complaints == [], done.stderr
    calendar = subprocess.run(
        ["systemd-analyze", "calendar", moment.calendar], capture_output=True, text=True
    )
    assert calendar.returncode == 0, calendar.stderr
