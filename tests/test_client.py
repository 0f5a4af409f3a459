import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batchllm.client import MAX_BODY_BYTES, Client
from batchllm.records import ChatRequest, Endpoint, Failure, FailureKind, Paid, Response

BODY = b'{"model":"m","messages":[{"role":"user","content":"caf\xc3\xa9 \xe2\x9c\x93"}],"temperature":0.3}'
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def request(body: bytes = BODY, model: str = "m") -> ChatRequest:
    return ChatRequest(0, b"k" * 16, body, model, 0, None)


def endpoint(url: str, **fields: Any) -> Endpoint:
    return Endpoint(preset="openai", base_url=url, model="m", api_key="sk-test", **fields)


async def read_request(reader: asyncio.StreamReader) -> tuple[str, dict[str, str], bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines if line)
    headers = {name.lower(): value for name, value in headers.items()}
    return first, headers, await reader.readexactly(int(headers.get("content-length", 0)))


@asynccontextmanager
async def server(handle: Handler) -> AsyncIterator[str]:
    """A server that does to each connection exactly what a test wants."""

    writers: list[asyncio.StreamWriter] = []

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        try:
            await handle(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(connection, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
    finally:
        listening.close()
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0.01)  # their sockets are closed by the loop, before it is closed itself


def answer(body: bytes, status: str = "200 OK", extra: str = "") -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n{extra}\r\n"
    )
    return head.encode() + body


def saying(data: bytes, seen: list[tuple[str, dict[str, str], bytes]] | None = None) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received = await read_request(reader)
        if seen is not None:
            seen.append(received)
        writer.write(data)
        await writer.drain()

    return handle


def send(handle: Handler, *, timeout_s: float = 5.0, **fields: Any) -> Response | Failure:
    async def whole() -> Response | Failure:
        async with server(handle) as url, Client(endpoint(url, **fields), timeout_s=timeout_s) as client:
            return await client.send(request())

    return asyncio.run(whole())


def test_the_sdk_and_the_client_put_the_same_request_on_the_wire() -> None:
    seen: list[tuple[str, dict[str, str], bytes]] = []

    async def both() -> None:
        async with (
            server(saying(answer(b"{}"), seen)) as url,
            Client(endpoint(url, headers={"x-team": "a"})) as client,
        ):
            await client.send(request())
            await client.sdk.post("/chat/completions", body=json.loads(BODY), cast_to=object)

    asyncio.run(both())
    ours, theirs = seen
    assert ours[0] == theirs[0] == "POST /v1/chat/completions HTTP/1.1"
    assert ours[2] == theirs[2] == BODY
    assert ours[1]["authorization"] == "Bearer sk-test"
    assert ours[1]["x-team"] == "a"
    differing = {"accept-encoding", "connection"}
    assert {k: v for k, v in ours[1].items() if k not in differing} == {
        k: v for k, v in theirs[1].items() if k not in differing and not k.startswith("x-stainless-")
    }


def test_azure_gets_its_deployment_path_and_its_own_key_header() -> None:
    seen: list[tuple[str, dict[str, str], bytes]] = []

    async def whole() -> None:
        async with server(saying(answer(b"{}"), seen)) as url:
            azure = replace(endpoint(url.removesuffix("/v1")), preset="azure", azure_api_version="2024-10-21")
            async with Client(azure) as client:
                await client.send(request(model="my-deployment"))

    asyncio.run(whole())
    assert (
        seen[0][0]
        == "POST /openai/deployments/my-deployment/chat/completions?api-version=2024-10-21 HTTP/1.1"
    )
    assert seen[0][1]["api-key"] == "sk-test"
    assert "authorization" not in seen[0][1]


def test_no_key_means_no_authorization_header() -> None:
    seen: list[tuple[str, dict[str, str], bytes]] = []

    async def whole() -> None:
        async with server(saying(answer(b"{}"), seen)) as url:
            async with Client(Endpoint(preset="vllm", base_url=url, model="m")) as client:
                await client.send(request())

    asyncio.run(whole())
    assert "authorization" not in seen[0][1]


