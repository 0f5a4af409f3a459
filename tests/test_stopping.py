"""Whatever stops a run, it ends within its grace period, and at once on a second signal."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from batchllm.errors import STOPPING, BudgetStop, Interrupted, NotReady, Unavailable
from batchllm.journal import Journal, State
from batchllm.simulator import ScriptedResponse, Simulator, SimulatorSettings, start_in_thread
from batchllm.stopping import RunStop
from tests.fakes import FakeClient, answered, chat_body, status
from tests.test_runner_online import Trip
from tests.virtual_time import run_virtual

QUOTA = status(429, "out of credit", "insufficient_quota")
LONG_PAUSE = status(429, "slow", "rate_limit_exceeded", retry_after="80000")


class HangingClient(FakeClient):
    """Rows 1 and 2 hang; row 5 brings what stops the run, the others an answer."""

    def __init__(self, stopper: Any) -> None:
        super().__init__(lambda request, attempt: stopper if request.row_index == 5 else answered())

    async def send(self, request: Any) -> Any:
        if request.row_index in (1, 2):
            self.sent.append((asyncio.get_running_loop().time(), request.row_index))
            await asyncio.sleep(500)
        return await super().send(request)


@pytest.mark.parametrize("stopper", [QUOTA, LONG_PAUSE], ids=["quota", "pause"])
def test_grace_holds_when_the_endpoint_stops_the_run(tmp_path: Path, stopper: Any) -> None:
    trip = Trip(tmp_path, HangingClient(stopper), rows=40, grace_s=10.0)
    with pytest.raises(Unavailable):
        trip.run()
    assert 10 <= trip.ended_at < 15
    assert trip.states[1] is trip.states[2] is State.OPEN


@pytest.mark.parametrize("stopper", [QUOTA, LONG_PAUSE], ids=["quota", "pause"])
def test_a_signal_while_a_run_is_stopping_neither_extends_its_grace_nor_changes_its_reason(
    tmp_path: Path, stopper: Any
) -> None:
    trip = Trip(tmp_path, HangingClient(stopper), rows=40, grace_s=10.0)
    with pytest.raises(Unavailable):
        trip.run(stop_at=6.0)
    assert 10 <= trip.ended_at < 15


@pytest.mark.parametrize("stopper", [QUOTA, LONG_PAUSE], ids=["quota", "pause"])
def test_a_second_signal_ends_a_run_that_is_stopping_at_once(tmp_path: Path, stopper: Any) -> None:
    trip = Trip(tmp_path, HangingClient(stopper), rows=40, grace_s=100.0)
    with pytest.raises(Unavailable):
        trip.run(stop_at=6.0, second_at=7.0)
    assert trip.ended_at == pytest.approx(7.0, abs=0.1)


def test_grace_holds_after_an_outage(tmp_path: Path) -> None:
    from dataclasses import replace

    from tests.test_runner_online import PACE

    client = HangingClient(answered())
    client._script = lambda request, attempt: answered() if request.row_index == 0 else status(503)
    trip = Trip(tmp_path, client, rows=40, pace=replace(PACE, max_outage_s=60.0), grace_s=10.0)
    with pytest.raises(Unavailable, match="down"):
        trip.run()
    assert trip.ended_at < 100


def test_grace_holds_after_an_early_stop(tmp_path: Path) -> None:
    trip = Trip(tmp_path, HangingClient(answered()), rows=40, grace_s=10.0)
    trip.settled = lambda item, answer, state: (
        trip.sender.run_stop.stop(BudgetStop("enough"))
        if trip.sender and item.request.row_index == 9
        else None
    )
    with pytest.raises(BudgetStop):
        trip.run()
    assert 10 <= trip.ended_at < 15


@pytest.mark.parametrize("grace_s", [0.0, 5.0])
@pytest.mark.parametrize("abort", [False, True])
def test_an_intent_that_becomes_durable_after_the_stop_is_not_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grace_s: float, abort: bool
) -> None:
    client = FakeClient()
    trip = Trip(tmp_path, client, rows=40, grace_s=grace_s)
    intend = Journal.intend
    groups: list[int] = []

    def late(self: Journal, intents: Sequence[int]) -> "asyncio.Future[list[int]]":
        groups.append(len(intents))
        done = intend(self, intents)
        if len(groups) != 3:
            return done
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[list[int]] = loop.create_future()

        def resolve() -> None:
            if not waiting.cancelled():
                waiting.set_result(done.result())

        loop.call_later(2.0, resolve)
        assert trip.sender is not None
        trip.sender.run_stop.stop(Interrupted(15))
        if abort:
            loop.call_later(1.0, trip.sender.run_stop.abort)
        return waiting

    monkeypatch.setattr(Journal, "intend", late)
    with pytest.raises(Interrupted):
        trip.run()
    assert len(client.sent) == sum(groups[:2])
    with sqlite3.connect(tmp_path / "out.journal") as connection:
        not_sent = connection.execute("SELECT count(*) FROM reply WHERE failure = 'unsent'").fetchone()[0]
    connection.close()
    assert not_sent == groups[2]


# -- over sockets ------------------------------------------------------------------------------------------------


@pytest.fixture
def hanging() -> "Iterator[Simulator]":
    """Rows 2 and 3 hang for a minute; row 6 and all later ones are out of quota."""

    def script(body: dict[str, Any]) -> ScriptedResponse:
        number = int(body["messages"][-1]["content"].rsplit(" ", 1)[-1])
        if number in (2, 3):
            return ScriptedResponse(body=chat_body("late"), delay_s=60.0)
        if number >= 6:
            error = b'{"error":{"message":"You exceeded your current quota","code":"insufficient_quota"}}'
            return ScriptedResponse(status=429, body=error, headers={"content-type": "application/json"})
        return ScriptedResponse(body=chat_body("fine"))

    with start_in_thread(SimulatorSettings(), script=script) as running:
        yield running


def command(
    folder: Path, server: Simulator, grace_s: float, *more: str, concurrency: int = 8
) -> "subprocess.Popen[bytes]":
    (folder / "in.csv").write_text("text\n" + "".join(f"number {number}\n" for number in range(1, 41)))
    words = [
        "-o",
        folder / "out.csv",
        "--base-url",
        server.base_url,
        "-m",
        "m",
        "-c",
        concurrency,
        "--grace",
        grace_s,
        *more,
    ]
    return subprocess.Popen(
        [sys.executable, "-m", "batchllm", "run", "-p", "{{ text }}", folder / "in.csv", *map(str, words)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ},
    )  # fmt: skip


def wait_until_stopped(folder: Path, server: Simulator) -> None:
    deadline = time.monotonic() + 20
    while server.ledger.requests < 6 and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1.0)


def test_two_hanging_requests_end_with_the_grace_period(tmp_path: Path, hanging: Simulator) -> None:
    began = time.monotonic()
    process = command(tmp_path, hanging, 3)
    _, err = process.communicate(timeout=40)
    assert process.returncode == 69, err
    assert time.monotonic() - began < 15


def test_a_second_signal_ends_two_hanging_requests_at_once(tmp_path: Path, hanging: Simulator) -> None:
    process = command(tmp_path, hanging, 50)
    wait_until_stopped(tmp_path, hanging)
    process.send_signal(signal.SIGINT)
    time.sleep(1.0)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    _, err = process.communicate(timeout=40)
    assert time.monotonic() - began < 5
    assert process.returncode == 69, err


def test_max_time_ends_a_run_and_the_same_command_goes_on(tmp_path: Path) -> None:
    def script(body: dict[str, Any]) -> ScriptedResponse:
        return ScriptedResponse(body=chat_body("fine"), delay_s=0.2)

    with start_in_thread(SimulatorSettings(), script=script) as server:
        process = command(tmp_path, server, 5, "--max-time", "1s", concurrency=2)
        _, err = process.communicate(timeout=40)
        sent = server.ledger.requests
        assert process.returncode == 75, err
        assert b"--max-time (1 s) is over" in err
        assert 0 < sent < 40
        process = command(tmp_path, server, 5)
        _, err = process.communicate(timeout=40)
        assert process.returncode == 0, err
        assert server.ledger.requests == 40


# -- the owner, alone --------------------------------------------------------------------------------------------


class Stopped(NotReady):
    """A limit is reached."""


def test_a_limit_ends_a_run_in_which_nothing_happens_and_its_grace_follows() -> None:
    async def run() -> tuple[float, float]:
        loop = asyncio.get_running_loop()
        stop = RunStop(5.0, lambda elapsed_s: Stopped() if elapsed_s >= 60 else None)
        stopped, aborted = asyncio.Event(), asyncio.Event()
        stop.subscribe(stopped.set, aborted.set)
        with pytest.raises(Stopped), stop.watch():
            await stopped.wait()
            stopped_at = loop.time()
            await aborted.wait()
        return stopped_at, loop.time()

    stopped_at, aborted_at = run_virtual(run())
    assert 60 <= stopped_at <= 61
    assert aborted_at == pytest.approx(stopped_at + 5.0)


def test_the_first_reason_counts() -> None:
    async def run() -> RunStop:
        stop = RunStop(limit=lambda elapsed_s: Stopped())
        stop.stop(BudgetStop("enough"))
        stop.stop(Interrupted(15))
        stop.check()
        return stop

    assert isinstance(run_virtual(run()).reason, BudgetStop)


def test_a_limit_ends_a_run_with_what_is_in_flight(tmp_path: Path) -> None:
    trip = Trip(tmp_path, FakeClient(latency_s=2.0), rows=400)
    trip.limit = lambda elapsed_s: Stopped() if trip.counters.answered >= 50 else None
    with pytest.raises(Stopped):
        trip.run()
    assert 50 <= trip.counters.answered <= 50 + 2 * 8
    assert trip.counters.answered == trip.counters.attempts


def test_signals_are_as_before_after_a_watch() -> None:
    before = [signal.getsignal(number) for number in STOPPING]

    async def run() -> None:
        with RunStop().watch():
            await asyncio.sleep(0)

    asyncio.run(run())
    assert [signal.getsignal(number) for number in STOPPING] == before
