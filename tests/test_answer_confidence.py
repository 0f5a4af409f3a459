"""The probability of a label is that of the tokens which spell it."""

import csv
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchllm.answer.confidence import confidence
from batchllm.simulator import ScriptedResponse, SimulatorSettings, start_in_thread
from tests.command import Command
from tests.fakes import chat_body


def content(*tokens: tuple[str | bytes, float], with_bytes: bool = True) -> dict[str, Any]:
    """Logprobs as chat completions have them."""
    entries = []
    for token, probability in tokens:
        raw = token if isinstance(token, bytes) else token.encode()
        entry: dict[str, Any] = {"token": raw.decode("utf-8", "replace"), "logprob": math.log(probability)}
        entries.append({**entry, "bytes": list(raw)} if with_bytes else entry)
    return {"content": entries}


@pytest.mark.parametrize(
    ("tokens", "labels", "expected"),
    [
        ([("positive", 0.9)], ["positive"], 0.9),
        ([("Pos", 0.5), ("itive", 0.5), (".", 0.1)], ["positive"], 0.25),
        ([("The", 0.3), (" label", 0.3), (" is", 0.3), (" positive", 0.8)], ["positive"], 0.8),
        ([('{"', 0.5), ("label", 0.5), ('":"', 0.5), ("neg", 0.5), ('"}', 0.5)], ["neg"], 0.5),
        ([("not", 0.5), ("able", 0.5), (" no", 0.9)], ["no"], 0.9),
        ([("正面", 0.5), ("。", 0.5)], ["positive"], 0.25),
        ([("a", 0.5), ("; ", 0.1), ("b", 0.5)], ["a", "b"], 0.25),
        (
            [("积".encode()[:2], 0.5), ("积".encode()[2:] + "极".encode(), 0.5), ("<|end|>", 0.1)],
            ["积极"],
            0.25,
        ),
    ],
)
def test_only_the_tokens_of_the_label_count(
    tokens: list[tuple[str | bytes, float]], labels: list[str], expected: float
) -> None:
    assert confidence(content(*tokens), labels) == pytest.approx(expected)


@given(st.lists(st.integers(1, 7), max_size=3), st.floats(0.01, 1))
def test_however_a_label_is_cut_into_tokens_its_probability_is_their_product(
    cuts: list[int], probability: float
) -> None:
    label, places = "negative", sorted({0, *cuts, 8})
    parts = [label[start:end] for start, end in pairwise(places)]
    found = confidence(content(("So: ", 0.1), *((part, probability) for part in parts), ("!", 0.1)), [label])
    assert found == pytest.approx(probability ** len(parts), abs=1e-6)


def test_tokens_without_bytes_and_the_older_form_are_read() -> None:
    assert confidence(content((" yes", 0.5), with_bytes=False), ["yes"]) == 0.5
    older = {"tokens": ["ye", "s", "."], "token_logprobs": [math.log(0.5), 0, -9], "top_logprobs": None}
    assert confidence(older, ["yes"]) == 0.5


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["content", "token", "logprob", "bytes", "tokens", "token_logprobs"]), inner, max_size=4
    ),
    max_leaves=12,
)  # fmt: skip


@given(JSON, st.lists(st.text(min_size=1, max_size=5), max_size=2))
def test_whatever_an_endpoint_sends_is_a_probability_or_nothing(logprobs: Any, labels: Sequence[str]) -> None:
    found = confidence(logprobs, labels)
    assert found is None or 0 <= found <= 1


def column_of(path: Path) -> list[str]:
    with path.open(newline="", encoding="utf-8") as file:
        return [row["confidence"] for row in csv.DictReader(file)]


def rows(path: Path) -> Path:
    path.write_text("text\nI love it\nIt broke\n", "utf-8")
    return path


def test_a_run_asks_for_logprobs_and_writes_the_column(batchllm: Command, tmp_path: Path) -> None:
    words = ("classify", rows(tmp_path / "r.csv"), "--provider", "simulator", "--confidence")
    said = batchllm(*words, "-o", tmp_path / "o.csv")
    assert said.status == 0, said.err
    assert all(0.5 <= float(value) <= 1 for value in column_of(tmp_path / "o.csv"))
    assert "gave no logprobs" not in said.err


def test_an_endpoint_without_logprobs_leaves_the_column_empty_and_the_run_says_so(
    batchllm: Command, tmp_path: Path
) -> None:
    asked = []

    def script(body: dict[str, Any]) -> ScriptedResponse:
        asked.append(body.get("logprobs"))
        return ScriptedResponse(body=chat_body("positive"))

    with start_in_thread(SimulatorSettings(), script=script) as server:
        words = (
            "classify",
            rows(tmp_path / "r.csv"),
            "--base-url",
            server.base_url,
            "-m",
            "m",
            "--confidence",
        )
        said = batchllm(*words, "-o", tmp_path / "o.csv")
    assert (said.status, asked) == (0, [True, True])
    assert column_of(tmp_path / "o.csv") == ["", ""]
    assert said.err.count("gave no logprobs") == 1


def test_confidence_without_labels_is_refused(batchllm: Command, tmp_path: Path) -> None:
    words = ("run", rows(tmp_path / "r.csv"), "-p", "{{ text }}", "--provider", "simulator", "--confidence")
    said = batchllm(*words)
    assert said.status == 2
    assert "--confidence" in said.err
