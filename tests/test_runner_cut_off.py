"""``--retry-cut-off``: answers that were cut off are paid again with a higher limit, and nothing else is."""

import csv
from pathlib import Path
from typing import Any

import orjson
import pytest

from batchllm.budget.forecast import Forecast
from batchllm.errors import BudgetStop, Interrupted, UsageError
from batchllm.inspect.dry_run import dry_run
from batchllm.inspect.export import export_job
from batchllm.job import assemble
from batchllm.records import ChatRequest
from batchllm.runner import Result, run_job
from tests.batch_jobs import BatchJob, simulated
from tests.fakes import FakeClient, Outcome, answered, lost, status
from tests.test_batch_loop import change_downloads

LONG = {0, 2}
"""The rows whose answers need more than 20 tokens."""


class Bug(Exception):
    """Ends a run as a crash would, with everything received saved."""


def limited(request: ChatRequest, attempt: int, needed: int = 30) -> Outcome:
    """An endpoint whose answers to the long rows need ``needed`` tokens."""
    bound = orjson.loads(request.body).get("max_tokens")
    if request.row_index in LONG and bound is not None and bound < needed:
        return answered(f"half {bound}", finish_reason="length", completion=bound)
    return answered(f"whole {bound}")


class Runs:
    """Runs of one job over four rows.

    Attributes:
        sent: Row and limit of every request, in the order of sending.
    """

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.input = folder / "rows.csv"
        self.input.write_text("text\none\ntwo\nthree\nfour\n")
        self.settings = {
            "input": str(self.input),
            "prompt": "{{ text }}",
            "output": str(folder / "out.csv"),
            **settings,
        }
        self.sent: list[tuple[int, int | None]] = []
        self.forecasts: list[Forecast] = []

    def job(self, **more: Any) -> Any:
        given = {"provider": "simulator", "concurrency": 1, "no_early_stop": True, **self.settings, **more}
        return assemble("run", {name: value for name, value in given.items() if value is not None}, {})

    def run(self, script: Any = limited, **more: Any) -> Result:
        def noted(request: ChatRequest, attempt: int) -> Outcome:
            self.sent.append((request.row_index, orjson.loads(request.body).get("max_tokens")))
            outcome: Outcome | BaseException = script(request, attempt)
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome

        self.sent.clear()
        client = FakeClient(noted, latency_s=0)
        return run_job(self.job(**more), client=client, confirm=self.forecasts.append)

    def retry(self, script: Any = limited, limit: int = 40, **more: Any) -> Result:
        return self.run(script, max_tokens=limit, retry_cut_off=True, **more)

    @property
    def answers(self) -> list[str]:
        with (self.folder / "out.csv").open(newline="") as file:
            return [row["response"] or row["error"] for row in csv.DictReader(file)]


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    runs = Runs(tmp_path)
    runs.run(max_tokens=20)
    assert runs.answers == ["half 20", "whole 20", "half 20", "whole 20"]
    return runs


def test_rows_that_were_cut_off_are_paid_again_with_the_higher_limit_and_no_others(runs: Runs) -> None:
    result = runs.retry()
    assert sorted(runs.sent) == [(0, 40), (2, 40)]
    assert runs.answers == ["whole 40", "whole 20", "whole 40", "whole 20"]
    assert (result.exit_status, result.summary.answers) == (0, 2)
    assert "length" not in result.summary.finish_reasons


def test_the_forecast_says_how_many_rows_and_what_they_cost(runs: Runs) -> None:
    runs.retry()
    before = runs.forecasts[-1]
    assert (before.rows, before.answered, before.cut_off, before.requests) == (4, 2, 2, 2)
    assert before.completion_tokens_upper_bound == 80
    assert before.settings.max_tokens == (40,)


