"""The early stop: a job whose first answers are all unusable stops, and says why."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batchllm.budget.early_stop import FIRST, EarlyStop
from batchllm.records import Answer
from batchllm.simulator import ScriptedResponse, SimulatorSettings, start_in_thread
from tests.command import Command, Said
from tests.fakes import chat_body

EMPTY = Answer(error="nothing", reason="empty")
CUT = Answer(text="half a sen", finish_reason="length")
NO_LABEL = Answer(text="I think so", error="no label: I think so", reason="no_label")
GOOD = Answer(text="fine", finish_reason="stop")


def told(early_stop: EarlyStop, *answers: Answer) -> list[str | None]:
    return [early_stop.check(row, answer) for row, answer in enumerate(answers)]


@pytest.mark.parametrize(
    ("answer", "flag"),
    [(EMPTY, "--model"), (CUT, "--max-tokens"), (NO_LABEL, "--labels")],
    ids=["empty", "cut", "label"],
)
def test_twenty_useless_answers_stop_the_job_and_name_the_flag(answer: Answer, flag: str) -> None:
    said = told(EarlyStop(bound=150), *[answer] * FIRST)
    assert said[:-1] == [None] * (FIRST - 1)
    assert flag in (said[-1] or "")
    assert "--no-early-stop" in (said[-1] or "")
    assert "row 1 got" in (said[-1] or "")


@pytest.mark.parametrize(("steps", "words"), [({}, "about parts of texts"), ({"part": (True, 5)}, "of part")])
def test_answers_about_parts_are_called_so_unless_a_step_has_that_name(
    steps: dict[str, tuple[bool, int | None]], words: str
) -> None:
    early_stop = EarlyStop(steps=steps)
    said = [early_stop.check(row, NO_LABEL, "part") for row in range(FIRST)]
    assert f"none of the first 20 answers {words} is usable" in (said[-1] or "")


def test_they_need_not_be_useless_alike() -> None:
    said = told(EarlyStop(), *[EMPTY] * 5, *[NO_LABEL] * 15)
    assert "15 of them hold none of the labels" in (said[-1] or "")


def test_one_answer_of_use_releases_it_for_good() -> None:
    early_stop = EarlyStop()
    assert told(early_stop, *[EMPTY] * 19, GOOD, *[EMPTY] * 100) == [None] * 120
    assert early_stop.useful == {""}


def test_a_label_that_was_cut_is_a_label() -> None:
    assert told(EarlyStop(cut_is_useless=False), *[CUT] * 50) == [None] * 50


def test_an_inactive_early_stop_checks_nothing() -> None:
    assert told(EarlyStop(inactive=True), *[EMPTY] * 50) == [None] * 50


def test_what_is_shown_commands_no_terminal() -> None:
    evil = Answer(text="\x1b[2J\u202eevil" + "x" * 500, error="e", reason="no_label")
    sentence = told(EarlyStop(), *[evil] * FIRST)[-1] or ""
    assert "\x1b" not in sentence
    assert "\u202e" not in sentence
    assert len(sentence) < 800


Run = Callable[..., tuple[Said, int]]


@pytest.fixture
def run(batchllm: Command, tmp_path: Path) -> Run:
    """Runs a job of many rows against a server that always answers the same."""
    source = tmp_path / "in.csv"
    source.write_text("text\n" + "".join(f"text {row}\n" for row in range(300)), "utf-8")

    def run(body: bytes | None, *options: Any, task: tuple[str, ...] = ("classify",)) -> tuple[Said, int]:
        script = (lambda request: ScriptedResponse(body=body)) if body else None
        with start_in_thread(SimulatorSettings(), script=script) as server:
            at = (
                "--provider",
                "simulator",
                "--base-url",
                server.base_url,
                "-c",
                "4",
                "-o",
                tmp_path / "o.csv",
            )
            return batchllm(*task, source, *at, *options), server.ledger.requests

    return run


def test_a_job_without_labels_stops_early_with_status_3(run: Run, tmp_path: Path) -> None:
    said, sent = run(chat_body("Well, that depends."))
    assert said.status == 3
    assert FIRST <= sent <= FIRST + 4
    assert "row 1 got: 'Well, that depends.'" in said.err
    assert not (tmp_path / "o.csv").exists()


def test_no_early_stop_goes_on(run: Run) -> None:
    run(chat_body("Well, that depends."))
    said, _ = run(chat_body("Well, that depends."), "--no-early-stop")
    assert said.status == 1


def test_answers_that_were_cut_stop_it_too(run: Run) -> None:
    said, sent = run(chat_body("half a sen", finish_reason="length"), task=("summarize",))
    assert said.status == 3
    assert "max_tokens 150" in said.err
    assert sent <= FIRST + 4


def test_a_job_that_had_answers_of_use_is_not_stopped_early_when_it_goes_on(run: Run) -> None:
    assert run(None, "-n", 30)[0].status == 0
    said, sent = run(chat_body("Well, that depends."))
    assert said.status == 1
    assert sent == 270
