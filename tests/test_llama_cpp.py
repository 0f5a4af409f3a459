"""Every kind of job against a server that this project had no hand in: llama-cpp-python's, with a tiny model.

Run with ``pip install --group peers`` and ``pytest -m slow tests/test_llama_cpp.py``; where the two packages live in
another environment, ``LLAMA_CPP_PYTHON`` names its interpreter. The model's weights are random, so what it says means
nothing; that it says it, in which form, and how the tokens are counted, is what is held.
"""

import csv
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from tests.command import Command

pytestmark = pytest.mark.slow

PYTHON = os.environ.get("LLAMA_CPP_PYTHON", sys.executable)
NEEDED = "import gguf, llama_cpp, llama_cpp.server.app, numpy, uvicorn"
START_S = 60
ALARM = {
    "type": "function",
    "function": {
        "name": "alarm",
        "description": "Rings",
        "parameters": {"type": "object", "properties": {"loud": {"type": "boolean"}}, "required": ["loud"]},
    },
}


@pytest.fixture(scope="module")
def base_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The server's URL."""
    if subprocess.run([PYTHON, "-c", NEEDED], capture_output=True).returncode:
        pytest.skip(f"{PYTHON} has no llama_cpp with server, or no gguf: pip install --group peers")
    folder = tmp_path_factory.mktemp("llama")
    model = folder / "tiny.gguf"
    subprocess.run([PYTHON, str(Path(__file__).with_name("tiny_gguf.py")), str(model)], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [PYTHON, "-m", "llama_cpp.server", "--model", model, "--port", port, "--n_ctx", 2048]
    words += ["--model_alias", "tiny", "--chat_format", "chatml-function-calling", "--n_threads", 1]
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(list(map(str, words)), stdout=log, stderr=log)
        try:
            url = f"http://127.0.0.1:{port}/v1"
            _wait_for(url, server)
            yield url
        finally:
            server.terminate()
            server.wait(10)


def _wait_for(url: str, server: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urlopen(f"{url}/models", timeout=5):
                return
        except (URLError, ConnectionError):
            time.sleep(0.2)
    raise AssertionError(f"the server did not start: {server.poll()}")


class Bench:
    """A folder and the command on this server."""

    def __init__(self, folder: Path, command: Command, base_url: str) -> None:
        self.folder = folder
        self._command = command
        self._place = ("--base-url", base_url, "-c", 2, "--no-early-stop")

    def write(self, name: str, rows: list[dict[str, Any]]) -> Path:
        path = self.folder / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    def run(self, *words: object, status: int = 0) -> str:
        said = self._command(*words, *self._place)
        assert said.status == status, said.err
        return said.err

    def rows(self, name: str) -> list[dict[str, Any]]:
        path = self.folder / name
        if path.suffix == ".csv":
            with path.open(newline="") as file:
                return list(csv.DictReader(file))
        return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def bench(tmp_path: Path, batchllm: Command, base_url: str) -> Bench:
    return Bench(tmp_path, batchllm, base_url)


def test_check_finds_the_model_by_itself_and_sees_it_answer(batchllm: Command, base_url: str) -> None:
    said = batchllm("check", "--base-url", base_url)
    assert said.status == 0, said.out
    assert "tiny (from /models)" in said.out
    assert "finish_reason" in said.out


@pytest.mark.parametrize("task", ["summarize", "classify", "codegen"])
def test_the_three_tasks_bring_text_reasons_and_usage(bench: Bench, samples: Path, task: str) -> None:
    file = {"summarize": "articles.csv", "classify": "reviews.csv", "codegen": "tasks.csv"}[task]
    bench.run(
        task, samples / file, "-n", 3, "--max-tokens", 20, "-o", bench.folder / "out.csv", "--allow-failed", 1
    )
    rows = bench.rows("out.csv")
    assert len(rows) == 3
    for row in rows:
        assert row["model"] == "tiny"
        assert row["finish_reason"] in ("length", "stop")
        assert int(row["total_tokens"]) == int(row["prompt_tokens"]) + int(row["completion_tokens"])
        assert row["error"] == "" or row["error"].startswith(("no label", "the answer has"))


def test_own_messages_parameters_and_batch_lines(bench: Bench) -> None:
    hello = [{"role": "system", "content": "You are brief."}, {"role": "user", "content": "Hello"}]
    batch = {"model": "tiny", "messages": hello, "max_tokens": 7, "temperature": 0}
    bench.write(
        "jobs.jsonl",
        [
            {"messages": hello, "max_tokens": 5, "temperature": 0, "seed": 1, "stop": ["\u0001"]},
            {"messages": [*hello, {"role": "assistant", "content": "Hi."}, hello[1]], "max_tokens": 6},
            {"custom_id": "r-1", "method": "POST", "url": "/v1/chat/completions", "body": batch},
            {"task": "summarize", "text": "One. Two.", "max_tokens": 4},
        ],
    )
    bench.run("run", bench.folder / "jobs.jsonl", "-m", "tiny")
    rows = bench.rows("jobs.run.jsonl")
    assert [row["finish_reason"] for row in rows] == ["length"] * 4
    assert rows[1]["prompt_tokens"] > rows[0]["prompt_tokens"]
    assert all(row["error"] is None for row in rows)


def test_each_turn_has_more_before_it(bench: Bench) -> None:
    rows = [{"chat": name, "text": f"Turn {turn}"} for turn in range(3) for name in "ab"]
    path = bench.write("turns.jsonl", rows)
    bench.run("run", "-p", "{{ text }}", path, "--conversation", "chat", "--max-tokens", 8)
    prompts = [row["prompt_tokens"] for row in bench.rows("turns.run.jsonl")]
    for chat in (prompts[0::2], prompts[1::2]):
        assert chat == sorted(set(chat)), "every turn is longer than the one before"


def test_an_answer_is_held_to_a_schema(bench: Bench) -> None:
    schema = {
        "type": "object",
        "properties": {"urgent": {"type": "boolean"}, "level": {"enum": ["low", "high"]}},
        "required": ["urgent", "level"],
    }
    (bench.folder / "schema.json").write_text(json.dumps(schema))
    # This server takes the schema beside "json_object", as a grammar that its model cannot leave.
    form = json.dumps({"type": "json_object", "schema": schema})
    bench.run(
        "run", "-p", "{{ text }}", bench.write("mails.jsonl", [{"text": "Fire!"}, {"text": "Hello"}]),
        "--schema", bench.folder / "schema.json", "--param", f"response_format={form}", "--max-tokens", 200,
    )  # fmt: skip
    for row in bench.rows("mails.run.jsonl"):
        assert row["urgent"] in (True, False)
        assert row["level"] in ("low", "high")


def test_a_tool_is_called(bench: Bench) -> None:
    (bench.folder / "tools.json").write_text(json.dumps([ALARM]))
    bench.run(
        "run", "-p", "{{ text }}", bench.write("mails.jsonl", [{"text": "Fire!"}]),
        "--tools", bench.folder / "tools.json", "--tool-choice", "alarm", "--max-tokens", 100,
    )  # fmt: skip
    (row,) = bench.rows("mails.run.jsonl")
    assert row["finish_reason"] == "tool_calls"
    assert row["tool_calls"][0]["function"]["name"] == "alarm"
    assert json.loads(row["tool_calls"][0]["function"]["arguments"])["loud"] in (True, False)


def test_a_message_with_an_image_is_taken(bench: Bench) -> None:
    """The model sees no images; that the server reads the message's form is what counts."""
    path = bench.write("images.jsonl", [{"photo": "data:image/png;base64,AAAA", "text": "What is this?"}])
    bench.run("run", "-p", "{{ text }}", path, "--image", "photo", "--detail", "low", "--max-tokens", 5)
    assert bench.rows("images.run.jsonl")[0]["error"] is None


def test_a_prompt_beyond_the_context_fails_its_row_alone(bench: Bench) -> None:
    path = bench.write("texts.jsonl", [{"text": "word " * 3000}, {"text": "short"}])
    bench.run("run", "-p", "{{ text }}", path, "--max-tokens", 5, "--max-attempts", 1, status=1)
    long, short = bench.rows("texts.run.jsonl")
    assert "2048" in long["error"]
    assert short["error"] is None


def test_the_same_command_again_sends_nothing(bench: Bench) -> None:
    path = bench.write("texts.jsonl", [{"text": "one"}, {"text": "two"}])
    words = ("run", "-p", "{{ text }}", path, "--max-tokens", 5)
    bench.run(*words)
    before = (bench.folder / "texts.run.jsonl").read_bytes()
    assert "2 of them found in the journal" in bench.run(*words)
    assert (bench.folder / "texts.run.jsonl").read_bytes() == before
