"""A call of the library in every place where Python runs, and what stops it."""

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from batchllm import FinishedRow, Interrupted, JobError, Result, UsageError, arun, astream, run
from batchllm.simulator import Simulator, SimulatorSettings, start_in_thread

ROWS = [{"text": f"row {number}"} for number in range(24)]


@pytest.fixture
def slow() -> Iterator[Simulator]:
    """A server that takes a fifth of a second for an answer."""
    with start_in_thread(SimulatorSettings(latency_s=0.2)) as simulator:
        yield simulator


def options(server: Simulator, **more: Any) -> dict[str, Any]:
    return {"prompt": "Say {{ text }}", "base_url": server.base_url, "model": "m", "concurrency": 4, **more}


def paid(result: Result) -> tuple[int, int]:
    return result.summary.answered_before, result.summary.attempts


def test_run_works_under_a_running_loop() -> None:
    async def cell() -> Result:
        return run(ROWS[:2], prompt="{{ text }}", provider="simulator")

    assert asyncio.run(cell()).summary.answered == 2


def test_run_works_in_threads_side_by_side() -> None:
    def one(number: int) -> int:
        return run(ROWS[:2], prompt=f"{number} {{{{ text }}}}", provider="simulator").summary.answered

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(one, range(3))) == [2, 2, 2]


def _in_worker(rows: list[dict[str, Any]]) -> int:
    return run(rows, prompt="{{ text }}", provider="simulator").summary.answered


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of fork, where a thread of the tests lives
def test_run_works_in_a_worker_that_was_forked() -> None:
    run(ROWS[:1], prompt="{{ text }}", provider="simulator")
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(_in_worker, (ROWS[:2],)) == 2


def test_arun_leaves_the_loop_to_others(slow: Simulator) -> None:
    async def main() -> tuple[int, int]:
        ticks = 0
        task = asyncio.create_task(arun(ROWS[:8], **options(slow)))
        while not task.done():
            ticks += 1
            await asyncio.sleep(0.01)
        return ticks, (await task).summary.answered

    ticks, answered = asyncio.run(main())
    assert answered == 8
    assert ticks > 10


def test_a_row_is_reported_once_in_the_thread_of_the_caller_and_marked_if_it_is_of_an_earlier_run() -> None:
    seen: list[FinishedRow] = []
    threads = set()

    def on_row(row: FinishedRow) -> None:
        seen.append(row)
        threads.add(threading.current_thread())

    rows = [*ROWS[:3], {"text": ""}]
    run(rows, prompt="{{ text }}", provider="simulator", on_row=on_row)
    assert sorted(row.index for row in seen) == [0, 1, 2, 3]
    assert not any(row.earlier for row in seen)
    assert threads == {threading.current_thread()}
    assert {row["text"] for row in seen} == {"row 0", "row 1", "row 2", ""}
    seen.clear()
    again = run(rows, prompt="{{ text }}", provider="simulator", on_row=on_row)
    assert sorted(row.index for row in seen) == [0, 1, 2, 3]
    assert all(row.earlier for row in seen)
    assert paid(again) == (3, 0)


def test_rows_come_while_the_run_goes_on(slow: Simulator) -> None:
    times: list[float] = []
    run(ROWS, **options(slow), on_row=lambda row: times.append(time.monotonic()))
    assert len(times) == len(ROWS)
    assert times[-1] - times[0] > 0.4  # 24 rows, 4 at a time


def test_an_exception_of_on_row_stops_the_job_in_order_and_comes_out(slow: Simulator) -> None:
    def on_row(row: FinishedRow) -> None:
        raise LookupError("no such row")

    with pytest.raises(LookupError, match="no such row"):
        run(ROWS, **options(slow), on_row=on_row)
    answered = slow.ledger.requests
    assert answered < len(ROWS)
    assert paid(run(ROWS, **options(slow))) == (answered, len(ROWS) - answered)


def test_ctrl_c_keeps_what_is_in_flight_and_the_same_call_pays_the_rest(slow: Simulator) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.7, lambda: os.kill(os.getpid(), signal.SIGINT))
    try:
        timer.start()
        with pytest.raises(KeyboardInterrupt, match="the same call goes on") as stopped:
            run(ROWS, **options(slow))
    finally:
        timer.join()
        signal.signal(signal.SIGINT, before)
    assert isinstance(stopped.value, Interrupted)
    answered = slow.ledger.requests
    assert 0 < answered < len(ROWS)
    assert paid(run(ROWS, **options(slow))) == (answered, len(ROWS) - answered)


def test_what_a_host_raises_at_its_own_signal_stops_the_job_and_comes_out(slow: Simulator) -> None:
    class TaskTerminated(Exception):
        pass

    def terminate(number: int, frame: object) -> None:
        raise TaskTerminated

    before = signal.signal(signal.SIGTERM, terminate)
    timer = threading.Timer(0.7, lambda: os.kill(os.getpid(), signal.SIGTERM))
    try:
        timer.start()
        with pytest.raises(TaskTerminated):
            run(ROWS, **options(slow))
    finally:
        timer.join()
        signal.signal(signal.SIGTERM, before)
    answered = slow.ledger.requests
    assert 0 < answered < len(ROWS)
    assert paid(run(ROWS, **options(slow))) == (answered, len(ROWS) - answered)


def test_cancelling_stops_as_ctrl_c_does(slow: Simulator) -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(arun(ROWS, **options(slow)), 0.7)

    asyncio.run(main())
    answered = slow.ledger.requests
    assert 0 < answered < len(ROWS)
    assert paid(run(ROWS, **options(slow))) == (answered, len(ROWS) - answered)


