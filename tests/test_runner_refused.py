"""A row that is always refused as if for a limit, in virtual time: it fails alone, and the run ends."""

import asyncio
from pathlib import Path

import pytest

from batchllm.journal import State
from batchllm.records import ChatRequest
from tests.fakes import FakeClient, Outcome, answered, status
from tests.test_runner_online import Trip

REFUSALS: dict[str, Outcome] = {
    "a rate limit": status(429),
    "a rate limit with a time": status(429, retry_after="1"),
    "a busy endpoint with a time": status(503, retry_after="2"),
    "an overload": status(529),
}
PLAIN = ChatRequest(-1, b"plain", b"{}", "m", 1, 5)


@pytest.mark.parametrize("kind", REFUSALS)
@pytest.mark.parametrize("bad", [0, 7, 19])
def test_a_row_that_is_refused_whatever_happens_fails_alone(tmp_path: Path, kind: str, bad: int) -> None:
    client = FakeClient(
        lambda request, attempt: REFUSALS[kind] if request.row_index == bad else answered(), latency_s=0.1
    )
    trip = Trip(tmp_path, client)
    trip.plain = lambda model: PLAIN
    trip.run()
    assert trip.states[bad] is State.UNANSWERED
    assert {state for row, state in trip.states.items() if row != bad} == {State.ANSWERED}
    assert trip.ended_at < 400


def test_a_limit_that_refuses_plain_requests_too_fails_no_row(tmp_path: Path) -> None:
    def script(request: ChatRequest, attempt: int) -> Outcome:
        return (
            answered()
            if request.row_index < 10 or asyncio.get_running_loop().time() > 500
            else status(429, retry_after="1")
        )

    trip = Trip(tmp_path, FakeClient(script, latency_s=0.1))
    trip.plain = lambda model: ChatRequest(50, b"plain", b"{}", "m", 1, 5)
    trip.run()
    assert set(trip.states.values()) == {State.ANSWERED}
