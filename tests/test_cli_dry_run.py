"""``--dry-run``: shows everything, needs no key, sends nothing, makes no file."""

import asyncio
import json
import re
import shlex
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.cli.dry_run import url
from batchllm.client import Client
from batchllm.client.secrets import is_secret_header
from batchllm.job.options import OPTIONS
from batchllm.printable import json_escape, printable
from batchllm.records import ChatRequest, Endpoint
from batchllm.simulator import SimulatorSettings, start_in_thread
from tests.command import Command

OPENAI = ("--provider", "openai", "-m", "gpt-4o-mini")


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any connection is a failure."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a dry run must not open a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "bind", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("how", [(), ("--json",), ("--curl",)])
@pytest.mark.parametrize("provider", [OPENAI, ("--provider", "simulator"), ("--provider", "ollama")])
def test_it_needs_no_key_sends_nothing_and_makes_no_file(
    how: tuple[str, ...], provider: tuple[str, ...], batchllm: Command, samples: Path, tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    said = batchllm("summarize", samples / "articles.csv", *provider, "--dry-run", *how, "--dedupe")
    assert said.status == 0, said.err
    assert said.out
    assert sorted(tmp_path.rglob("*")) == before


def test_json_has_the_figures_and_nothing_else(batchllm: Command, samples: Path) -> None:
    said = batchllm("summarize", samples / "articles.csv", *OPENAI, "--rpm", 6, "--dry-run", "--json")
    figures = json.loads(said.out)
    assert list(figures) == [
        "rows", "answered", "failed", "cut_off", "pending", "duplicate_rows", "skipped", "prompt_tokens",
        "completion_tokens_expected",
        "completion_tokens_upper_bound", "cost_low", "cost_high", "seconds", "requests",
        "requests_upper_bound",
    ]  # fmt: skip
    assert figures["seconds"] == figures["rows"] * 10
    assert 0 < figures["cost_low"] < figures["cost_high"]


def test_without_v_it_lists_the_options_that_are_not_at_their_default(
    batchllm: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCHLLM_SEED", "7")
    (tmp_path / "in.csv").write_text("text\nhello\n")
    (tmp_path / "job.toml").write_text(
        '[job]\ninput = "in.csv"\nparam = { top_p = 0.5, stop = "x" }\ncolumn = "text"\n'
    )
    monkeypatch.setenv("OPENAI_API_KEY", "sk-one")
    words = ("-p", "Say {{ text }}", "--param", "top_p=0.9", "--header", "X-Token=secret", *OPENAI)
    out = batchllm("run", tmp_path / "job.toml", *words, "--dry-run").out
    listed = out.split("Options that are not at their default (-v lists all):\n")[1].split("\n\n")[0]
    path = tmp_path / "job.toml"
    assert [line.split(maxsplit=1) for line in listed.splitlines()] == [
        ["input", f"{tmp_path / 'in.csv'}  ({path})"],
        ["column", f"text  ({path})"],
        ["prompt", "Say {{ text }}  (--prompt)"],
        ["provider", "openai  (--provider)"],
        ["base_url", "https://api.openai.com/v1  (preset openai)"],
        ["model", "gpt-4o-mini  (--model)"],
        ["api_key_file", "OPENAI_API_KEY  (environment)"],
        ["header", "X-Token  (--header)"],
        ["param", f'{{"top_p": 0.9, "stop": "x"}}  (--param, {path})'],
        ["seed", "7  (BATCHLLM_SEED)"],
    ]


def test_with_v_it_lists_every_option_with_where_it_came_from(
    batchllm: Command, samples: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCHLLM_BULLETS", "5")
    out = batchllm("summarize", samples / "articles.csv", *OPENAI, "--rpm", 60, "--dry-run", "-v").out
    shown = {line.split()[0]: line for line in out.split("Options:\n")[1].split("\n\n")[0].splitlines()}
    assert list(shown) == list(OPTIONS)
    assert shown["rpm"].endswith("60  (--rpm)")
    assert shown["bullets"].endswith("5  (BATCHLLM_BULLETS)")
    assert shown["max_tokens"].endswith("50 }}  (template)")
    assert "Settings: column text, at most 250 tokens an answer, temperature 0.3\n" in out
    assert shown["input"].endswith("articles.csv  (INPUT)")
    assert shown["max_attempts"].endswith("5  (default)")
    assert shown["base_url"].endswith("https://api.openai.com/v1  (preset openai)")


def test_words_have_the_price_with_its_source_and_date(batchllm: Command, samples: Path) -> None:
    out = batchllm("summarize", samples / "articles.csv", *OPENAI, "--dry-run").out
    (line,) = [line for line in out.splitlines() if line.startswith("Price: ")]
    assert " to $" in line
    assert "genai-prices" in line
    assert "for 20" in line


def test_words_have_the_first_requests_in_full(batchllm: Command, samples: Path) -> None:
    out = batchllm("classify", samples / "reviews.csv", *OPENAI, "--dry-run").out
    request = json.loads(out.split("Request of row 1:\n")[1].split("\n\nRequest of row 2:")[0])
    assert request["model"] == "gpt-4o-mini"
    assert request["max_tokens"] == 10
    assert request["messages"][1]["content"].startswith("Classify this text:\n\nBoils fast")


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_curl_command_sends_the_very_request(
    batchllm: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "in.csv"
    source.write_text('text\n"it\'s ""$HOME"" `id` \\ 你好 \x7f\u202e\nsecond line"\n', "utf-8")
    with start_in_thread(SimulatorSettings(keep_requests=9)) as server:
        at = ("--base-url", server.base_url, "-m", "any", "--header", "X-Title=my job")
        command = batchllm("run", "-p", "{{ text }}", source, *at, "--dry-run", "--curl").out
        assert "$OPENAI_API_KEY" in command
        assert command.isprintable() or set(filter(lambda sign: not sign.isprintable(), command)) == {"\n"}
        environment = {"OPENAI_API_KEY": "sk-test", "PATH": "/usr/bin:/bin"}
        subprocess.run(["/bin/sh", "-c", command], check=True, capture_output=True, env=environment)
        assert batchllm("run", "-p", "{{ text }}", source, *at).status == 0
        by_curl, by_us = (json.loads(received.body) for received in server.received)
        headers = server.received[0].headers
    assert by_curl == by_us
    assert headers["authorization"] == "Bearer sk-test"
    assert headers["x-title"] == "my job"


def test_a_presets_own_key_header_is_in_the_curl_command(batchllm: Command, samples: Path) -> None:
    at = ("--provider", "custom-x-api-key", "--base-url", "https://host.example/v1", "-m", "any")
    curl = batchllm("classify", samples / "reviews.csv", *at, "--dry-run", "--curl").out
    assert '-H "x-api-key: $OPENAI_API_KEY"' in curl
    assert "authorization" not in curl.lower()


def test_a_long_request_does_not_become_an_argument(batchllm: Command, tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("text\n" + "word " * 60_000 + "\n", "utf-8")
    command = batchllm("run", "-p", "{{ text }}", source, "--base-url", "http://127.0.0.1:1/v1", "-m", "any",
                       "--dry-run", "--curl").out  # fmt: skip
    assert max(map(len, shlex.split(command.split("\n{")[0].replace("<<", " ")))) < 1000
    assert json.loads(command.split("<<'REQUEST'\n")[1].removesuffix("\nREQUEST\n"))["model"] == "any"


def test_a_secret_header_is_left_to_the_environment(batchllm: Command, samples: Path) -> None:
    said = batchllm(
        "classify", samples / "reviews.csv", *OPENAI, "--header", "X-Auth-Token=hush", "--dry-run"
    )
    curl = batchllm(
        "classify", samples / "reviews.csv", *OPENAI, "--header", "X-Auth-Token=hush", "--dry-run", "--curl"
    )
    assert "hush" not in said.out + curl.out
    assert "X-Auth-Token: $X_AUTH_TOKEN" in curl.out


@pytest.mark.parametrize(
    ("endpoint", "wanted"),
    [
        (Endpoint(preset="openai", base_url="https://api.openai.com/v1", model="gpt-4o-mini"),
         "https://api.openai.com/v1/chat/completions"),
        (Endpoint(preset="custom", base_url="http://127.0.0.1:8000/v1/", model="a/b c"),
         "http://127.0.0.1:8000/v1/chat/completions"),
        (Endpoint(preset="azure", base_url="https://me.openai.azure.com", model="my-gpt",
                  azure_api_version="2024-10-21"),
         "https://me.openai.azure.com/openai/deployments/my-gpt/chat/completions?api-version=2024-10-21"),
        (Endpoint(preset="azure", base_url="https://me.openai.azure.com/openai", model="my-gpt",
                  azure_api_version="2024-10-21"),
         "https://me.openai.azure.com/openai/deployments/my-gpt/chat/completions?api-version=2024-10-21"),
    ],
)  # fmt: skip
def test_the_url_is_the_one_that_requests_go_to(endpoint: Endpoint, wanted: str) -> None:
    async def used() -> str:
        async with Client(endpoint) as client:
            return str(client.url(endpoint.model))

    assert url(endpoint, ChatRequest(0, bytes(16), b"{}", endpoint.model, 0, None)) == wanted
    assert asyncio.run(used()) == wanted


@pytest.mark.parametrize("text", ["a\x7fb", "\u202eevil", "\ud800", "plain 你好 é"])
def test_escapes_leave_the_value_as_it_is(text: str) -> None:
    written = json.dumps({"text": text}, ensure_ascii=False)
    safe = printable(written, keep="", escape=json_escape)
    assert json.loads(safe) == {"text": text}
    assert safe.isprintable()


def test_json_and_curl_alone_are_refused_before_anything_is_sent(batchllm: Command, samples: Path) -> None:
    for flag in ("--json", "--curl"):
        said = batchllm("classify", samples / "reviews.csv", "--provider", "simulator", flag)
        assert said.status == 2
        assert f"{flag} goes with --dry-run" in said.err


def test_a_wrong_input_is_as_wrong_in_a_dry_run(batchllm: Command, tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("text,id\none\n", "utf-8")
    assert batchllm("classify", source, *OPENAI, "--dry-run").status == 65


def test_an_input_without_a_request_has_no_curl_command(batchllm: Command, tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("text\n", "utf-8")
    said = batchllm("classify", source, *OPENAI, "--dry-run", "--curl")
    assert said.status == 2
    assert json.loads(batchllm("classify", source, *OPENAI, "--dry-run", "--json").out)["rows"] == 0


def test_a_changed_input_finds_the_answers_by_what_is_asked(batchllm: Command, tmp_path: Path) -> None:
    source, at = tmp_path / "in.csv", ("--provider", "simulator")
    source.write_text("text\ngood\nbad\ngood\n", "utf-8")
    assert batchllm("classify", source, *at).status == 0
    source.write_text("text\nnew\ngood\ngood\ngood\nbad\n", "utf-8")
    figures: dict[str, Any] = json.loads(batchllm("classify", source, *at, "--dry-run", "--json").out)
    assert (figures["rows"], figures["answered"], figures["duplicate_rows"]) == (5, 3, 2)
    figures = json.loads(batchllm("classify", source, *at, "--dry-run", "--json", "--restart").out)
    assert figures["answered"] == 0


_SIGNS = "!#$%&'*+.^_`|~09AZaz-"


@settings(max_examples=15)
@given(
    name=st.text(_SIGNS, min_size=1, max_size=12).map(lambda text: f"X{text}"),
    value=st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=20).map(str.strip),
    secret=st.booleans(),
)
def test_curl_is_quoted_for_the_shell_whatever_headers_hold(name: str, value: str, secret: bool) -> None:
    from batchllm.cli.dry_run import _headers
    from batchllm.records import Endpoint

    name = f"{name}-Token" if secret else name
    endpoint = Endpoint(preset="openai", base_url="", model="m", headers={name: value})
    words = " ".join(_headers(endpoint))
    environ = {"OPENAI_API_KEY": "sk-one", "PATH": "/usr/bin:/bin"}
    told = subprocess.run(
        ["sh", "-c", f"printf '%s\\0' {words}"], capture_output=True, env=environ, check=True, text=True
    )
    assert told.stderr == ""
    content, key, own = told.stdout.removesuffix("\0").split("\0")
    assert (content, key) == ("Content-Type: application/json", "Authorization: Bearer sk-one")
    hidden = is_secret_header(name, value)
    assert own == f"{name}: {'' if hidden else value}"


def test_the_options_that_differ_leave_out_what_a_template_computes_or_leaves_off(
    batchllm: Command, tmp_path: Path
) -> None:
    (tmp_path / "rows.csv").write_text("text\nGood\n")
    (tmp_path / "shots.csv").write_text("text,label\nFine,positive\n")
    words = ("classify", tmp_path / "rows.csv", "--provider", "simulator", "--dry-run")
    said = batchllm(*words, "--examples", tmp_path / "shots.csv").out
    lines = [line.split() for line in said.splitlines()]
    assert ["max_tokens", "computed", "(template)"] in lines
    assert ["examples", "1", "row", "(--examples)"] in lines
    assert "multi_label" not in said
    assert "multi_label" in batchllm(*words, "-v").out


def test_the_middle_of_a_long_text_is_shown_with_v_alone(batchllm: Command, tmp_path: Path) -> None:
    text = "".join(f"Sentence {number} of a paper. " for number in range(9_000))
    (tmp_path / "papers.jsonl").write_text(json.dumps({"text": text}) + "\n" + json.dumps({"text": "Short."}))
    words = ("summarize", tmp_path / "papers.jsonl", *OPENAI, "--dry-run")
    shown, whole = batchllm(*words).out, batchllm(*words, "-v").out
    assert len(shown) < 10_000
    assert "Sentence 0 of" in shown and "Sentence 8999 of" in shown and "Short." in shown
    left_out = int(re.findall(r"\[([\d,]+) characters left out; -v shows all\]", shown)[0].replace(",", ""))
    assert len(text) - 2_000 < left_out < len(text)
    assert text.strip() in whole
