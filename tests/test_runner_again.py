"""Asking once more across runs: an answer that was paid is gone on from, never paid for again."""

from pathlib import Path

import orjson
import pytest

from batchllm.budget.forecast import Forecast
from batchllm.errors import Interrupted
from batchllm.job import Job, assemble
from batchllm.online.outcome import OutcomeHandler
from batchllm.records import ChatRequest
from batchllm.runner import run_job
from tests.fakes import FakeClient, Outcome, answered, lost, status

WRONG, RIGHT = answered('{"n": "one"}'), answered('{"n": 1}')


class Bug(Exception):
    """Ends a run as a crash would, with everything received saved."""


def job_of(folder: Path, **settings: object) -> Job:
    path = folder / "rows.csv"
    path.write_text("text\nHow many?\n")
    flags = {"input": str(path), "prompt": "{{ text }}", "schema": "n int", "provider": "simulator"}
    return assemble("run", {**flags, "no_early_stop": True, **settings}, {})


class Runs:
    """Runs of one job, each with answers of its own.

    Attributes:
        bodies: The messages of every request, the system message left out.
    """

    def __init__(self, folder: Path, **settings: object) -> None:
        self.folder = folder
        self.job = job_of(folder, **settings)
        self.bodies: list[list[dict[str, str]]] = []

    def run(self, *answers: Outcome | BaseException) -> int:
        left = list(answers)

        def script(request: ChatRequest, attempt: int) -> Outcome:
            self.bodies.append(orjson.loads(request.body)["messages"][1:])
            outcome = left.pop(0)
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome

        return run_job(self.job, client=FakeClient(script, latency_s=0)).exit_status

    @property
    def output(self) -> str:
        return (self.folder / "rows.run.simulated.csv").read_text()


