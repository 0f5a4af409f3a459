"""Conversations through the command: what they cost, what ``show`` and ``export`` know of them, what they refuse."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from batchllm.simulator import ScriptedResponse, SimulatorSettings, start_in_thread
from tests.command import Command
from tests.fakes import chat_body


def unique_answers() -> Any:
    numbers = iter(range(10_000))
    return lambda body: ScriptedResponse(body=chat_body(f"unique {next(numbers)}"))


def write_jsonl(path: Path, turns: Sequence[tuple[str, str]]) -> Path:
    path.write_text("".join(json.dumps({"thread": name, "text": text}) + "\n" for name, text in turns))
    return path


def test_a_conversation_put_in_before_others_that_open_alike_costs_its_own_rows_only(
    batchllm: Command, tmp_path: Path
) -> None:
    old = [("a", "Hello"), ("b", "Hello"), ("a", "why?"), ("b", "how?")]
    path = write_jsonl(tmp_path / "talks.jsonl", old)
    with start_in_thread(SimulatorSettings(), script=unique_answers()) as server:
        words = ("run", "-p", "{{ text }}", path, "--conversation", "thread", "--base-url", server.base_url)
        assert batchllm(*words, "-m", "any").status == 0
        before = {tuple(sorted(line.items())) for line in _lines(tmp_path / "talks.run.jsonl")}
        write_jsonl(path, [("new", "Hello"), ("new", "when?"), *reversed(old[:2]), *old[2:]])
        assert batchllm(*words, "-m", "any").status == 0
        assert server.ledger.requests == 6
    after = {tuple(sorted(line.items())) for line in _lines(tmp_path / "talks.run.jsonl")}
    assert before < after


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_show_and_export_know_the_turns_before_a_row(batchllm: Command, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "talks.jsonl", [("a", "Hello"), ("a", "why?"), ("a", "really?")])
    with start_in_thread(SimulatorSettings(keep_requests=9), script=unique_answers()) as server:
        words = ("run", "-p", "{{ text }}", path, "--conversation", "thread", "--base-url", server.base_url)
        assert batchllm(*words, "-m", "any").status == 0
        sent = server.received[2].body.decode()
    output = tmp_path / "talks.run.jsonl"
    shown = batchllm("show", output, 3).out
    assert sent in shown.splitlines()[1]
    assert "unique 1" in sent
    written = output.read_bytes()
    assert batchllm("export", output, "-o", tmp_path / "copy.jsonl").status == 0
    assert (tmp_path / "copy.jsonl").read_bytes() == written


def test_a_turn_that_was_not_sent_says_why_in_the_output_and_in_show(
    batchllm: Command, tmp_path: Path
) -> None:
    path = write_jsonl(tmp_path / "talks.jsonl", [("a", "bad"), ("a", "why?"), ("b", "fine")])

    def script(body: dict[str, Any]) -> ScriptedResponse | None:
        bad = body["messages"][-1]["content"] == "bad"
        return ScriptedResponse(body=chat_body(None, finish_reason="content_filter")) if bad else None

    with start_in_thread(SimulatorSettings(), script=script) as server:
        words = ("run", "-p", "{{ text }}", path, "--conversation", "thread", "--base-url", server.base_url)
        said = batchllm(*words, "-m", "any")
        assert said.status == 1
        assert "content filter 1, conversation 1" in said.err
        assert server.ledger.requests == 2
    lines = _lines(tmp_path / "talks.run.jsonl")
    assert [line["error"] is None for line in lines] == [False, False, True]
    assert lines[1]["error"] == "not sent: row 1, an earlier turn of its conversation, has no answer"
    assert lines[1]["attempts"] == 0
    shown = batchllm("show", tmp_path / "talks.run.jsonl", 2).out
    assert "never sent: conversation: not sent: row 1" in shown


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--conversation", "thred"), "thread"),
        (("--conversation", "thread", "--sample", 1), "-n"),
        (("--conversation", "thread", "--via", "batch"), "--via batch"),
    ],
)
def test_what_does_not_go_with_conversations_is_wrong_use(
    batchllm: Command, tmp_path: Path, words: tuple[object, ...], says: str
) -> None:
    path = write_jsonl(tmp_path / "talks.jsonl", [("a", "Hello")])
    said = batchllm("run", "-p", "{{ text }}", path, "--provider", "simulator", *words)
    assert said.status == 2
    assert says in said.err
