"""Keys and passwords stay out of every text and every stored byte, whatever a server sends back."""

import base64
import html
import json
import sqlite3
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.client.secrets import Mask, is_secret_header
from batchllm.records import Failure, FailureKind, Paid, Response
from batchllm.simulator import ScriptedResponse
from tests import network
from tests.batch_jobs import BatchJob, simulated
from tests.bench import Bench
from tests.command import Command
from tests.test_batch_loop import change_downloads

KEY = "sk-proj-Ab3/dEf+hIj&kLm=nOp_qRs-tUv"
KEYS = st.text(string.ascii_letters + string.digits + "-_./+=&%", min_size=12, max_size=60).filter(
    lambda key: len(set(key)) > 8
)
ENCODINGS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "quoted": lambda key: quote(key, safe=""),
    "a path": quote,
    "in lower case": lambda key: quote(key, safe="").replace("%2F", "%2f").replace("%2B", "%2b"),
    "JSON": lambda key: json.dumps(key)[1:-1],
    "JSON of PHP": lambda key: json.dumps(key)[1:-1].replace("/", "\\/"),
    "HTML": html.escape,
    "base64": lambda key: base64.b64encode(key.encode()).decode(),
    "base64 of a header": lambda key: base64.b64encode(f"Bearer {key}".encode()).decode(),
    "base64 of a name": lambda key: base64.b64encode(f"me:{key}".encode()).decode(),
    "base64 of URLs": lambda key: base64.urlsafe_b64encode(key.encode()).decode(),
    "hexadecimal": lambda key: key.encode().hex(),
}


def longest_common(text: str, key: str) -> int:
    """Characters of the longest part of the key that the text holds."""
    return max(
        (size for first in range(len(key)) for size in range(1, len(key) - first + 1)
         if key[first : first + size] in text),
        default=0,
    )  # fmt: skip


@pytest.mark.parametrize("name", ENCODINGS)
@settings(max_examples=25)
@given(key=KEYS, before=st.sampled_from(["", "key=", "Authorization: Bearer "]))
def test_no_form_of_a_key_is_left_in_an_error(name: str, key: str, before: str) -> None:
    said = ENCODINGS[name](key)
    hidden = Mask([key]).error(f"refused {before}{said} here".encode()).decode()
    shown = said.removeprefix(base64.b64encode(b"Bearer").decode())  # no secret
    assert longest_common(hidden.removeprefix(f"refused {before}"), shown) < 8
    assert hidden.startswith("refused ") and hidden.endswith(" here")


@settings(max_examples=50)
@given(key=KEYS, first=st.integers(0, 20), last=st.integers(0, 20))
def test_no_long_part_of_a_key_is_left_in_an_error(key: str, first: int, last: int) -> None:
    part = key[first : len(key) - last]
    hidden = Mask([key]).error(f"'{part}...' is no key".encode()).decode()
    assert longest_common(hidden, key) < 8 or len(part) < 8


def test_an_answer_loses_whole_keys_alone_and_stays_json() -> None:
    body = json.dumps({"choices": [{"message": {"content": f"{KEY} and sk-proj-Ab3"}}]}).encode()
    hidden = Mask([KEY]).reply(Response(200, {}, body, 0.1))
    assert isinstance(hidden, Response)
    assert json.loads(hidden.body)["choices"][0]["message"]["content"] == "*** and sk-proj-Ab3"


@pytest.mark.parametrize("word", ["none", "EMPTY", "test", "a", "x"])
def test_a_placeholder_for_a_key_changes_no_answer(word: str) -> None:
    body = f"{word} {word}s un{word}".encode()
    assert Mask([word]).reply(Response(200, {}, body, 0.1)) == Response(200, {}, body, 0.1)
    assert f"{word}s un{word}".encode() in Mask([word]).error(body)


def test_headers_and_broken_connections_are_searched_too() -> None:
    refused = Mask([KEY]).reply(Response(401, {"x-echo": f"Bearer {KEY}"}, b"", 0.1))
    assert isinstance(refused, Response) and refused.headers == {"x-echo": "Bearer ***"}
    lost = Mask([KEY]).reply(Failure(FailureKind.RESET, f"broke: {KEY}", Paid.MAYBE, 0.1, KEY.encode()))
    assert lost == Failure(FailureKind.RESET, "broke: ***", Paid.MAYBE, 0.1, b"***")


