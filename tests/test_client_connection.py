"""Chat requests and the SDK's calls reach an endpoint alike: same URLs, same headers that matter."""

import asyncio
import subprocess
import sys
from dataclasses import replace
from typing import Any

import httpx2
import openai
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

from batchllm import presets
from batchllm.client import Client
from batchllm.client.connection import chat_headers, sdk_client
from batchllm.errors import UsageError
from batchllm.records import ChatRequest, Endpoint, Response

TOKEN = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=12)
NAMES = st.one_of(TOKEN, st.sampled_from(["User-Agent", "ACCEPT", "OpenAI-Organization", "X-Title"]))


def endpoint(**fields: Any) -> Endpoint:
    known = {"preset": "custom", "base_url": "https://host.example/v1", "model": "m", "api_key": "sk-test"}
    return Endpoint(**{**known, **fields})


class Recorder(httpx2.AsyncBaseTransport):
    """Keeps the request that the SDK would send."""

    request: httpx2.Request

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.request = request
        return httpx2.Response(
            200, headers={"content-type": "application/json"}, content=b"{}", request=request
        )


def sent_by_the_sdk(of: Endpoint) -> tuple[str, str, dict[str, str]]:
    """Method, URL and headers of a chat request by the SDK as its documentation has it, not by ``sdk_client``."""
    recorder = Recorder()

    async def whole() -> None:
        shared: dict[str, Any] = {
            "api_key": of.api_key or "none",
            "default_headers": dict(of.headers),
            "http_client": httpx2.AsyncClient(transport=recorder),
        }
        sdk: openai.AsyncOpenAI
        if of.azure_api_version is None:
            sdk = openai.AsyncOpenAI(base_url=of.base_url, **shared)
        else:
            sdk = openai.AsyncAzureOpenAI(
                azure_endpoint=of.base_url, api_version=of.azure_api_version, **shared
            )
        sdk.organization, sdk.project = of.organization, of.project
        async with sdk:
            await sdk.post("/chat/completions", body={"model": of.model}, cast_to=httpx2.Response)

    asyncio.run(whole())
    request = recorder.request
    return request.method, str(request.url), dict(request.headers)


def that_matter(headers: dict[str, str], of: Endpoint) -> dict[str, str]:
    """Without the SDK's telemetry, what the transport decides, and whose product it is."""
    left_out = {"host", "connection", "content-length", "accept-encoding"}
    if "user-agent" not in {name.lower() for name in of.headers}:
        left_out.add("user-agent")
    if of.api_key is None:
        left_out |= {"authorization", "api-key"}  # the SDK has no way to send none
    return {
        name: value
        for name, value in headers.items()
        if name not in left_out and (not name.startswith("x-stainless-") or name in of.headers)
    }


def assert_same_request(of: Endpoint) -> None:
    method, url, theirs = sent_by_the_sdk(of)
    assert method == "POST"
    assert str(URL(presets.chat_url(of, of.model))) == str(URL(url))
    ours = chat_headers(of)
    assert that_matter(ours, of) == that_matter(theirs, of)
    assert of.api_key is not None or not {"authorization", "api-key"} & ours.keys()


@settings(max_examples=40)
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
def test_a_chat_request_goes_where_the_sdk_would_send_it_with_the_same_headers(
    host: str,
    path: str,
    key: str | None,
    organization: str | None,
    project: str | None,
    headers: dict[str, str],
) -> None:
    assert_same_request(
        endpoint(
            base_url=host + path, api_key=key, organization=organization, project=project, headers=headers
        )
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"preset": "azure", "azure_api_version": "2024-10-21"},
        {"preset": "azure", "azure_api_version": "2024-10-21", "model": "a b/ü"},
        {"base_url": "https://host.example/with space/v1"},
        {"base_url": "https://bücher.example/v1"},
        {"base_url": "https://host.example/a%2fb/v1"},
    ],
)
def test_azure_and_urls_that_need_quoting_are_as_the_sdk_has_them(fields: dict[str, str]) -> None:
    assert_same_request(endpoint(**fields))


