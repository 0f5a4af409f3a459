"""Every flow asks the same whenever it receives the same: in another process, at another time, with another hash seed.

A new flow is one more entry of ``FLOWS``. As a program (``python -m tests.test_flow_determinism``) it prints what each
asks.
"""

import hashlib
import itertools
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from batchllm.flows import After, Ask, Flow, History, job_flow
from batchllm.flows.open_flow import OpenFlow
from batchllm.flows.stand_in import expected, longest
from batchllm.job import assemble
from batchllm.records import Answer, Row
from batchllm.request import RequestBuilder
from tests.flow_jobs import READER, later, request, three_steps
from tests.step_jobs import CHAIN

ROW = Row(0, 2, {"id": "7", "text": "a text", "name": "somebody", "city": "here"}, [])


def of_job(task: str = "run", **flags: object) -> Callable[[Row], Flow]:
    """The flow of a job with these options."""
    given = {"prompt": "{{ text }}"} if task == "run" else {}
    job = assemble(task, {"input": "rows.csv", "provider": "simulator", **given, **flags}, {})
    return job_flow(job, RequestBuilder(job, tuple(ROW.values), [ROW], None)).start


def of_long(task: str, **flags: object) -> Callable[[Row], Flow]:
    """The flow of a job that splits, over a long text."""
    start = of_job(task, on_long="split", max_input_tokens=60, **flags)
    return lambda row: start(row._replace(values={**row.values, "text": LONG}))


def of_steps() -> Callable[[Row], Flow]:
    """The flow of a job file with steps."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "job.toml")
        path.write_text(CHAIN)
        return of_job(prompt=None, job_file=str(path))


def of_chance(row: Row) -> Flow:
    built = request(row, f"number {random.random()}")
    answer: Answer = yield Ask("", built.key, READER, built)
    return answer


def of_the_clock(row: Row) -> Flow:
    built = request(row, "what")
    yield Ask("first", built.key, READER, built)
    answer: Answer = yield later(row, "second", f"at {time.time_ns()}")
    return answer


def of_a_set(row: Row) -> Flow:
    built = request(row, "what")
    yield Ask("first", built.key, READER, built)
    answer: Answer = yield later(row, "second", " ".join({f"word {number}" for number in range(40)}))
    return answer


FLOWS: dict[str, Callable[[], Callable[[Row], Flow]]] = {
    "one request": of_job,
    "re-ask": lambda: of_job(schema="n int", reask=2),
    "samples": lambda: of_job("classify", samples=3),
    "re-asked samples": lambda: of_job(schema="n int", samples=2, reask=1),
    "a turn": lambda: of_job(conversation="name"),
    "re-asked samples of a turn": lambda: of_job(conversation="name", schema="n int", samples=2),
    "three steps": three_steps,
    "the steps of a job file": of_steps,
}
LONG = " ".join(f"Sentence number {number}." for number in range(200))
FLOWS |= {
    "parts of a long text": lambda: of_long("summarize"),
    "re-asked fields of parts": lambda: of_long("run", schema="n int, tags list", reask=1),
    "a vote": lambda: of_long("classify", combine="vote"),
}
BAD: dict[str, Callable[[], Callable[[Row], Flow]]] = {
    "chance": lambda: of_chance,
    "clock": lambda: of_the_clock,
    "set": lambda: of_a_set,
}


def asked(start: Callable[[Row], Flow]) -> Iterator[str]:
    """What a flow asks, with answers that can be used and with answers that cannot."""
    for stand_in in (expected(lambda bound: 3), longest(lambda bound: 3)):
        flow = OpenFlow()
        flow.begin(start(ROW))
        for turn in itertools.count():
            if flow.ended:
                break
            assert turn < 100, "it does not come to an end"
            if flow.waits_for is not None:
                said = History([{"role": "user", "content": "before"}], 3, b"key of the turn before")
                flow.give(said if isinstance(flow.waits_for, After) else flow.waits_for.compute())
                continue
            asks = flow.asks
            assert len({ask.path for ask in asks}) == len(asks), "two requests have one path"
            for number, ask in enumerate(asks):
                built = ask.built()
                yield f"{ask.path} {hashlib.sha256(ask.identity + built.body).hexdigest()}"
                flow.take(number, stand_in(ask, built))
        yield f"ended: {flow.result is not None}"


@cache
def printed(seed: str) -> dict[str, list[str]]:
    """What another process says that each flow asks."""
    command = [sys.executable, "-m", "tests.test_flow_determinism"]
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    said = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    found: dict[str, list[str]] = json.loads(said)
    return found


@pytest.mark.parametrize("name", FLOWS)
def test_a_flow_asks_the_same_in_every_process(name: str) -> None:
    assert printed("1")[name] == printed("2")[name]
    assert "ended: True" in printed("1")[name]


@pytest.mark.parametrize("name", BAD)
def test_a_flow_that_depends_on_anything_else_is_found(name: str) -> None:
    assert printed("1")[name] != printed("2")[name]


if __name__ == "__main__":
    everything = {name: [*asked(flow())] for name, flow in {**FLOWS, **BAD}.items()}
    print(json.dumps(everything))