def test_cancelling_again_leaves_the_job_to_end_by_itself(slow: Simulator) -> None:
    async def main() -> float:
        task = asyncio.create_task(arun(ROWS, **options(slow)))
        await asyncio.sleep(0.5)
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        began = time.monotonic()
        await asyncio.wait([task])
        return time.monotonic() - began

    assert asyncio.run(main()) < 0.15
    again = run(ROWS, **options(slow), wait_lock=10)
    assert again.summary.possibly_billed_twice == 0
    assert slow.ledger.requests == len(ROWS)


def test_leaving_a_stream_stops_the_job(slow: Simulator) -> None:
    async def main() -> list[int]:
        stream = astream(ROWS, **options(slow))
        found = [row.index async for row, _ in _first(stream, 3)]
        await stream.aclose()
        return found

    assert len(asyncio.run(main())) == 3
    answered = slow.ledger.requests
    assert 3 <= answered < len(ROWS)
    assert paid(run(ROWS, **options(slow))) == (answered, len(ROWS) - answered)


async def _first(stream: Any, count: int) -> Any:
    for number in range(count):
        yield await anext(stream), number


def test_a_stream_comes_as_rows_finish_or_in_order(slow: Simulator) -> None:
    async def main() -> tuple[list[int], list[int]]:
        finished = [row.index async for row in astream(ROWS, **options(slow))]
        ordered = [row.index async for row in astream(ROWS, **options(slow), ordered=True)]
        return finished, ordered

    finished, ordered = asyncio.run(main())
    assert sorted(finished) == list(range(len(ROWS)))
    assert ordered == list(range(len(ROWS)))


def test_an_error_comes_out_of_a_stream() -> None:
    async def main() -> None:
        async for _ in astream(ROWS, prompt="{{ nothing }}", provider="simulator"):
            raise AssertionError("there is no row")

    with pytest.raises(JobError, match="nothing"):
        asyncio.run(main())


def test_a_coroutine_function_may_watch_arun_and_not_run() -> None:
    seen = []

    async def on_row(row: FinishedRow) -> None:
        await asyncio.sleep(0)
        seen.append(row.index)

    asyncio.run(arun(ROWS[:2], prompt="{{ text }}", provider="simulator", on_row=on_row))
    assert sorted(seen) == [0, 1]
    with pytest.raises(UsageError, match="on_row= takes a function"):
        run(ROWS[:2], prompt="{{ text }}", provider="simulator", on_row=3)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="plain function"):
        run(ROWS[:2], prompt="{{ text }}", provider="simulator", on_row=on_row)


def test_a_slow_receiver_holds_back_rows_and_not_the_run(
    slow: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchllm.api.running.MOST_REPORTS", 2)
    seen = []

    def on_row(row: FinishedRow) -> None:
        time.sleep(0.05)
        seen.append(row.index)

    assert run(ROWS, **options(slow), on_row=on_row).summary.answered == len(ROWS)
    assert sorted(seen) == list(range(len(ROWS)))


def test_progress_may_be_a_function_or_an_object() -> None:
    calls: list[tuple[int, int]] = []
    run(
        ROWS[:3],
        prompt="a {{ text }}",
        provider="simulator",
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls[0] == (0, 3)
    assert calls[-1] == (3, 3)
    with pytest.raises(UsageError, match="progress="):
        run(ROWS[:3], prompt="b {{ text }}", provider="simulator", progress=7)  # type: ignore[arg-type]


def test_progress_true_shows_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    run(ROWS[:3], prompt="a {{ text }}", provider="simulator", progress=True)
    assert "3/3" in capsys.readouterr().err


HOST = """
import csv, gc, logging, resource, signal, sys
def state():
    return (
        [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)],
        resource.getrlimit(resource.RLIMIT_NOFILE), csv.field_size_limit(), gc.get_threshold(), gc.get_freeze_count(),
        logging.getLogger().handlers, logging.getLogger("batchllm").handlers, logging.getLogger("batchllm").level,
        sys.excepthook, sys.unraisablehook, sys.getswitchinterval(), sys.getrecursionlimit(),
    )
resource.setrlimit(resource.RLIMIT_NOFILE, (1000, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
before = state()
from batchllm import run
run([{"text": "one"}], prompt="{{ text }}", provider="simulator")
assert state() == before, (before, state())
print("unchanged")
"""


def test_a_run_changes_nothing_of_its_process() -> None:
    done = subprocess.run([sys.executable, "-c", HOST], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "unchanged", done.stderr


def test_a_program_that_ends_stops_its_job_in_order(slow: Simulator) -> None:
    program = f"""
import threading, time
from batchllm import run
rows = {ROWS!r}
threading.Thread(
    target=run, args=(rows,), daemon=True,
    kwargs=dict(prompt="Say {{{{ text }}}}", base_url={slow.base_url!r}, model="m", concurrency=4),
).start()
time.sleep(2)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)
    answered = slow.ledger.requests
    assert paid(run(ROWS, **options(slow))) == (answered, len(ROWS) - answered)


def test_a_run_says_in_the_log_what_it_does(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="batchllm"):
        run(ROWS[:1], prompt="{{ text }}", provider="simulator")
    assert [record.levelname for record in caplog.records if record.name == "batchllm.api"] == [
        "INFO",
        "INFO",
    ]
    assert "1 of 1 rows answered" in caplog.text