def test_headers_of_the_sdks_environment_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "x-from: the environment\nX-Two : b:c \nno colon")
    assert_same_request(endpoint())
    assert chat_headers(endpoint())["x-from"] == "the environment"


def test_a_key_of_the_sdks_environment_goes_to_no_endpoint_without_a_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Authorization: Bearer sk-other\nX-API-Key: sk-other\nx-a: b")
    assert not any("sk-other" in value for value in chat_headers(endpoint(api_key=None)).values())
    assert chat_headers(endpoint(api_key=None))["x-a"] == "b"
    assert_same_request(endpoint())
    assert_same_request(endpoint(headers={"x-a": "c"}))


def test_an_organization_goes_to_no_endpoint_that_it_was_not_given_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project")
    assert_same_request(endpoint())
    assert not {"openai-organization", "openai-project"} & chat_headers(endpoint()).keys()


async def headers_of_every_call(of: Endpoint) -> dict[str, dict[str, str]]:
    """What a server receives from chat requests, files, batches and models, by path."""
    seen: dict[str, dict[str, str]] = {}

    async def handle(request: web.Request) -> web.Response:
        await request.read()
        seen[f"{request.method} {request.path_qs}"] = {
            name.lower(): value for name, value in request.headers.items()
        }
        return web.json_response({"id": "x", "status": "validating", "data": []})

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        port = runner.addresses[0][1]
        async with Client(replace(of, base_url=f"http://127.0.0.1:{port}{of.base_url}")) as client:
            outcome = await client.send(ChatRequest(0, b"k" * 16, b"{}", "m", 0, None))
            assert isinstance(outcome, Response)
            await client.models()
            await client.batches.has_file("file")
            await client.batches.create("file", endpoint="/v1/chat/completions", window="24h", name="n")
    finally:
        await runner.cleanup()
    return seen


@pytest.mark.parametrize(
    ("key_header", "name", "value"),
    [
        ("Authorization: Bearer", "authorization", "Bearer sk-test"),
        ("api-key", "api-key", "sk-test"),
        ("x-api-key", "x-api-key", "sk-test"),
        ("X-Vendor: Token", "x-vendor", "Token sk-test"),
    ],
)
def test_every_call_has_the_key_in_the_presets_header_and_nowhere_else(
    key_header: str, name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset = replace(presets.load("custom"), key_header=key_header)
    monkeypatch.setattr(presets, "load", lambda name: preset)
    seen = asyncio.run(headers_of_every_call(endpoint(base_url="/v1")))
    assert set(seen) == {
        "POST /v1/chat/completions", "GET /v1/models", "GET /v1/files/file", "POST /v1/batches",
    }  # fmt: skip
    for headers in seen.values():
        assert headers[name] == value
        assert [each for each, sent in headers.items() if "sk-test" in sent] == [name]


def test_files_and_batches_of_azures_older_layout_have_its_version() -> None:
    azure = endpoint(preset="azure", base_url="/openai", azure_api_version="2024-10-21")
    seen = asyncio.run(headers_of_every_call(azure))
    assert set(seen) == {
        "POST /openai/deployments/m/chat/completions?api-version=2024-10-21",
        "GET /openai/models?api-version=2024-10-21",
        "GET /openai/files/file?api-version=2024-10-21",
        "POST /openai/batches?api-version=2024-10-21",
    }
    assert all(headers["api-key"] == "sk-test" for headers in seen.values())


def test_without_a_key_no_call_has_one() -> None:
    seen = asyncio.run(headers_of_every_call(endpoint(base_url="/v1", api_key=None)))
    assert len(seen) == 4
    assert not any({"authorization", "api-key", "x-api-key"} & headers.keys() for headers in seen.values())


def test_an_unknown_preset_has_no_headers() -> None:
    with pytest.raises(UsageError, match="no such preset"):
        sdk_client(endpoint(preset="nobody"))


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
