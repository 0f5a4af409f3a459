"""No value of an option of the connection is an internal error: it is used, or refused in a sentence."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.errors import JobError
from batchllm.job import assemble
from tests.command import Command

HUGE = 10**400
TEXT = st.text(st.characters(blacklist_characters="\0"), max_size=30)
URL = st.one_of(
    TEXT,
    st.builds(
        "{}{}{}{}{}".format,
        st.sampled_from(
            ["http://", "https://", "HTTPS://", "ftp://", "//", "", "http:///", "https://user:pw@"]
        ),
        st.one_of(
            TEXT,
            st.sampled_from(
                ["[::1", "[::1]", "[v1.x]", "1.2.3.4", "a" * 300, "..", "xn--", "ß.example", "\u2100.x"]
            ),
        ),
        st.sampled_from(["", ":", ":0", ":99999", ":-1", ":x", ":٣"]),
        st.sampled_from(["", "/v1", "/%", "/ü", "/a b", "/\ud800"]),
        st.sampled_from(["", "?q=1", "#f", "?key=sk-1"]),
    ),
)
NUMBERS: list[Any] = [
    HUGE, -HUGE, 10**5000, "1" * 5000, "1e400", "nan", "-inf", float("nan"), float("inf"), 1e308, "٣", "", " ", "0x10",
    True, None, [], {}, "1_0", "5e-324", 5e-324, 1e15, 10**16, "9" * 20,
]  # fmt: skip
NUMERIC = ["rpm", "tpm", "concurrency", "max_attempts", "timeout", "max_wait", "max_outage", "max_tokens",
           "temperature", "max_cost", "max_requests", "max_total_tokens", "grace", "wait_lock", "seed", "limit",
           "sample", "reask", "allow_failed", "max_input_tokens", "max_time"]  # fmt: skip


def assembled(**flags: Any) -> None:
    try:
        assemble(
            "run", {"input": "rows.csv", "prompt": "{{ text }}", "model": "m", **flags}, {}, needs_key=False
        )
    except JobError as refused:
        assert str(refused)


@settings(max_examples=150)
@given(url=URL)
def test_any_url(url: str) -> None:
    assembled(base_url=url)


@settings(max_examples=60)
@given(name=TEXT, value=TEXT)
def test_any_header_and_parameter(name: str, value: str) -> None:
    for option in ("header", "param"):
        assembled(**{option: [f"{name}={value}"]}, base_url="http://127.0.0.1:1/v1")


@pytest.mark.parametrize("name", NUMERIC)
def test_any_number(name: str) -> None:
    for value in NUMBERS:
        assembled(**{name: value}, base_url="http://127.0.0.1:1/v1")


@pytest.mark.parametrize(
    "text", ["[", "{", "}", "[]", "null", "1", '{"type": 1}', "a b c [", "::", "name,", ",", "\ud800"]
)
def test_any_schema(text: str) -> None:
    assembled(schema=text, base_url="http://127.0.0.1:1/v1")


@pytest.mark.parametrize(
    "words",
    [
        ("--rpm", str(HUGE)), ("--timeout", "1e999"), ("--param", "foo={"), ("--schema", "["), ("--header", "a\tb=c"),
        ("--base-url", "http://[::1"), ("--base-url", "https://\u2100.example"), ("--max-wait", "9" * 400),
        ("--max-outage", "9" * 400 + "d"), ("--max-tokens", str(HUGE)),
    ],
)  # fmt: skip
def test_no_option_of_the_connection_ends_a_dry_run_with_70(
    words: tuple[str, str], tmp_path: Path, batchllm: Command
) -> None:
    (tmp_path / "in.csv").write_text("text\na\n")
    said = batchllm("run", "-p", "{{ text }}", tmp_path / "in.csv", "-m", "m", *words, "--dry-run")
    assert said.status in (0, 2), said.err
    assert "internal error" not in said.err


def test_a_number_of_400_digits_in_a_job_file_is_refused_in_a_sentence(
    tmp_path: Path, batchllm: Command
) -> None:
    (tmp_path / "in.csv").write_text("text\na\n")
    for name in ("rpm", "timeout", "temperature", "max_wait"):
        job = tmp_path / "job.toml"
        job.write_text(f'[job]\nprompt = "{{{{ text }}}}"\ninput = "in.csv"\nmodel = "m"\n{name} = {HUGE}\n')
        said = batchllm("run", job, "--dry-run")
        assert (said.status, "internal error" in said.err) == (2, False), said.err
