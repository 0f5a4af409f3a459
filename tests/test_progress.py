import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchllm.progress import PLAIN_LINES, Bar, Plain, Quiet, compact, progress_for
from tests.screen import screen


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar_with_rows_tokens_and_failures() -> None:
    screen = Terminal()
    bar = progress_for("classify", quiet=False, stream=screen)
    bar.start(200, 50)
    bar.show(120, 3, 45_600, "$0.02", "limit: 600 requests/min")
    bar.close()
    assert isinstance(bar, Bar)
    text = screen.getvalue()
    assert "classify" in text
    assert "120/200" in text
    assert "limit: 600 requests/min, 3 failed, 45.6k tokens, $0.02" in text


@pytest.mark.parametrize("columns", [80, 100, 120])
@pytest.mark.parametrize(
    "waits",
    [
        "waiting 12 s for the rate limit",
        "endpoint unreachable, trying until 14:32",
        "limit: 600 requests/min",
    ],
)
@pytest.mark.parametrize(("done", "total"), [(120, 200), (120_000, 5_000_000)])
def test_what_is_waited_for_is_never_cut_off(columns: int, waits: str, done: int, total: int) -> None:
    with screen(columns) as terminal, terminal.path.open("w") as stream:
        bar = progress_for("classify", quiet=False, stream=stream)
        bar.start(total, 50)
        bar.show(done, 3, 45_600, "$0.02, about $1.30 in all", waits)
        bar.close()
    last = terminal.states[-1]
    assert waits in last
    assert f"{done}/{total}" in last
    assert len(last) <= columns


def test_a_line_stands_above_the_bar_and_obeys_no_escape() -> None:
    screen = Terminal()
    bar = Bar("classify", screen)
    bar.start(200, 50)
    bar.tell("The endpoint refuses requests (429: \x1b[31mno).")
    bar.close()
    assert "The endpoint refuses requests (429: \\x1b[31mno).\n" in screen.getvalue()


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
    assert log.getvalue() == "run: 61 of 100 rows, 2 failed, 1.5k tokens, $0.02, limit: 90k tokens/min\n"


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
