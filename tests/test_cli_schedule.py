import shlex
from pathlib import Path

import pytest

from batchllm.cli.schedule import crontab_line, systemd_units

WORDS = ["/opt/my tools/batchllm", "run", "-p", "100% of {{ text }}", "in put.csv", "--quiet"]


def test_a_crontab_line_escapes_every_percent_sign() -> None:
    line = crontab_line(WORDS, Path("/data/50% off"), 2, 30)
    assert line.startswith("30 2 * * * cd '/data/50\\% off' && ")
    assert line.replace("\\%", "").count("%") == 0


def test_a_crontab_line_means_the_same_words_to_a_shell() -> None:
    line = crontab_line(WORDS, Path("/data"), 2, 30)
    command = line.split(" ", 5)[5].replace("\\%", "%")
    between = command.removeprefix("cd /data && ").removesuffix(" || [ $? -eq 75 ]")
    assert shlex.split(between) == WORDS


def test_another_run_at_the_same_job_is_no_failure() -> None:
    assert "|| [ $? -eq 75 ]" in crontab_line(WORDS, Path("/data"), 2, 30)
    assert "SuccessExitStatus=75" in systemd_units(WORDS, Path("/data"), 2, 30)


def test_systemd_units_quote_words_and_escape_specifiers() -> None:
    units = systemd_units([*WORDS, "$HOME"], Path("/data"), 2, 5)
    assert (
        'ExecStart="/opt/my tools/batchllm" run -p "100%% of {{ text }}" "in put.csv" --quiet "$$HOME"'
        in units
    )
    assert "OnCalendar=*-*-* 02:05:00" in units


@pytest.mark.parametrize("time", ["24:00", "2:60", "noon", "", "02-30"])
def test_a_time_that_is_none_is_refused(time: str) -> None:
    from batchllm.cli.schedule import _time_of_day
    from batchllm.errors import UsageError

    with pytest.raises(UsageError, match="02:30"):
        _time_of_day(time)
