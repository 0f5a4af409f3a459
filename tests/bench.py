"""A folder, the command, and a server that keeps what it receives: for tests from a job's words to its bytes."""

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from batchllm.simulator import ScriptedResponse, Simulator
from tests.command import Command, Said
from tests.fakes import chat_body

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'},
}


def wire(body: dict[str, Any]) -> bytes:
    """A body as it goes out."""
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of an output."""
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


Answers = Callable[[dict[str, Any]], ScriptedResponse | None]


@dataclass
class Bench:
    """A folder, the command, and a server that keeps what it receives.

    Attributes:
        answers: Dictates answers; ``None`` leaves one to the simulator.
    """

    folder: Path
    command: Command
    server: Simulator = field(init=False)
    answers: Answers = lambda body: None

    def file(self, name: str, content: str | bytes | list[dict[str, Any]]) -> Path:
        path = self.folder / name
        if isinstance(content, list):
            content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def run(self, *words: object, status: int = 0) -> Said:
        """Runs a command on this server."""
        said = self.command(*words, "--base-url", self.server.base_url, "-m", "gpt-4")
        assert said.status == status, said.err
        return said

    def out(self, name: str) -> list[dict[str, Any]]:
        return read(self.folder / name)

    @property
    def bodies(self) -> list[bytes]:
        """The bodies received, in the order of their arrival."""
        return [received.body for received in self.server.received]

    def dictate(self, *texts: str) -> None:
        """Answers with these texts in turn, the last one again and again."""
        left = list(texts)
        self.answers = lambda body: ScriptedResponse(
            body=chat_body(left.pop(0) if len(left) > 1 else left[0])
        )

    def complete(self, **choice: Any) -> None:
        """Answers with one choice of this shape, and usage with details."""
        message = {"role": "assistant", "content": None, **choice.pop("message", {})}
        usage = {
            "prompt_tokens": 9, "completion_tokens": 20, "total_tokens": 29,
            "prompt_tokens_details": {"cached_tokens": 4},
            "completion_tokens_details": {"reasoning_tokens": 16},
        }  # fmt: skip
        body = orjson.loads(chat_body("")) | {
            "choices": [{"index": 0, "message": message, **choice}],
            "usage": usage,
        }
        self.answers = lambda _: ScriptedResponse(body=body)
