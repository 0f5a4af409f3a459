"""Jobs about long texts, and an endpoint whose answers are computed from what it was sent.

Every sentence of a text has a number of its own. The endpoint answers with the sum of the numbers that it reads, in any
kind of answer; so the right answer of a row is known without the product, and a part that is lost, repeated or taken
from another row makes another sum.
"""

import asyncio
import csv
import json
import random
import re
from pathlib import Path
from typing import Any

from batchllm import tokens
from batchllm.job import Job, assemble
from batchllm.journal import Journal
from batchllm.records import ChatRequest, Response
from batchllm.runner import Result, run_job
from tests.batch_kills import Killed
from tests.fakes import Outcome, answered, status

MODEL = "gpt-4o"
COUNT = tokens.counter(MODEL)
LIMIT = 120

_NUMBER = re.compile(r"N(\d+)n")
_SUM = re.compile(r"S(\d+)s")


def english(sentences: int, chance: random.Random) -> str:
    """Paragraphs of sentences with a number each."""
    found = []
    for _ in range(sentences):
        words = " ".join(chance.choice(("the", "party", "of", "a", "contract", "agrees")) for _ in range(9))
        found.append(f"Item N{chance.randrange(1000)}n: {words}.{chance.choice((' ', ' ', chr(10) * 2))}")
    return "".join(found)


def chinese(sentences: int, chance: random.Random) -> str:
    """Sentences in Chinese with a number each."""
    return "".join(
        f"第N{chance.randrange(1000)}n条：合同的一方同意承担责任{chance.choice('甲乙丙丁')}。"
        + chance.choice(("", "", "\n"))
        for _ in range(sentences)
    )


def markdown(sentences: int, chance: random.Random) -> str:
    """Sections, lists and code with a number each."""
    found = []
    for _ in range(sentences):
        value = f"N{chance.randrange(1000)}n"
        forms = (
            f"## Section {value}\n\n",
            f"- an item {value} of a list\n",
            f"A paragraph {value} of words.\n\n",
            f"```python\nx = '{value}'\n```\n\n",
            f"| {value} | cell |\n\n",
        )
        found.append(chance.choice(forms))
    return "".join(found)


KINDS = {"english": english, "chinese": chinese, "markdown": markdown}


def text_of(kind: str, times: int, seed: int = 0, limit: int = LIMIT) -> str:
    """A text of ``times`` the limit, at least."""
    chance = random.Random(seed)
    text = ""
    while COUNT(text) < times * limit:
        text += KINDS[kind](10 * times, chance)
    return text


def total(text: str) -> int:
    """The sum of the numbers of a text, which is its right answer."""
    return sum(map(int, _NUMBER.findall(text)))


class SplitEndpoint:
    """Answers with sums.

    Attributes:
        sent: The requests, in order.
        paid: How often each body was answered.
        fails: A text; a request that holds it gets a content-filter refusal.
        context: The tokens of a message that it takes; ``None`` is any number.
        malformed: So many answers are no JSON.
        words: Its error where a message is longer.
        length: Words of each answer beside the sum.
    """

    def __init__(self, kind: str = "text", *, length: int = 5, faults: float = 0.0, seed: int = 0) -> None:
        self.sent: list[ChatRequest] = []
        self.paid: dict[bytes, int] = {}
        self.fails = ""
        self.context: int | None = None
        self.malformed = 0
        self.words = (
            "This model's maximum context length is {limit} tokens. However, your messages resulted in {size}"
        )
        self.dies_at: int | None = None
        self.after = False
        self.journal: Journal | None = None
        self._kind = kind
        self._length = length
        self._faults = faults
        self._chance = random.Random(seed)

    async def send(self, chat: ChatRequest) -> Outcome:
        dies = self.dies_at is not None and len(self.sent) >= self.dies_at
        if dies and not self.after:
            self._die()
        await asyncio.sleep(0)
        outcome = self._outcome(chat)
        if dies:
            self._die()
        return outcome

    def _die(self) -> None:
        if self.journal is not None and self.journal._writer.failure is None:
            self.journal._writer.failure = RuntimeError("dead")  # nothing reaches the disk any more
        raise Killed

    def _outcome(self, chat: ChatRequest) -> Outcome:
        self.sent.append(chat)
        if self._chance.random() < self._faults:
            return Response(500, {}, b"{}", 0.0)
        body = json.loads(chat.body)
        said = next(each["content"] for each in body["messages"] if each["role"] == "user")
        size = sum(COUNT(message["content"]) for message in body["messages"])
        if self.context is not None and size > self.context:
            return status(400, self.words.format(limit=self.context, size=size), "context_length_exceeded")
        self.paid[chat.body] = self.paid.get(chat.body, 0) + 1
        if self.malformed:
            self.malformed -= 1
            return answered("no JSON")
        if self.fails and self.fails in said:
            return answered(None, finish_reason="content_filter")
        return answered(self._answer(said, body))

    def _answer(self, said: str, body: dict[str, Any]) -> str:
        value = sum(map(int, _SUM.findall(said))) or total(said)
        if self._kind == "label":
            return "positive" if value % 2 else "negative"
        if self._kind == "json":
            return json.dumps(self._fields(said, body))
        words = f"S{value}s " + "word " * self._length
        return f"```python\n{words}\n```" if self._kind == "code" else words

    def _fields(self, said: str, body: dict[str, Any]) -> dict[str, Any]:
        wanted = body["response_format"]["json_schema"]["schema"]["properties"]
        numbers = list(map(int, _NUMBER.findall(said)))
        if "numbers" in wanted:
            return {"numbers": numbers, "most": max(numbers), "kind": "same", "note": None}
        return {name: max(map(int, re.findall(rf'"{name}": ?(\d+)', said))) for name in wanted}


class SplitJob:
    """A job file's worth of options with its input; each ``run`` is the same command again."""

    def __init__(
        self, folder: Path, texts: list[str], endpoint: SplitEndpoint | None = None, **options: Any
    ) -> None:
        self.endpoint = endpoint or SplitEndpoint()
        self.output = folder / "out.csv"
        self.texts = texts
        self._source = folder / "in.csv"
        self.options = {
            "max_input_tokens": LIMIT, "on_long": "split", "model": MODEL, "base_url": "http://127.0.0.1:1/v1",
            "no_early_stop": True, **options,
        }  # fmt: skip
        with self._source.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "text"])
            writer.writerows(enumerate(texts))

    def job(self, task: str = "summarize", **more: Any) -> Job:
        given = {"input": str(self._source), "output": str(self.output), **self.options, **more}
        return assemble(task, {name: value for name, value in given.items() if value is not None}, {})

    def run(self, task: str = "summarize", **more: Any) -> Result:
        return run_job(self.job(task, **more), client=self.endpoint)

    @property
    def answers(self) -> list[dict[str, str]]:
        csv.field_size_limit(10**9)
        with self.output.open(newline="") as file:
            return list(csv.DictReader(file))

    def check_sums(self, column: str = "summary") -> None:
        """Every row has the sum of its own numbers, and no more."""
        for row, text in zip(self.answers, self.texts, strict=True):
            assert row["error"] == "", row["error"]
            assert _SUM.findall(row[column]) == [str(total(text))], row[column][:200]
