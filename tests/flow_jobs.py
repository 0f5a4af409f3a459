"""A job of three steps, written as a flow of the tests' own, against an endpoint that never answers twice alike."""

import csv
import json
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any
from unittest.mock import patch

from batchllm.answer import Reader
from batchllm.flows import Ask, Flow, JobFlow
from batchllm.job import Job, assemble
from batchllm.records import Answer, ChatRequest, Response, Row
from batchllm.request import RequestBuilder, request_key
from batchllm.runner import run_job
from batchllm.template import AnswerSpec
from tests.fakes import Outcome, answered

READER = Reader(AnswerSpec("response"))
TEXTS = [f"text {number}" for number in range(8)]

Table = list[dict[str, str]]


def request(row: Row, content: str, model: str = "simulator") -> ChatRequest:
    """A request with that content."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": content}]}).encode()
    return ChatRequest(row.index, request_key("simulator", body), body, model, len(body) // 4, 20)


def later(row: Row, path: str, content: str) -> Ask:
    """A later request of a row."""
    built = request(row, content, "other" if path == "check" else "simulator")
    return Ask(path, built.body, READER, built, model=built.model)


def three_steps(
    reply: str = "reply", reads: Sequence[str] = ("name",), check: str = "check"
) -> Callable[[Row], Flow]:
    """A flow whose first step reads ``text``, whose second reads the columns ``reads`` too, and whose third both."""

    def start(row: Row) -> Flow:
        values = row.values
        first = request(row, f"topic of {values['text']}")
        read = "\0".join(str(values[name]) for name in reads)
        key = sha256(first.key + read.encode()).digest()[:16]
        topic: Answer = yield Ask("topic", key, READER, first, body_key=first.key)
        if topic.text.endswith(("0", "5")):
            return topic
        content = f"{reply}: {' '.join(values[name] for name in reads)} <{topic.text}>"
        said: Answer = yield later(row, "reply", content)
        checked: Answer = yield later(row, "check", f"{check} of {values['name']} <{said.text}>")
        return checked

    return start


class Endpoint:
    """Answers with a number that no other answer has; knows what was asked for each.

    Attributes:
        asked: The content of each request, by the number of its answer.
        sent: The contents of all requests, those that failed included.
    """

    def __init__(self, faults: float = 0.0, seed: int = 0) -> None:
        self.asked: dict[int, str] = {}
        self.sent: list[str] = []
        self._chance = random.Random(seed)
        self._faults = faults

    async def send(self, chat: ChatRequest) -> Outcome:
        content = json.loads(chat.body)["messages"][-1]["content"]
        self.sent.append(content)
        if self._chance.random() < self._faults:
            return Response(500, {}, b"{}", 0.0)
        number = len(self.asked) + 1
        self.asked[number] = content
        return answered(f"answer {number}")

    def chain(self, text: str) -> list[str]:
        """What was asked for an answer, and for the answers that this was built on, the last first."""
        contents = [self.asked[int(text.split()[-1])]]
        while "<answer" in contents[-1]:
            contents.append(self.asked[int(contents[-1].partition("<answer ")[2].partition(">")[0])])
        return contents


@contextmanager
def with_flow(start: Callable[[Row], Flow], *, longest: int = 3) -> Iterator[None]:
    """Every job that is prepared meanwhile does this with its rows."""

    def job_flow(job: Job, builder: RequestBuilder, rows: Callable[[], Iterable[Row]]) -> JobFlow:
        return JobFlow(builder=builder, start=start, single=False, longest=longest)

    with patch("batchllm.prepare.prepared_job.job_flow", job_flow):
        yield


class FlowJob:
    """A job over a table; each ``run`` is the same command again, with another table or another flow."""

    def __init__(self, folder: Path, endpoint: Endpoint, **flags: Any) -> None:
        self.folder = folder
        self.endpoint = endpoint
        self.flags = flags

    def run(self, table: Table, start: Callable[[Row], Flow], *, words: str = "", **flags: Any) -> int:
        """Runs the job; returns how many requests it sent. ``words`` stand for a change of the job."""
        path = self.folder / "rows.csv"
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, table[0].keys())
            writer.writeheader()
            writer.writerows(table)
        given = {
            "input": str(path),
            "prompt": f"{words}{{{{ text }}}}",
            "provider": "simulator",
            **self.flags,
        }
        job = assemble("run", {**given, "no_early_stop": True, **flags}, {})
        before = len(self.endpoint.sent)
        with with_flow(start):
            self.result = run_job(job, client=self.endpoint)
        return len(self.endpoint.sent) - before

    @property
    def answers(self) -> list[dict[str, str]]:
        with (self.folder / "rows.run.simulated.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    def check(self, reads: Sequence[str] = ("name",), reply: str = "reply") -> None:
        """Every row has an answer that was built on its own values only."""
        for row in self.answers:
            assert row["error"] == ""
            *others, topic = self.endpoint.chain(row["response"])
            assert topic == f"topic of {row['text']}"
            if others:
                last, second = others
                assert last.startswith(f"check of {row['name']} <"), (row, last)
                assert second.startswith(f"{reply}: {' '.join(row[name] for name in reads)} <"), (row, second)


def table_of(rows: int, seed: int = 0) -> Table:
    """Rows with eight different texts, and names of which some are equal."""
    chance = random.Random(seed)
    return [
        {
            "id": str(number),
            "text": chance.choice(TEXTS),
            "name": f"name {chance.randrange(rows)}",
            "city": f"c{number % 9}",
        }
        for number in range(rows)
    ]
