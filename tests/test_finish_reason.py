"""Whatever an endpoint calls the end of an answer, the column has one vocabulary."""

import json

import pytest

from batchllm.answer import Reader
from batchllm.finish_reason import finish_word
from batchllm.records import AnswerSpec
from tests.bench import Bench


@pytest.mark.parametrize(
    ("word", "standard"),
    [
        *[(word, "stop") for word in ("stop", "STOP", "eos", "eos_token", "end_turn", "stop_sequence", "COMPLETE",
                                      "FinishReason.STOP", "FINISH_REASON_STOP", "stop-sequence", "EndTurn")],
        *[(word, "length") for word in ("length", "max_tokens", "MAX_TOKENS", "model_length", "maxTokens",
                                        "model_context_window_exceeded", "ERROR_LIMIT", "max tokens")],
        *[(word, "tool_calls") for word in ("tool_use", "TOOL_CALL", "function_call", "toolUse")],
        *[(word, "content_filter") for word in ("SAFETY", "content-filter", "RECITATION", "sensitive", "refusal",
                                                "guardrail_intervened", "ERROR_TOXIC")],
        *[(word, "error") for word in ("error", "network_error", "insufficient_system_resource", "aborted")],
        ("pause_turn", "pause_turn"), ("", None), (None, None), (7, None),
    ],
)  # fmt: skip
def test_every_vendors_word_is_one_of_the_vocabulary(word: object, standard: str | None) -> None:
    assert finish_word(word) == standard


def test_cut_json_is_told_to_raise_the_limit_whatever_the_word_for_it() -> None:
    choice = {"message": {"content": '{"topic": "a'}, "finish_reason": "MAX_TOKENS"}
    answer = Reader(AnswerSpec("r", "json", schema="topic")).read(
        200, json.dumps({"choices": [choice]}).encode()
    )
    assert (answer.reason, answer.finish_reason, answer.raw_finish_reason) == ("cut", "length", "MAX_TOKENS")
    assert "--max-tokens" in str(answer.error)


def test_the_raw_word_is_written_on_request(bench: Bench) -> None:
    bench.complete(message={"content": "x"}, finish_reason="end_turn")
    path = bench.file("in.csv", "text\none\n")
    words = ("--add", "raw_finish_reason", "-o", bench.folder / "out.csv")
    said = bench.run("run", "-p", "{{ text }}", path, *words)
    (row,) = bench.out("out.csv")
    assert (row["finish_reason"], row["raw_finish_reason"]) == ("stop", "end_turn")
    assert "Finish reasons: stop 1" in said.err
