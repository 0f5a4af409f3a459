"""Texts are cut at natural boundaries, within the limit by the exact count, and nothing is lost."""

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm import tokens
from batchllm.splitting import Span, split
from tests.split_jobs import KINDS, text_of

COUNT = tokens.counter("gpt-4o")


def parts_of(text: str, limit: int, overlap: int = 0) -> list[str]:
    """The parts, once everything that holds for any text is checked."""
    spans = split(text, limit, COUNT, overlap)
    parts = [text[span.begin : span.end] for span in spans]
    assert max(map(COUNT, parts)) <= limit
    ends = [0, *(span.end for span in spans)]
    assert "".join(text[a:b] for a, b in pairwise(ends)) == text
    for before, after in pairwise(spans):
        assert before.begin <= after.begin <= before.end < after.end
        assert COUNT(text[after.begin : before.end]) <= overlap
    return parts


PIECES = st.sampled_from(
    ["word ", "Sentence. ", "\n\n", "# Heading\n\n", "```\n", "字", "句子。", "é", "e\u0301", "👨‍👩‍👧", "\t", "x" * 50,
     "- item\n", "<|endoftext|>", "\r\n", "\u2028", "123456789", "अनुच्छेद ", "   "]
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.one_of(PIECES, st.text(max_size=20)), max_size=60).map("".join),
    st.integers(16, 60),
    st.integers(0, 8),
)
def test_any_text_is_cut_within_the_limit_and_nothing_is_lost(text: str, limit: int, overlap: int) -> None:
    if text:
        parts_of(text, limit, overlap)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("times", [3, 30, pytest.param(300, marks=pytest.mark.proof)])
@pytest.mark.parametrize("overlap", [0, 20])
def test_long_documents_are_cut_within_the_limit(kind: str, times: int, overlap: int) -> None:
    text = text_of(kind, times)
    parts = parts_of(text, 120, overlap)
    assert len(parts) >= times
    assert COUNT(text) / len(parts) > 120 / 3, "parts are not much smaller than they may be"


def test_a_text_is_cut_at_the_largest_boundary_that_fits() -> None:
    sentence = "One two three four five six seven."
    paragraph = " ".join([sentence] * 4)
    assert parts_of(f"{paragraph}\n\n{paragraph}", COUNT(paragraph) + 4) == [f"{paragraph}\n\n", paragraph]
    assert all(part.rstrip().endswith(".") for part in parts_of(paragraph, COUNT(sentence) + 4))
    sections = [f"# Title {number}\n\n{paragraph}\n\n{paragraph}\n\n" for number in range(3)]
    assert [part[:7] for part in parts_of("".join(sections), COUNT(sections[0]) + 8)] == ["# Title"] * 3
    chinese = "".join(f"这是第{number}个句子，说的是合同。" for number in range(30))
    assert all(part.endswith("。") for part in parts_of(chinese, 60))


def test_a_text_that_fits_is_one_part() -> None:
    assert split("short", 16, COUNT) == [Span(0, 5)]


@pytest.mark.parametrize(
    "text",
    [
        "x" * 20_000,
        " " * 10_000,
        "a" + "\u0301" * 3_000,
        "👨‍👩‍👧‍👦" * 400,
        "\ud800" * 300,
        "字" * 3_000,
        "\n" * 10_000,
    ],
    ids=["one word", "blanks", "marks", "emoji", "surrogates", "ideographs", "lines"],
)
def test_a_text_without_boundaries_is_cut_all_the_same(text: str) -> None:
    parts_of(text, 40)


def test_the_work_does_not_grow_with_the_square_of_the_text() -> None:
    """A text without paragraphs and sentences has the worst of all boundaries."""
    chance = random.Random(0)
    words = " ".join(chance.choice(("party", "contract", "of")) for _ in range(20_000))
    seen = []
    for length in (len(words) // 4, len(words)):
        characters = 0

        def count(text: str) -> int:
            nonlocal characters
            characters += len(text)
            return COUNT(text)

        split(words[:length], 200, count)
        seen.append(characters / length)
    assert seen[1] < 1.5 * seen[0]