def test_a_dry_run_counts_them_and_changes_nothing(runs: Runs) -> None:
    found = dry_run(runs.job(max_tokens=40, retry_cut_off=True))
    assert (found.forecast.cut_off, found.forecast.answered, found.forecast.requests) == (2, 2, 2)
    assert [request.max_tokens for request in found.first] == [40, 40]
    runs.retry()
    assert len(runs.sent) == 2


def test_the_same_command_again_and_the_first_one_send_nothing(runs: Runs) -> None:
    runs.retry()
    assert (runs.retry().exit_status, runs.sent) == (0, [])
    assert (runs.run(max_tokens=20).exit_status, runs.sent) == (0, [])
    assert runs.answers == ["whole 40", "whole 20", "whole 40", "whole 20"]


def test_what_is_cut_off_at_the_higher_limit_too_waits_for_a_still_higher_one(runs: Runs) -> None:
    def needs_50(request: ChatRequest, attempt: int) -> Outcome:
        return limited(request, attempt, needed=50)

    runs.retry(needs_50, 40)
    assert runs.answers[0] == "half 40"
    runs.retry(needs_50, 40)
    assert runs.sent == []
    runs.retry(needs_50, 60)
    assert sorted(runs.sent) == [(0, 60), (2, 60)]
    assert runs.answers[0] == "whole 60"


@pytest.mark.parametrize(
    "outcome",
    [
        status(400, "max_tokens is too large"),
        status(500),
        lost(),
        answered("", finish_reason="content_filter"),
    ],
    ids=["rejected", "error", "lost", "filtered"],
)
def test_an_answer_stays_where_the_new_attempt_fails(runs: Runs, outcome: Outcome) -> None:
    def failing(request: ChatRequest, attempt: int) -> Outcome:
        return outcome if request.row_index == 0 else limited(request, attempt)

    result = runs.retry(failing, max_attempts=1)
    assert runs.answers == ["half 20", "whole 20", "whole 40", "whole 20"]
    assert (result.exit_status, result.summary.failed) == (0, 0)
    assert runs.run(max_tokens=20).exit_status == 0
    assert runs.sent == [], "a kept answer is an answer"
    runs.retry()
    assert runs.sent == [(0, 40)]


@pytest.mark.parametrize("end", [Bug(), Interrupted(15)], ids=["killed", "stopped"])
def test_the_same_command_goes_on_after_an_end_in_between(runs: Runs, end: BaseException) -> None:
    def ends(request: ChatRequest, attempt: int) -> Outcome | BaseException:
        return end if runs.sent[1:] else limited(request, attempt)

    with pytest.raises((Bug, Interrupted)):
        runs.retry(ends)
    runs.retry()
    assert runs.sent == [(2, 40)]
    assert runs.answers == ["whole 40", "whole 20", "whole 40", "whole 20"]


def test_an_end_in_between_leaves_the_old_answers_to_the_first_command(runs: Runs) -> None:
    with pytest.raises(Bug):
        runs.retry(lambda request, attempt: Bug())
    export_job(runs.folder / "out.csv", to=runs.folder / "so-far.csv", force=True)
    assert "three,half 20" in (runs.folder / "so-far.csv").read_text(), "what was not tried is there"
    runs.run(max_tokens=20)
    assert runs.sent == []
    assert runs.answers == ["half 20", "whole 20", "half 20", "whole 20"]


def test_a_budget_that_ends_keeps_every_answer(runs: Runs) -> None:
    with pytest.raises(BudgetStop):
        runs.retry(max_requests=5)
    assert runs.sent == [(0, 40)]
    runs.run(max_tokens=20)
    assert sorted(runs.answers) == ["half 20", "whole 20", "whole 20", "whole 40"]
    runs.retry()
    assert len(runs.sent) == 1


@pytest.mark.parametrize("limit", [20, 19, None])
def test_without_a_higher_limit_it_is_refused_and_nothing_changes(runs: Runs, limit: int | None) -> None:
    before = (runs.folder / "out.csv.journal").read_bytes()
    with pytest.raises(UsageError, match="--max-tokens"):
        runs.run(max_tokens=limit, retry_cut_off=True)
    assert (runs.folder / "out.csv.journal").read_bytes() == before


