"""What flows cost: long conversations in linear time, a million rows in flat memory."""

import subprocess
import sys
import textwrap
import time
from pathlib import Path

import orjson
import pytest

from batchllm.flows import History, job_flow
from batchllm.flows.conversation import said
from batchllm.flows.open_flow import OpenFlow
from batchllm.job import assemble
from batchllm.records import Answer, ChatRequest, Row
from batchllm.request import RequestBuilder
from batchllm.runner import run_job
from tests.fakes import FakeClient, Outcome, answered


def replayed_s(turns: int) -> float:
    """CPU seconds to find the keys of all turns of one conversation that has its answers."""
    job = assemble(
        "run",
        {"input": "rows.csv", "prompt": "{{ text }}", "provider": "simulator", "conversation": "id"},
        {},
    )
    builder = RequestBuilder(job, ("id", "text"), [], len)
    start, history = job_flow(job, builder).start, History()
    began = time.process_time()
    for number in range(turns):
        row = Row(number, number + 2, {"id": "a", "text": f"turn {number}"}, [])
        flow = OpenFlow()
        flow.begin(start(row))
        flow.give(history)
        said(history, builder, row, flow.asks[0].identity, Answer(text=f"answer {number}"))
    return time.process_time() - began


def test_the_keys_of_a_long_conversation_take_linear_time() -> None:
    replayed_s(100)
    short, long = (min(replayed_s(turns) for _ in range(3)) for turns in (500, 2000))
    assert long < 4 * short * 2


@pytest.mark.proof
def test_a_conversation_of_2000_turns_resumes_in_linear_time(tmp_path: Path) -> None:
    """Even after a row was inserted at the top, so that every turn's key has to be found anew."""

    def run(turns: int, first: str) -> tuple[int, float]:
        path = tmp_path / f"{turns}.csv"
        rows = "".join(f"long,turn {number}\n" for number in range(turns))
        path.write_text(f"id,text\n{first}{rows}")
        sent: list[int] = []

        def script(request: ChatRequest, attempt: int) -> Outcome:
            sent.append(len(orjson.loads(request.body)["messages"]))
            return answered(f"answer {len(sent)}")

        flags = {"input": str(path), "prompt": "{{ text }}", "provider": "simulator", "conversation": "id"}
        began = time.process_time()
        run_job(assemble("run", flags, {}), client=FakeClient(script, latency_s=0))
        return len(sent), time.process_time() - began

    took = {}
    for turns in (500, 2000):
        assert run(turns, "")[0] == turns
        sent, took[turns] = run(turns, "alone,first\n")
        assert sent == 1
    assert took[2000] < 4 * took[500] * 2


@pytest.mark.proof
@pytest.mark.timeout(1800)
def test_a_million_rows_of_single_requests_take_flat_memory(tmp_path: Path) -> None:
    program = textwrap.dedent("""
        import asyncio, resource, sys
        from pathlib import Path
        from batchllm.job import assemble
        from batchllm.records import Response
        from batchllm.runner import run_job
        from tests.fakes import chat_body

        class Client:
            async def send(self, request):
                await asyncio.sleep(0)
                return Response(200, {}, BODY, 0.01)

        BODY, rows, folder = chat_body(), int(sys.argv[1]), Path(sys.argv[2])
        path = folder / f"{rows}.csv"
        with path.open("w") as file:
            file.write("text\\n")
            file.writelines(f"row {number}\\n" for number in range(rows))
        job = assemble("run", {"input": str(path), "prompt": "{{ text }}", "provider": "simulator"}, {})
        assert run_job(job, client=Client()).summary.answered == rows
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    """)

    def peak_kib(rows: int) -> int:
        command = [sys.executable, "-c", program, str(rows), str(tmp_path)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    small = peak_kib(50_000)
    assert peak_kib(1_000_000) < small + 60_000