def test_a_crash_before_the_second_question_goes_on_with_it(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    with pytest.raises(Bug):
        runs.run(WRONG, Bug())
    assert runs.run(RIGHT) == 0
    first, second, third = runs.bodies
    assert second == third
    assert third[: len(first)] == first
    assert third[1] == {"role": "assistant", "content": '{"n": "one"}'}
    assert "How many?,1,stop" in runs.output


def test_a_crash_after_the_last_question_does_not_reask(tmp_path: Path) -> None:
    runs = Runs(tmp_path, reask=2)
    with pytest.raises(Bug):
        runs.run(WRONG, WRONG, Bug())
    assert runs.run(WRONG) == 1
    assert len(runs.bodies) == 4
    assert len(runs.bodies[3]) == 5, "the question, and twice an answer with its complaint"
    assert "'one' is not of type 'integer'" in runs.output
    assert runs.run() == 1
    assert len(runs.bodies) == 4


def test_a_row_whose_second_question_got_no_answer_goes_on_with_it(tmp_path: Path) -> None:
    runs = Runs(tmp_path, max_attempts=2)
    assert runs.run(WRONG, lost(), lost()) == 1
    assert runs.run(RIGHT) == 0
    assert runs.bodies[1] == runs.bodies[2] == runs.bodies[3]


def test_a_row_that_failed_for_good_begins_anew_when_it_is_asked_for_again(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    assert runs.run(WRONG, WRONG) == 1
    runs.job = job_of(tmp_path, retry_failed=True)
    assert runs.run(WRONG, RIGHT) == 0
    assert runs.bodies[0] == runs.bodies[2]


@pytest.mark.parametrize("fewer", [0, 1])
def test_an_end_that_a_crash_left_unwritten_is_written_by_the_next_run(tmp_path: Path, fewer: int) -> None:
    """With fewer questions allowed than before, the last answer of the dead run is the row's end."""
    runs = Runs(tmp_path, reask=2)
    with pytest.raises(Bug):
        runs.run(WRONG, WRONG, Bug())
    runs.job = job_of(tmp_path, reask=fewer)
    assert runs.run() == 1
    assert len(runs.bodies) == 3
    assert "'one' is not of type 'integer'" in runs.output
    assert runs.run() == 1
    assert len(runs.bodies) == 3


def test_refused_and_failed_attempts_in_between_do_not_count_as_questions(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    with pytest.raises(Bug):
        runs.run(WRONG, status(500), Bug())
    assert runs.run(status(500), RIGHT) == 0
    assert runs.bodies[1] == runs.bodies[2] == runs.bodies[3] == runs.bodies[4]


def test_an_interrupted_run_is_no_different(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    with pytest.raises(Interrupted):
        runs.run(WRONG, Interrupted(15))
    assert runs.run(RIGHT) == 0
    assert len(runs.bodies) == 3


def test_an_answer_that_a_crash_left_unread_is_read_as_its_own_row_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows with tasks of their own: what is no label for one of them is a failure, to be sent again when asked."""
    source = tmp_path / "rows.jsonl"
    source.write_text('{"task": "classify", "text": "Good."}\n{"task": "classify", "text": "Bad."}\n')
    flags = {"input": str(source), "provider": "simulator", "no_early_stop": True, "concurrency": 1}
    sent: list[int] = []

    def run(*answers: Outcome, **more: object) -> int:
        left = list(answers)

        def script(request: ChatRequest, attempt: int) -> Outcome:
            sent.append(request.row_index)
            return left.pop(0)

        job = assemble("run", {**flags, **more}, {})
        return run_job(job, client=FakeClient(script, latency_s=0)).exit_status

    def dies(self: OutcomeHandler, *outcome: object) -> None:
        raise Bug

    with monkeypatch.context() as dead, pytest.raises(Bug):
        dead.setattr(OutcomeHandler, "handle", dies)
        run(answered("no idea"))
    assert run(answered("negative")) == 1
    assert sent == [0, 1], "a paid answer is not paid again"
    assert run(answered("positive"), retry_failed=True) == 0
    assert sent == [0, 1, 0]


@pytest.mark.parametrize(
    ("settings", "reply", "expected"),
    [
        ({"schema": None}, answered("One."), (1, 0)),
        ({}, RIGHT, (1, 0)),
        ({}, WRONG, (0, 0)),
        ({"reask": 0}, WRONG, (0, 1)),
        ({"samples": 2, "schema": None}, answered("One."), (0, 0)),
    ],
)
def test_an_answer_that_a_crash_left_unread_counts_before_the_next_run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, object],
    reply: Outcome,
    expected: tuple[int, int],
) -> None:
    def dies(self: OutcomeHandler, *outcome: object) -> None:
        raise Bug

    def confirm(forecast: Forecast) -> None:
        seen.append((forecast.answered, forecast.failed))
        raise Bug

    seen: list[tuple[int | None, int | None]] = []
    job = job_of(tmp_path, concurrency=1, **settings)
    with monkeypatch.context() as dead, pytest.raises(Bug):
        dead.setattr(OutcomeHandler, "handle", dies)
        run_job(job, client=FakeClient(lambda request, attempt: reply, latency_s=0))
    with pytest.raises(Bug):
        run_job(job, confirm=confirm)
    assert seen == [expected]


@pytest.mark.parametrize("chain", [False, True])
def test_a_row_that_failed_before_is_no_answer_that_the_journal_had(tmp_path: Path, chain: bool) -> None:
    (tmp_path / "in.csv").write_text("text\nfirst\nsecond\n")
    steps = '[[steps]]\nname = "a"\nprompt = "{{ text }}"\n' if chain else 'prompt = "{{ text }}"\n'
    table = '[job]\ninput = "in.csv"\noutput = "out.csv"\nprovider = "simulator"\nno_early_stop = true\n'
    (tmp_path / "job.toml").write_text(table + steps)
    job = assemble("run", {"job_file": str(tmp_path / "job.toml")}, {})
    for before in (0, 1):
        client = FakeClient(lambda request, attempt: answered("ok" if b"first" in request.body else ""))
        summary = run_job(job, client=client).summary
        assert (summary.answered, summary.failed, summary.answered_before) == (1, 1, before)
