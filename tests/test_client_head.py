"""The head that is written out here is the SDK's, and only where it is, is it used."""

import asyncio
import platform
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchllm.client import head as module
from batchllm.client.head import head_of
from batchllm.client.sdk import sdk_head_of
from batchllm.records import Endpoint

TOKEN = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=12)
NAMES = st.one_of(
    TOKEN, st.sampled_from(["User-Agent", "ACCEPT", "OpenAI-Organization", "x-stainless-lang", "X-Title"])
)


def endpoint(**fields: Any) -> Endpoint:
    known = {"preset": "custom", "base_url": "https://host.example/v1", "model": "m", "api_key": "sk-test"}
    return Endpoint(**{**known, **fields})


def heads(of: Endpoint, model: str = "m") -> tuple[tuple[str, dict[str, str]], tuple[str, dict[str, str]]]:
    """Ours and the SDK's; what the transport decides is left out."""
    url, headers = asyncio.run(head_of(of, model))
    ours = dict(headers)
    sdk_url, theirs = asyncio.run(sdk_head_of(of, model))
    for each in (ours, theirs):
        each.pop("accept-encoding")
    return (url, ours), (sdk_url, theirs)


@given(
    host=st.sampled_from(
        ["http://127.0.0.1:8000", "https://[::1]:8443", "https://api.example.com", "http://box"]
    ),
    path=st.sampled_from(["", "/", "/v1", "/v1/", "/openai/v1", "/api/a.b_c~d-1/v2"]),
    key=st.none() | TOKEN,
    organization=st.none() | TOKEN,
    project=st.none() | TOKEN,
    headers=st.dictionaries(NAMES, TOKEN, max_size=3),
)
def test_the_head_is_the_sdks(
    host: str,
    path: str,
    key: str | None,
    organization: str | None,
    project: str | None,
    headers: dict[str, str],
) -> None:
    of = endpoint(
        base_url=host + path, api_key=key, organization=organization, project=project, headers=headers
    )
    ours, theirs = heads(of)
    assert ours == theirs


@pytest.mark.parametrize(
    "fields",
    [
        {"azure_api_version": "2024-10-21"},
        {"base_url": "https://host.example/with space/v1"},
        {"base_url": "https://bücher.example/v1"},
        {"base_url": "https://host.example/a%2fb/v1"},
    ],
)
def test_a_head_that_depends_on_more_is_asked_of_the_sdk(fields: dict[str, str]) -> None:
    ours, theirs = heads(endpoint(**fields))
    assert ours == theirs


def test_headers_of_the_sdks_environment_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "x-from: the environment")
    ours, theirs = heads(endpoint())
    assert ours == theirs
    assert ours[1]["x-from"] == "the environment"


def test_an_unknown_platform_is_named_by_the_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    assert module._MACHINES[platform.machine().lower()]
    monkeypatch.setattr(module, "_MACHINES", {})
    ours, theirs = heads(endpoint())
    assert ours == theirs


def test_an_organization_goes_to_no_endpoint_that_it_was_not_given_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project")
    ours, theirs = heads(endpoint())
    assert ours == theirs
    assert not {"openai-organization", "openai-project"} & ours[1].keys()


def test_single_requests_do_not_load_the_sdk() -> None:
    code = (
        "import asyncio, sys\n"
        "from batchllm.client import Client\n"
        "from batchllm.records import ChatRequest, Endpoint\n"
        "async def whole():\n"
        "    there = Endpoint(preset='custom', base_url='http://127.0.0.1:9/v1', model='m')\n"
        "    async with Client(there) as client:\n"
        "        return await client.send(ChatRequest(0, b'k' * 16, b'{}', 'm', 0, None))\n"
        "print(asyncio.run(whole()).kind)\n"
        "assert 'openai' not in sys.modules and 'pandas' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "connect" in done.stdout.lower()
