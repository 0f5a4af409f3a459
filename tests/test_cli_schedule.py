"""``schedule`` gives a line that works without this shell, or says what is missing."""

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from batchllm.simulator import Simulator, SimulatorSettings, start_in_thread
from tests.command import Command

KEY = "sk-nightly-4711"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a name that has to be quoted, a file of rows, and a key that the owner alone may read."""
    folder = tmp_path / '50% "off" it\'s'
    folder.mkdir()
    (folder / "re views.csv").write_text("id,text\n1,good\n2,bad\n")
    (folder / "key").write_text(KEY)
    (folder / "key").chmod(0o600)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def server() -> Iterator[Simulator]:
    with start_in_thread(SimulatorSettings(api_key=KEY, keep_requests=10)) as server:
        yield server


def run_by_cron(line: str, schedule: str = "30 2 * * *") -> "subprocess.CompletedProcess[str]":
    command = line.strip().removeprefix(f"{schedule} ")
    assert command != line.strip()
    return subprocess.run(
        ["env", "-i", "/bin/sh", "-c", command], cwd="/", capture_output=True, text=True, timeout=60
    )


def test_a_line_of_cron_works_without_any_variable(
    batchllm: Command, folder: Path, server: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "OPENAI_BASE_URL": server.base_url,
        "OPENAI_MODEL": "its own model",
        "BATCHLLM_MAX_TOKENS": "17",
        "BATCHLLM_SUMMARY": "figures.json",
    }.items():
        monkeypatch.setenv(name, value)
    line = batchllm(
        *(
            "schedule",
            "--only",
            "cron",
            "run",
            "-p",
            "100% of '{{ text }}' \\%",
            "re views.csv",
            "--column",
            "text",
        ),
        *("-o", "out %.csv", "--api-key-file", "key"),
    ).out
    for run in (run_by_cron(line), run_by_cron(line)):
        assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    sent = [json.loads(request.body) for request in server.received]
    assert {body["model"] for body in sent} == {"its own model"}
    assert [body["max_tokens"] for body in sent] == [17, 17]
    assert sorted(body["messages"][-1]["content"] for body in sent) == [
        "100% of 'bad' \\%",
        "100% of 'good' \\%",
    ]
    assert (folder / "out %.csv").exists()
    assert json.loads((folder / "figures.json").read_text())["exit_status"] == 0


def test_a_job_file_names_its_units_and_brings_its_key(
    batchllm: Command, folder: Path, server: Simulator
) -> None:
    (folder / "nightly reviews.toml").write_text(
        f'[job]\ntask = "classify"\ninput = "re views.csv"\nbase_url = "{server.base_url}"\nmodel = "m"\n'
        'api_key_file = "key"\n'
    )
    for words in (["nightly reviews.toml"], ["run", "nightly reviews.toml"]):
        said = batchllm("schedule", *words)
        assert "# ~/.config/systemd/user/batchllm-nightly-reviews.service" in said.out
        assert "# ~/.config/systemd/user/batchllm-nightly-reviews.timer" in said.out
        assert "OnFailure=batchllm-nightly-reviews-failed.service" in said.out
        assert "# ~/.config/systemd/user/batchllm-nightly-reviews-failed.service" in said.out
        line = next(line for line in said.out.splitlines() if line.startswith("30 2 * * * "))
        assert run_by_cron(line).returncode == 0
    assert (folder / "re views.classify.csv").exists()


def test_a_failing_job_ends_with_its_own_status_under_cron(
    batchllm: Command, folder: Path, server: Simulator
) -> None:
    line = batchllm(
        *("schedule", "--only", "cron", "classify", "re views.csv", "--base-url", server.base_url, "-m", "m"),
        *("--api-key-file", "key"),
    ).out
    (folder / "re views.csv").unlink()
    assert run_by_cron(line).returncode == 65


MISSING: dict[str, tuple[Mapping[str, str], tuple[str, ...], tuple[str, ...]]] = {
    "a key of the shell": ({"OPENAI_API_KEY": KEY}, (), ("OPENAI_API_KEY", "--api-key-file")),
    "a vendor's key": ({"GROQ_API_KEY": KEY}, ("--provider", "groq"), ("GROQ_API_KEY", "--api-key-file")),
    "no key at all": ({}, (), ("there is no key",)),
    "a proxy's password": (
        {"HTTPS_PROXY": f"http://user:{KEY}@proxy:3128"},
        ("--api-key-file", "key"),
        ("HTTPS_PROXY", "password"),
    ),
    "headers of the shell": (
        {"OPENAI_CUSTOM_HEADERS": f"X-Auth: {KEY}"},
        ("--api-key-file", "key"),
        ("OPENAI_CUSTOM_HEADERS", "--header"),
    ),
    "a dry run": ({}, ("--provider", "simulator", "--dry-run"), ("--dry-run",)),
}


@pytest.mark.parametrize("missing", MISSING)
def test_what_is_missing_is_named_and_no_line_is_printed(
    batchllm: Command, folder: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    variables, words, named = MISSING[missing]
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    said = batchllm("schedule", "classify", "re views.csv", *words)
    assert (said.status, said.out) == (2, "")
    assert all(word in said.err for word in named), said.err
    assert KEY not in said.err


def test_a_wrong_command_is_refused_before_the_night(batchllm: Command, folder: Path) -> None:
    for words, named in (
        (["classify", "re views.csv", "--no-such-option"], "--no-such-option"),
        (["clasify", "re views.csv"], "classify"),
        (["status", "re views.csv"], "cannot be scheduled"),
        (["classify", "-"], "standard input"),
        (["none.toml"], "none.toml"),
    ):
        said = batchllm("schedule", *words, "--provider", "simulator")
        assert (said.status, said.out) == (2, ""), words
        assert named in said.err


def test_the_key_itself_is_never_printed(batchllm: Command, folder: Path) -> None:
    said = batchllm("schedule", "classify", "re views.csv", "--api-key-file", "key")
    assert said.status == 0
    assert KEY not in said.out + said.err
    assert f"LoadCredential=key:{str(folder / 'key').replace('%', '%%')}" in said.out


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_each_part_can_be_written_into_its_place(batchllm: Command, folder: Path, tmp_path: Path) -> None:
    words = ("classify", "re views.csv", "--provider", "simulator", "--name", "night", "--weekly")
    files = [tmp_path / name for name in ("night.service", "night.timer", "night-failed.service")]
    for part, file in zip(("service", "timer", "failure"), files, strict=True):
        file.write_text(batchllm("schedule", "--only", part, *words).out)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *files], capture_output=True, text=True, timeout=60
    )
    assert "night" not in done.stderr