def test_a_redirect_is_handed_back_and_not_followed() -> None:
    reached: list[bool] = []

    async def elsewhere(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.append(True)

    async def whole() -> Response | Failure:
        async with server(elsewhere) as target:
            moved = answer(b"", "307 Temporary Redirect", f"location: {target}\r\n")
            async with server(saying(moved)) as url, Client(endpoint(url)) as client:
                return await client.send(request())

    outcome = asyncio.run(whole())
    assert isinstance(outcome, Response)
    assert outcome.status == 307
    assert not reached


def test_a_netrc_file_is_never_read(clean_environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (clean_environment / ".netrc").write_text("machine 127.0.0.1 login a password b\n")
    seen: list[tuple[str, dict[str, str], bytes]] = []

    async def whole() -> None:
        async with server(saying(answer(b"{}"), seen)) as url:
            async with Client(Endpoint(preset="vllm", base_url=url, model="m")) as client:
                await client.send(request())

    asyncio.run(whole())
    assert "authorization" not in seen[0][1]


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    await reader.read()


async def dripping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
    for _ in range(1000):
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("handle", [silent, dripping])
def test_the_deadline_is_for_the_whole_attempt(handle: Handler) -> None:
    outcome = send(handle, timeout_s=0.2)
    assert isinstance(outcome, Failure)
    assert (outcome.kind, outcome.paid) == (FailureKind.TIMEOUT, Paid.MAYBE)
    assert outcome.latency_s < 2


def test_a_body_that_ends_early_is_cut_and_possibly_billed() -> None:
    outcome = send(saying(b'HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"id":'))
    assert isinstance(outcome, Failure)
    assert (outcome.kind, outcome.paid, outcome.partial) == (FailureKind.CUT, Paid.MAYBE, b'{"id":')


def test_a_connection_that_closes_without_an_answer_is_possibly_billed() -> None:
    outcome = send(saying(b""))
    assert isinstance(outcome, Failure)
    assert (outcome.kind, outcome.paid) == (FailureKind.RESET, Paid.MAYBE)


def test_a_refused_connection_is_not_paid() -> None:
    async def whole() -> Response | Failure:
        async with server(silent) as url:
            pass
        async with Client(endpoint(url)) as client:
            return await client.send(request())

    outcome = asyncio.run(whole())
    assert isinstance(outcome, Failure)
    assert (outcome.kind, outcome.paid) == (FailureKind.CONNECT, Paid.NO)
    assert outcome.message.endswith(": connection refused")


def test_a_host_that_does_not_exist_is_not_paid() -> None:
    async def whole() -> Response | Failure:
        async with Client(endpoint("http://no-such-host.invalid/v1")) as client:
            return await client.send(request())

    outcome = asyncio.run(whole())
    assert isinstance(outcome, Failure)
    assert outcome.kind in (FailureKind.DNS, FailureKind.UNKNOWN_HOST)
    assert outcome.paid is Paid.NO


def test_an_endless_body_is_cut_at_the_bound() -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")
        while True:
            writer.write(b"x" * 1_000_000)
            await writer.drain()

    outcome = send(endless, timeout_s=30)
    assert isinstance(outcome, Failure)
    assert outcome.kind is FailureKind.TOO_LARGE
    assert len(outcome.partial) == 65_536


def test_a_gzip_bomb_is_cut_at_the_bound_of_decoded_bytes() -> None:
    import gzip

    bomb = gzip.compress(b"\0" * (4 * MAX_BODY_BYTES))
    outcome = send(saying(answer(bomb, extra="content-encoding: gzip\r\n")), timeout_s=30)
    assert isinstance(outcome, Failure)
    assert len(outcome.partial) <= 65_536