@given(st.binary(max_size=300), st.text(max_size=40))
def test_masking_never_raises_and_changes_nothing_else(body: bytes, text: str) -> None:
    mask = Mask([KEY, "short", ""])
    assert mask.error(body) == body or b"***" in mask.error(body)
    mask.text(text)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Auth-Token", "a"), ("api-key", "a"), ("Cookie", "a"), ("X-Goog-Api-Key", "a"),
        ("X-Custom", "Bearer abc"), ("X-Custom", "Basic abc"), ("Ocp-Apim-Subscription-Key", "a"),
    ],
)  # fmt: skip
def test_headers_that_carry_secrets_are_known(name: str, value: str) -> None:
    assert is_secret_header(name, value)
    assert not is_secret_header("X-Title", "reviews")


def stored(path: Path) -> bytes:
    """Everything in a journal: the files, and every value of every table."""
    with sqlite3.connect(path) as journal:
        tables = [name for (name,) in journal.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        values = [repr(row) for table in tables for row in journal.execute(f'SELECT * FROM "{table}"')]
    files = b"".join(each.read_bytes() for each in path.parent.glob(path.name + "*"))
    return "\n".join(values).encode() + files


@pytest.mark.parametrize("status", [400, 401, 403, 422])
def test_a_key_that_a_server_echoes_stands_nowhere(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    echo = {name: form(KEY) for name, form in ENCODINGS.items()}
    calls = 0

    def answers(body: dict[str, Any]) -> ScriptedResponse | None:
        nonlocal calls
        calls += 1
        if calls == 2:
            error = {"message": f"no: Bearer {KEY}, {KEY[:20]}", "echo": echo}
            return ScriptedResponse(status=status, headers={"x-echo": KEY}, body={"error": error})
        return None

    bench.answers = answers
    path = bench.file("in.jsonl", [{"text": f"t{number}"} for number in range(6)])
    said = bench.run(
        "run", "-p", "{{ text }}", path, "-o", bench.folder / "out.jsonl", "-c", 1, "--debug", status=1
    )
    shown = bench.command("show", bench.folder / "out.jsonl", "2")
    everything = (
        stored(bench.folder / "out.jsonl.journal")
        + (bench.folder / "out.jsonl").read_bytes()
        + (said.out + said.err + shown.out + shown.err).encode()
    )
    for form in echo.values():
        assert form.encode() not in everything
    assert KEY[:20].encode() not in everything
    assert b"***" in everything


def test_check_shows_no_echoed_key(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    bench.answers = lambda _: ScriptedResponse(status=401, body={"error": {"message": f"bad {KEY}"}})
    said = bench.run("check", status=2)
    assert KEY not in said.out + said.err
    assert "bad ***" in said.out


def test_a_proxys_password_stands_in_no_journal_and_no_message(
    tmp_path: Path, batchllm: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "a"}\n')
    output = tmp_path / "out.jsonl"
    words = ("run", "-p", "{{ text }}", tmp_path / "in.jsonl", "-o", output, "-m", "m")
    with network.endpoint() as there, network.proxy("right") as proxy:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789abcdef")
        monkeypatch.setenv("HTTP_PROXY", f"http://me:hunter2@127.0.0.1:{proxy.port}")
        monkeypatch.setenv("BATCHLLM_ALLOW_HTTP", "1")
        url = f"http://{network.HOST}:{there.port}/v1"
        run = batchllm(*words, "--base-url", url, "--debug")
        check = batchllm("check", "--base-url", url, "-m", "m")
    assert (run.status, check.status) == (2, 2), run.err + check.out
    assert "407" in run.err and "name and password" in run.err
    everything = (
        stored(tmp_path / "out.jsonl.journal") + "".join((run.out, run.err, check.out, check.err)).encode()
    )
    assert b"hunter2" not in everything and base64.b64encode(b"me:hunter2") not in everything


def test_no_key_that_a_batch_echoes_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    def echoed(lines: list[bytes]) -> list[bytes]:
        return [line.replace(b'"choices"', f'"echo":"Bearer {KEY}","choices"'.encode()) for line in lines]

    change_downloads(monkeypatch, echoed, times=9)
    with simulated() as server:
        job = BatchJob(tmp_path, server.base_url, rows=3)
        job.flags |= {"provider": "openai", "model": "gpt-4"}
        job.until_done()
    assert len(job.answers) == 3
    for path in tmp_path.iterdir():
        assert KEY.encode() not in path.read_bytes(), path
        assert KEY[4:20].encode() not in path.read_bytes(), path