@pytest.mark.parametrize("other", ["accept_change", "restart"])
def test_it_is_one_consent_and_no_other(runs: Runs, other: str) -> None:
    with pytest.raises(UsageError, match="leave out"):
        runs.retry(**{other: True})


def test_another_change_beside_it_is_refused_as_ever(runs: Runs) -> None:
    with pytest.raises(UsageError, match="would be paid again"):
        runs.retry(prompt="Say it: {{ text }}")
    with pytest.raises(UsageError, match="input was changed"):
        runs.input.write_text("text\nzero\none\ntwo\nthree\nfour\n")
        runs.retry()


def test_a_limit_of_the_template_is_raised_too(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        '[[messages]]\nrole = "user"\ncontent = "{{ text }}"\n[parameters]\nmax_tokens = 20\n'
        '[answer]\ncolumn = "response"\n'
    )
    runs = Runs(tmp_path, prompt=None, template=str(tmp_path / "mine.toml"))
    runs.run()
    runs.retry()
    assert sorted(runs.sent) == [(0, 40), (2, 40)]


def test_json_that_was_cut_off_is_asked_for_again(tmp_path: Path) -> None:
    def answers(request: ChatRequest, attempt: int) -> Outcome:
        bound = orjson.loads(request.body)["max_tokens"]
        if request.row_index in LONG and bound < 30:
            return answered('{"n": 1', finish_reason="length", completion=bound)
        return answered('{"n": 1}')

    runs = Runs(tmp_path, schema="n int", reask=0)
    assert runs.run(answers, max_tokens=20).exit_status == 1
    assert runs.retry(answers).exit_status == 0
    assert sorted(runs.sent) == [(0, 40), (2, 40)]


def test_rows_with_requests_of_their_own_keep_a_limit_of_their_own(tmp_path: Path) -> None:
    runs = Runs(tmp_path, prompt=None)
    source = tmp_path / "rows.jsonl"
    message = '"messages": [{"role": "user", "content": "hi"}]'
    source.write_text(f'{{{message}, "max_tokens": 10}}\n{{{message}}}\n{{{message}, "user": "x"}}\n')
    runs.settings |= {"input": str(source)}
    runs.run(max_tokens=20)
    runs.retry()
    assert runs.sent == [(2, 40)]


def test_in_batches_an_answer_stays_until_a_better_one_is_collected(tmp_path: Path) -> None:
    with simulated() as server:
        job = BatchJob(tmp_path, server.base_url, rows=4, task="run", prompt="{{ text }}")
        job.until_done(max_tokens=3)
        before = [row["response"] for row in job.answers]
        assert {row["finish_reason"] for row in job.answers} == {"length"}
        job.begin(max_tokens=50, retry_cut_off=True)
        assert server.ledger.batches == 2
        assert job.until_done(max_tokens=50, retry_cut_off=True).exit_status == 0
        assert server.ledger.batch_requests == 8
        assert {row["finish_reason"] for row in job.answers} == {"stop"}
        assert all(row["response"].startswith(old) for row, old in zip(job.answers, before, strict=True))
        job.until_done(max_tokens=50, retry_cut_off=True)
        assert server.ledger.batch_requests == 8


def test_in_batches_an_answer_stays_where_the_new_one_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with simulated() as server:
        job = BatchJob(tmp_path, server.base_url, rows=2, task="run", prompt="{{ text }}")
        job.until_done(max_tokens=3)
        before = job.answers
        bad = b'"status_code":400'
        change_downloads(
            monkeypatch, lambda lines: [line.replace(b'"status_code":200', bad) for line in lines], times=1
        )
        job.begin(max_tokens=50, retry_cut_off=True)
        assert job.until_done(max_tokens=3).exit_status == 0, "the first command collects them"
        assert [row["response"] for row in job.answers] == [row["response"] for row in before]
