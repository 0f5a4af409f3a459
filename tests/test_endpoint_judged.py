"""An outage is when nothing works; a request that fails where others succeed fails alone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batchllm.simulator import ScriptedResponse
from tests import network
from tests.bench import Bench
from tests.command import Command
from tests.fakes import chat_body
from tests.test_refused_rows import number_of

FINE = ScriptedResponse(body=chat_body("fine"))
FIRST_WORDS = [
    (400, "The model `gpt-9` does not exist"),
    (400, "Unsupported parameter: 'temperature'"),
    (422, "Extra inputs are not permitted"),
    (401, "Incorrect API key provided"),
    (403, "You have no access to this model"),
    (404, "The model does not exist"),
]


def failing(status: int, message: str) -> ScriptedResponse:
    return ScriptedResponse(status=status, body={"error": {"message": message}})


def rows(bench: Bench, count: int) -> tuple[object, ...]:
    path = bench.file("in.jsonl", [{"text": f"number {number}"} for number in range(1, count + 1)])
    return ("run", "-p", "{{ text }}", path, "-o", bench.folder / "out.jsonl")


def is_plain(body: dict[str, Any]) -> bool:
    return bool(body["messages"][-1]["content"] == "Say OK.")


@pytest.mark.parametrize(("status", "words"), FIRST_WORDS)
@pytest.mark.parametrize("count", [1, 3, 30])
def test_what_refuses_every_first_request_in_the_same_words_is_wrong_use_and_nothing_is_paid(
    bench: Bench, status: int, words: str, count: int
) -> None:
    bench.answers = lambda body: failing(status, words)
    said = bench.run(*rows(bench, count), status=2)
    assert words in said.err
    assert "Paid in this run" not in said.err
    assert bench.server.ledger.requests < 30
    assert not (bench.folder / "out.jsonl").exists()
    bench.answers = lambda body: FINE
    bench.run(*rows(bench, count))
    assert {row["response"] for row in bench.out("out.jsonl")} == {"fine"}


@pytest.mark.parametrize("status", [403, 404])
def test_a_first_row_that_is_refused_fails_alone(bench: Bench, status: int) -> None:
    bench.answers = lambda body: failing(status, "blocked") if number_of(body) == 1 else FINE
    bench.run(*rows(bench, 30), status=1)
    assert [bool(row["error"]) for row in bench.out("out.jsonl")] == [True] + [False] * 29


def test_first_rows_that_are_rejected_in_different_words_fail_each_alone(bench: Bench) -> None:
    words = ["the image is broken", "this text is not allowed", "no such voice"]
    bench.answers = lambda body: failing(400, words[number_of(body) - 1])
    said = bench.run(*rows(bench, 3), status=1)
    assert [word in row["error"] for word, row in zip(words, bench.out("out.jsonl"), strict=True)] == [
        True
    ] * 3
    assert "Paid in this run: 3" not in said.err


def test_rows_that_are_too_long_stop_no_job(bench: Bench) -> None:
    long = failing(400, "This model's maximum context length is 8192 tokens")
    bench.answers = lambda body: long if number_of(body) <= 15 else FINE
    bench.run(*rows(bench, 30), status=1)
    assert sum(row["response"] == "fine" for row in bench.out("out.jsonl")) == 15


@pytest.mark.parametrize("count", [1, 12])
def test_a_parameter_that_the_server_answers_with_500_is_the_requests_failure(
    bench: Bench, count: int
) -> None:
    def answers(body: dict[str, Any]) -> ScriptedResponse:
        return failing(500, "'NoneType' has no attribute 'grammar'") if "response_format" in body else FINE

    bench.answers = answers
    said = bench.run(*rows(bench, count), "--schema", "topic", "--max-attempts", 2, status=2)
    assert "'NoneType' has no attribute 'grammar'" in said.err
    assert "a plain request to gpt-4 is answered" in said.err
    assert "response_format" in said.err
    assert "goes on later" not in said.err


@pytest.mark.proof
def test_rows_that_fail_while_others_succeed_fail_alone(bench: Bench) -> None:
    """The failing ones are the last, so that nothing else is left to send."""
    bench.answers = lambda body: failing(500, "boom") if not is_plain(body) and number_of(body) > 10 else FINE
    said = bench.run(*rows(bench, 22), "-c", 12, status=1)
    errors = [row["error"] for row in bench.out("out.jsonl")]
    assert all("boom" in error for error in errors[10:]) and not any(errors[:10])
    assert said.err.count("down") == 0


def test_an_endpoint_that_answers_nothing_is_down(bench: Bench) -> None:
    bench.answers = lambda body: failing(500, "out of order")
    said = bench.run(*rows(bench, 1), "--max-attempts", 1, status=69)
    assert "out of order" in said.err and "down" in said.err


def run_at(batchllm: Command, folder: Path, url: str) -> tuple[int, str]:
    source = folder / "in.jsonl"
    source.write_text('{"text": "a"}\n{"text": "b"}\n')
    said = batchllm(
        "run", "-p", "{{ text }}", source, "-o", folder / "out.jsonl", "-m", "m", "--base-url", url
    )
    return said.status, said.err


def test_connections_that_a_setting_corrects_end_at_once_with_2(
    tmp_path: Path, batchllm: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, context = network.authority(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789abcdef")
    with network.endpoint(context) as secure, network.proxy("right") as proxy:
        cases: list[tuple[dict[str, str], str, str]] = [
            ({}, f"http://127.0.0.1:{secure.port}/v1", "speaks TLS"),
            ({}, f"https://127.0.0.1:{secure.port}/v1", "is not valid"),
            ({"SSL_CERT_FILE": "/no/such.pem"}, "https://127.0.0.1:1/v1", "SSL_CERT_FILE names /no/such.pem"),
            (
                {"HTTPS_PROXY": f"http://me:wrongword@127.0.0.1:{proxy.port}"},
                "https://endpoint.test/v1",
                "407",
            ),
            ({"ALL_PROXY": "socks5://127.0.0.1:9"}, "https://endpoint.test/v1", "SOCKS"),
            ({"HTTPS_PROXY": "http://"}, "https://endpoint.test/v1", "not the URL of a proxy"),
        ]
        for environment, url, words in cases:
            with pytest.MonkeyPatch.context() as patch:
                for name, value in environment.items():
                    patch.setenv(name, value)
                status, err = run_at(batchllm, tmp_path, url)
                check = batchllm("check", "--base-url", url, "-m", "m")
                unnamed = batchllm("check", "--base-url", url)
            assert (status, words in err) == (2, True), err
            assert (check.status, words in check.out) == (2, True), check.out
            assert unnamed.status in (2, 69) and "0 models" not in unnamed.out
            assert "wrongword" not in err + check.out


def test_check_of_an_unreachable_endpoint_says_that_and_counts_no_models(batchllm: Command) -> None:
    said = batchllm("check", "--base-url", "http://127.0.0.1:9/v1")
    assert said.status == 69
    assert "no connection to 127.0.0.1:9: connection refused" in said.out
    assert "models;" not in said.out


def job_file(bench: Bench, **more: str) -> Path:
    bench.file("rows.jsonl", [{"text": "a", "photo": "https://host.example/a.png"}])
    bench.file("tools.json", json.dumps([{"type": "function", "function": {"name": "f", "parameters": {}}}]))
    table = {"prompt": "'{{ text }}'", "input": "'rows.jsonl'", **more}
    return bench.file("job.toml", "[job]\n" + "".join(f"{name} = {value}\n" for name, value in table.items()))


@pytest.mark.parametrize(
    ("options", "subject", "refused"),
    [
        ({"schema": "'topic'"}, "json_schema", lambda body: "response_format" in body),
        ({"tools": "'tools.json'"}, "tools", lambda body: "tools" in body),
        ({"image": "['photo']"}, "images", lambda body: "image_url" in json.dumps(body)),
    ],
)
def test_check_tries_what_the_job_will_use(
    bench: Bench, options: dict[str, str], subject: str, refused: Callable[[dict[str, Any]], bool]
) -> None:
    bench.answers = lambda body: failing(500, "line one\nline two") if refused(body) else FINE
    said = bench.run("check", job_file(bench, **options), status=2)
    (line,) = [line for line in said.out.splitlines() if line.split()[1] == subject]
    assert line.startswith("wrong") and "line one line two" in line
    bench.answers = lambda body: FINE
    said = bench.run("check", job_file(bench, **options))
    assert f"ok    {subject}" in said.out


def test_check_tries_batches_where_the_job_uses_them(bench: Bench) -> None:
    said = bench.run("check", job_file(bench, via="'batch'"))
    assert "ok    batches" in said.out


def test_errors_of_several_lines_stay_on_one(bench: Bench) -> None:
    bench.answers = lambda body: failing(400, "first\n\n  second\r\nthird")
    said = bench.run("check", status=2)
    assert "first second third" in said.out
    said = bench.run(*rows(bench, 2), status=2)
    assert "first second third" in said.err.splitlines()[-1]
