"""A job that goes on does not look again at the rows that have their end, and counts them all the same."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from batchllm.errors import Interrupted
from batchllm.job import assemble
from batchllm.journal import FinishedRows, Journal, State
from batchllm.plan.lifecycle import FlowLifecycle
from batchllm.plan.row_flow import RowFlow
from batchllm.records import ChatRequest
from batchllm.runner import run_job
from batchllm.runner.summary import Summary
from tests.fakes import FakeClient, Outcome, answered, status
from tests.journal_jobs import key_of, save

ROWS = 40


def rows_of_all_kinds(folder: Path) -> Path:
    """Every fifth row is empty, every seventh is the same as the one before it."""
    texts = [f"row {number - (number % 7 == 6)}" for number in range(ROWS)]
    path = folder / "rows.csv"
    path.write_text(
        "id,text\n" + "".join(f"{n},{'' if n % 5 == 4 else text}\n" for n, text in enumerate(texts))
    )
    return path


class Job:
    """Runs of one job; the first answers of each come from a script."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self.source = rows_of_all_kinds(folder)
        flags = {"input": str(self.source), "prompt": "{{ text }}", "provider": "simulator", "concurrency": 2}
        self.job = assemble("run", {**flags, "no_early_stop": True, **settings}, {})

    def run(self, most: int | None = None) -> tuple[Summary | None, FakeClient]:
        """A run, which ends by a signal after ``most`` answers."""

        def script(request: ChatRequest, seen: int) -> Outcome:
            if most is not None and len(client.sent) > most:
                raise Interrupted(15)
            if request.row_index % 11 == 3:
                return status(400, "not like this")
            return answered(f"answer {request.row_index}")

        client = FakeClient(script, latency_s=0.01)
        try:
            return run_job(self.job, client=client).summary, client
        except Interrupted:
            return None, client


@pytest.mark.parametrize("dedupe", [False, True])
def test_a_job_that_goes_on_builds_only_the_rows_that_are_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dedupe: bool
) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "twice").mkdir()
    whole, _ = Job(tmp_path / "whole", dedupe=dedupe).run()
    job = Job(tmp_path / "twice", dedupe=dedupe)
    _, first = job.run(most=12)
    built: list[int] = []
    start = FlowLifecycle._start

    def counted(self: FlowLifecycle, flow: RowFlow) -> bool:
        built.append(flow.row.index)
        return start(self, flow)

    monkeypatch.setattr(FlowLifecycle, "_start", counted)
    summary, second = job.run()
    assert whole is not None and summary is not None
    assert (summary.rows, summary.answered, summary.failed, summary.skipped) == (
        whole.rows, whole.answered, whole.failed, whole.skipped,
    )  # fmt: skip
    assert summary.failed_by_reason == whole.failed_by_reason
    assert built and min(built) > 8, "the rows before that had their end"
    assert len(first.sent) - 1 + len(second.sent) >= (28 if dedupe else 32) - 1
    third, none = job.run()
    assert third is not None and none.sent == []


def test_what_has_its_end_ends_at_the_first_row_that_has_not(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "out.journal", threaded=False) as journal:
        journal.begin_plan("job")

        async def fill() -> None:
            items: Sequence[tuple[int, bytes | None, str | None]] = [
                (0, key_of("a"), None), (1, None, "skipped"), (2, None, "bad_row\nno such column"),
                (3, key_of("b"), None), (4, key_of("c"), None), (5, key_of("d"), None),
            ]  # fmt: skip
            rows = await journal.admit(items)
            for row, state in ((rows[0], State.ANSWERED), (rows[3], State.FAILED), (rows[5], State.ANSWERED)):
                (attempt_id,) = await journal.intend([row.request_id or 0])
                await save(journal, attempt_id, answered())
                journal.record_outcome(row.request_id or 0, state, attempt_id, 1)

        asyncio.run(fill())
        ends = (State.ANSWERED, State.FAILED, State.PENDING)
        assert sorted(journal.reader().finished_rows(ends, unsendable=True), key=str) == sorted(
            [
                FinishedRows(State.ANSWERED, None, False, 1),
                FinishedRows(None, "skipped", False, 1),
                FinishedRows(None, "bad_row", False, 1),
                FinishedRows(State.FAILED, None, False, 1),
            ],
            key=str,
        )
        assert sum(kind.rows for kind in journal.reader().finished_rows(ends, unsendable=False)) == 2
        assert (
            sum(kind.rows for kind in journal.reader().finished_rows((State.ANSWERED,), unsendable=True)) == 3
        )


def test_rows_that_an_earlier_trial_left_out_are_not_passed_over(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "out.journal", threaded=False) as journal:
        journal.begin_plan("job")
        asyncio.run(_admit(journal, [0, 1, 5]))
        assert journal.reader().finished_rows((State.ANSWERED,), unsendable=True) == []


async def _admit(journal: Journal, indices: Sequence[int]) -> None:
    await journal.admit([(index, None, "skipped") for index in indices])
