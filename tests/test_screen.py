"""Words wrap at the width of a terminal, and colours come only where they are wanted."""

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wcwidth import wcswidth

from batchllm.screen import Tone, columns_of, has_colours, painted, width_of, wrapped
from tests.screen import screen


class Fake(io.StringIO):
    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


@given(st.text("ab é漢字,-/\n", max_size=300), st.integers(20, 120))
@settings(max_examples=100)
def test_lines_fit_and_words_stay_whole(text: str, columns: int) -> None:
    lines = wrapped(text, columns).split("\n")
    assert " ".join(lines).split() == text.split()
    too_long = [line for line in lines if wcswidth(line) > columns]
    assert all(
        max(map(wcswidth, line.split())) + len(line) - len(line.lstrip()) > columns for line in too_long
    )


def test_what_fits_stays_as_it_is() -> None:
    text = "  a  b\n\n   c"
    assert wrapped(text, 20) == text


def test_a_wrapped_line_keeps_its_indent() -> None:
    assert wrapped("  one two three", 10) == "  one two\n  three"


def test_a_path_that_is_longer_than_a_line_stays_beside_its_word() -> None:
    assert (
        wrapped("Written: /a/long/path/to/a/file.csv and more", 20)
        == "Written: /a/long/path/to/a/file.csv\nand more"
    )


def test_nothing_wraps_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert columns_of(Fake(terminal=False)) is None
    assert wrapped("word " * 100, None) == "word " * 100


def test_the_width_is_that_of_the_terminal_behind_the_stream() -> None:
    with screen(57) as terminal, terminal.path.open("w") as stream:
        assert columns_of(stream) == 57


def test_a_terminal_without_a_size_has_eighty_columns() -> None:
    assert columns_of(Fake(terminal=True)) == 80


@pytest.mark.parametrize(
    ("variables", "terminal", "coloured"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"NO_COLOR": "1"}, True, False),
        ({"NO_COLOR": ""}, True, True),
        ({"FORCE_COLOR": "1"}, False, True),
        ({"FORCE_COLOR": "0"}, False, False),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, True, False),
        ({"TERM": "dumb"}, True, False),
    ],
)
def test_colours_come_where_they_are_wanted(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], terminal: bool, coloured: bool
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    stream = Fake(terminal)
    assert has_colours(stream) is coloured
    assert painted("no", Tone.FAILED, stream) == ("\x1b[31mno\x1b[0m" if coloured else "no")


def test_a_colour_and_a_mark_take_no_room_and_a_wide_character_two() -> None:
    assert (width_of("\x1b[31mab\x1b[0m"), width_of("漢字"), width_of("e\u0301")) == (2, 4, 1)
