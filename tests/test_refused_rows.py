"""Rows that are refused with 401, 403 or 404 once others had answers: theirs, or the endpoint's own refusal."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batchllm.errors import Interrupted, JobError, Unavailable
from batchllm.journal import State
from batchllm.simulator import ScriptedResponse
from tests.batch_jobs import BatchJob, simulated
from tests.bench import Bench
from tests.fakes import FakeClient, answered, chat_body, rows_with, status
from tests.test_batch_loop import change_downloads
from tests.test_runner_online import Trip

BLOCKED = b"<html><head><title>Request blocked</title></head><body><h1>403</h1>blocked</body></html>"
NO_IMAGES = b'{"error":{"message":"No endpoints found that support image input"}}'
REVOKED = b'{"error":{"message":"Incorrect API key provided","code":"invalid_api_key"}}'


def number_of(body: dict[str, Any]) -> int:
    return int(body["messages"][-1]["content"].rsplit(" ", 1)[-1])


def job(bench: Bench, rows: int, **words: object) -> tuple[object, ...]:
    path = bench.file("in.jsonl", [{"text": f"number {number}"} for number in range(1, rows + 1)])
    return ("run", "-p", "{{ text }}", path, "-o", bench.folder / "out.jsonl", "-c", 8)


def refuse(bench: Bench, wanted: Callable[[int], bool], code: int, body: bytes) -> None:
    kind = "text/html" if body.startswith(b"<") else "application/json"

    def answers(asked: dict[str, Any]) -> ScriptedResponse:
        if wanted(number_of(asked)):
            return ScriptedResponse(status=code, headers={"content-type": kind}, body=body)
        return ScriptedResponse(body=chat_body("fine"))

    bench.answers = answers


@pytest.mark.parametrize(
    ("code", "body", "words"),
    [
        (403, BLOCKED, "HTTP 403: Request blocked"),
        (404, NO_IMAGES, "HTTP 404: No endpoints found that support image input"),
        (401, REVOKED, "HTTP 401: Incorrect API key provided (invalid_api_key)"),
    ],
)
def test_one_refused_row_fails_alone(bench: Bench, code: int, body: bytes, words: str) -> None:
    refuse(bench, lambda number: number == 5, code, body)
    bench.run(*job(bench, 300), status=1)
    rows = bench.out("out.jsonl")
    assert [row["error"] for row in rows if row["error"]] == [words]
    assert rows[4]["error"] == words
    assert sum(row["response"] == "fine" for row in rows) == 299
    sent = bench.server.ledger.requests
    bench.run(*job(bench, 300), status=1)
    assert bench.server.ledger.requests == sent == 300


def test_a_key_revoked_in_the_middle_stops_the_job_and_leaves_its_rows_unfinished(bench: Bench) -> None:
    refuse(bench, lambda number: number >= 100, 401, REVOKED)
    said = bench.run(*job(bench, 300), status=69)
    assert "Incorrect API key provided" in said.err
    first = bench.server.ledger.requests
    assert first <= 99 + 5 + 2 * 8
    refuse(bench, lambda number: False, 401, REVOKED)
    bench.run(*job(bench, 300))
    assert {row["response"] for row in bench.out("out.jsonl")} == {"fine"}
    last = [number_of(json.loads(body)) for body in bench.bodies[99 - first :]]
    assert sorted(last) == list(range(100, first + 1))
    assert bench.server.ledger.requests == first + 201


def test_a_wrong_key_in_a_later_run_costs_five_requests(bench: Bench) -> None:
    refuse(bench, lambda number: number >= 30, 401, REVOKED)
    bench.run(*job(bench, 90), status=69)
    sent = bench.server.ledger.requests
    refuse(bench, lambda number: True, 401, REVOKED)
    bench.run(*job(bench, 90), status=69)
    assert bench.server.ledger.requests == sent + 5
    refuse(bench, lambda number: False, 401, REVOKED)
    bench.run(*job(bench, 90))


def test_a_cluster_of_refused_rows_does_not_keep_the_others_from_their_answers(bench: Bench) -> None:
    refuse(bench, lambda number: 20 <= number < 40, 403, BLOCKED)
    statuses = []
    for _ in range(8):
        said = bench.command(*job(bench, 100), "--base-url", bench.server.base_url, "-m", "gpt-4")
        statuses.append(said.status)
        if said.status != 69:
            break
    assert statuses[-1] == 1
    rows = bench.out("out.jsonl")
    assert [number + 1 for number, row in enumerate(rows) if row["error"]] == list(range(20, 40))


def test_four_refused_rows_at_the_end_fail(tmp_path: Path) -> None:
    trip = Trip(tmp_path, FakeClient(rows_with(range(16, 20), status(403, "blocked")))).run()
    assert [trip.states[row] for row in range(16, 20)] == [State.FAILED] * 4
    assert (trip.counters.answered, trip.counters.failed) == (16, 4)
    assert trip.counters.failed_by_reason == {"http_403": 4}


def test_five_refused_rows_in_a_row_stay_open_with_all_that_was_refused(tmp_path: Path) -> None:
    """Row 4 was sent before the key was revoked, and its answer comes after the first refusals."""
    client = FakeClient(rows_with(range(5, 40), status(403, "blocked")))
    send = client.send

    async def slow(request: Any) -> Any:
        if request.row_index == 4:
            await asyncio.sleep(0.25)
        return await send(request)

    client.send = slow  # type: ignore[method-assign]
    trip = Trip(tmp_path, client, rows=40)
    with pytest.raises(Unavailable, match="5 rows in a row were refused: .*blocked"):
        trip.run()
    assert [trip.states[row] for row in range(5)] == [State.ANSWERED] * 5
    assert {trip.states[row] for row in range(5, 40)} == {State.OPEN}
    assert (trip.counters.answered, trip.counters.failed) == (5, 0)


def test_refusals_with_successes_between_them_never_stop_a_job(tmp_path: Path) -> None:
    client = FakeClient(rows_with(range(3, 200, 4), status(404, "no such model")))
    trip = Trip(tmp_path, client, rows=200).run()
    assert (trip.counters.answered, trip.counters.failed) == (150, 50)
    assert len(client.sent) == 200


def test_refused_rows_that_are_held_when_a_signal_comes_are_unfinished(tmp_path: Path) -> None:
    trip = Trip(tmp_path, FakeClient(rows_with(range(16, 20), status(403, "blocked")), latency_s=1.0))
    trip.rows = 17
    slow = trip.client

    async def send(request: Any) -> Any:
        if request.row_index == 15:
            await asyncio.sleep(500)
        return await FakeClient.send(slow, request)

    slow.send = send  # type: ignore[method-assign]
    trip.grace_s = 3.0
    with pytest.raises(Interrupted):
        trip.run(stop_at=50.0)
    assert trip.states[16] is State.OPEN
    assert trip.states[15] is State.OPEN
    assert trip.counters.answered == 15


def test_an_endpoint_that_comes_back_with_a_refusal_is_not_down(tmp_path: Path) -> None:
    """The probe of an outage is refused for its row: the run goes on."""

    def script(request: Any, attempt: int) -> Any:
        if request.row_index == 5:
            return status(403, "blocked")
        return answered() if request.row_index < 5 or attempt > 2 else status(503)

    trip = Trip(tmp_path, FakeClient(script), rows=40).run()
    assert (trip.counters.answered, trip.counters.failed) == (39, 1)


def test_a_refused_line_of_a_batch_is_its_rows_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = {"status_code": 403, "request_id": "r", "body": {"error": {"message": "blocked by policy x"}}}

    def change(lines: list[bytes]) -> list[bytes]:
        facts = json.loads(lines[4])
        lines[4] = json.dumps({**facts, "response": refused}).encode() + b"\n"
        return lines

    change_downloads(monkeypatch, change)
    with simulated() as server:
        batch = BatchJob(tmp_path, server.base_url)
        batch.begin()
        result = batch.until_done()
        assert result.exit_status == 1
        assert (result.summary.answered, result.summary.failed) == (29, 1)
        (failed,) = [row for row in batch.answers if row["error"]]
        assert failed["error"] == "HTTP 403: blocked by policy x"
        assert batch.until_done().exit_status == 1
        assert server.ledger.batches == 1


def test_a_batch_of_which_every_line_is_refused_is_the_endpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = {"status_code": 403, "request_id": "r", "body": {"error": {"message": "no access"}}}
    change_downloads(
        monkeypatch,
        lambda lines: [
            json.dumps({**json.loads(line), "response": refused}).encode() + b"\n" for line in lines
        ],
        times=1,
    )
    with simulated() as server:
        batch = BatchJob(tmp_path, server.base_url)
        batch.begin()
        with pytest.raises(JobError, match="no access") as stopped:
            batch.until_done()
        assert stopped.value.exit_status == 2
        assert batch.counts().answered == 0
        assert batch.until_done().summary.answered == 30
