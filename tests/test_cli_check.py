"""``check`` and ``init``: what they say, and the exit status."""

import socket
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from batchllm.errors import ExitStatus
from batchllm.inspect.check import CheckResult, CheckStatus, _answered, _headers, _key, _proxy, masked
from batchllm.journal import JobLock
from batchllm.records import Endpoint, FailureKind, Paid
from batchllm.simulator import ScriptedResponse, SimulatorSettings, start_in_thread
from tests.command import Command
from tests.fakes import answered, lost, status

KEY = "sk-proj-0123456789abcdefwxyz"


def found(out: str) -> dict[str, tuple[str, str]]:
    """Subject to mark and words."""
    lines = (line.split(maxsplit=2) for line in out.splitlines())
    return {subject: (mark, words) for mark, subject, words in lines}


def test_an_endpoint_that_works_is_shown_for_the_price_of_one_smallest_request(
    batchllm: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    settings = SimulatorSettings(api_key=KEY, requests_per_minute=600, keep_requests=5, models=("m-1",))
    with start_in_thread(settings) as server:
        said = batchllm("check", "--base-url", server.base_url, "-m", "m-1")
        assert len(server.received) == 1
        assert b'"max_tokens":5' in server.received[0].body
    assert said.status == 0, said.out
    lines = found(said.out)
    assert [*lines] == [
        "endpoint", "key", "proxy", "/models", "model", "request", "json_schema", "tools", "limits", "clock",
    ]  # fmt: skip
    assert lines["key"] == ("ok", "sk-…wxyz, 28 characters (from OPENAI_API_KEY)")
    assert lines["/models"][1] == "lists 1: m-1"
    assert lines["model"][1] == "m-1 (from --model)"
    assert "finish_reason" in lines["request"][1] and "tokens" in lines["request"][1]
    assert "x-ratelimit-limit-requests: 600" in lines["limits"][1]
    assert lines["clock"] == ("ok", "agrees with the endpoint's")
    assert KEY not in said.out + said.err


def test_a_wrong_key_is_wrong_use_and_is_never_shown(
    batchllm: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with start_in_thread(SimulatorSettings(api_key="another")) as server:
        said = batchllm("check", "--base-url", server.base_url, "-m", "any")
    assert said.status == 2
    assert found(said.out)["request"][0] == "wrong"
    assert found(said.out)["request"][1].count("401") == 1
    assert KEY not in said.out + said.err


def test_an_endpoint_that_is_not_there_is_unavailable(batchllm: Command) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        said = batchllm("check", "--base-url", f"http://127.0.0.1:{taken.getsockname()[1]}/v1", "-m", "any")
    assert said.status == 69
    assert "cannot be reached" in found(said.out)["/models"][1]
    assert found(said.out)["request"][0] == "wrong"


def test_a_model_that_is_not_listed_or_not_named_is_said(batchllm: Command) -> None:
    with start_in_thread(SimulatorSettings(models=("m-1", "m-2"))) as server:
        other = batchllm("check", "--base-url", server.base_url, "-m", "m-3")
        none = batchllm("check", "--base-url", server.base_url)
    assert other.status == 2
    assert found(other.out)["model"] == ("note", "m-3 (from --model), which /models does not list")
    assert "m-3" in found(other.out)["request"][1]
    assert none.status == 2
    assert "name one with --model: m-1, m-2" in found(none.out)["model"][1]


def test_what_a_server_says_cannot_command_a_terminal(batchllm: Command) -> None:
    body = {"error": {"message": "\x1b[2Jgone", "type": "x", "code": None, "param": None}}
    with start_in_thread(script=lambda _: ScriptedResponse(status=400, body=body)) as server:
        said = batchllm("check", "--base-url", server.base_url, "-m", "any")
    assert "\x1b" not in said.out


def test_a_job_is_looked_at_with_its_files(
    batchllm: Command, samples: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = samples / "reviews.toml"
    job.write_text('[job]\ntask = "classify"\ninput = "reviews.csv"\n')
    said = batchllm("check", job, "--provider", "simulator")
    assert said.status == 0, said.out
    lines = found(said.out)
    assert lines["template"][1] == "classify, 2 messages; reads review; writes label"
    assert "12 rows of id, product, review, stars" in lines["input"][1]
    assert "reviews.classify.simulated.csv" in lines["output"][1]
    assert lines["lock"][1].startswith("free")
    assert not list(samples.glob("*.lock")) and not list(samples.glob("*.journal"))


def test_a_job_that_runs_now_is_seen_by_its_lock(batchllm: Command, samples: Path) -> None:
    job = samples / "reviews.toml"
    job.write_text('[job]\ntask = "classify"\ninput = "reviews.csv"\noutput = "out.csv"\n')
    with JobLock(samples / "out.csv.lock"):
        said = batchllm("check", job, "--provider", "simulator")
    assert said.status == 75
    assert "has this job" in found(said.out)["lock"][1]


@pytest.mark.parametrize(
    ("job", "status", "subject", "says"),
    [
        ('task = "classify"\ninput = "none.csv"', 65, "input", "none.csv"),
        ('task = "classify"\ninput = "reviews.csv"\ncolumn = "txt"', 2, "template", "no column 'txt'"),
        ('task = "classify"\ninput = "reviews.csv"\noutput = "no/out.csv"', 73, "output", "not a folder"),
        ('task = "classify"\ninput = "reviews.csv"\noutput = "tasks.csv"', 2, "output", "--force"),
    ],
)
def test_what_is_wrong_with_a_job_has_the_status_that_a_run_would_have(
    batchllm: Command, samples: Path, job: str, status: int, subject: str, says: str
) -> None:
    path = samples / "job.toml"
    path.write_text(f"[job]\n{job}\n")
    said = batchllm("check", path, "--provider", "simulator")
    assert said.status == status
    assert found(said.out)[subject][0] == "wrong"
    assert says in found(said.out)[subject][1]
    assert found(said.out)["request"][0] == "ok", "one thing that is wrong does not hide the others"


def test_check_takes_job_files_only(batchllm: Command, samples: Path) -> None:
    said = batchllm("check", samples / "reviews.csv", "--provider", "simulator")
    assert said.status == 2
    assert ".toml" in said.err


def at(base_url: str = "https://api.openai.com/v1", **details: Any) -> Endpoint:
    return Endpoint(**{"preset": "openai", "base_url": base_url, "model": "m", **details})


def test_a_missing_key_is_wrong_only_where_one_is_needed() -> None:
    assert _key(at()).exit_status is ExitStatus.USAGE
    assert "OPENAI_API_KEY" in _key(at()).message
    assert _key(at("http://localhost:8000/v1")).status is CheckStatus.OK
    assert _key(at("http://10.0.0.1/v1", preset="ollama")).status is CheckStatus.OK


def test_short_keys_are_masked_whole() -> None:
    assert masked("secret") == "6 characters"
    assert masked(KEY) == "sk-…wxyz, 28 characters"


def test_a_proxy_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://me:secret@proxy.example:3128")
    finding = _proxy("https://api.openai.com/v1")
    assert finding == CheckResult("proxy", "http://***@proxy.example:3128 (from HTTPS_PROXY)")
    assert _proxy("http://127.0.0.1:8000/v1").message == "none for this URL"
    monkeypatch.setenv("HTTPS_PROXY", "socks5://proxy.example")
    assert _proxy("https://api.openai.com/v1").exit_status is ExitStatus.USAGE


@pytest.mark.parametrize(
    ("outcome", "mark", "exit_status"),
    [
        (answered(), CheckStatus.OK, 0),
        (answered(None, finish_reason="length"), CheckStatus.OK, 0),
        (status(401, "no", "invalid_api_key"), CheckStatus.WRONG, 2),
        (status(404, "The model `x` does not exist", "model_not_found"), CheckStatus.WRONG, 2),
        (status(400, "unknown parameter"), CheckStatus.WRONG, 2),
        (status(429, "slow down", "rate_limit_exceeded"), CheckStatus.NOTE, 69),
        (status(429, "no credit", "insufficient_quota"), CheckStatus.WRONG, 69),
        (status(503, "loading"), CheckStatus.WRONG, 69),
        (lost(), CheckStatus.WRONG, 69),
        (lost(FailureKind.CONNECT, Paid.NO), CheckStatus.WRONG, 69),
        (lost(FailureKind.TLS, Paid.NO), CheckStatus.WRONG, 2),
    ],
)
def test_an_answer_has_the_mark_and_the_status_of_its_verdict(
    outcome: Any, mark: CheckStatus, exit_status: int
) -> None:
    (finding,) = _answered(outcome)
    assert (finding.status, finding.exit_status) == (mark, exit_status)
    assert finding.message


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ({}, "no Date header"),
        ({"date": "nonsense"}, "no Date header"),
        ({"date": format_datetime(datetime.now(UTC) - timedelta(hours=1), usegmt=True)}, "ahead of"),
        ({"date": format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)}, "behind"),
    ],
)
def test_a_clock_that_is_off_is_said(headers: Mapping[str, str], says: str) -> None:
    clock = [
        finding for finding in _headers(answered()._replace(headers=headers)) if finding.subject == "clock"
    ]
    assert says in clock[0].message
    assert clock[0].status is CheckStatus.NOTE


# -- init ------------------------------------------------------------------------------------------------------


def test_the_file_of_init_is_a_job_that_runs(
    batchllm: Command, samples: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(samples)
    (samples / "job.toml").unlink()
    said = batchllm("init")
    assert said.status == 0
    assert "job.toml written" in said.err
    assert batchllm("run", "job.toml", "--provider", "simulator").status == 0
    assert (samples / "reviews.summarize.simulated.csv").exists()


def test_init_overwrites_only_by_force(batchllm: Command, tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    path.write_text("mine")
    said = batchllm("init", path)
    assert (said.status, path.read_text()) == (2, "mine")
    assert "--force" in said.err
    assert batchllm("init", path, "--force").status == 0
    assert path.read_text() == batchllm("init", "-").out


@pytest.mark.parametrize(("name", "status"), [("job.yaml", 2), ("no/folder/job.toml", 73)])
def test_init_says_where_it_cannot_write(batchllm: Command, tmp_path: Path, name: str, status: int) -> None:
    assert batchllm("init", tmp_path / name).status == status
