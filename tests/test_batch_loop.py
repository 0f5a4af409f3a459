"""Jobs in batch mode, call after call, against a simulator whose batches end in every way there is."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import pytest

from batchllm.batch.lines import request_line
from batchllm.batch.waiting import waiting_for
from batchllm.client.batches import BatchApi, CallFailed, RemoteBatch
from batchllm.errors import BudgetStop, NotReady, Unavailable, UsageError
from batchllm.inspect.batches import cancel_batches, list_batches
from batchllm.records import Failure, FailureKind, Paid
from batchllm.retry import classify
from tests.batch_jobs import FACTS, BatchJob, simulated

Lines = Callable[[list[bytes]], list[bytes]]


def whole(job: BatchJob) -> None:
    """Every row has its own answer."""
    rows = job.answers
    assert [row["id"] for row in rows] == [str(number) for number in range(len(rows))]
    assert {row["label"] for row in rows} == {"positive"}


def change_downloads(monkeypatch: pytest.MonkeyPatch, change: Lines, *, times: int = 1) -> None:
    """Lets files of results arrive changed, the first ``times`` of them."""
    download = BatchApi.download
    left = [times]

    async def changed(self: BatchApi, file_id: str, to: IO[bytes]) -> int:
        size = await download(self, file_id, to)
        if left[0]:
            left[0] -= 1
            to.seek(0)
            lines = change(to.readlines())
            to.seek(0)
            to.truncate()
            to.writelines(lines)
        return size

    monkeypatch.setattr(BatchApi, "download", changed)


def write_lines(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[int, bytes], bytes], *, files: int = 1
) -> None:
    """Lets the first files of requests go out with other lines."""
    names: list[str] = []

    def changed(name: str, number: int, url: str, body: bytes) -> bytes:
        if name not in names:
            names.append(name)
        line = request_line(name, number, url, body)
        return change(number, line) if names.index(name) < files else line

    monkeypatch.setattr("batchllm.batch.submit.request_line", changed)


# -- the loop --------------------------------------------------------------------------------------------------


def test_the_first_call_creates_and_a_later_one_collects(tmp_path: Path) -> None:
    with simulated() as server:
        job = BatchJob(tmp_path, server.base_url)
        with pytest.raises(NotReady, match="1 batch is under way, 0 of 30 requests done") as stopped:
            job.call()
        assert stopped.value.exit_status == 75
        assert stopped.value.silent
        assert not job.output.exists()
        assert job.counts().pending == 30
        result = job.until_done()
        assert result.exit_status == 0
        assert (result.summary.requests, result.summary.answered_before) == (30, 0)
        assert (server.ledger.batches, server.ledger.batch_requests, server.ledger.requests) == (1, 30, 0)
        whole(job)


def test_a_finished_job_makes_no_batch_and_leaves_the_same_bytes(tmp_path: Path) -> None:
    with simulated() as server:
        job = BatchJob(tmp_path, server.base_url)
        job.until_done()
        before = job.output.read_bytes()
        result = job.call()
        assert (result.exit_status, result.summary.answered_before) == (0, 30)
        assert (server.ledger.batches, server.ledger.files) == (1, 1)
        assert job.output.read_bytes() == before


def test_waiting_goes_around_until_every_row_has_its_end(tmp_path: Path) -> None:
    with simulated(seconds=0.2) as server:
        job = BatchJob(tmp_path, server.base_url)
        assert job.call(wait=True).exit_status == 0
        assert server.ledger.batches == 1
        whole(job)


def test_files_are_cut_and_their_batches_collected_together(tmp_path: Path) -> None:
    with simulated() as server:
        job = BatchJob(tmp_path, server.base_url, rows=25)
        job.facts = replace(FACTS, max_requests=10)
        job.until_done()
        assert [batch.requests for batch in job.batches] == [10, 10, 5]
        assert server.ledger.batch_requests == 25
        whole(job)


def test_only_the_chosen_rows_are_sent_and_the_full_job_reuses_them(tmp_path: Path) -> None:
    with simulated() as server:
        job = BatchJob(tmp_path, server.base_url)
        job.until_done(limit=5)
        assert server.ledger.batch_requests == 5
        job.until_done()
        assert (server.ledger.batches, server.ledger.batch_requests) == (2, 30)
        whole(job)


def test_equal_rows_share_one_request_with_dedupe(tmp_path: Path) -> None:
    with simulated() as server:
        job = BatchJob(tmp_path, server.base_url)
        job.input.write_text("id,text\n" + "".join(f"{n},it is great {n % 4}\n" for n in range(20)))
        job.until_done(dedupe=True)
        assert server.ledger.batch_requests == 4
        whole(job)


def test_rows_with_tasks_of_their_own_go_one_batch_a_model(tmp_path: Path) -> None:
    rows = [
        {"model": f"model-{n % 2}", "messages": [{"role": "user", "content": f"Say {n}"}]} for n in range(6)
    ]
    path = tmp_path / "jobs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with simulated() as server:
        job = BatchJob(tmp_path, server.base_url)
        result = job.until_done(task="run", input=str(path))
        assert (result.summary.answered, server.ledger.batches) == (6, 2)
        assert sorted(batch.model for batch in job.batches) == ["model-0", "model-1"]


# -- how batches end -------------------------------------------------------------------------------------------


def test_an_expired_batch_keeps_what_was_done_and_the_rest_goes_again(tmp_path: Path) -> None:
    with simulated(expire_after_fraction=0.5) as server:
        job = BatchJob(tmp_path, server.base_url, rows=20)
        job.begin()
        with pytest.raises(NotReady, match="of 10 requests"):
            job.until_next_batch()
        assert job.counts().answered == 10
        first, second = job.batches
        assert (first.status, first.finished_rows, second.requests) == ("expired", 10, 10)
        assert {row.attempts for row in job.requests()} == {0, 1}  # the rest used no attempt up


def test_batches_that_bring_nothing_stop_the_job_after_three(tmp_path: Path) -> None:
    with simulated(expire_after_fraction=0.0) as server:
        job = BatchJob(tmp_path, server.base_url, rows=5)
        with pytest.raises(Unavailable, match="the last 3 batches ended"):
            job.until_done()
        assert server.ledger.batches == 3
        assert job.call(via="online").exit_status == 0
        assert server.ledger.requests == 5


def test_a_cancelled_batch_keeps_what_was_done_and_the_rest_goes_again(tmp_path: Path) -> None:
    lasts = [True]

    def cancelling(batch: dict[str, Any]) -> dict[str, Any]:
        is_held = lasts[0] and batch["status"] == "cancelled"
        return (
            batch | {"status": "cancelling", "output_file_id": None, "error_file_id": None}
            if is_held
            else batch
        )

    with simulated(seconds=60.0, show=cancelling) as server:
        job = BatchJob(tmp_path, server.base_url)
        job.begin()
        (line,) = cancel_batches(job.output, {})
        assert line.batch.status == "cancelling"
        with pytest.raises(NotReady):
            job.call()
        assert job.batches[0].status == "cancelling"
        lasts[0] = False
        assert job.until_done(via="online").exit_status == 0
        assert job.batches[0].status == "cancelled"
        assert server.ledger.batch_requests + server.ledger.requests == 30
        whole(job)


def test_a_batch_that_names_neither_file_is_tried_twice_more_and_then_given_up(tmp_path: Path) -> None:
    def without_files(batch: dict[str, Any]) -> dict[str, Any]:
        return batch | {"output_file_id": None, "error_file_id": None}

    with simulated(show=without_files) as server:
        job = BatchJob(tmp_path, server.base_url, rows=5)
        result = job.until_done()
        assert result.exit_status == 1
        assert result.summary.failed_by_reason == {"no_result": 5}
        assert server.ledger.batches == 3
        assert {row["attempts"] for row in job.answers} == {"3"}
        assert "no line for it" in job.answers[0]["error"]


def test_statuses_in_capitals_and_empty_file_ids_are_understood(tmp_path: Path) -> None:
    def differently(batch: dict[str, Any]) -> dict[str, Any]:
        files = {name: batch[name] or "" for name in ("output_file_id", "error_file_id")}
        return batch | files | {"status": batch["status"].upper()}

    with simulated(show=differently, failure_rate=0.2) as server:
        job = BatchJob(tmp_path, server.base_url)
        assert job.until_done().exit_status == 0
        assert server.ledger.batch_requests > 30
        whole(job)


def test_failed_requests_alone_go_again_and_are_given_up_in_the_end(tmp_path: Path) -> None:
    with simulated(failure_rate=1.0) as server:
        job = BatchJob(tmp_path, server.base_url, rows=4, max_attempts=2)
        result = job.until_done()
        assert (result.exit_status, result.summary.failed_by_reason) == (1, {"http_500": 4})
        assert server.ledger.batches == 2
        assert "500" in job.answers[0]["error"]
    with simulated() as server:
        job.flags["base_url"] = server.base_url
        assert job.until_done().exit_status == 0  # a new session sends them once more
        assert server.ledger.batch_requests == 4


def test_a_line_that_is_not_json_is_sent_again_and_counted_as_possibly_billed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_downloads(monkeypatch, lambda lines: [lines[0][:50] + b"\n", *lines[1:]])
    with simulated() as server:
        job = BatchJob(tmp_path, server.base_url)
        job.begin()
        with pytest.raises(NotReady, match="of 1 request"):
            job.until_next_batch()
        result = job.until_done()
        assert (result.exit_status, server.ledger.batch_requests) == (0, 31)
        assert sorted({row["attempts"] for row in job.answers}) == ["1", "2"]
        whole(job)


def test_lines_of_others_and_lines_twice_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(lines: list[bytes]) -> list[bytes]:
        other = lines[0].replace(b'"custom_id":"', b'"custom_id":"x')
        beyond = lines[0].replace(b"-", b"-9", 1)
        again = lines[1].replace(b"positive", b"negative")
        return [*lines, other, beyond, again, b"\n", lines[2]]

    change_downloads(monkeypatch, change)
    with simulated() as server:
        job = BatchJob(tmp_path, server.base_url)
        assert job.until_done().exit_status == 0
        assert server.ledger.batches == 1
        whole(job)


# -- refusals --------------------------------------------------------------------------------------------------


def test_lines_that_validation_refuses_cost_their_rows_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_lines(monkeypatch, lambda number, line: b"{broken}\n" if number in (3, 7) else line)
    with simulated() as server:
        job = BatchJob(tmp_path, server.base_url)
        result = job.until_done()
        assert (result.exit_status, result.summary.failed) == (1, 2)
        assert [batch.status for batch in job.batches] == ["failed", "completed"]
        assert [row["id"] for row in job.answers if row["error"]] == ["3", "7"]
        assert "not parseable" in job.answers[3]["error"]
        assert server.ledger.batch_requests == 28


def test_a_batch_that_is_all_wrong_stops_the_job_and_costs_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_lines(monkeypatch, lambda number, line: line.replace(b"/v1/chat", b"/v2/chat"))
    with simulated() as server:
        job = BatchJob(tmp_path, server.base_url)
        job.begin()
        with pytest.raises(UsageError, match="refused batch .*mismatched_url"):
            job.until_next_batch()
        assert job.counts().open == 30
        assert job.until_done().exit_status == 0  # the setting was corrected
        assert {row["attempts"] for row in job.answers} == {"1"}


def test_what_the_queue_has_no_room_for_goes_when_there_is_room(tmp_path: Path) -> None:
    with simulated(enqueued_tokens=4000) as server:
        job = BatchJob(tmp_path, server.base_url, rows=60)
        result = job.until_done()
        assert result.exit_status == 0
        assert [batch.status for batch in job.batches].count("failed") <= 3
        assert server.ledger.batch_requests == 60
        whole(job)


def test_a_request_that_never_has_room_is_its_rows_own_failure(tmp_path: Path) -> None:
    with simulated(enqueued_tokens=1) as server:
        job = BatchJob(tmp_path, server.base_url, rows=2)
        result = job.until_done()
        assert (result.exit_status, result.summary.failed) == (1, 2)
        assert "Enqueued token limit" in job.answers[0]["error"]
        assert server.ledger.batch_requests == 0


def test_a_file_that_is_too_long_is_cut_shorter(tmp_path: Path) -> None:
    with simulated(max_requests=8) as server:
        job = BatchJob(tmp_path, server.base_url)
        assert job.until_done().exit_status == 0
        assert server.ledger.batch_requests == 30
    with simulated(max_file_bytes=6000) as server:
        (tmp_path / "second").mkdir()
        job = BatchJob(tmp_path / "second", server.base_url)
        assert job.until_done().exit_status == 0
        assert server.ledger.batch_requests == 30
        whole(job)


def test_a_creation_that_may_have_happened_is_looked_for_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = BatchApi.create
    lost = classify(Failure(FailureKind.RESET, "the connection broke", Paid.MAYBE, 0.0))

    async def created_and_lost(self: BatchApi, *args: Any, **named: Any) -> RemoteBatch:
        await create(self, *args, **named)
        raise CallFailed(lost, None)

    monkeypatch.setattr(BatchApi, "create", created_and_lost)
    with simulated() as server:
        job = BatchJob(tmp_path, server.base_url)
        with pytest.raises(NotReady, match="not known yet"):
            job.call()
        assert job.until_done().exit_status == 0
        assert server.ledger.batches == 1
        whole(job)


def test_a_batch_is_found_by_its_file_where_metadata_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    test_a_creation_that_may_have_happened_is_looked_for_first(tmp_path, monkeypatch)
    monkeypatch.undo()
    read = BatchApi._remote
    monkeypatch.setattr(BatchApi, "_remote", lambda self, data: replace(read(self, data), name=None))
    (tmp_path / "again").mkdir()
    test_a_creation_that_may_have_happened_is_looked_for_first(tmp_path / "again", monkeypatch)


def test_a_batch_that_the_endpoint_does_not_know_is_not_sent_again_unasked(tmp_path: Path) -> None:
    with simulated(seconds=60.0) as server:
        job = BatchJob(tmp_path, server.base_url)
        job.begin()
    with simulated() as server:
        job.flags["base_url"] = server.base_url
        with pytest.raises(UsageError, match="does not know batch .*batches cancel OUTPUT"):
            job.call()
        with pytest.raises(UsageError, match="does not know batch"):
            job.call(via="online")
        assert (server.ledger.batches, server.ledger.requests) == (0, 0)
        (line,) = cancel_batches(job.output, {})
        assert line.batch.status == "gone"
        result = job.until_done()
        assert (result.exit_status, server.ledger.batch_requests) == (0, 30)
        assert {row["attempts"] for row in job.answers} == {"2"}


def test_a_batch_of_another_job_under_the_same_id_is_not_taken_for_ours(tmp_path: Path) -> None:
    with simulated(seconds=60.0) as server:
        job = BatchJob(tmp_path, server.base_url)
        job.begin()
    (tmp_path / "other").mkdir()
    with simulated() as server:
        other = BatchJob(tmp_path / "other", server.base_url)
        other.until_done()
        job.flags["base_url"] = server.base_url
        assert other.batches[0].remote_id == job.batches[0].remote_id
        with pytest.raises(UsageError, match="does not know batch"):
            job.call()


def test_an_old_batch_is_found_on_a_later_page_of_the_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchllm.client.batches.PAGE", 2)
    create = BatchApi.create
    lost = classify(Failure(FailureKind.RESET, "the connection broke", Paid.MAYBE, 0.0))

    async def first_is_lost(self: BatchApi, *args: Any, **named: Any) -> RemoteBatch:
        made = await create(self, *args, **named)
        if made.id.endswith("01"):
            for _ in range(4):
                await create(self, *args, **{**named, "name": "another"})
            raise CallFailed(lost, None)
        return made

    monkeypatch.setattr(BatchApi, "create", first_is_lost)
    read = BatchApi._remote
    monkeypatch.setattr(BatchApi, "_remote", lambda self, data: replace(read(self, data), input_file_id=None))
    with simulated() as server:
        job = BatchJob(tmp_path, server.base_url)
        assert job.until_done().exit_status == 0
        assert job.batches[0].remote_id == "batch_simulator000001"
        assert server.ledger.batches == 5
        whole(job)


def test_a_batch_that_vanished_with_its_own_simulator_is_made_again(tmp_path: Path) -> None:
    with simulated(seconds=60.0) as server:
        job = BatchJob(tmp_path, server.base_url)
        job.begin()
    own = job.job(base_url=None)
    from batchllm.runner import run_job

    result = run_job(own, wait=True)
    assert result.exit_status == 0
    assert result.summary.possibly_billed_twice == 0
    whole(job)


def test_batches_of_a_simulator_that_ends_with_the_run_need_wait(tmp_path: Path) -> None:
    job = BatchJob(tmp_path, "http://127.0.0.1:9/v1").job(base_url=None)
    with pytest.raises(UsageError, match="needs --wait"):
        waiting_for(job, wait=False)
    assert waiting_for(replace(job, via="online"), wait=False).ephemeral


# -- modes -----------------------------------------------------------------------------------------------------


def test_what_is_in_a_batch_is_not_sent_online(tmp_path: Path) -> None:
    with simulated(seconds=60.0) as server:
        job = BatchJob(tmp_path, server.base_url)
        job.begin(limit=20)
        with pytest.raises(NotReady, match="0 of 20 requests"):
            job.call(via="online")
        assert server.ledger.requests == 10
        cancel_batches(job.output, {})
        assert job.until_done(via="online").exit_status == 0
        assert server.ledger.batch_requests + server.ledger.requests == 30
        whole(job)


def test_online_finishes_what_an_expired_batch_left(tmp_path: Path) -> None:
    with simulated(expire_after_fraction=0.5) as server:
        job = BatchJob(tmp_path, server.base_url, rows=20)
        job.begin()
        result = job.until_done(via="online")
        assert (result.exit_status, result.summary.answered) == (0, 20)
        assert (server.ledger.batch_requests, server.ledger.requests) == (10, 10)
        whole(job)


def test_a_batch_takes_up_what_online_left(tmp_path: Path) -> None:
    with simulated() as server:
        job = BatchJob(tmp_path, server.base_url)
        assert job.call(via="online", limit=12).exit_status == 0
        job.until_done()
        assert (server.ledger.requests, server.ledger.batch_requests) == (12, 18)
        whole(job)


def test_a_changed_job_is_refused_while_its_rows_are_in_a_batch(tmp_path: Path) -> None:
    with simulated(seconds=60.0) as server:
        job = BatchJob(tmp_path, server.base_url)
        job.begin()
        with pytest.raises(UsageError, match="would be paid again"):
            job.call(labels="good,bad")
        assert server.ledger.batches == 1


def test_a_budget_bounds_what_is_put_into_batches(tmp_path: Path) -> None:
    with simulated() as server:
        job = BatchJob(tmp_path, server.base_url)
        with pytest.raises(BudgetStop, match="max-requests"):
            job.until_done(max_requests=12)
        assert server.ledger.batch_requests == 12
        assert job.until_done().exit_status == 0
        assert server.ledger.batch_requests == 30


def test_failures_are_sent_again_once_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change_downloads(
        monkeypatch, lambda lines: [line.replace(b"positive", b"hmm") for line in lines], times=2
    )
    with simulated() as server:
        job = BatchJob(tmp_path, server.base_url, rows=6)
        assert job.until_done().exit_status == 1
        assert job.until_done(retry_failed=True).exit_status == 1  # as bad as before, and that ends it
        assert server.ledger.batches == 2
        assert job.until_done(retry_failed=True).exit_status == 0
        whole(job)


def test_batches_are_listed_from_the_journal_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with simulated() as server:
        job = BatchJob(tmp_path, server.base_url)
        job.until_done()
    (line,) = list_batches([job.output])
    assert "completed, collected, 30 of 30 done, simulator" in line.to_text()
    monkeypatch.chdir(tmp_path)
    assert [one.to_text() for one in list_batches([])] == [line.to_text().replace(str(job.output), "out.csv")]
    assert cancel_batches(job.output, {}) == []
