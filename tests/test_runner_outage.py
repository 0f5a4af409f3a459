"""An outage of the endpoint, in virtual time: every row that waits takes its turn at probing, and none pays for it."""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from batchllm.journal import State
from batchllm.records import ChatRequest, FailureKind, Paid
from tests.fakes import FakeClient, Outcome, answered, in_turn, lost, status
from tests.test_runner_online import PACE, Trip

DOWN: dict[str, Outcome] = {
    "errors": status(500),
    "errors that ask for a second": status(500, retry_after="1"),
    "overload": status(503),
    "overload that asks for a second": status(503, retry_after="1"),
    "no connection": lost(FailureKind.CONNECT, Paid.NO),
}


def down(
    outcome: Outcome,
    until: float,
    since: float = 0.0,
    own: Callable[[int], Outcome | None] = lambda row: None,
) -> FakeClient:
    """An endpoint that gives ``outcome`` to all that arrives from ``since`` to ``until``; ``own`` are rows' own."""

    def script(request: ChatRequest, attempt: int) -> Outcome:
        is_down = since <= asyncio.get_running_loop().time() < until
        return outcome if is_down else own(request.row_index) or answered()

    return FakeClient(script, latency_s=0.1)


@pytest.mark.parametrize("kind", list(DOWN))
@pytest.mark.parametrize("since", [0.0, 1.0])
def test_the_probes_of_an_outage_go_through_all_rows_that_wait(
    tmp_path: Path, kind: str, since: float
) -> None:
    client = down(DOWN[kind], since + 25.0, since)
    trip = Trip(tmp_path, client, rows=200).run()
    assert set(trip.states.values()) == {State.ANSWERED}
    probes = [row for at, row in client.sent if since + 1.0 < at < since + 24.9]
    assert len(probes) >= 8
    # A row that failed before the outage was seen may be the first to probe; after that it is everybody's turn.
    assert max(Counter(probes).values()) == 1, probes
    assert max(client.seen.values()) <= 4


@pytest.mark.parametrize("kind", list(DOWN))
def test_few_rows_take_turns_at_the_probes_and_none_is_given_up(tmp_path: Path, kind: str) -> None:
    """Every row probes more often than it has attempts; only what fails before the outage is seen is one."""
    client = down(DOWN[kind], 500.0, 0.15)
    trip = Trip(tmp_path, client, rows=8, pace=replace(PACE, max_attempts=3, concurrency=2)).run()
    assert set(trip.states.values()) == {State.ANSWERED}
    probes = Counter(row for at, row in client.sent if 100.0 < at < 499.9)
    assert min(probes.values()) >= 2
    assert max(probes.values()) - min(probes.values()) <= 1, probes


@pytest.mark.parametrize("kind", list(DOWN))
def test_rows_that_an_outage_held_back_go_first_once_it_is_over(tmp_path: Path, kind: str) -> None:
    client = down(DOWN[kind], 26.0, 1.0)
    trip = Trip(tmp_path, client, rows=150, pace=replace(PACE, concurrency=4)).run()
    assert set(trip.states.values()) == {State.ANSWERED}
    held_back = {row for at, row in client.sent if 0.95 < at < 25.8}
    later = [
        row for _, row in sorted(sent for sent in client.sent if sent[0] > 25.95)
    ]  # at one instant in any order
    new = [row for row in later if row not in held_back]
    assert new == sorted(new), "new rows stay in the order of the input"
    again = [place for place, row in enumerate(later) if row in held_back]
    assert max(again) < len(again) + 40, again


def test_an_hour_that_a_probe_is_asked_to_wait_does_not_hold_the_last_row_for_an_hour(tmp_path: Path) -> None:
    failing = in_turn(*[status(500)] * 8, *[status(502, retry_after="3600")] * 4, answered())
    client = FakeClient(lambda request, attempt: failing(request, attempt if request.row_index else 100))
    trip = Trip(tmp_path, client, rows=2, pace=replace(PACE, max_attempts=20)).run()
    assert set(trip.states.values()) == {State.ANSWERED}
    probes = [at for at, row in client.sent if row == 1][-4:]
    assert [later - at for at, later in pairwise(probes)] == pytest.approx([60.5] * 3, abs=1.0)
