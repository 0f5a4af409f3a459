import io
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wcwidth import wcswidth

from batchllm.progress import BAR, LEAST_BAR, PLAIN_LINES, Bar, Plain, Quiet, compact, fitted, progress_for
from tests.screen import Screen, screen


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


NOTE = "41 rows/s, 14 min left, $0.02, about $1.30 in all, limit: 600 requests/min"


def drawn(columns: int, done: int, total: int, failed: int = 3, note: str = NOTE, waits: str = "") -> Screen:
    """A bar on a terminal, after one state of a run."""
    with screen(columns) as terminal, terminal.path.open("w") as stream:
        bar = progress_for("classify", quiet=False, stream=stream)
        bar.start(total, 0)
        bar.show(done, failed, 45_600, note, waits)
        bar.close()
    assert isinstance(bar, Bar)
    assert all(wcswidth(state) < columns for state in terminal.states)
    return terminal


def test_a_wide_terminal_gets_rows_failures_rate_time_cost_and_limit_beside_a_bar() -> None:
    last = drawn(140, 120, 200).states[-1]
    assert re.fullmatch(
        r"classify  60% [█▏▎▍▌▋▊▉ ]{10,} 120/200, 3 failed, 41 rows/s, 14 min left, \$0\.02, about \$1\.30 in all, "
        r"limit: 600 requests/min, 45\.6k tokens",
        last,
    )


@pytest.mark.parametrize(("done", "total"), [(120, 200), (1_240, 2_000), (120_000, 5_000_000)])
def test_eighty_columns_have_room_for_rows_failures_rate_time_and_cost(done: int, total: int) -> None:
    assert f"{done:,}/{total:,}, 3 failed, 41 rows/s, 14 min left, $0.02" in drawn(80, done, total).states[-1]


def test_eighty_columns_have_room_for_a_bar() -> None:
    assert "█" in drawn(80, 1_240, 2_000).states[-1]


@pytest.mark.parametrize("columns", [60, 80, 100, 120])
@pytest.mark.parametrize(
    "waits", ["waiting 12 s for the rate limit", "endpoint unreachable, until 28 Nov 01:53"]
)
def test_what_is_waited_for_is_never_cut_off(columns: int, waits: str) -> None:
    last = drawn(columns, 120, 200, note="$0.02, about $1.30 in all", waits=waits).states[-1]
    assert "120/200" in last
    assert waits in last


@given(
    st.integers(20, 200),
    st.integers(0, 10**7),
    st.text("ab1$ ,é漢", max_size=80),
    st.text("ab 漢", max_size=50),
)
@settings(max_examples=40)
def test_a_bar_fits_into_any_terminal(columns: int, done: int, note: str, waits: str) -> None:
    line = fitted("classify  60%", [f"{done:,}/{10**7:,}", waits], note.split(", "), columns)
    assert wcswidth(line.replace(BAR, "█" * LEAST_BAR)) < columns


def test_what_fails_and_what_waits_has_a_colour_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert "\x1b[31m3 failed\x1b[0m" in drawn(80, 120, 200).text
    assert "\x1b[35mwaiting for batches\x1b[0m" in drawn(80, 120, 200, waits="waiting for batches").text
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in drawn(80, 120, 200, waits="waiting for batches").text


def test_a_line_stands_above_the_bar_and_obeys_no_escape() -> None:
    with screen(40) as terminal, terminal.path.open("w") as stream:
        bar = Bar("classify", stream)
        bar.start(200, 50)
        bar.tell("The endpoint refuses requests (429: \x1b[31mno); all wait.")
        bar.close()
    assert terminal.lines[:2] == ["The endpoint refuses requests (429:", "\\x1b[31mno); all wait."]


def test_a_log_gets_the_lines_it_is_told() -> None:
    log = io.StringIO()
    Plain("run", log).tell("Cannot reach http://127.0.0.1:9/v1; trying until 14:42.")
    assert log.getvalue() == "Cannot reach http://127.0.0.1:9/v1; trying until 14:42.\n"


@given(st.lists(st.integers(0, 5_000), max_size=200), st.integers(0, 5_000))
def test_a_log_gets_few_plain_lines_and_no_carriage_return(steps: list[int], before: int) -> None:
    log = io.StringIO()
    plain = progress_for("summarize", quiet=False, stream=log)
    assert isinstance(plain, Plain)
    plain.start(5_000, before)
    for done in sorted(step for step in steps if step >= before):
        plain.show(done, 0, 0, "")
    plain.close()
    assert log.getvalue().count("\n") <= PLAIN_LINES
    assert "\r" not in log.getvalue()


def test_a_resumed_job_does_not_tell_what_an_earlier_run_told() -> None:
    log = io.StringIO()
    plain = Plain("run", log)
    plain.start(100, 55)
    plain.show(58, 0, 0, "")
    assert log.getvalue() == ""
    plain.show(61, 2, 1_500, "$0.02", "limit: 90k tokens/min")
    assert log.getvalue() == "run: 61 of 100 rows, 2 failed, limit: 90k tokens/min, $0.02, 1.5k tokens\n"


def test_quiet_shows_nothing() -> None:
    screen = Terminal()
    quiet = progress_for("run", quiet=True, stream=screen)
    quiet.start(10, 0)
    quiet.show(5, 1, 2, "x", "y")
    quiet.tell("The endpoint asks for a pause of 12 s.")
    quiet.close()
    assert isinstance(quiet, Quiet)
    assert screen.getvalue() == ""


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (999, "999"), (1_000, "1k"), (12_345, "12.3k"), (4_500_000, "4.5M"), (2_000_000_000, "2G")],
)
def test_counts_are_compact(number: int, text: str) -> None:
    assert compact(number) == text
