"""A job file of three steps, and an endpoint that knows which step asks and never answers twice alike."""

import csv
import json
import random
from pathlib import Path
from typing import Any

from batchllm.job import Job, assemble
from batchllm.records import ChatRequest, Response
from batchllm.runner import Result, run_job
from tests.fakes import Outcome, answered

CHAIN = """\
[job]
input = "rows.csv"
output = "out.csv"
provider = "simulator"
no_early_stop = true

[[steps]]
name = "kind"
template = "classify"
labels = ["praise", "complaint"]

[[steps]]
name = "reply"
when = "{{ kind == 'complaint' }}"
prompt = "Answer kindly, {{ name }}, to this {{ kind }}: {{ text }}"
model = "writer"
temperature = 0.9

[[steps]]
name = "check"
when = "{{ reply }}"
prompt = "Check for {{ name }} <{{ reply }}>"
schema = "fits bool, grade 1..5"
"""

ROWS = [
    {"id": str(n), "text": ("good" if n % 4 == 0 else "bad") + f" thing {n % 3}", "name": f"name {n}"}
    for n in range(8)
]

Table = list[dict[str, str]]


class StepEndpoint:
    """Answers by the step that asks.

    Attributes:
        sent: The bodies of all requests, those that failed included.
        asked: What each reply was asked with, by the reply.
        paid: The number of answers.
        refuses: A step whose answers are content-filtered.
        malformed: So many answers to ``check`` are no JSON.
    """

    def __init__(self, faults: float = 0.0, seed: int = 0) -> None:
        self.sent: list[dict[str, Any]] = []
        self.asked: dict[str, str] = {}
        self.paid = 0
        self.refuses = ""
        self.malformed = 0
        self._chance = random.Random(seed)
        self._faults = faults

    async def send(self, chat: ChatRequest) -> Outcome:
        body = json.loads(chat.body)
        self.sent.append(body)
        if self._chance.random() < self._faults:
            return Response(500, {}, b"{}", 0.0)
        self.paid += 1
        step, content = step_of(body), body["messages"][-1]["content"]
        if step == self.refuses:
            return answered(None, finish_reason="content_filter")
        if step == "kind":
            return answered("praise" if "good" in content else "complaint")
        if step == "reply":
            reply = f"reply {len(self.asked)}"
            self.asked[reply] = content
            return answered(reply)
        if self.malformed:
            self.malformed -= 1
            return answered("it does")
        return answered(json.dumps({"fits": True, "grade": 1 + len(content) % 5}))

    def by_step(self) -> dict[str, list[dict[str, Any]]]:
        """The bodies that were sent, by their step."""
        found: dict[str, list[dict[str, Any]]] = {}
        for body in self.sent:
            found.setdefault(step_of(body), []).append(body)
        return found


def step_of(body: dict[str, Any]) -> str:
    """The step that a body belongs to."""
    if "response_format" in body:
        return "check"
    return "kind" if "Classify" in body["messages"][-1]["content"] else "reply"


class StepJob:
    """A job file with its input; each ``run`` is the same command again."""

    def __init__(self, folder: Path, text: str, rows: Table, endpoint: StepEndpoint | None = None) -> None:
        self.folder, self.file, self.output = folder, folder / "job.toml", folder / "out.csv"
        self.endpoint = endpoint or StepEndpoint()
        self.with_text(text).with_rows(rows)

    def with_text(self, text: str) -> "StepJob":
        """The same job with another job file."""
        self.file.write_text(text)
        return self

    def with_rows(self, rows: Table) -> "StepJob":
        """The same job with other rows."""
        with (self.folder / "rows.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)
        return self

    def job(self, **flags: Any) -> Job:
        """The job with these options of the command line."""
        return assemble("run", {"job_file": str(self.file), **flags}, {})

    def run(self, **flags: Any) -> Result:
        """Runs it."""
        return run_job(self.job(**flags), client=self.endpoint)

    @property
    def answers(self) -> list[dict[str, str]]:
        with self.output.open(newline="") as file:
            return list(csv.DictReader(file))

    @property
    def columns(self) -> list[str]:
        return list(self.answers[0])

    def check(self, row: dict[str, str]) -> None:
        """The row has answers that were built on its own values only."""
        assert row["error"] == "", row
        assert row["kind"] == ("praise" if "good" in row["text"] else "complaint")
        if row["kind"] == "praise":
            assert (row["reply"], row["fits"], row["grade"]) == ("", "", "")
            return
        asked = self.endpoint.asked[row["reply"]]
        assert f"{row['name']}, to this complaint: {row['text']}" in asked, (row, asked)
        check = f"Check for {row['name']} <{row['reply']}>"
        assert row["fits"].lower() == "true"
        assert row["grade"] == str(1 + len(check) % 5)
