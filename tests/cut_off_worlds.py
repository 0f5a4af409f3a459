"""Jobs of several requests a row, and an endpoint that cuts off the answers that a limit has no room for.

The whole answer to a request follows from what it says alone. So the right output of a job whose answers were asked for
again with room enough is that of a job which had the room from the start.
"""

import asyncio
import csv
import json
import random
from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import Any

from batchllm.budget.forecast import Forecast
from batchllm.job import Job, assemble
from batchllm.journal import Journal
from batchllm.records import ChatRequest
from batchllm.runner import Result, run_job
from tests.batch_kills import Killed
from tests.fakes import Outcome, answered, lost, status

LOW, HIGH = 20, 60
STEPS = """\
[job]
input = "rows.csv"
no_early_stop = true

[[steps]]
name = "topic"
prompt = "What is {{ text }} about?"

[[steps]]
name = "reply"
when = "{{ topic }}"
prompt = "Answer {{ name }} about <{{ topic }}>"

[[steps]]
name = "check"
prompt = "Check <{{ reply }}>"
schema = "n int"
"""
KINDS: dict[str, dict[str, Any]] = {
    "single": {"prompt": "Say {{ text }}"},
    "samples": {"prompt": "Say {{ text }}", "samples": 2},
    "re-asks": {"prompt": "Count {{ text }}", "schema": "n int", "reask": 2},
    "steps": {"job_file": "job.toml"},
    "parts": {"task": "summarize", "on_long": "split", "max_input_tokens": 30, "model": "gpt-4o"},
}
FAILURES = (
    lambda: status(400, "max_tokens is too large"),
    lambda: status(500),
    lost,
    lambda: answered("", finish_reason="content_filter"),
    lambda: status(403, "not this row"),
)


class CuttingEndpoint:
    """Answers as far as the limit of a request goes.

    Attributes:
        sent: What each request said, and its limit, in the order of sending.
        paid: How often each of these was answered.
        fails: By what a request says, how it ends instead.
        dies_at, after, journal: See ``mortal_runs.Mortal``.
    """

    def __init__(self, seed: int = 0) -> None:
        self.sent: list[tuple[str, int]] = []
        self.paid: Counter[tuple[str, int]] = Counter()
        self.fails: dict[str, Outcome] = {}
        self.dies_at: int | None = None
        self.after = False
        self.journal: Journal | None = None
        self._seed = seed

    async def send(self, chat: ChatRequest) -> Outcome:
        body = json.loads(chat.body)
        said, limit = json.dumps(body["messages"]), body["max_tokens"]
        self.sent.append((said, limit))
        dies = self.dies_at is not None and len(self.sent) > self.dies_at
        if dies and not self.after:
            self._die()
        await asyncio.sleep(0)
        if said in self.fails:
            return self.fails[said]
        self.paid[said, limit] += 1
        if dies:
            self._die()
        return self.answer(said, limit, is_json="response_format" in body)

    def _die(self) -> None:
        if self.journal is not None and self.journal._writer.failure is None:
            self.journal._writer.failure = RuntimeError("dead")  # nothing reaches the disk any more
        raise Killed

    def answer(self, said: str, limit: int, *, is_json: bool) -> Outcome:
        """The answer to a request: four of ten need more than ``LOW`` tokens."""
        digest = sha256(f"{self._seed}{said}".encode()).hexdigest()
        needs = 30 if int(digest[:2], 16) < 100 else 5
        whole = json.dumps({"n": int(digest[:4], 16)}) if is_json else f"answer {digest[:12]}"
        if needs <= limit:
            return answered(whole, completion=needs)
        return answered(whole[:-3], finish_reason="length", completion=limit)


class CutOffJob:
    """A job of one of ``KINDS``; each call is the command again."""

    def __init__(self, folder: Path, kind: str, endpoint: CuttingEndpoint, rows: int = 8) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.kind, self.endpoint = folder, kind, endpoint
        self.forecasts: list[Forecast] = []
        chance = random.Random(rows)
        (folder / "job.toml").write_text(STEPS)
        with (folder / "rows.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "name"])
            for number in range(rows):
                long = " ".join(chance.choice(("red", "green", "blue")) for _ in range(60))
                writer.writerow([f"thing {number} {long if kind == 'parts' else ''}", f"n{number % 3}"])

    def job(self, **flags: Any) -> Job:
        given = {
            **KINDS[self.kind],
            "input": str(self.folder / "rows.csv"),
            "output": str(self.folder / "out.csv"),
        }
        given |= {
            "provider": "simulator",
            "concurrency": 4,
            "no_early_stop": True,
            "max_attempts": 1,
            **flags,
        }
        if "job_file" in given:
            given["job_file"] = str(self.folder / "job.toml")
        return assemble(given.pop("task", "run"), given, {})

    def run(self, limit: int = LOW, **flags: Any) -> Result:
        """The command that begins the job; ``sent`` is of this call."""
        self.endpoint.sent.clear()
        return run_job(
            self.job(max_tokens=limit, **flags), client=self.endpoint, confirm=self.forecasts.append
        )

    def retry(self, limit: int = HIGH, **flags: Any) -> Result:
        """The command that asks again."""
        return self.run(limit, retry_cut_off=True, **flags)

    @property
    def answers(self) -> list[dict[str, str]]:
        """What the rows were answered, without what was paid for it."""
        with (self.folder / "out.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        beside = ("prompt_tokens", "completion_tokens", "total_tokens", "attempts")
        return [{name: cell for name, cell in row.items() if name not in beside} for row in rows]
